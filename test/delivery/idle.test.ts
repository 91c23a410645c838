import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wantedHolder } from '../../src/delivery/lease.ts';
import { DeliveryWorld, DOWN } from '../support/delivery-world.ts';

test('a thousand idle appservices have one timer between them and ask nothing of the store', async () => {
  const world = new DeliveryWorld();
  for (let at = 0; at < 1000; at++) world.put(`as${at}`);
  await world.start();
  const { length } = world.store.calls;
  assert.equal(world.clock.sleeperCount, 1);
  await world.advance(60_000);
  assert.equal(world.store.calls.length, length);
  assert.equal(world.clock.sleeperCount, 1);
});

test('a start takes a thousand leases and counts a thousand backlogs in a few calls', async () => {
  const world = new DeliveryWorld();
  for (let at = 0; at < 1000; at++) world.put(`as${at}`);
  const process = await world.start();
  await world.stop(process);
  world.store.calls.length = 0;
  await world.start();
  assert.deepEqual(world.store.calls.map((call) => call.split(':')[0]), ['loadStates', 'writeStates', 'writeStates', 'measureRoutes']);
});

test('between two pushes of a long backlog stands one write and no read', async () => {
  const world = new DeliveryWorld();
  world.put('a');
  const process = await world.start();
  await process.delivery.setPaused('a', true);
  for (let round = 0; round < 10; round++) world.routeMany(['a'], 100);
  await process.delivery.setPaused('a', false);
  const order: string[] = [];
  world.store.calls.length = 0;
  world.answer = async () => {
    order.push(...world.store.calls.splice(0), 'push');
    // The read ahead is on its way while the appservice thinks.
    await new Promise((resolve) => setImmediate(resolve));
    return { kind: 'delivered', httpStatus: 200 };
  };
  await world.quiet();
  const afterFirst = order.slice(order.indexOf('push') + 1);
  assert.equal(world.pushes.length, 10);
  // Each push is told before the read for the one after the next begins: that stands before the write, not after it.
  const turn = ['readRoute:a', 'writeStates:a', 'push'];
  assert.deepEqual(afterFirst, Array.from({ length: 9 }, () => turn).flat());
});

test('what arrives together is cut together in one store call', async () => {
  const world = new DeliveryWorld();
  const ids = Array.from({ length: 50 }, (_, at) => `as${at}`);
  for (const id of ids) world.put(id);
  await world.start();
  world.answer = () => DOWN;
  world.store.calls.length = 0;
  world.routeMany(ids, 1);
  await world.quiet();
  assert.equal(world.store.calls.filter((call) => call.startsWith('writeStates')).length, 2);
});

test('a replica that comes moves only what it gets', () => {
  const ids = Array.from({ length: 2000 }, (_, at) => `as${at}`);
  const before = new Map(ids.map((id) => [id, wantedHolder('hs', id, ['r1', 'r2', 'r3'])]));
  const counts = new Map<string | undefined, number>();
  for (const id of ids) {
    const after = wantedHolder('hs', id, ['r4', 'r1', 'r3', 'r2']);
    counts.set(after, (counts.get(after) ?? 0) + 1);
    if (after !== before.get(id)) assert.equal(after, 'r4');
  }
  for (const count of counts.values()) assert.ok(count > 400 && count < 600, `${count} of 2000`);
  assert.equal(wantedHolder('hs', 'a', []), undefined);
});
