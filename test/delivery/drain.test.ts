import assert from 'node:assert/strict';
import { test } from 'node:test';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, DOWN, later, OK } from '../support/delivery-world.ts';

async function worldOf(...ids: string[]) {
  const world = new DeliveryWorld();
  for (const id of ids) world.put(id);
  return { world, process: await world.start() };
}

test('a drain lets the attempt in flight end, records it, cuts nothing further and gives the leases back', async () => {
  const { world, process } = await worldOf('a', 'b');
  const held = later();
  world.answer = () => held.answer;
  world.routeMany(['a'], 150);
  await world.quiet();
  const stopping = world.stop(process);
  await world.quiet();
  held.give(OK);
  await stopping;
  const { deliveredEntries, transaction, leaseHolder } = world.state('a');
  assert.deepEqual([deliveredEntries, transaction, leaseHolder, world.state('b').leaseHolder], [100, null, null, null]);
  assert.equal(world.pushes.length, 1);
  assert.equal(world.clock.sleeperCount, 0, 'no timer is left');
});

test('a drain aborts what hangs after its bound, and that is no failure of the appservice', async () => {
  const { world, process } = await worldOf('a');
  world.answer = () => new Promise(() => undefined);
  world.routeMany(['a'], 1);
  await world.quiet();
  const startMs = world.clock.nowMs();
  await world.stop(process);
  assert.ok(world.clock.nowMs() - startMs <= 6_000);
  assert.equal(world.pushes[0]?.heard, 'aborted');
  const { attempts, failedAttempts, transaction, leaseHolder } = world.state('a');
  assert.deepEqual([attempts, failedAttempts, transaction?.attemptCount, leaseHolder], [0, 0, 0, null]);
  assert.ok(!world.events.some(({ kind }) => kind === 'delivery_failed'));
});

test('a drain does not wait for a backoff', async () => {
  const { world, process } = await worldOf('a');
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.advance(300_000);
  const startMs = world.clock.nowMs();
  await world.stop(process);
  assert.equal(world.clock.nowMs(), startMs);
});

test('a drain ends within its bounds while the store hangs', async () => {
  const { world, process } = await worldOf('a');
  world.answer = () => {
    process.connection.frozenUntil = new Promise(() => undefined);
    return OK;
  };
  world.routeMany(['a'], 1);
  await world.quiet();
  const startMs = world.clock.nowMs();
  const { delivery } = process;
  await world.end(delivery[Symbol.asyncDispose]());
  assert.ok(world.clock.nowMs() - startMs <= 7_000);
});

test('M4 a stored next attempt time is honoured after a restart, but never beyond the longest backoff', async () => {
  const { world, process } = await worldOf('a');
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.advance(100_000);
  await world.stop(process);
  const state = world.state('a');
  const { transaction } = state;
  assert.ok(transaction);
  const { length } = world.pushes;
  const again = await world.start();
  await world.quiet();
  assert.equal(world.pushes.length, length);
  await world.stop(again);
  const stored = world.state('a');
  world.store.writeState('clock', { ...stored, revision: stored.revision + 1, transaction: { ...transaction, nextAttemptTimeMs: world.clock.nowMs() + 10 ** 10 } });
  world.answer = () => OK;
  await world.start();
  await world.advance(511_000);
  assert.equal(world.pushes.length, length);
  await world.advance(1_000);
  assert.equal(world.received('a').length, 1);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});

test('R61 wakes that come doubled, late or for nothing change nothing', async () => {
  const { world, process } = await worldOf('a');
  const texts = world.routeMany(['a'], 5);
  const announcements = world.store.append(['a'], ['{"event_id":"last"}']);
  process.delivery.routed(announcements);
  process.delivery.routed(announcements);
  process.delivery.registrationsChanged();
  process.delivery.routed([]);
  await world.advance(5_000);
  assert.deepEqual(world.received('a'), [...texts, '{"event_id":"last"}']);
  assert.equal((await process.delivery.status('a')).backlogEntries, 0);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});
