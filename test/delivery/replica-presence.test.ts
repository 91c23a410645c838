import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PRESENCE_DEFAULTS, ReplicaPresence } from '../../src/delivery/replica-presence.ts';
import { seededRandom } from '../support/clock.ts';
import { DeliveryStore } from '../support/delivery-store.ts';
import { VirtualClock } from '../support/clock.ts';

const QUIET = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

function world() {
  const clock = new VirtualClock();
  const store = new DeliveryStore(clock);
  let names = 0;
  const make = (isExclusive = false) => {
    const connection = store.connect(`p${++names}`);
    const presence = new ReplicaPresence({ ...PRESENCE_DEFAULTS, store: connection, clock, random: seededRandom(names), logger: QUIET, isExclusive });
    return { connection, presence };
  };
  return { clock, store, make };
}

test('a replica is present from its first heartbeat on, and sees those that live', async () => {
  const { clock, make } = world();
  const one = make();
  const two = make();
  assert.equal(one.presence.isPresent(), false);
  await one.presence.start();
  await two.presence.start();
  await clock.advance(60_000);
  const ids = [one.presence.replicaId, two.presence.replicaId].sort();
  assert.deepEqual([one.presence.liveReplicaIds, two.presence.liveReplicaIds], [ids, ids]);
  assert.ok(one.presence.isPresent() && one.presence.isShared);
  assert.equal(one.presence.lapseCount, 0);
});

test('I5 presence ends here before it ends in the store, even while a heartbeat hangs', async () => {
  const { clock, store, make } = world();
  const { connection, presence } = make();
  await presence.start();
  const { replicaId } = presence;
  let told = 0;
  presence.subscribe(() => told++);
  connection.frozenUntil = new Promise(() => undefined);
  await clock.advance(4_400);
  assert.ok(presence.isPresent());
  await clock.advance(200);
  assert.equal(presence.isPresent(), false);
  assert.deepEqual([presence.lapseCount, told], [1, 1]);
  assert.deepEqual(store.heartbeat('other', 1_000), [replicaId, 'other'].sort());
});

test('I5 an answer that took longer than the time to live gives no presence', async () => {
  const { clock, make } = world();
  const { connection, presence } = make();
  await presence.start();
  const { promise, resolve } = Promise.withResolvers<undefined>();
  await clock.advance(999);
  connection.frozenUntil = promise;
  await clock.advance(6_000);
  connection.frozenUntil = null;
  connection.fault = (operation) => (operation === 'heartbeat' ? 'none' : 'not_done');
  resolve(undefined);
  await clock.advance(0);
  assert.equal(presence.isPresent(), false);
  await clock.advance(1_000);
  assert.ok(presence.isPresent());
  assert.equal(presence.lapseCount, 1);
});

test('a replica that takes leave is gone at once', async () => {
  const { make, store } = world();
  const { presence } = make();
  await presence.start();
  await presence[Symbol.asyncDispose]();
  assert.deepEqual(store.heartbeat('other', 1_000), ['other']);
});

test('with a store of its own a process is always present and sends no heartbeat', async () => {
  const { clock, store, make } = world();
  const { presence } = make(true);
  await presence.start();
  await clock.advance(3_600_000);
  assert.ok(presence.isPresent() && !presence.isShared);
  assert.deepEqual(presence.liveReplicaIds, [presence.replicaId]);
  assert.equal(store.calls.length, 0);
  await presence[Symbol.asyncDispose]();
});

test('a start that cannot reach the store is refused', async () => {
  const { make } = world();
  const { connection, presence } = make();
  connection.fault = () => 'not_done';
  await assert.rejects(presence.start(), { name: 'StoreError', kind: 'unavailable' });
});

test('a heartbeat on demand tells of who has just come, and an older answer that comes later takes nothing of it back', async () => {
  const { make } = world();
  const one = make();
  await one.presence.start();
  const { promise, resolve } = Promise.withResolvers<undefined>();
  // The first is answered by the store before the other comes, and heard of after it.
  one.connection.diesAt = (point) => {
    if (point === 'after heartbeat') one.connection.frozenUntil = promise;
    return false;
  };
  const older = one.presence.refresh();
  await new Promise((done) => setImmediate(done));
  one.connection.diesAt = () => false;
  one.connection.frozenUntil = null;
  const two = make();
  await two.presence.start();
  await one.presence.refresh();
  const ids = [one.presence.replicaId, two.presence.replicaId].sort();
  assert.deepEqual(one.presence.liveReplicaIds, ids);
  resolve(undefined);
  await older;
  assert.deepEqual(one.presence.liveReplicaIds, ids);
});
