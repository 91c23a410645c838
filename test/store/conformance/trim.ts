/** SegmentLog.trim: what everybody is past goes, and nothing else. */
import assert from 'node:assert/strict';
import type { Store, TrimRequest } from '../../../src/store/port.ts';
import type { Entry } from '../../../src/store/segment.ts';
import type { ConformanceCase, SegmentParts } from './world.ts';
import { ALL_ENTRIES, ALL_SEGMENTS, appendAll, eventEntries, routedSegments, segmentOf } from './world.ts';

const FOREVER_MS = Number.MAX_SAFE_INTEGER;

/** Everything may go, but for what `parts` says. */
function request(parts: Partial<TrimRequest> = {}): TrimRequest {
  return { after: 0, through: Number.MAX_SAFE_INTEGER, beforeMs: FOREVER_MS, deliveredPositions: new Map(), segmentsMax: 1_000, ...parts };
}

function ephemeralEntries(count: number): Entry[] {
  return eventEntries(count).map(({ json }) => ({ kind: 'ephemeral', json }));
}

/** Goes on until the end, in steps of the request's size. Returns how many segments went. */
async function trimAll(store: Store, serverName: string, parts: Partial<TrimRequest> = {}): Promise<number> {
  let removed = 0;
  let after: number | null = parts.after ?? 0;
  while (after !== null) {
    const outcome = await store.trim(serverName, request({ ...parts, after }));
    if (outcome.nextAfter !== null) assert.ok(outcome.nextAfter > after, 'it goes on');
    removed += outcome.removedSegments;
    after = outcome.nextAfter;
  }
  return removed;
}

async function left(store: Store, serverName: string): Promise<number[]> {
  return (await store.readSegments(serverName, 1, ALL_SEGMENTS)).map(({ firstPosition }) => firstPosition);
}

/** Segments of two entries: 1, 3, 5, 7, 9. */
function pairs(routes: SegmentParts['routes'] = []): SegmentParts[] {
  return Array.from({ length: 5 }, () => ({ entries: eventEntries(2), routes }));
}

export const trimCases: readonly ConformanceCase[] = [
  {
    title: 'removes what everybody is past, but never the newest segment',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs([['irc', [0, 1]]]));
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([['irc', 10]]) }), 4);
      assert.deepEqual(await left(store, name), [9]);
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([['irc', 10]]) }), 0);
    },
  },
  {
    title: 'I1 R65 keeps what an appservice has not had, however far the others are',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs([['slow', [1, 1]], ['fast', [0, 1]]]));
      await trimAll(store, name, { deliveredPositions: new Map([['slow', 4], ['fast', 10]]) });
      assert.deepEqual(await left(store, name), [5, 7, 9]);
      assert.deepEqual((await store.readRoute(name, 'slow', 4, 10, ALL_ENTRIES)).map(({ position }) => position), [6, 8, 10]);
    },
  },
  {
    title: 'I1 counts the last entry routed, not the last of the segment',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ entries: eventEntries(5), routes: [['irc', [0, 0, 2, 3]]] }, {}]);
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([['irc', 3]]) }), 0);
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([['irc', 4]]) }), 1);
    },
  },
  {
    title: 'is not held back by an appservice without a delivered position',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs([['removed', [0, 1]]]));
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([['other', 0]]) }), 4);
    },
  },
  {
    title: 'I1 is held back by a delivered position of 0',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs([['new', [0, 1]]]));
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([['new', 0]]) }), 0);
    },
  },
  {
    title: 'removes segments that are routed to nobody',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs());
      assert.equal(await trimAll(store, name), 4);
    },
  },
  {
    title: 'goes past a segment that is held to those behind it that are not',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{}, { routes: [['slow', [0, 0]]] }, {}, {}, {}]);
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([['slow', 1]]), segmentsMax: 2 }), 3);
      assert.deepEqual(await left(store, name), [2, 5]);
    },
  },
  {
    title: 'keeps segments that were not written before the given time',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ timeMs: 100 }, { timeMs: 200 }, { timeMs: 300 }, { timeMs: 400 }]);
      assert.equal(await trimAll(store, name, { beforeMs: 200 }), 1);
      assert.deepEqual(await left(store, name), [2, 3, 4]);
      assert.equal(await trimAll(store, name, { beforeMs: 301 }), 2);
      assert.deepEqual(await left(store, name), [4]);
    },
  },
  {
    title: 'R88 removes ephemeral entries past their age that nobody has had, and tells how many',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await appendAll(store, name, Array.from({ length: 4 }, (_, at) => ({ entries: ephemeralEntries(2), routes: [['down', [0, 1]], ['up', [1, 1]]] as const, timeMs: 100 * at })));
      const terms = { deliveredPositions: new Map([['down', 0], ['up', 4]]), expired: { beforeMs: 300, cutThrough: new Map([['down', 2], ['up', 4]]) } };
      const outcome = await second.trim(name, request(terms));
      assert.deepEqual([outcome.removedSegments, new Set(outcome.expired)], [2, new Set([{ appserviceId: 'down', entryCount: 4 }, { appserviceId: 'up', entryCount: 1 }])]);
      assert.deepEqual(await left(store, name), [1, 7]);
      assert.deepEqual((await store.readRoute(name, 'down', 0, 8, ALL_ENTRIES)).map(({ position }) => position), [1, 2, 7, 8]);
    },
  },
  {
    title: 'I1 R88 keeps them for the sake of an event, a transaction, an appservice whose transactions are not known, or their age',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const mixed = [...eventEntries(1), ...ephemeralEntries(1)];
      await appendAll(store, name, [{ entries: mixed, routes: [['down', [0, 1]]] }, { entries: mixed, routes: [['down', [1, 1]], ['other', [0, 0]]] }, { entries: ephemeralEntries(2), routes: [['cut', [0, 1]]] }, { entries: ephemeralEntries(1), routes: [['unknown', [0, 0]]] }, {}]);
      const deliveredPositions = new Map(['down', 'other', 'cut', 'unknown'].map((id) => [id, 0]));
      const cutThrough = new Map([['down', 0], ['other', 0], ['cut', 5]]);
      assert.equal(await trimAll(store, name, { deliveredPositions, expired: { beforeMs: FOREVER_MS, cutThrough } }), 0);
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([...deliveredPositions, ['other', 3]]), expired: { beforeMs: 0, cutThrough } }), 0);
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([...deliveredPositions, ['other', 3]]), expired: { beforeMs: FOREVER_MS, cutThrough } }), 1);
      assert.deepEqual(await left(store, name), [1, 5, 7, 8]);
    },
  },
  {
    title: 'keeps segments that end above the checkpoint',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs());
      assert.equal(await trimAll(store, name, { through: 3 }), 1);
      assert.deepEqual(await left(store, name), [3, 5, 7, 9]);
      assert.equal(await trimAll(store, name, { through: 6 }), 2);
      assert.deepEqual(await left(store, name), [7, 9]);
    },
  },
  {
    title: 'does not look at what is at or below `after`',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs());
      assert.equal(await trimAll(store, name, { after: 3 }), 2);
      assert.deepEqual(await left(store, name), [1, 3, 9]);
    },
  },
  {
    title: 'looks at no more segments than asked for, and says where to go on',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs());
      const first = await store.trim(name, request({ segmentsMax: 2 }));
      assert.deepEqual(first, { removedSegments: 2, expired: [], nextAfter: 3 });
      assert.deepEqual(await left(store, name), [5, 7, 9]);
      assert.equal(await trimAll(store, name, { after: 3, segmentsMax: 2 }), 2);
      assert.deepEqual(await left(store, name), [9]);
    },
  },
  {
    title: 'reaches the end in steps of one where everything is held',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs([['slow', [0, 0]]]));
      assert.equal(await trimAll(store, name, { deliveredPositions: new Map([['slow', 0]]), segmentsMax: 1 }), 0);
      assert.deepEqual(await left(store, name), [1, 3, 5, 7, 9]);
    },
  },
  {
    title: 'finds nothing to do in an empty log',
    run: async ({ store, fresh }) => {
      assert.deepEqual(await store.trim(fresh(), request()), { removedSegments: 0, expired: [], nextAfter: null });
    },
  },
  {
    title: 'I8 touches no other server name',
    run: async ({ store, fresh }) => {
      const [name, other] = [fresh(), fresh()];
      await appendAll(store, name, pairs());
      await appendAll(store, other, pairs());
      await trimAll(store, name);
      assert.deepEqual(await left(store, other), [1, 3, 5, 7, 9]);
    },
  },
  {
    title: 'I11 leaves the tail where it is, for appends through whichever handle',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs());
      await trimAll(store, name);
      assert.deepEqual(await second.append(segmentOf(name, 9, { nonce: 'rival' })), { kind: 'lost' });
      assert.deepEqual(await second.append(segmentOf(name, 3, { nonce: 'late' })), { kind: 'lost' });
      assert.equal(await appendAll(second, name, [{}], 10), 11);
      assert.deepEqual(await left(store, name), [9, 11]);
    },
  },
  {
    title: 'leaves nothing to read or to measure of what went',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await appendAll(store, name, pairs([['irc', [0, 1]]]));
      assert.equal((await second.readRoute(name, 'irc', 0, 10, ALL_ENTRIES)).length, 10);
      await trimAll(store, name, { deliveredPositions: new Map([['irc', 6]]) });
      assert.deepEqual((await second.readRoute(name, 'irc', 0, 10, ALL_ENTRIES)).map(({ position }) => position), [7, 8, 9, 10]);
      const [measure] = await second.measureRoutes(name, new Map([['irc', 0]]), 10);
      assert.equal(measure?.entryCount, 4);
    },
  },
  {
    title: 'takes 2,000 delivered positions and routes',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const ids = Array.from({ length: 2_000 }, (_, at) => `appservice-${at}`);
      await appendAll(store, name, [{ routes: ids.map((id) => [id, [0, 0]] as const) }, { routes: ids.map((id) => [id, [0, 0]] as const) }, {}]);
      const deliveredPositions = new Map(ids.map((id) => [id, 2]));
      deliveredPositions.set('appservice-1999', 1);
      assert.equal(await trimAll(store, name, { deliveredPositions }), 1);
      assert.deepEqual(await left(store, name), [2, 3]);
    },
  },
  {
    title: 'goes on beside appends and reads without disturbing them',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      let tail = await appendAll(store, name, routedSegments(10, 2, 'irc'));
      for (let round = 0; round < 5; round++) {
        const from = tail;
        const [, appended, read] = await Promise.all([
          trimAll(second, name, { through: from - 4, deliveredPositions: new Map([['irc', from - 4]]) }),
          appendAll(store, name, routedSegments(2, 2, 'irc'), from),
          second.readRoute(name, 'irc', from - 2, from, ALL_ENTRIES),
        ]);
        tail = appended;
        assert.deepEqual(read.map(({ position }) => position), [from - 1, from]);
      }
      assert.equal(tail, 40);
    },
  },
  {
    title: 'has removed it for good',
    needsDurable: true,
    run: async (world) => {
      const name = world.fresh();
      await appendAll(world.store, name, pairs());
      await trimAll(world.store, name);
      await world.reopen();
      assert.deepEqual(await left(world.store, name), [9]);
      assert.equal(await appendAll(world.store, name, [{}], 10), 11);
    },
  },
];
