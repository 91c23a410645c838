/** A planned hand-over without a wait: the lease goes in the successor's name, and the store tells of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, OK } from '../support/delivery-world.ts';
import type { RouterProcess } from '../support/delivery-world.ts';

const SHARED = { exclusive: false, settings: { eventsMax: 3 } } as const;
const IDS = Array.from({ length: 8 }, (_, at) => `as${at}`);

async function twoReplicas() {
  const world = new DeliveryWorld();
  for (const id of IDS) world.put(id);
  const first = await world.start(SHARED);
  const second = await world.start(SHARED);
  await world.advance(3_000);
  const heldBy = (process: RouterProcess): string[] => IDS.filter((id) => world.state(id).leaseHolder === process.presence.replicaId);
  return { world, first, second, heldBy };
}

/** What a change stream would say, to a replica that is there. */
function tellLeases(world: DeliveryWorld, process: RouterProcess): void {
  for (const id of IDS) process.delivery.leaseChanged(id, world.state(id).leaseHolder);
}

test('I4 I6 R61 a lease that is handed over is taken as soon as the store tells of it, without time passing, and kept', async () => {
  const { world, first, second, heldBy } = await twoReplicas();
  const moved = heldBy(first);
  assert.ok(moved.length > 0);
  world.routeMany(IDS, 2);
  await world.quiet();
  const startMs = world.clock.nowMs();
  await first.delivery[Symbol.asyncDispose]();
  assert.deepEqual(heldBy(second), IDS, 'handed over in the name of the successor');
  const texts = world.routeMany(IDS, 5);
  tellLeases(world, second);
  await world.quiet();
  for (const id of moved) assert.deepEqual(world.received(id).slice(-5), texts, id);
  assert.equal(world.clock.nowMs(), startMs);
  // The first takes leave only now; until then it counts as alive, and most of this would be its own.
  await world.advance(2_000);
  assert.deepEqual(heldBy(second), IDS);
  assert.equal(world.pushes.filter(({ process }) => process === first.name).length, moved.length);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});

test('I8 an appservice that hangs holds up the hand-over of no other', async () => {
  const { world, first, second, heldBy } = await twoReplicas();
  const [hanging = '', ...others] = heldBy(first);
  assert.ok(others.length > 0);
  world.answer = ({ appserviceId }) => (appserviceId === hanging ? new Promise(() => undefined) : OK);
  world.routeMany(IDS, 1);
  await world.quiet();
  const stopping = world.stop(first);
  await world.quiet();
  assert.deepEqual(heldBy(first), [hanging]);
  world.answer = () => OK;
  await stopping;
  assert.deepEqual(heldBy(first), []);
  await world.advance(10_000);
  assert.deepEqual(heldBy(second), IDS);
  assert.deepEqual(violations(world, { failovers: 1, isDrained: true }), []);
});

test('a lease in the name of a replica that died meanwhile is taken by another within the lease time', async () => {
  const { world, first, second, heldBy } = await twoReplicas();
  const third = await world.start(SHARED);
  await world.advance(3_000);
  const moved = heldBy(first);
  world.crash(second);
  world.crash(third);
  const fourth = await world.start(SHARED);
  await first.delivery[Symbol.asyncDispose]();
  await world.stop(first);
  await world.advance(8_000);
  const texts = world.routeMany(moved, 1);
  await world.advance(2_000);
  for (const id of moved) assert.deepEqual(world.received(id).slice(-1), texts);
  assert.deepEqual(heldBy(fourth), IDS);
});

test('a hint of a lease that is not this replica’s, or is held here already, asks the store for nothing', async () => {
  const { world, second, heldBy } = await twoReplicas();
  const calls = world.store.calls.length;
  for (const id of IDS) second.delivery.leaseChanged(id, heldBy(second).includes(id) ? second.presence.replicaId : 'somebody');
  await world.quiet();
  assert.equal(world.store.calls.length, calls);
});
