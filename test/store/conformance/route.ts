/** SegmentLog.readRoute and measureRoutes: what is routed to an appservice, and how much of it waits. */
import assert from 'node:assert/strict';
import type { RouteMeasure, Store } from '../../../src/store/port.ts';
import type { ConformanceCase, SegmentParts } from './world.ts';
import { ALL_ENTRIES, ODD_TEXTS, appendAll, bytesOf, eventEntries, eventEntry, readableEntry, routedSegments, textOf } from './world.ts';

/** Positions 1–4, 5–6, 7–10; entries of ten bytes; to `irc` go 2, 3, 5, 7, 9, 10, to `mail` 3 and 6. */
const THREE: readonly SegmentParts[] = [
  { entries: tens(4), routes: [['irc', [1, 2]], ['mail', [2, 2]]], timeMs: 1_000 },
  { entries: tens(2), routes: [['irc', [0, 0]], ['mail', [1, 1]]], timeMs: 2_000 },
  { entries: tens(4), routes: [['irc', [0, 0, 2, 3]]], timeMs: 3_000 },
];
const TO_IRC = [2, 3, 5, 7, 9, 10];

function tens(count: number): { kind: 'event'; json: Uint8Array }[] {
  return Array.from({ length: count }, (_, at) => ({ kind: 'event', json: bytesOf(`"${at}`.padEnd(9, '.') + '"') }));
}

async function positions(store: Store, serverName: string, id: string, after: number, through: number, limits = ALL_ENTRIES): Promise<number[]> {
  return (await store.readRoute(serverName, id, after, through, limits)).map(({ position }) => position);
}

async function measured(store: Store, serverName: string, after: Readonly<Record<string, number>>, through: number): Promise<RouteMeasure[]> {
  const measures = await store.measureRoutes(serverName, new Map(Object.entries(after)), through);
  return measures.toSorted((left, right) => (left.appserviceId < right.appserviceId ? -1 : 1));
}

const readRouteCases: readonly ConformanceCase[] = [
  {
    title: 'I2 gives what is routed to the appservice, ascending, with kind, bytes and time',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const kinds = ['ephemeral', 'to_device', 'device_list', 'device_keys'] as const;
      const entries = [eventEntry('{"a":1}'), ...kinds.map((kind, at) => ({ kind, json: bytesOf(`{"b":${at}}`) }))];
      await appendAll(store, name, [{ entries, routes: [['irc', [1, 4]]], timeMs: 42 }, { entries, routes: [['irc', [0, 0]]], timeMs: 43 }]);
      assert.deepEqual((await store.readRoute(name, 'irc', 0, 10, ALL_ENTRIES)).map(readableEntry), [
        { position: 2, kind: 'ephemeral', hex: '7b2262223a307d', timeMs: 42 },
        { position: 3, kind: 'to_device', hex: '7b2262223a317d', timeMs: 42 },
        { position: 4, kind: 'device_list', hex: '7b2262223a327d', timeMs: 42 },
        { position: 5, kind: 'device_keys', hex: '7b2262223a337d', timeMs: 42 },
        { position: 6, kind: 'event', hex: '7b2261223a317d', timeMs: 43 },
      ]);
    },
  },
  {
    title: 'I8 gives each appservice its own entries only',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, THREE);
      assert.deepEqual(await positions(store, name, 'irc', 0, 10), TO_IRC);
      assert.deepEqual(await positions(store, name, 'mail', 0, 10), [3, 6]);
    },
  },
  {
    title: 'begins above `after` and ends at `through`, wherever in a segment they lie',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, THREE);
      for (let after = 0; after <= 11; after++) {
        for (let through = after; through <= 11; through++) {
          assert.deepEqual(await positions(store, name, 'irc', after, through), TO_IRC.filter((position) => position > after && position <= through), `${after} to ${through}`);
        }
      }
    },
  },
  {
    title: 'R70 gives as many entries as asked for if there are as many, across segments',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, THREE);
      for (let entriesMax = 1; entriesMax <= 7; entriesMax++) assert.deepEqual(await positions(store, name, 'irc', 0, 10, { ...ALL_ENTRIES, entriesMax }), TO_IRC.slice(0, entriesMax));
    },
  },
  {
    title: 'stops before the entry that would take the sum of bytes above the limit',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, THREE);
      const count = async (bytesMax: number): Promise<number> => (await positions(store, name, 'irc', 0, 10, { entriesMax: 100, bytesMax })).length;
      assert.deepEqual([await count(10), await count(19), await count(20), await count(39), await count(40), await count(60), await count(61)], [1, 1, 2, 3, 4, 6, 6]);
    },
  },
  {
    title: 'gives one entry however large it is',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ entries: [eventEntry(`"${'x'.repeat(300_000)}"`), eventEntry('1')], routes: [['irc', [0, 1]]] }]);
      assert.deepEqual(await positions(store, name, 'irc', 0, 2, { entriesMax: 100, bytesMax: 1 }), [1]);
      assert.deepEqual(await positions(store, name, 'irc', 0, 2, { entriesMax: 100, bytesMax: 300_003 }), [1, 2]);
    },
  },
  {
    title: 'R74 finds nothing for an appservice, a server or positions without routes',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, THREE);
      assert.deepEqual(await positions(store, name, 'nobody', 0, 10), []);
      assert.deepEqual(await positions(store, fresh(), 'irc', 0, 10), []);
      assert.deepEqual(await positions(store, name, 'irc', 10, 1_000), []);
      assert.deepEqual(await positions(store, name, 'mail', 6, 10), []);
      assert.deepEqual(await positions(store, name, 'irc', 5, 5), []);
    },
  },
  {
    title: 'follows ranges that are many and scattered',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const ranges = Array.from({ length: 150 }, (_, at) => [at * 3, at * 3 + (at % 2)]).flat();
      await appendAll(store, name, [{ entries: eventEntries(500), routes: [['irc', ranges]] }]);
      const expected = Array.from({ length: 150 }, (_, at) => (at % 2 === 0 ? [at * 3 + 1] : [at * 3 + 1, at * 3 + 2])).flat();
      assert.deepEqual(await positions(store, name, 'irc', 0, 500), expected);
    },
  },
  {
    title: 'finds a few entries among many segments that are not for the appservice',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, Array.from({ length: 120 }, (_, at) => ({ entries: eventEntries(2), routes: [[at % 40 === 7 ? 'rare' : 'often', [1, 1]] as const] })));
      assert.deepEqual(await positions(store, name, 'rare', 0, 240), [16, 96, 176]);
      assert.deepEqual(await positions(store, name, 'rare', 16, 239), [96, 176]);
    },
  },
  {
    title: 'R69 gives 10,000 entries in one call',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, routedSegments(11, 1_000, 'irc'));
      const found = await store.readRoute(name, 'irc', 500, 11_000, ALL_ENTRIES);
      assert.deepEqual([found.length, found[0]?.position, found.at(-1)?.position], [10_000, 501, 10_500]);
      assert.deepEqual(found.slice(499, 501).map(({ json }) => textOf(json)), ['{"s0":999}', '{"s1":0}']);
    },
  },
  {
    title: 'I8 keeps appservices apart whose ids look alike',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ entries: eventEntries(ODD_TEXTS.length), routes: ODD_TEXTS.map((id, at) => [id, [at, at]] as const) }]);
      for (const [at, id] of ODD_TEXTS.entries()) assert.deepEqual(await positions(store, name, id, 0, 1_000), [at + 1], JSON.stringify(id));
      for (const id of ['', 'nul', 'A ', '_', '%']) assert.deepEqual(await positions(store, name, id, 0, 1_000), []);
    },
  },
  {
    title: 'I8 keeps appservices of the same id under two server names apart',
    run: async ({ store, fresh }) => {
      const [left, right] = [fresh(), fresh()];
      await appendAll(store, left, THREE);
      await appendAll(store, right, routedSegments(1, 1, 'irc'));
      assert.deepEqual(await positions(store, right, 'irc', 0, 10), [1]);
      assert.deepEqual(await positions(store, left, 'irc', 0, 10), TO_IRC);
    },
  },
  {
    title: 'R40 sees what was appended as soon as that is answered, through whichever handle',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      for (let tail = 0; tail < 20; tail++) {
        const [writer, reader] = tail % 2 === 0 ? [store, second] : [second, store];
        await appendAll(writer, name, routedSegments(1, 1, 'irc'), tail);
        assert.deepEqual(await positions(reader, name, 'irc', tail, tail + 1), [tail + 1]);
      }
    },
  },
  {
    title: 'I3 gives the same bytes again and again, whatever was done with those given before',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, routedSegments(2, 2, 'irc'));
      const first = await store.readRoute(name, 'irc', 1, 4, ALL_ENTRIES);
      assert.deepEqual(first.map(({ json }) => textOf(json)), ['{"s0":1}', '{"s1":0}', '{"s1":1}']);
      for (const { json } of first) json.fill(0);
      assert.deepEqual((await store.readRoute(name, 'irc', 1, 4, ALL_ENTRIES)).map(({ json }) => textOf(json)), ['{"s0":1}', '{"s1":0}', '{"s1":1}']);
    },
  },
  {
    title: 'R65 reads routes after the store was closed and opened again',
    needsDurable: true,
    run: async (world) => {
      const name = world.fresh();
      await appendAll(world.store, name, THREE);
      await world.reopen();
      assert.deepEqual(await positions(world.store, name, 'irc', 2, 10), TO_IRC.slice(1));
    },
  },
];

const measureRoutesCases: readonly ConformanceCase[] = [
  {
    title: 'measures what waits above each position, and since when',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, THREE);
      assert.deepEqual(await measured(store, name, { irc: 0, mail: 0 }, 10), [
        { appserviceId: 'irc', entryCount: 6, bytes: 60, firstSegment: 1, oldestTimeMs: 1_000 },
        { appserviceId: 'mail', entryCount: 2, bytes: 20, firstSegment: 1, oldestTimeMs: 1_000 },
      ]);
    },
  },
  {
    title: 'counts of the segment that the position lies in only the entries above it',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, THREE);
      const firsts = [1, 1, 1, 1, 5, 5, 7, 7, 7, 7];
      const times = [1_000, 1_000, 1_000, 2_000, 2_000, 3_000, 3_000, 3_000, 3_000, 3_000];
      for (let position = 0; position <= 10; position++) {
        const waiting = TO_IRC.filter((other) => other > position);
        const oldest = waiting[0] === undefined ? null : (times[waiting[0] - 1] ?? null);
        assert.deepEqual(await measured(store, name, { irc: position }, 10), [{ appserviceId: 'irc', entryCount: waiting.length, bytes: waiting.length * 10, firstSegment: waiting[0] === undefined ? null : (firsts[waiting[0] - 1] ?? null), oldestTimeMs: oldest }], `above ${position}`);
      }
    },
  },
  {
    title: 'leaves out segments that end above `through`, also the one that the position lies in',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, THREE);
      const counts = async (after: number, through: number): Promise<number | undefined> => (await measured(store, name, { irc: after }, through))[0]?.entryCount;
      assert.deepEqual([await counts(0, 3), await counts(0, 4), await counts(0, 5), await counts(0, 6), await counts(0, 9), await counts(0, 10)], [0, 2, 2, 3, 3, 6]);
      assert.deepEqual([await counts(2, 3), await counts(2, 4), await counts(8, 9), await counts(8, 10)], [0, 1, 0, 2]);
    },
  },
  {
    title: 'says zero and null where nothing waits',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const nothing = { entryCount: 0, bytes: 0, firstSegment: null, oldestTimeMs: null };
      assert.deepEqual(await measured(store, name, { irc: 0 }, 10), [{ appserviceId: 'irc', ...nothing }]);
      await appendAll(store, name, THREE);
      assert.deepEqual(await measured(store, name, { irc: 10, mail: 6, nobody: 0 }, 10), ['irc', 'mail', 'nobody'].map((appserviceId) => ({ appserviceId, ...nothing })));
      assert.deepEqual(await measured(store, name, {}, 10), []);
    },
  },
  {
    title: 'measures 500 appservices in one call, each from its own position',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const ids = Array.from({ length: 500 }, (_, at) => `appservice-${at}`);
      await appendAll(store, name, Array.from({ length: 4 }, () => ({ entries: tens(3), routes: ids.map((id) => [id, [0, 2]] as const), timeMs: 5 })));
      const measures = await store.measureRoutes(name, new Map(ids.map((id, at) => [id, at % 13])), 12);
      assert.equal(measures.length, 500);
      const counts = new Map(measures.map(({ appserviceId, entryCount, bytes }) => [appserviceId, [entryCount, bytes]]));
      for (const [at, id] of ids.entries()) assert.deepEqual(counts.get(id), [12 - (at % 13), (12 - (at % 13)) * 10]);
    },
  },
  {
    title: 'I8 measures by exact id and server name',
    run: async ({ store, fresh }) => {
      const [name, other] = [fresh(), fresh()];
      await appendAll(store, name, [{ entries: tens(ODD_TEXTS.length), routes: ODD_TEXTS.map((id, at) => [id, [0, at]] as const) }]);
      await appendAll(store, other, THREE);
      const counts = new Map((await store.measureRoutes(name, new Map(ODD_TEXTS.map((id) => [id, 0])), 100)).map(({ appserviceId, entryCount }) => [appserviceId, entryCount]));
      assert.deepEqual(counts, new Map(ODD_TEXTS.map((id, at) => [id, at + 1])));
    },
  },
];

export const routeCases: readonly ConformanceCase[] = [...readRouteCases, ...measureRoutesCases];
