/** Heartbeats: who lives by the store's clock. */
import assert from 'node:assert/strict';
import type { Store } from '../../../src/store/port.ts';
import type { ConformanceCase } from './world.ts';
import { ODD_TEXTS, byText } from './world.ts';

const LONG_MS = 3_600_000;
const SHORT_MS = 300;

/** Those of one case that live, by the eyes of a replica with an id of its own. */
async function living(store: Store, mark: string, ttlMs = LONG_MS): Promise<string[]> {
  return (await store.heartbeat(`${mark} observer`, ttlMs)).filter((id) => id.startsWith(mark) && id !== `${mark} observer`);
}

export const replicaCases: readonly ConformanceCase[] = [
  {
    title: 'returns the replica itself',
    run: async ({ store, fresh }) => {
      const id = fresh('replica');
      assert.ok((await store.heartbeat(id, LONG_MS)).includes(id));
    },
  },
  {
    title: 'returns all that live, ascending, each once, whichever handle they used',
    run: async ({ store, second, fresh }) => {
      const mark = fresh('replica');
      for (const [at, name] of ['c', 'a', 'b', 'c', 'a'].entries()) await (at % 2 === 0 ? store : second).heartbeat(`${mark} ${name}`, LONG_MS);
      const all = await store.heartbeat(`${mark} d`, LONG_MS);
      assert.deepEqual(all.filter((id) => id.startsWith(mark)), ['a', 'b', 'c', 'd'].map((name) => `${mark} ${name}`));
      assert.deepEqual(all, all.toSorted(byText));
      assert.deepEqual((await second.heartbeat(`${mark} d`, LONG_MS)).filter((id) => id.startsWith(mark)).length, 4);
    },
  },
  {
    title: 'no longer returns one whose time is over',
    run: async ({ store, second, subject, fresh }) => {
      const mark = fresh('replica');
      await store.heartbeat(`${mark} gone`, SHORT_MS);
      await store.heartbeat(`${mark} here`, LONG_MS);
      await subject.passTime(SHORT_MS);
      assert.deepEqual(await living(second, mark), [`${mark} here`]);
    },
  },
  {
    title: 'returns one that came back',
    run: async ({ store, subject, fresh }) => {
      const mark = fresh('replica');
      await store.heartbeat(`${mark} back`, SHORT_MS);
      await subject.passTime(SHORT_MS);
      assert.deepEqual(await living(store, mark), []);
      await store.heartbeat(`${mark} back`, LONG_MS);
      assert.deepEqual(await living(store, mark), [`${mark} back`]);
    },
  },
  {
    title: 'counts the time from the newest heartbeat, longer or shorter',
    run: async ({ store, subject, fresh }) => {
      const mark = fresh('replica');
      await store.heartbeat(`${mark} longer`, SHORT_MS);
      await store.heartbeat(`${mark} longer`, LONG_MS);
      await store.heartbeat(`${mark} shorter`, LONG_MS);
      await store.heartbeat(`${mark} shorter`, SHORT_MS);
      await subject.passTime(SHORT_MS);
      assert.deepEqual(await living(store, mark), [`${mark} longer`]);
    },
  },
  {
    title: 'takes leave at once with a time of 0, and is not among those returned',
    run: async ({ store, second, fresh }) => {
      const mark = fresh('replica');
      await store.heartbeat(`${mark} leaving`, LONG_MS);
      await store.heartbeat(`${mark} staying`, LONG_MS);
      assert.deepEqual((await store.heartbeat(`${mark} leaving`, 0)).filter((id) => id.startsWith(mark)), [`${mark} staying`]);
      assert.deepEqual(await living(second, mark), [`${mark} staying`]);
    },
  },
  {
    title: 'lets one take leave that was never there',
    run: async ({ store, fresh }) => {
      const id = fresh('replica');
      assert.ok(!(await store.heartbeat(id, 0)).includes(id));
    },
  },
  {
    title: 'tells ids apart that look alike',
    run: async ({ store, fresh }) => {
      const mark = fresh('replica');
      const all = ODD_TEXTS.map((text) => `${mark}${text}`);
      await Promise.all(all.map((id) => store.heartbeat(id, LONG_MS)));
      const found = (await living(store, mark)).filter((id) => id.startsWith(mark));
      assert.deepEqual(new Set(found), new Set(all));
      assert.equal(found.length, all.length);
      await Promise.all(all.map((id) => store.heartbeat(id, 0)));
      assert.deepEqual(await living(store, mark), []);
    },
  },
];
