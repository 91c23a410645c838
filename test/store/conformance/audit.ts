/** The audit entries: newest first, filtered, bounded by count. */
import assert from 'node:assert/strict';
import type { AuditEntry, Store } from '../../../src/store/port.ts';
import type { ConformanceCase } from './world.ts';
import { ODD_TEXTS } from './world.ts';

const MANY = 1_000;

function entryOf(serverName: string, at: number, parts: Partial<AuditEntry> = {}): AuditEntry {
  return { serverName, auditId: `${String(at).padStart(15, '0')}-000000-abc`, timeMs: at, actor: 'ops', action: 'PauseDelivery', appserviceId: 'irc', txnId: null, reason: '', ...parts };
}

function put(store: Store, entry: AuditEntry, entriesMax = MANY): Promise<boolean> {
  return store.changeRecord({ kind: 'audit', entry, entriesMax });
}

async function times(store: Store, serverName: string, appserviceId: string | null = null, beforeId: string | null = null, countMax = MANY): Promise<number[]> {
  return (await store.readRecords('audit', { serverName, appserviceId, beforeId, countMax })).map(({ timeMs }) => timeMs);
}

export const auditCases: readonly ConformanceCase[] = [
  {
    title: 'has none at first, and gives back every field',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      assert.deepEqual(await times(store, name), []);
      const entry = entryOf(name, 7, { actor: 'ops \u{1f980}', action: 'SkipTransaction', appserviceId: 'a|b', txnId: '9007199254740993', reason: 'it said "no"\n' });
      assert.equal(await put(store, entry), true);
      assert.equal(await put(second, { ...entry, reason: 'another' }), false);
      assert.deepEqual(await second.readRecords('audit', { serverName: name, appserviceId: null, beforeId: null, countMax: 10 }), [entry]);
    },
  },
  {
    title: 'pages backwards in time, whatever the order in which they were put',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      for (const at of [3, 9, 1, 8, 2, 7, 4, 6, 5]) await put(at % 2 === 0 ? store : second, entryOf(name, at));
      assert.deepEqual(await times(store, name, null, null, 4), [9, 8, 7, 6]);
      assert.deepEqual(await times(store, name, null, entryOf(name, 6).auditId, 4), [5, 4, 3, 2]);
      assert.deepEqual(await times(store, name, null, entryOf(name, 1).auditId, 4), []);
    },
  },
  {
    title: 'I8 gives those of one appservice and of one homeserver, by exact id',
    run: async ({ store, fresh }) => {
      const [name, other] = [fresh(), fresh()];
      for (const [at, appserviceId] of ODD_TEXTS.entries()) await put(store, entryOf(name, at + 1, { appserviceId }));
      await put(store, entryOf(other, 99));
      for (const [at, appserviceId] of ODD_TEXTS.entries()) assert.deepEqual(await times(store, name, appserviceId), [at + 1]);
      assert.deepEqual(await times(store, other), [99]);
      assert.deepEqual(await times(store, name, 'nobody'), []);
    },
  },
  {
    title: 'keeps the newest and drops the oldest of the same homeserver',
    run: async ({ store, second, fresh }) => {
      const [name, other] = [fresh(), fresh()];
      await put(store, entryOf(other, 1));
      for (let at = 1; at <= 12; at++) await put(at % 2 === 0 ? store : second, entryOf(name, at), 5);
      assert.deepEqual(await times(store, name), [12, 11, 10, 9, 8]);
      assert.deepEqual(await times(store, other), [1]);
      await put(store, entryOf(name, 13), 2);
      assert.deepEqual(await times(second, name), [13, 12]);
    },
  },
  {
    title: 'takes one back, and says whether it was there',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await put(store, entryOf(name, 1));
      await put(store, entryOf(name, 2));
      const removal = { kind: 'unaudit', serverName: name, auditId: entryOf(name, 1).auditId } as const;
      assert.deepEqual([await second.changeRecord(removal), await store.changeRecord(removal)], [true, false]);
      assert.deepEqual(await times(store, name), [2]);
    },
  },
  {
    title: 'still has them after the store was closed and opened again',
    needsDurable: true,
    run: async (world) => {
      const name = world.fresh();
      await put(world.store, entryOf(name, 5));
      await world.reopen();
      assert.deepEqual(await times(world.store, name), [5]);
    },
  },
];
