/** What holds for the store as a whole, while it lives and after it is closed. */
import assert from 'node:assert/strict';
import { StoreError } from '../../../src/store/errors.ts';
import type { Store } from '../../../src/store/port.ts';
import type { ConformanceCase } from './world.ts';
import { ALL_ENTRIES, ALL_SEGMENTS, appendAll, quarantinedOf, roomOf, routedSegments, segmentOf, stateOf } from './world.ts';

function everyMethod(store: Store, name: string): Readonly<Record<Exclude<keyof Store, symbol>, () => Promise<unknown>>> {
  const checkpoint = { position: 1, streamPositions: {}, registrationsVersion: 0 };
  return {
    append: () => store.append(segmentOf(name, 1)),
    readSegments: () => store.readSegments(name, 1, ALL_SEGMENTS),
    readRoute: () => store.readRoute(name, 'irc', 0, 1, ALL_ENTRIES),
    measureRoutes: () => store.measureRoutes(name, new Map([['irc', 0]]), 1),
    trim: () => store.trim(name, { after: 0, through: 1, beforeMs: 1, deliveredPositions: new Map(), segmentsMax: 1 }),
    wholeFrom: () => store.wholeFrom(name, 1, 1, 10),
    loadFold: () => store.loadFold(name),
    loadRooms: () => store.loadRooms(name, ['!r']),
    saveFold: () => store.saveFold(name, { rooms: [roomOf('!r', 1)], registrations: [], checkpoint }),
    loadStates: () => store.loadStates(name),
    writeStates: () => store.writeStates([stateOf(name, 'irc')]),
    heartbeat: () => store.heartbeat(name, 1),
    changeRecord: () => store.changeRecord({ kind: 'quarantine', transaction: quarantinedOf(name, 'irc', '1') }),
    readRecords: () => store.readRecords('audit', { serverName: name, appserviceId: null, beforeId: null, countMax: 1 }),
  };
}

export const lifeCases: readonly ConformanceCase[] = [
  {
    title: 'answers every method at once, as often as it is called',
    run: async ({ store, second, fresh }) => {
      const calls = Array.from({ length: 10 }, (_, at) => Object.values(everyMethod(at % 2 === 0 ? store : second, fresh()))).flat();
      const results = await Promise.allSettled(calls.map((call) => call()));
      assert.deepEqual(results.filter(({ status }) => status === 'rejected'), []);
    },
  },
  {
    title: 'R63 R64 serves one homeserver while another has a long backlog read and trimmed',
    run: async ({ store, second, fresh }) => {
      const [busy, quiet] = [fresh(), fresh()];
      const tail = await appendAll(store, busy, routedSegments(40, 250, 'irc'));
      const work = Array.from({ length: 8 }, () => second.readRoute(busy, 'irc', 0, tail, ALL_ENTRIES));
      const trimming = second.trim(busy, { after: 0, through: 5_000, beforeMs: Number.MAX_SAFE_INTEGER, deliveredPositions: new Map([['irc', 5_000]]), segmentsMax: 100 });
      assert.equal(await appendAll(store, quiet, [{}, {}, {}]), 3);
      assert.deepEqual(await store.writeStates([stateOf(quiet, 'irc')]), ['written']);
      // A trim under way may be seen in part; what it must leave is whole and in order, whenever it is read.
      for (const found of await Promise.all(work)) {
        const positions = found.map(({ position }) => position);
        assert.deepEqual(positions.filter((position) => position > 5_000), Array.from({ length: 5_000 }, (_, at) => 5_001 + at));
        assert.deepEqual(positions, positions.toSorted((left, right) => left - right));
      }
      assert.equal((await trimming).removedSegments, 20);
    },
  },
  {
    title: 'has at most 14 methods, and refuses each with `unavailable` once it is closed',
    run: async (world) => {
      await world.reopen();
      const closed = everyMethod(world.store, world.fresh());
      await world[Symbol.asyncDispose]();
      assert.ok(Object.keys(closed).length <= 14);
      for (const [method, call] of Object.entries(closed)) {
        await assert.rejects(call(), (error) => error instanceof StoreError && error.kind === 'unavailable', method);
      }
    },
  },
  {
    title: 'may be closed twice',
    run: async (world) => {
      await world.reopen();
      await Promise.all([world.store[Symbol.asyncDispose](), world.store[Symbol.asyncDispose]()]);
      await world[Symbol.asyncDispose]();
    },
  },
];
