import assert from 'node:assert/strict';
import { test } from 'node:test';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, DOWN, OK } from '../support/delivery-world.ts';

async function worldOf(ids: readonly string[]) {
  const world = new DeliveryWorld();
  for (const id of ids) world.put(id);
  return { world, process: await world.start() };
}

function sound(world: DeliveryWorld, failovers = 0): void {
  assert.deepEqual(violations(world, { failovers, isDrained: true }), []);
}

test('R46 R74 sends nothing when there is nothing, and nothing without a url', async () => {
  const { world, process } = await worldOf(['a']);
  await world.advance(60_000);
  assert.equal(world.pushes.length, 0);
  world.put('a', { url: null });
  await world.quiet();
  world.routeMany(['a'], 3);
  await world.advance(60_000);
  assert.equal(world.pushes.length, 0);
  const status = await process.delivery.status('a');
  assert.deepEqual([status.heldBy, status.backlogEntries], ['no_url', 3]);
  world.put('a', { url: 'http://again.example' });
  await world.quiet();
  assert.equal(world.received('a').length, 3);
});

test('R20 a changed registration counts for the next attempt of a queued transaction, at once', async () => {
  const { world } = await worldOf(['a']);
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.advance(30_000);
  world.answer = () => OK;
  world.put('a', { url: 'http://moved.example' });
  await world.quiet();
  const last = world.pushes.at(-1);
  assert.equal(last?.url, 'http://moved.example');
  assert.equal(last?.answered, 'delivered');
  assert.equal(last?.txnId, world.pushes[0]?.txnId);
  assert.equal(last?.text, world.pushes[0]?.text);
});

test('R20 new traffic and the registration of another do not cut a backoff', async () => {
  const { world } = await worldOf(['a', 'b']);
  world.answer = ({ appserviceId }) => (appserviceId === 'a' ? DOWN : OK);
  world.routeMany(['a'], 1);
  await world.advance(20_000);
  const { length } = world.pushesTo('a');
  world.routeMany(['a', 'b'], 5);
  world.put('b', { url: 'http://moved.example' });
  await world.quiet();
  assert.equal(world.pushesTo('a').length, length);
});

test('R137 RetryNow and a ping end the wait', async () => {
  const { world, process } = await worldOf(['a']);
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.advance(60_000);
  const { length } = world.pushes;
  const status = await process.delivery.retryNow('a');
  assert.equal(status.transaction?.attemptCount, length);
  await world.quiet();
  assert.equal(world.pushes.length, length + 1);
  world.answer = () => OK;
  await process.delivery.wake('a');
  await world.quiet();
  assert.equal(world.received('a').length, 1);
});

test('R76 a removed appservice loses its queue, and a recycled id does not see it', async () => {
  const { world } = await worldOf(['a']);
  world.answer = () => DOWN;
  world.routeMany(['a'], 150);
  await world.quiet();
  const { lastTxnId } = world.state('a');
  world.remove('a', 'discard');
  await world.quiet();
  assert.equal(world.state('a').transaction, null);
  assert.equal(world.state('a').deliveredPosition, world.store.tail);
  world.answer = () => OK;
  world.put('a');
  await world.quiet();
  const texts = world.routeMany(['a'], 2);
  await world.advance(600_000);
  assert.deepEqual(world.received('a'), texts);
  assert.ok(BigInt(world.state('a').lastTxnId) > BigInt(lastTxnId));
});

test('R76 an attempt in flight is given up when its appservice is removed', async () => {
  const { world } = await worldOf(['a']);
  world.answer = () => new Promise(() => undefined);
  world.routeMany(['a'], 1);
  await world.quiet();
  world.remove('a', 'discard');
  await world.quiet();
  assert.equal(world.pushes[0]?.heard, 'aborted');
  assert.equal(world.state('a').failedAttempts, 0);
  assert.equal(world.state('a').transaction, null);
});

test('R76 a parked queue is frozen, holds the log back, and goes on under the same id with the same bytes', async () => {
  const { world, process } = await worldOf(['a']);
  world.answer = () => DOWN;
  world.routeMany(['a'], 150);
  await world.quiet();
  const { transaction } = world.state('a');
  world.remove('a', 'park');
  await world.advance(600_000);
  const { length } = world.pushes;
  assert.deepEqual(world.state('a').transaction?.txnId, transaction?.txnId);
  assert.equal(process.delivery.deliveredPositions().get('a'), 1);
  assert.equal((await process.delivery.status('a')).heldBy, 'parked');
  world.answer = () => OK;
  world.put('a', {}, true);
  await world.quiet();
  assert.deepEqual([world.pushes[length]?.txnId, world.pushes[length]?.text], [world.pushes[0]?.txnId, world.pushes[0]?.text]);
  sound(world);
});

test('R76 a removal and a new life that happened while the process was down are found at the start', async () => {
  const { world, process } = await worldOf(['a']);
  world.answer = () => DOWN;
  world.routeMany(['a'], 10);
  await world.quiet();
  world.crash(process);
  world.remove('a', 'discard');
  world.put('a');
  world.answer = () => OK;
  const texts = world.routeMany(['a'], 2);
  await world.start();
  assert.deepEqual(world.received('a'), texts);
});
