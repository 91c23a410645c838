/** The quarantine: idempotent, ordered by number, read in pages. */
import assert from 'node:assert/strict';
import { BODY_KEYS } from '../../../src/appservice/body-keys.ts';
import type { RoutedKind } from '../../../src/appservice/body-keys.ts';
import type { QuarantinedTransaction, Store } from '../../../src/store/port.ts';
import type { ConformanceCase } from './world.ts';
import { ODD_TEXTS, hexOf, quarantinedOf } from './world.ts';

const KINDS: readonly RoutedKind[] = ['event', 'ephemeral', 'to_device', 'device_list', 'device_keys', 'event'];

function plain({ entries, ...facts }: QuarantinedTransaction): unknown {
  return { ...facts, entries: entries.map(({ kind, json }) => [kind, hexOf(json)]) };
}

function put(store: Store, transaction: QuarantinedTransaction): Promise<boolean> {
  return store.changeRecord({ kind: 'quarantine', transaction });
}

function list(store: Store, serverName: string, appserviceId: string, afterTxnId: string | null, countMax: number, withEntries = true): Promise<QuarantinedTransaction[]> {
  return store.readRecords('quarantine', { serverName, appserviceId, afterTxnId, countMax, withEntries });
}

async function ids(store: Store, serverName: string, appserviceId: string, after: string | null, limit = 1_000): Promise<string[]> {
  return (await list(store, serverName, appserviceId, after, limit)).map(({ txnId }) => txnId);
}

export const quarantineCases: readonly ConformanceCase[] = [
  {
    title: 'has nothing at first',
    run: async ({ store, fresh }) => {
      assert.deepEqual(await list(store, fresh(), 'irc', null, 10), []);
    },
  },
  {
    title: 'R71 gives back every field and byte',
    run: async ({ store, second, fresh }) => {
      const shelved = quarantinedOf(fresh(), 'irc', '1700000000000001', { reason: 'refused: \u{1f980} "413"\n', firstPosition: 7, lastPosition: Number.MAX_SAFE_INTEGER, bodyKeys: BODY_KEYS, entries: KINDS.map((kind, index) => ({ kind, json: Uint8Array.from({ length: 64 * index }, (_, at) => (at * 7) % 256) })) });
      await put(store, shelved);
      assert.deepEqual((await list(second, shelved.serverName, 'irc', null, 10)).map(plain), [plain(shelved)]);
    },
  },
  {
    title: 'takes an entry of one MiB, and none',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const [large, empty] = [quarantinedOf(name, 'irc', '1', { entries: [{ kind: 'event', json: new Uint8Array(1024 * 1024).fill(0x7b) }] }), quarantinedOf(name, 'irc', '2', { entries: [] })];
      await put(store, large);
      await put(store, empty);
      assert.deepEqual((await list(store, name, 'irc', null, 10)).map(plain), [plain(large), plain(empty)]);
    },
  },
  {
    title: 'changes nothing when the same transaction is put again',
    run: async ({ store, second, fresh }) => {
      const first = quarantinedOf(fresh(), 'irc', '5');
      assert.equal(await put(store, first), true);
      assert.equal(await put(store, { ...first, reason: 'another', timeMs: 9, entries: [] }), false);
      await Promise.all([put(store, first), put(second, first)]);
      assert.deepEqual((await list(store, first.serverName, 'irc', null, 10)).map(plain), [plain(first)]);
    },
  },
  {
    title: 'puts one transaction once when many put it at the same time',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await Promise.all(Array.from({ length: 10 }, (_, at) => put(at % 2 === 0 ? store : second, quarantinedOf(name, 'irc', '8', { timeMs: at }))));
      assert.deepEqual(await ids(store, name, 'irc', null), ['8']);
    },
  },
  {
    title: 'lists in the order of the txn ids as numbers',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const inOrder = ['1', '2', '9', '10', '11', '99', '100', '1700000000000001', '9007199254740993', '9223372036854775807', '9223372036854775808', '99999999999999999999', '100000000000000000000000'];
      for (const txnId of inOrder.toSorted()) await put(store, quarantinedOf(name, 'irc', txnId));
      assert.deepEqual(await ids(store, name, 'irc', null), inOrder);
    },
  },
  {
    title: 'gives pages: above a txn id, no more than asked for',
    run: async ({ store, fresh }) => {
      const name = fresh();
      for (let txn = 1; txn <= 25; txn++) await put(store, quarantinedOf(name, 'irc', String(txn)));
      const seen: string[] = [];
      for (let after: string | null = null; ; ) {
        const page = await ids(store, name, 'irc', after, 7);
        assert.ok(page.length <= 7);
        seen.push(...page);
        const last = page.at(-1);
        if (last === undefined) break;
        after = last;
      }
      assert.deepEqual(seen, Array.from({ length: 25 }, (_, at) => String(at + 1)));
    },
  },
  {
    title: 'goes on above a txn id that is not there',
    run: async ({ store, fresh }) => {
      const name = fresh();
      for (const txnId of ['5', '20', '100']) await put(store, quarantinedOf(name, 'irc', txnId));
      assert.deepEqual(await ids(store, name, 'irc', '6'), ['20', '100']);
      assert.deepEqual(await ids(store, name, 'irc', '0'), ['5', '20', '100']);
      assert.deepEqual(await ids(store, name, 'irc', '100'), []);
    },
  },
  {
    title: 'I8 keeps appservices and server names apart',
    run: async ({ store, fresh }) => {
      const [name, other] = [fresh(), fresh()];
      for (const [at, id] of ODD_TEXTS.entries()) await put(store, quarantinedOf(name, id, String(at + 1)));
      await put(store, quarantinedOf(other, 'a', '77'));
      for (const [at, id] of ODD_TEXTS.entries()) assert.deepEqual(await ids(store, name, id, null), [String(at + 1)]);
      assert.deepEqual(await ids(store, other, 'a', null), ['77']);
      assert.deepEqual(await ids(store, name, 'nobody', null), []);
    },
  },
  {
    title: 'gives everything but the entries where they are not asked for',
    run: async ({ store, fresh }) => {
      const shelved = quarantinedOf(fresh(), 'irc', '5');
      await put(store, shelved);
      assert.deepEqual((await list(store, shelved.serverName, 'irc', null, 10, false)).map(plain), [plain({ ...shelved, entries: [] })]);
    },
  },
  {
    title: 'removes one transaction, says whether it was there, and takes it again',
    run: async ({ store, second, fresh }) => {
      const [name, other] = [fresh(), fresh()];
      for (const [server, id] of [[name, 'irc'], [name, 'irc2'], [other, 'irc']] as const) for (const txnId of ['7', '8', '80']) await put(store, quarantinedOf(server, id, txnId));
      const removal = { kind: 'unquarantine', serverName: name, appserviceId: 'irc', txnId: '8' } as const;
      const outcomes = await Promise.all([store.changeRecord(removal), second.changeRecord(removal)]);
      assert.deepEqual(outcomes.toSorted(), [false, true]);
      assert.equal(await store.changeRecord({ ...removal, serverName: 'nobody' }), false);
      assert.deepEqual([await ids(store, name, 'irc', null), await ids(store, name, 'irc2', null), await ids(second, other, 'irc', null)], [['7', '80'], ['7', '8', '80'], ['7', '8', '80']]);
      assert.equal(await put(second, quarantinedOf(name, 'irc', '8')), true);
      assert.deepEqual(await ids(store, name, 'irc', null), ['7', '8', '80']);
    },
  },
  {
    title: 'still has them after the store was closed and opened again',
    needsDurable: true,
    run: async (world) => {
      const shelved = quarantinedOf(world.fresh(), 'irc', '3');
      await put(world.store, shelved);
      await world.reopen();
      assert.deepEqual((await list(world.store, shelved.serverName, 'irc', null, 10)).map(plain), [plain(shelved)]);
    },
  },
];
