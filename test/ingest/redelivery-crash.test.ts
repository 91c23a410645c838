/** A redelivery by the real ledger on the real stores, cut before and after every call of the store. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MongoClient } from 'mongodb';
import { systemClock } from '../../src/clock.ts';
import type { Ledger } from '../../src/ingest/ledger.ts';
import type { RedeliveryOutcome } from '../../src/ingest/redelivery.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import type { QuarantinedTransaction, Store } from '../../src/store/port.ts';
import { VirtualClock } from '../support/clock.ts';
import { openLedger } from '../support/ledger-world.ts';
import { MONGODB_MISSING, startMongod, testDatabaseName } from '../support/mongod.ts';
import { eventJson, registration, SERVER, submission } from '../support/routing.ts';
import { openStore, uriWith } from '../store/mongo-world.ts';

const mongod = await startMongod();
after(() => mongod?.stop());

type Opens = () => Promise<Store>;

/** Where the process dies: before or after the call of this number, from 1. */
interface Death {
  readonly at: number;
  readonly isBefore: boolean;
}

/** A store whose calls a process makes until it dies: what it waits for then never comes. `died` resolves at that moment. */
function dyingStore(store: Store, death: Death): { store: Store; died: Promise<'died'> } {
  const { promise: died, resolve } = Promise.withResolvers<'died'>();
  let calls = 0;
  const call = async (method: (...args: unknown[]) => Promise<unknown>, args: unknown[]): Promise<unknown> => {
    const number = ++calls;
    if (number < death.at) return method.apply(store, args);
    if (number === death.at && !death.isBefore) await method.apply(store, args);
    resolve('died');
    return new Promise(() => undefined);
  };
  const dying = new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (...args: unknown[]) => call(value as (...args: unknown[]) => Promise<unknown>, args) : value;
    },
  });
  return { store: dying, died };
}

const IDS = ['$a', '$b', '$c'];

function shelved(txnId: string, ids: readonly string[]): QuarantinedTransaction {
  const entries = ids.map((id) => ({ kind: 'event' as const, json: Buffer.from(eventJson({ id })) }));
  const bytes = entries.reduce((sum, { json }) => sum + json.byteLength, 0);
  return { serverName: SERVER, appserviceId: 'irc', txnId, reason: 'poison', timeMs: 0, firstPosition: 2, lastPosition: 4, bodyKeys: [], entryCount: ids.length, bytes, entries };
}

/** As admin/quarantine.ts does it. */
async function redeliver(ledger: Ledger, store: Store, txnId: string): Promise<RedeliveryOutcome> {
  const key = { appserviceId: 'irc', txnId };
  const find = async (): Promise<QuarantinedTransaction | null> => {
    const found = await store.readRecords('quarantine', { serverName: SERVER, appserviceId: 'irc', afterTxnId: null, countMax: 10, withEntries: true });
    return found.find((one) => one.txnId === txnId) ?? null;
  };
  const remove = async (removed: { readonly txnId: string }): Promise<void> => {
    await store.changeRecord({ kind: 'unquarantine', serverName: SERVER, appserviceId: 'irc', txnId: removed.txnId });
  };
  const outcome = await ledger.redeliver(key, { find, remove });
  if (outcome !== 'absent') await remove(key);
  return outcome;
}

/** The event ids of what is routed to the appservice, in log order. */
async function routed(store: Store): Promise<string[]> {
  const entries = await store.readRoute(SERVER, 'irc', 0, 1_000, { entriesMax: 100, bytesMax: 1_000_000 });
  return entries.map(({ json }) => (JSON.parse(Buffer.from(json).toString()) as { event_id: string }).event_id);
}

async function onShelf(store: Store): Promise<string[]> {
  return (await store.readRecords('quarantine', { serverName: SERVER, appserviceId: 'irc', afterTxnId: null, countMax: 10, withEntries: false })).map(({ txnId }) => txnId);
}

/** One life ends within a redelivery, the next gives the command again; then a second transaction follows. True if it died. */
async function live(open: Opens, death: Death): Promise<boolean> {
  {
    await using store = await open();
    await using world = await openLedger(store);
    await world.put(registration('irc'));
    for (const id of ['$x', '$y', '$z']) await world.ledger.submit(submission([{ id }]));
    await world.ledger.flush();
  }
  let isDead: boolean;
  {
    await using store = await open();
    await store.changeRecord({ kind: 'quarantine', transaction: shelved('17', IDS) });
    await store.changeRecord({ kind: 'quarantine', transaction: shelved('18', ['$d']) });
    const { store: dying, died } = dyingStore(store, death);
    // A dead process has no timers: its clock stands still.
    const life = async (): Promise<void> => {
      await using world = await openLedger(dying, {}, new VirtualClock());
      await redeliver(world.ledger, dying, '17');
    };
    isDead = (await Promise.race([life(), died])) === 'died';
  }
  await using store = await open();
  await using world = await openLedger(store);
  const outcome = await redeliver(world.ledger, store, '17');
  assert.ok(outcome === 'appended' || outcome === 'known', outcome);
  assert.deepEqual([await routed(store), await onShelf(store)], [IDS, ['18']], `${outcome}, died ${death.isBefore ? 'before' : 'after'} call ${death.at}`);
  assert.equal(await redeliver(world.ledger, store, '17'), 'known');
  // The next one settles the first: it is not remembered any more, and is not there any more.
  assert.equal(await redeliver(world.ledger, store, '18'), 'appended');
  assert.equal(await redeliver(world.ledger, store, '17'), 'absent');
  assert.deepEqual([await routed(store), await onShelf(store)], [[...IDS, '$d'], []]);
  return isDead;
}

async function everywhere(fresh: () => Promise<{ open: Opens } & AsyncDisposable>): Promise<number> {
  let deaths = 0;
  for (let at = 1; ; at++) {
    for (const isBefore of [true, false]) {
      await using place = await fresh();
      if (!(await live(place.open, { at, isBefore }))) return deaths;
      deaths++;
    }
  }
}

test('R65 I1 I2 I6 a redelivery that a crash cuts at any call of the store is in the log once (SQLite)', { timeout: 60_000 }, async () => {
  const deaths = await everywhere(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'redelivery-'));
    return {
      open: () => openSqliteStore({ path: join(folder, 'router.db'), clock: systemClock }),
      [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
    };
  });
  assert.ok(deaths >= 10, `${deaths} deaths`);
});

test('R65 I1 I2 I6 a redelivery that a crash cuts at any call of the store is in the log once (MongoDB)', { timeout: 120_000, skip: mongod === null ? MONGODB_MISSING : false }, async () => {
  const deaths = await everywhere(() => {
    const database = testDatabaseName();
    const uri = uriWith(mongod?.uri ?? assert.fail(), { database });
    return Promise.resolve({
      open: () => openStore({ uri }),
      async [Symbol.asyncDispose]() {
        const client = new MongoClient(mongod?.uri ?? assert.fail());
        await client.db(database).dropDatabase();
        await client.close();
      },
    });
  });
  assert.ok(deaths >= 10, `${deaths} deaths`);
});
