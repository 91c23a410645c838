/** wholeFrom: down to where no segment is missing. */
import assert from 'node:assert/strict';
import type { ConformanceCase, World } from './world.ts';
import { appendAll, eventEntries } from './world.ts';

/** Segments of two entries: 1–2, 3–4 … 11–12. Those that begin at 3 and 7 are removed. */
async function holed({ store, fresh }: World): Promise<string> {
  const name = fresh();
  const held = new Set([1, 5, 9, 11]);
  const tail = await appendAll(store, name, Array.from({ length: 6 }, (_, at) => ({ entries: eventEntries(2), routes: [[held.has(1 + 2 * at) ? 'held' : 'irc', [0, 1]]] as const, timeMs: 1 })));
  const { removedSegments } = await store.trim(name, { after: 0, through: tail, beforeMs: 2, deliveredPositions: new Map([['held', 0]]), segmentsMax: 100 });
  assert.equal(removedSegments, 2);
  return name;
}

export const wholeCases: readonly ConformanceCase[] = [
  {
    title: 'looks down to the segment that holds `from`, and to the first hole',
    run: async (world) => {
      const name = await holed(world);
      const { second } = world;
      assert.deepEqual(await Promise.all([12, 11, 10, 9, 8, 1].map((from) => second.wholeFrom(name, from, 12, 100))), [11, 11, 9, 9, 9, 9]);
      assert.deepEqual(await Promise.all([11, 10, 9].map((through) => second.wholeFrom(name, 1, through, 100))), [9, 9, 9]);
      assert.deepEqual([await second.wholeFrom(name, 1, 6, 100), await second.wholeFrom(name, 1, 5, 100), await second.wholeFrom(name, 1, 2, 100)], [5, 5, 1]);
    },
  },
  {
    title: 'says `through` + 1 where that is missing, beyond the end, and of an empty log',
    run: async (world) => {
      const name = await holed(world);
      const { store, fresh } = world;
      assert.deepEqual([await store.wholeFrom(name, 1, 8, 100), await store.wholeFrom(name, 1, 7, 100), await store.wholeFrom(name, 1, 3, 100)], [9, 8, 4]);
      assert.equal(await store.wholeFrom(name, 1, 13, 100), 14);
      assert.equal(await store.wholeFrom(fresh(), 1, 5, 100), 6);
    },
  },
  {
    title: 'looks at no more segments than told, and goes on from there',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const tail = await appendAll(store, name, Array.from({ length: 10 }, () => ({ entries: eventEntries(3) })));
      let whole = tail + 1;
      const seen: number[] = [];
      while (whole > 1) seen.push((whole = await store.wholeFrom(name, 1, whole - 1, 4)));
      assert.deepEqual(seen, [19, 7, 1]);
    },
  },
  {
    title: 'I8 counts the segments of its own homeserver only',
    run: async (world) => {
      const { store, fresh } = world;
      const [name, other] = [await holed(world), fresh()];
      await appendAll(store, other, Array.from({ length: 6 }, () => ({ entries: eventEntries(2) })));
      assert.deepEqual([await store.wholeFrom(name, 1, 12, 100), await store.wholeFrom(other, 1, 12, 100)], [9, 1]);
    },
  },
];
