import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { StoreError } from '../../src/store/errors.ts';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, DOWN, later, OK } from '../support/delivery-world.ts';

async function worldOf(...ids: string[]) {
  const world = new DeliveryWorld();
  for (const id of ids) world.put(id);
  return { world, process: await world.start() };
}

const refusedAs = (reason: string) => (error: unknown) => error instanceof RefusalError && error.reason === reason;

test('pausing lets the attempt in flight end and count, and stops before the next', async () => {
  const { world, process } = await worldOf('a');
  const held = later();
  world.answer = () => held.answer;
  world.routeMany(['a'], 150);
  await world.quiet();
  assert.equal((await process.delivery.setPaused('a', true)).paused, true);
  held.give(OK);
  await world.advance(60_000);
  assert.equal(world.received('a').length, 100);
  assert.equal(world.pushes.length, 1);
  const status = await process.delivery.status('a');
  assert.deepEqual([status.state, status.heldBy, status.backlogEntries, status.transaction], ['idle', 'paused', 50, null]);
  assert.ok(status.backlogBytes > 0 && status.oldestEntryTimeMs !== null);
  await process.delivery.setPaused('a', false);
  await world.quiet();
  assert.equal(world.received('a').length, 150);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});

test('pausing survives a restart, holds the log back, and is told', async () => {
  const { world, process } = await worldOf('a');
  await process.delivery.setPaused('a', true);
  world.routeMany(['a'], 3);
  await world.stop(process);
  const again = await world.start();
  assert.equal(world.pushes.length, 0);
  assert.deepEqual([...again.delivery.deliveredPositions()], [['a', 1]]);
  await again.delivery.setPaused('a', false);
  await world.quiet();
  assert.equal(world.received('a').length, 3);
  const told = world.events.flatMap((event) => (event.kind === 'state_changed' && event.state === 'idle' ? [event.paused] : []));
  assert.deepEqual(told, [true, false, false]);
});

test('pausing during a backoff keeps the transaction; resuming keeps the rest of the wait', async () => {
  const { world, process } = await worldOf('a');
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.advance(100_000);
  const { length } = world.pushes;
  await process.delivery.setPaused('a', true);
  await world.advance(1_000);
  await process.delivery.setPaused('a', false);
  await world.quiet();
  assert.equal(world.pushes.length, length);
  await world.advance(512_000);
  assert.ok(world.pushes.length > length);
  assert.equal(new Set(world.pushes.map(({ txnId }) => txnId)).size, 1);
});

test('commands that the delivery state forbids are refused with what to do instead', async () => {
  const { world, process } = await worldOf('a');
  const { delivery } = process;
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.quiet();
  await assert.rejects(delivery.status('nobody'), refusedAs('APPSERVICE_NOT_FOUND'));
  await assert.rejects(delivery.setPaused('nobody', true), refusedAs('APPSERVICE_NOT_FOUND'));
  await delivery.setPaused('a', true);
  await assert.rejects(delivery.retryNow('a'), refusedAs('DELIVERY_STATE_FORBIDS'));
  await delivery.setPaused('a', false);
  world.put('a', { url: null });
  await world.quiet();
  await assert.rejects(delivery.retryNow('a'), refusedAs('DELIVERY_STATE_FORBIDS'));
  world.remove('a', 'park');
  await world.quiet();
  await assert.rejects(delivery.retryNow('a'), refusedAs('DELIVERY_STATE_FORBIDS'));
  await assert.rejects(delivery.setPaused('a', true), refusedAs('DELIVERY_STATE_FORBIDS'));
  world.remove('a', 'discard');
  await world.quiet();
  await assert.rejects(delivery.status('a'), refusedAs('APPSERVICE_NOT_FOUND'));
});

test('M1 a failed appservice is sent nothing, holds nothing back, and takes no command', async () => {
  const { world, process } = await worldOf('a');
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.stop(process);
  const state = world.state('a');
  world.store.writeState('operator', { ...state, revision: state.revision + 1, deliveryState: 'failed' });
  world.answer = () => OK;
  const again = await world.start();
  await world.advance(600_000);
  assert.equal(world.received('a').length, 0);
  assert.deepEqual([...again.delivery.deliveredPositions().values()], [Number.MAX_SAFE_INTEGER]);
  await assert.rejects(again.delivery.retryNow('a'), refusedAs('DELIVERY_STATE_FORBIDS'));
  await assert.rejects(again.delivery.setPaused('a', true), refusedAs('DELIVERY_STATE_FORBIDS'));
  world.remove('a', 'discard');
  world.put('a');
  assert.deepEqual([...again.delivery.deliveredPositions().values()], [1], 'what the new life is owed is held from its first moment');
  await world.quiet();
  const texts = world.routeMany(['a'], 1);
  await world.quiet();
  assert.deepEqual(world.received('a'), texts);
});

test('the status tells transaction, attempts, next attempt and last error while an appservice is away', async () => {
  const { world, process } = await worldOf('a');
  const startMs = world.clock.nowMs();
  world.answer = () => DOWN;
  world.routeMany(['a'], 120);
  await world.quiet();
  const status = await process.delivery.status('a');
  const nextAttemptTimeMs = world.state('a').transaction?.nextAttemptTimeMs;
  assert.deepEqual(status, {
    appserviceId: 'a',
    state: 'retrying',
    paused: false,
    deliveredLogPosition: 1,
    backlogEntries: 120,
    backlogBytes: world.store.routedTo('a').reduce((sum, { json }) => sum + json.byteLength, 0),
    oldestEntryTimeMs: startMs,
    transaction: { txnId: world.pushes[0]?.txnId, eventCount: 100, attemptCount: 1, nextAttemptTimeMs },
    heldBy: null,
    quarantinedEntries: 0,
    leaseHolder: world.state('a').leaseHolder,
    lastError: { kind: 'connection_refused', httpStatus: null, message: 'The appservice cannot be reached.', timeMs: startMs },
    deliveredEntries: 0,
    attempts: 1,
    failedAttempts: 1,
  });
});

test('the last error goes with the next delivery, and the next attempt has a time only while it is waited for', async () => {
  const { world, process } = await worldOf('a');
  const held = later();
  world.answer = (_, { txnId }) => (world.pushes.length === 1 ? DOWN : txnId === world.pushes[0]?.txnId ? OK : held.answer);
  world.routeMany(['a'], 150);
  await world.quiet();
  await process.delivery.retryNow('a');
  await world.quiet();
  const { state, transaction, lastError } = await process.delivery.status('a');
  assert.deepEqual([state, transaction?.eventCount, transaction?.nextAttemptTimeMs, lastError], ['delivering', 50, 0, null]);
  held.give(OK);
  await world.quiet();
});

test('the backlog is counted through deliveries, a restart and arrivals', async () => {
  const { world, process } = await worldOf('a', 'b');
  world.answer = () => DOWN;
  world.routeMany(['a', 'b'], 3);
  await world.quiet();
  await world.stop(process);
  world.routeMany(['a'], 250);
  const again = await world.start();
  world.routeMany(['a', 'b'], 4);
  const entries = async () => (await again.delivery.statuses('', 10)).map(({ backlogEntries }) => backlogEntries);
  assert.deepEqual(await entries(), [257, 7]);
  world.answer = () => OK;
  await world.advance(10_000);
  assert.deepEqual(await entries(), [0, 0]);
});

test('statuses come in order of the ids, page by page, removed ones left out', async () => {
  const { world, process } = await worldOf('c', 'a', 'd', 'b');
  world.remove('d', 'discard');
  await world.quiet();
  const ids = async (after: string, limit: number) => (await process.delivery.statuses(after, limit)).map(({ appserviceId }) => appserviceId);
  assert.deepEqual(await ids('', 2), ['a', 'b']);
  assert.deepEqual(await ids('b', 2), ['c']);
});

test('a command is refused within a second while the store hangs, and takes effect later at most once', async () => {
  const { world, process } = await worldOf('a');
  const { promise, resolve } = Promise.withResolvers<undefined>();
  process.connection.frozenUntil = promise;
  const pausing = assert.rejects(process.delivery.setPaused('a', true), (error) => error instanceof StoreError && error.kind === 'unavailable');
  await world.advance(1_000);
  await pausing;
  process.connection.frozenUntil = null;
  resolve(undefined);
  await world.quiet();
  assert.equal(world.state('a').paused, true);
  world.routeMany(['a'], 1);
  await world.advance(5_000);
  assert.equal(world.pushes.length, 0);
});

test('a registration that comes while the process runs is delivered to, with all that was routed from its first event on', async () => {
  const { world } = await worldOf('a');
  world.put('new');
  const texts = world.routeMany(['new'], 2);
  await world.quiet();
  assert.deepEqual(world.received('new'), texts);
  const [created, cut] = world.store.accepted.filter(({ after }) => after.appserviceId === 'new');
  assert.equal(created?.after.transaction, null, 'its state is durable before its first cut');
  assert.equal(cut?.before?.revision, 1);
});
