import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wantedHolder } from '../../src/delivery/lease.ts';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, DOWN, later, OK } from '../support/delivery-world.ts';
import type { RouterProcess } from '../support/delivery-world.ts';

const SHARED = { exclusive: false, settings: { eventsMax: 3 } } as const;
const IDS = Array.from({ length: 12 }, (_, at) => `as${at}`);

async function worldOf(count: number) {
  const world = new DeliveryWorld();
  for (const id of IDS) world.put(id);
  const processes: RouterProcess[] = [];
  for (let at = 0; at < count; at++) processes.push(await world.start(SHARED));
  await world.advance(3_000);
  return { world, processes };
}

function holders(world: DeliveryWorld): Map<string, string | null> {
  return new Map(IDS.map((id) => [id, world.state(id).leaseHolder]));
}

function only<Item>(items: readonly Item[]): Item {
  const [item] = items;
  if (item === undefined || items.length !== 1) throw new Error(`${items.length} items instead of one`);
  return item;
}

/** Of two processes, the one that holds `appserviceId`, then the other. */
function holderFirst(world: DeliveryWorld, processes: readonly RouterProcess[], appserviceId: string): [RouterProcess, RouterProcess] {
  const { leaseHolder } = world.state(appserviceId);
  const holder = only(processes.filter(({ presence }) => presence.replicaId === leaseHolder));
  return [holder, only(processes.filter((process) => process !== holder))];
}

test('replicas share the appservices by hash, each held by exactly one', async () => {
  const { world, processes } = await worldOf(3);
  const ids = processes.map(({ presence }) => presence.replicaId);
  const held = holders(world);
  for (const id of IDS) assert.equal(held.get(id), wantedHolder('hs.example', id, ids));
  assert.equal(new Set(held.values()).size, 3);
  const texts = world.routeMany(IDS, 7);
  await world.quiet();
  for (const id of IDS) assert.deepEqual(world.received(id), texts);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});

test('a replica that comes gets its share without a gap or a duplicate, an attempt in flight first ends', async () => {
  const { world, processes } = await worldOf(1);
  const held = later();
  world.answer = () => held.answer;
  world.routeMany(IDS, 8);
  await world.quiet();
  processes.push(await world.start(SHARED));
  await world.advance(3_000);
  assert.equal(new Set(holders(world).values()).size, 1, 'nothing moves while attempts are in flight');
  world.answer = () => OK;
  held.give(OK);
  await world.advance(3_000);
  assert.equal(new Set(holders(world).values()).size, 2);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});

test('a planned hand-over leaves no gap and no duplicate', async () => {
  const { world, processes } = await worldOf(2);
  let answers = 0;
  world.answer = async () => {
    answers++;
    await world.clock.sleep(300);
    return OK;
  };
  world.routeMany(IDS, 20);
  await world.advance(700);
  const [first] = processes;
  assert.ok(first);
  const stopping = world.stop(first);
  await world.advance(30_000);
  await stopping;
  world.routeMany(IDS, 4);
  await world.advance(10_000);
  assert.equal(answers, world.pushes.length);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});

test('I5 I6 after a crash others take over within the lease time and go on with the same id and bytes', async () => {
  const { world, processes } = await worldOf(2);
  world.answer = () => new Promise(() => undefined);
  world.routeMany(IDS, 8);
  await world.quiet();
  const [holder] = holderFirst(world, processes, 'as0');
  world.crash(holder);
  world.answer = () => OK;
  await world.advance(7_000);
  const [before, after] = world.pushesTo('as0');
  assert.deepEqual([after?.txnId, after?.text], [before?.txnId, before?.text]);
  // The other replica's own attempts still hang.
  const taken = IDS.filter((id) => world.pushesTo(id)[0]?.process === holder.name);
  for (const id of taken) assert.equal(world.received(id).length, 8, id);
});

test('I5 I6 a holder that was stopped for a while sends nothing stale and writes nothing once it goes on', async () => {
  const { world, processes } = await worldOf(2);
  const held = later();
  world.answer = ({ appserviceId }) => (appserviceId === 'as0' ? held.answer : OK);
  world.routeMany(['as0'], 8);
  await world.quiet();
  const [holder, other] = holderFirst(world, processes, 'as0');
  const goOn = world.freeze(holder);
  world.answer = () => OK;
  await world.advance(10_000);
  assert.equal(world.state('as0').leaseHolder, other.presence.replicaId);
  assert.equal(world.received('as0').length, 8);
  const { length } = world.pushes;
  held.give(OK);
  goOn();
  await world.advance(20_000);
  const stale = world.pushes.slice(length);
  assert.deepEqual(stale, []);
  assert.deepEqual(violations(world, { failovers: 1, isDrained: true }), []);
});

test('I5 a holder that cannot reach the store begins no push once its lease may be over', async () => {
  const { world, processes } = await worldOf(2);
  const [holder, other] = holderFirst(world, processes, 'as0');
  world.answer = () => DOWN;
  world.routeMany(['as0'], 2);
  await world.quiet();
  holder.connection.fault = () => 'not_done';
  await world.advance(4_600);
  const { length } = world.pushes;
  await world.advance(30_000);
  const late = world.pushes.slice(length);
  assert.ok(late.length > 0);
  assert.ok(late.every(({ process }) => process === other.name));
});

test('I5 an attempt in flight is aborted when the lease may be over', async () => {
  const { world, processes } = await worldOf(2);
  const [holder] = holderFirst(world, processes, 'as0');
  world.answer = () => new Promise(() => undefined);
  world.routeMany(['as0'], 2);
  await world.quiet();
  holder.connection.fault = () => 'not_done';
  await world.advance(4_600);
  assert.equal(world.pushes[0]?.heard, 'aborted');
});

test('a replica that was away alone takes up its own again', async () => {
  const { world, processes } = await worldOf(1);
  const process = only(processes);
  process.connection.fault = () => 'not_done';
  world.routeMany(IDS, 2);
  await world.advance(20_000);
  process.connection.fault = () => 'none';
  await world.advance(10_000);
  for (const id of IDS) assert.equal(world.received(id).length, 2);
  assert.deepEqual(violations(world, { failovers: 1, isDrained: true }), []);
});

test('I10 a replica that was away gives back what the store still calls its own but another should have', async () => {
  const { world, processes } = await worldOf(1);
  const process = only(processes);
  process.connection.fault = () => 'not_done';
  await world.advance(6_000);
  process.connection.fault = (operation) => (operation === 'loadStates' ? 'not_done' : 'none');
  await world.advance(2_000);
  await world.start(SHARED);
  await world.advance(3_000);
  process.connection.fault = () => 'none';
  await world.advance(5_000);
  world.routeMany(IDS, 2);
  await world.advance(5_000);
  assert.equal(new Set(holders(world).values()).size, 2);
  assert.deepEqual(violations(world, { failovers: 1, isDrained: true }), []);
});

test('pause, RetryNow and resume reach the holder from any replica', async () => {
  const { world, processes } = await worldOf(2);
  const [, other] = holderFirst(world, processes, 'as0');
  world.answer = () => DOWN;
  world.routeMany(['as0'], 2);
  await world.advance(100_000);
  const { length } = world.pushes;
  const status = await world.end(other.delivery.retryNow('as0'));
  assert.equal(status.backlogEntries, 2);
  await world.advance(1_000);
  assert.equal(world.pushes.length, length + 1);
  await world.end(other.delivery.setPaused('as0', true));
  await world.advance(600_000);
  assert.ok(world.pushes.length <= length + 2);
  world.answer = () => OK;
  await world.end(other.delivery.setPaused('as0', false));
  await world.end(other.delivery.wake('as0'));
  await world.advance(2_000);
  assert.equal(world.received('as0').length, 2);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});

test('R76 a replica that has not read a newer registration yet leaves the queue alone', async () => {
  const { world, processes } = await worldOf(1);
  world.answer = () => DOWN;
  world.routeMany(['as0'], 2);
  await world.quiet();
  await world.stop(only(processes));
  const old = world.registrations.get('as0');
  assert.ok(old);
  const state = world.state('as0');
  world.store.writeState('ahead', { ...state, revision: state.revision + 1, sincePosition: old.since + 100, deliveredPosition: old.since + 100, transaction: null, deliveryState: 'idle' });
  await world.start(SHARED);
  await world.advance(10_000);
  assert.equal(world.state('as0').sincePosition, old.since + 100);
  assert.equal(world.pushesTo('as0').length, 1);
});

test('replicas that start at once on an empty store agree', async () => {
  const world = new DeliveryWorld();
  for (const id of IDS) world.put(id);
  const processes = [0, 1, 2].map(() => world.launch(SHARED));
  await Promise.all(processes.map(({ started }) => started));
  await world.advance(3_000);
  world.routeMany(IDS, 7);
  await world.advance(3_000);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
  assert.equal(new Set(holders(world).values()).size, 3);
});

test('I4 I5 a replica that has just come is not taken for a dead one by those that were not told of it yet', async () => {
  const world = new DeliveryWorld();
  const options = { exclusive: false };
  const first = await world.start(options);
  // No time passes from here on, so the first hears of the second by no heartbeat of its own accord.
  const second = await world.start(options);
  world.answer = () => later().answer;
  const thaw = world.freeze(first);
  for (const id of IDS) world.put(id);
  world.routeMany(IDS, 1);
  await world.quiet();
  thaw();
  await world.quiet();
  const { replicaId } = second.presence;
  const held = IDS.filter((id) => world.state(id).leaseHolder === replicaId);
  assert.ok(held.length > 0, 'the second holds some');
  // A state that changes makes the first look at what is stored, with what it knows of the living.
  for (const id of held) await world.end(first.delivery.setPaused(id, true));
  await world.quiet();
  assert.deepEqual(held.filter((id) => world.state(id).leaseHolder !== replicaId), [], 'nothing is taken from it');
  for (const id of held) await world.end(first.delivery.setPaused(id, false));
  await world.quiet();
  for (const id of IDS) assert.equal(new Set(world.pushesTo(id).map(({ process }) => process)).size, 1, `${id} is sent by one replica`);
});
