/** The quarantine: idempotent, ordered by number, read in pages. */
import assert from 'node:assert/strict';
import type { QuarantinedTransaction, Store } from '../../../src/store/port.ts';
import type { ConformanceCase } from './world.ts';
import { ODD_TEXTS, bytesOf, hexOf, quarantinedOf } from './world.ts';

function plain({ body, ...facts }: QuarantinedTransaction): unknown {
  return { ...facts, hex: hexOf(body) };
}

async function ids(store: Store, serverName: string, appserviceId: string, after: string | null, limit = 1_000): Promise<string[]> {
  return (await store.listQuarantined(serverName, appserviceId, after, limit)).map(({ txnId }) => txnId);
}

export const quarantineCases: readonly ConformanceCase[] = [
  {
    title: 'has nothing at first',
    run: async ({ store, fresh }) => {
      assert.deepEqual(await store.listQuarantined(fresh(), 'irc', null, 10), []);
    },
  },
  {
    title: 'R71 gives back every field and byte',
    run: async ({ store, second, fresh }) => {
      const shelved = quarantinedOf(fresh(), 'irc', '1700000000000001', { reason: 'refused: \u{1f980} "413"\n', firstPosition: 7, lastPosition: Number.MAX_SAFE_INTEGER, body: Uint8Array.from({ length: 256 }, (_, at) => at) });
      await store.putQuarantined(shelved);
      assert.deepEqual((await second.listQuarantined(shelved.serverName, 'irc', null, 10)).map(plain), [plain(shelved)]);
    },
  },
  {
    title: 'takes a body of one MiB, and an empty one',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const [large, empty] = [quarantinedOf(name, 'irc', '1', { body: new Uint8Array(1024 * 1024).fill(0x7b) }), quarantinedOf(name, 'irc', '2', { body: new Uint8Array(0) })];
      await store.putQuarantined(large);
      await store.putQuarantined(empty);
      assert.deepEqual((await store.listQuarantined(name, 'irc', null, 10)).map(plain), [plain(large), plain(empty)]);
    },
  },
  {
    title: 'changes nothing when the same transaction is put again',
    run: async ({ store, second, fresh }) => {
      const first = quarantinedOf(fresh(), 'irc', '5');
      await store.putQuarantined(first);
      await store.putQuarantined({ ...first, reason: 'another', timeMs: 9, body: bytesOf('{}') });
      await Promise.all([store.putQuarantined(first), second.putQuarantined(first)]);
      assert.deepEqual((await store.listQuarantined(first.serverName, 'irc', null, 10)).map(plain), [plain(first)]);
    },
  },
  {
    title: 'puts one transaction once when many put it at the same time',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await Promise.all(Array.from({ length: 10 }, (_, at) => (at % 2 === 0 ? store : second).putQuarantined(quarantinedOf(name, 'irc', '8', { timeMs: at }))));
      assert.deepEqual(await ids(store, name, 'irc', null), ['8']);
    },
  },
  {
    title: 'lists in the order of the txn ids as numbers',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const inOrder = ['1', '2', '9', '10', '11', '99', '100', '1700000000000001', '9007199254740993', '9223372036854775807', '9223372036854775808', '99999999999999999999', '100000000000000000000000'];
      for (const txnId of inOrder.toSorted()) await store.putQuarantined(quarantinedOf(name, 'irc', txnId));
      assert.deepEqual(await ids(store, name, 'irc', null), inOrder);
    },
  },
  {
    title: 'gives pages: above a txn id, no more than asked for',
    run: async ({ store, fresh }) => {
      const name = fresh();
      for (let txn = 1; txn <= 25; txn++) await store.putQuarantined(quarantinedOf(name, 'irc', String(txn)));
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
      for (const txnId of ['5', '20', '100']) await store.putQuarantined(quarantinedOf(name, 'irc', txnId));
      assert.deepEqual(await ids(store, name, 'irc', '6'), ['20', '100']);
      assert.deepEqual(await ids(store, name, 'irc', '0'), ['5', '20', '100']);
      assert.deepEqual(await ids(store, name, 'irc', '100'), []);
    },
  },
  {
    title: 'I8 keeps appservices and server names apart',
    run: async ({ store, fresh }) => {
      const [name, other] = [fresh(), fresh()];
      for (const [at, id] of ODD_TEXTS.entries()) await store.putQuarantined(quarantinedOf(name, id, String(at + 1)));
      await store.putQuarantined(quarantinedOf(other, 'a', '77'));
      for (const [at, id] of ODD_TEXTS.entries()) assert.deepEqual(await ids(store, name, id, null), [String(at + 1)]);
      assert.deepEqual(await ids(store, other, 'a', null), ['77']);
      assert.deepEqual(await ids(store, name, 'nobody', null), []);
    },
  },
  {
    title: 'still has them after the store was closed and opened again',
    needsDurable: true,
    run: async (world) => {
      const shelved = quarantinedOf(world.fresh(), 'irc', '3');
      await world.store.putQuarantined(shelved);
      await world.reopen();
      assert.deepEqual((await world.store.listQuarantined(shelved.serverName, 'irc', null, 10)).map(plain), [plain(shelved)]);
    },
  },
];
