/** SegmentLog.readSegments: in order, within limits, the newest. */
import assert from 'node:assert/strict';
import type { ConformanceCase } from './world.ts';
import { ALL_SEGMENTS, appendAll, eventEntries, eventEntry, segmentOf, textOf } from './world.ts';

/** Five segments of one entry of ten bytes each. */
const TEN_BYTES = Array.from({ length: 5 }, (_, at) => ({ entries: [eventEntry(`{"abcd":${at}}`.padEnd(10))] }));

export const readCases: readonly ConformanceCase[] = [
  {
    title: 'finds nothing in a log that has nothing',
    run: async ({ store, fresh }) => {
      assert.deepEqual(await store.readSegments(fresh(), 1, ALL_SEGMENTS), []);
    },
  },
  {
    title: 'finds nothing beyond the tail',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const tail = await appendAll(store, name, TEN_BYTES);
      assert.deepEqual(await store.readSegments(name, tail + 1, ALL_SEGMENTS), []);
    },
  },
  {
    title: 'starts with the first segment that begins at or after the position',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ entries: eventEntries(3) }, { entries: eventEntries(3) }, { entries: eventEntries(3) }]);
      const begins = async (from: number): Promise<number[]> => (await store.readSegments(name, from, ALL_SEGMENTS)).map(({ firstPosition }) => firstPosition);
      assert.deepEqual(await begins(0), [1, 4, 7]);
      assert.deepEqual(await begins(4), [4, 7]);
      assert.deepEqual(await begins(5), [7]);
      assert.deepEqual(await begins(8), []);
    },
  },
  {
    title: 'gives no more segments than asked for',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, TEN_BYTES);
      for (const segmentsMax of [1, 3, 5, 9]) {
        const found = await store.readSegments(name, 1, { ...ALL_SEGMENTS, segmentsMax });
        assert.deepEqual(found.map(({ firstPosition }) => firstPosition), [1, 2, 3, 4, 5].slice(0, segmentsMax));
      }
    },
  },
  {
    title: 'stops after the segment that takes the sum of JSON bytes to the limit',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, TEN_BYTES);
      const found = async (bytesMax: number): Promise<number> => (await store.readSegments(name, 1, { segmentsMax: 100, bytesMax })).length;
      assert.deepEqual([await found(1), await found(10), await found(11), await found(30), await found(31), await found(50), await found(1_000)], [1, 1, 2, 3, 4, 5, 5]);
    },
  },
  {
    title: 'gives one segment however small the limit in bytes',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ entries: [eventEntry(`"${'x'.repeat(100_000)}"`)] }, {}]);
      assert.deepEqual((await store.readSegments(name, 1, { segmentsMax: 5, bytesMax: 1 })).map(({ firstPosition }) => firstPosition), [1]);
    },
  },
  {
    title: 'counts no bytes for what stands beside the entries',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const routes = Array.from({ length: 300 }, (_, at): [string, number[]] => [`appservice-with-a-long-name-${at}`, [0, 0]]);
      await appendAll(store, name, TEN_BYTES.map((parts) => ({ ...parts, routes })));
      assert.equal((await store.readSegments(name, 1, { segmentsMax: 100, bytesMax: 41 })).length, 5);
    },
  },
  {
    title: 'leads through the whole log by steps',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, Array.from({ length: 23 }, (_, at) => ({ entries: eventEntries(1 + (at % 4), `s${at}`) })));
      const texts: string[] = [];
      for (let from = 1; ; ) {
        const [segment] = await store.readSegments(name, from, { segmentsMax: 1, bytesMax: 1 });
        if (segment === undefined) break;
        texts.push(...segment.entries.map(({ json }) => textOf(json)));
        from = segment.firstPosition + segment.entries.length;
      }
      const all = await store.readSegments(name, 1, ALL_SEGMENTS);
      assert.deepEqual(texts, all.flatMap(({ entries }) => entries.map(({ json }) => textOf(json))));
      assert.equal(all.length, 23);
    },
  },
  {
    title: 'sees a segment as soon as its append is answered, through whichever handle',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      for (let position = 1; position <= 20; position++) {
        const [writer, reader] = position % 2 === 0 ? [store, second] : [second, store];
        await writer.append(segmentOf(name, position));
        assert.deepEqual((await reader.readSegments(name, position, ALL_SEGMENTS)).map(({ firstPosition }) => firstPosition), [position]);
      }
    },
  },
  {
    title: 'I8 shows nothing of another server name, be it a prefix of it or a part of it',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, TEN_BYTES);
      for (const other of [name.slice(0, -1), `${name}x`, name.toUpperCase(), `${name}\0`, ` ${name}`]) assert.deepEqual(await store.readSegments(other, 1, ALL_SEGMENTS), []);
    },
  },
  {
    title: 'lets a caller change what it was given without changing the store',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ entries: [eventEntry('{"n":1}')] }]);
      for (const { entries } of await store.readSegments(name, 1, ALL_SEGMENTS)) for (const { json } of entries) json.fill(0);
      assert.deepEqual((await store.readSegments(name, 1, ALL_SEGMENTS)).map(({ entries }) => entries.map(({ json }) => textOf(json))), [['{"n":1}']]);
    },
  },
  {
    title: 'answers many readers and writers at once, each with its own',
    run: async ({ store, second, fresh }) => {
      const serverNames = Array.from({ length: 40 }, () => fresh());
      const found = await Promise.all(
        serverNames.map(async (name, at) => {
          await (at % 2 === 0 ? store : second).append(segmentOf(name, 1, { entries: [eventEntry(`"${name}"`)] }));
          const segments = await (at % 3 === 0 ? store : second).readSegments(name, 1, ALL_SEGMENTS);
          return segments.flatMap(({ entries }) => entries.map(({ json }) => textOf(json)));
        }),
      );
      assert.deepEqual(found, serverNames.map((name) => [`"${name}"`]));
    },
  },
];
