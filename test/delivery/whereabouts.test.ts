import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeliveredTransactions } from '../../src/delivery/delivered-transactions.ts';
import type { RegistrationInForce } from '../../src/delivery/ports.ts';
import { firstState } from '../../src/delivery/transitions.ts';
import { quarantinedTxnId, whereaboutsOf } from '../../src/delivery/whereabouts.ts';
import type { DeliveryOfEvent } from '../../src/delivery/whereabouts.ts';
import type { AppserviceState, RecordKind, RecordQueries, TransactionRecord } from '../../src/store/port.ts';
import { registration } from '../support/routing.ts';
import { MemoryRecords } from '../support/memory-records.ts';
import { DeliveryWorld, DOWN, OK } from '../support/delivery-world.ts';

const IN_FORCE: RegistrationInForce = { appserviceId: 'a', position: 1, since: 1, registration: registration('a'), backlog: null };
const TRANSACTION: TransactionRecord = { txnId: '17', ranges: [11, 12, 15, 15], entryCount: 3, through: 15, cutTimeMs: 0, attemptCount: 2, nextAttemptTimeMs: 900 };
const STORED: AppserviceState = { ...firstState('hs.test', 'a', 1, 'me'), deliveredPosition: 10 };

function where(position: number, of: Partial<Omit<DeliveryOfEvent, 'stored'>> & { stored?: Partial<AppserviceState> | null } = {}): unknown[] {
  const { stored = {}, ...rest } = of;
  const parts: DeliveryOfEvent = { inForce: IN_FORCE, visibleState: 'idle', deliveredTxnId: undefined, quarantinedTxnId: undefined, ...rest, stored: stored === null ? undefined : { ...STORED, ...stored } };
  const { whereabouts, txnId, attemptCount, nextAttemptTimeMs, heldBy } = whereaboutsOf(position, parts);
  return [whereabouts, txnId, attemptCount, nextAttemptTimeMs, heldBy];
}

test('an entry is where the stored state says', () => {
  assert.deepEqual(where(10), ['delivered', null, 0, null, null]);
  assert.deepEqual(where(9, { deliveredTxnId: '16' }), ['delivered', '16', 0, null, null]);
  assert.deepEqual(where(9, { quarantinedTxnId: '15' }), ['quarantined', '15', 0, null, null]);
  assert.deepEqual(where(11), ['queued', null, 0, null, null]);
  assert.deepEqual(where(11, { stored: null }), ['queued', null, 0, null, null]);
  assert.deepEqual(where(12, { stored: { transaction: TRANSACTION }, visibleState: 'retrying' }), ['in_flight', '17', 2, 900, null]);
  assert.deepEqual(where(15, { stored: { transaction: TRANSACTION }, visibleState: 'delivering' }), ['in_flight', '17', 2, null, null]);
  assert.deepEqual(where(16, { stored: { transaction: TRANSACTION } }), ['queued', null, 0, null, null]);
});

test('an entry that waits is held by somebody\'s word, with the transaction it is in', () => {
  assert.deepEqual(where(11, { stored: { paused: true } }), ['held', null, 0, null, 'paused']);
  assert.deepEqual(where(11, { stored: { paused: true, transaction: TRANSACTION }, visibleState: 'retrying' }), ['held', '17', 2, null, 'paused']);
  assert.deepEqual(where(11, { inForce: { ...IN_FORCE, registration: null, backlog: 'park' } }), ['held', null, 0, null, 'parked']);
  assert.deepEqual(where(11, { inForce: { ...IN_FORCE, registration: registration('a', { url: null }) } }), ['held', null, 0, null, 'no_url']);
});

test('R76 what belongs to an earlier life, a discarded queue or a stopped delivery is given up', () => {
  assert.deepEqual(where(11, { inForce: { ...IN_FORCE, since: 20, position: 20 } }), ['given_up', null, 0, null, null]);
  assert.deepEqual(where(11, { inForce: { ...IN_FORCE, registration: null, backlog: 'discard' } }), ['given_up', null, 0, null, null]);
  assert.deepEqual(where(11, { inForce: undefined }), ['given_up', null, 0, null, null]);
  assert.deepEqual(where(11, { stored: { deliveryState: 'failed', transaction: TRANSACTION } }), ['given_up', null, 0, null, null]);
  assert.deepEqual(where(10, { stored: { deliveryState: 'failed' } }), ['delivered', null, 0, null, null]);
  // The state still shows the life before.
  assert.deepEqual(where(25, { inForce: { ...IN_FORCE, since: 20, position: 20 }, stored: { deliveredPosition: 30 } }), ['queued', null, 0, null, null]);
});

test('of delivered transactions the newest are remembered, each for its own appservice', () => {
  const delivered = new DeliveredTransactions(3);
  for (let at = 0; at < 5; at++) delivered.add({ appserviceId: at === 3 ? 'b' : 'a', txnId: `t${at}`, after: at * 10, through: at * 10 + 10 });
  const found = (id: string, position: number): string | undefined => delivered.find(id, position)?.txnId;
  assert.deepEqual([found('a', 20), found('a', 21), found('a', 30), found('b', 31), found('a', 40), found('a', 41), found('b', 41)], [undefined, 't2', 't2', 't3', undefined, 't4', undefined]);
  // Delivered again by a replay: the newest counts.
  delivered.add({ appserviceId: 'a', txnId: 'again', after: 40, through: 45 });
  assert.equal(found('a', 41), 'again');
});

test('a quarantined entry is found among others, up to a limit', async () => {
  const store = new MemoryRecords();
  for (let at = 0; at < 11_000; at++) {
    const facts = { serverName: 's', appserviceId: 'a', txnId: String(100_000 + at), reason: '', timeMs: 0, firstPosition: at, lastPosition: at };
    store.change({ kind: 'quarantine', transaction: { ...facts, bodyKeys: [], entryCount: 1, bytes: 0, entries: [] } });
  }
  const records = { readRecords: <Kind extends RecordKind>(kind: Kind, query: RecordQueries[Kind]) => Promise.resolve(store.read(kind, query)) };
  assert.equal(await quarantinedTxnId(records, 's', 'a', 37), '100037');
  assert.equal(await quarantinedTxnId(records, 's', 'a', 10_999), undefined);
});

test('delivery tells where an entry is while it is retried, and in which transaction it went', async () => {
  const world = new DeliveryWorld();
  world.put('a');
  world.put('b');
  const process = await world.start();
  const { delivery } = process;
  world.answer = ({ appserviceId }) => (appserviceId === 'a' ? DOWN : OK);
  world.routeMany(['a', 'b'], 2);
  await world.quiet();
  const position = world.store.tail;
  const deliveries = await delivery.deliveriesOf(position, ['a', 'b']);
  const [a, b] = [deliveries.get('a'), deliveries.get('b')];
  assert.deepEqual([a?.whereabouts, a?.attemptCount, b?.whereabouts], ['in_flight', 1, 'delivered']);
  assert.equal(b?.txnId, world.pushes.findLast(({ appserviceId }) => appserviceId === 'b')?.txnId);
  assert.equal(a?.txnId, world.pushes.findLast(({ appserviceId }) => appserviceId === 'a')?.txnId);
  await world.stop(process);
});
