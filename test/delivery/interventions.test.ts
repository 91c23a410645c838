import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, DOWN, later, OK, TOO_LARGE } from '../support/delivery-world.ts';
import type { ProcessOptions, RouterProcess } from '../support/delivery-world.ts';

async function worldOf(options: ProcessOptions = {}) {
  const world = new DeliveryWorld();
  world.put('a');
  return { world, process: await world.start(options) };
}

const refusedAs = (reason: string, hint = /./) => (error: unknown) => error instanceof RefusalError && error.reason === reason && hint.test(error.message);

const sound = (world: DeliveryWorld): void => assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);

function skip(world: DeliveryWorld, { delivery, quarantine }: RouterProcess, txnId: string): Promise<void> {
  return world.end(delivery.commands.skip('a', txnId, 'poison', () => quarantine.has('a', txnId)));
}

const inFlight = (world: DeliveryWorld): string => world.state('a').transaction?.txnId ?? '';

test('M1 stopping gives up what is queued and an attempt on its way, in whatever state, and takes no other command', async () => {
  for (const kind of ['idle', 'delivering', 'retrying'] as const) {
    const { world, process } = await worldOf();
    const { delivery } = process;
    const held = later();
    world.answer = () => (kind === 'retrying' ? DOWN : held.answer);
    if (kind !== 'idle') world.routeMany(['a'], 150);
    await world.quiet();
    assert.equal((await delivery.status('a')).state, kind);
    await delivery.commands.stop('a');
    await world.quiet();
    held.give(OK);
    world.routeMany(['a'], 5);
    await world.advance(600_000);
    assert.equal(world.pushes.length, kind === 'idle' ? 0 : 1);
    assert.deepEqual(world.pushes.map(({ heard }) => heard), kind === 'idle' ? [] : [kind === 'retrying' ? 'unreachable' : 'aborted']);
    const status = await delivery.status('a');
    assert.deepEqual([status.state, status.transaction, status.backlogEntries, status.deliveredEntries], ['failed', null, 0, 0]);
    assert.deepEqual([...delivery.deliveredPositions().values()], [Number.MAX_SAFE_INTEGER], 'nothing is held for it in the log');
    await delivery.commands.stop('a');
    const { commands } = delivery;
    for (const refused of [() => commands.setPaused('a', false), () => commands.retryNow('a'), () => skip(world, process, '1'), () => commands.replay('a', { kind: 'position', position: 2 })]) {
      await assert.rejects(refused, refusedAs('DELIVERY_STATE_FORBIDS', /Delete its registration and put it again/));
    }
    assert.ok(world.events.some((event) => event.kind === 'state_changed' && event.state === 'failed'));
  }
});

test('M1 R76 a stopped id begins anew after it is removed and put again: idle, with what is submitted from then on, under greater txn ids', async () => {
  const { world, process } = await worldOf();
  world.answer = () => DOWN;
  world.routeMany(['a'], 3);
  await world.quiet();
  const before = world.state('a').lastTxnId;
  await process.delivery.commands.stop('a');
  await world.quiet();
  world.answer = () => OK;
  world.remove('a', 'discard');
  world.put('a');
  const texts = world.routeMany(['a'], 2);
  await world.quiet();
  assert.deepEqual(world.received('a'), texts);
  assert.equal(world.state('a').deliveryState, 'idle');
  assert.ok(BigInt(world.state('a').lastTxnId) > BigInt(before));
});

test('stopping a parked queue is refused with what gives it up', async () => {
  const { world, process } = await worldOf();
  world.remove('a', 'park');
  await world.quiet();
  await assert.rejects(process.delivery.commands.stop('a'), refusedAs('DELIVERY_STATE_FORBIDS', /DISCARD/));
});

test('I1 I4 skipping puts the transaction in flight into quarantine, with reason and bytes, and the queue goes on', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 3 } });
  world.answer = (_, { txnId }) => (txnId === world.pushes[0]?.txnId ? DOWN : OK);
  const texts = world.routeMany(['a'], 5);
  await world.quiet();
  const txnId = inFlight(world);
  await skip(world, process, txnId);
  await world.quiet();
  assert.deepEqual(world.received('a'), texts.slice(3));
  const { items } = await process.quarantine.list('a', 10, '', true);
  const shown = items.map(({ body, ...rest }) => ({ ...rest, body: Buffer.from(body ?? []).toString() }));
  assert.deepEqual(
    shown.map(({ txnId: id, reason, entryCount, firstPosition, lastPosition, body }) => ({ id, reason, entryCount, firstPosition, lastPosition, body })),
    [{ id: txnId, reason: 'poison', entryCount: 3, firstPosition: 2, lastPosition: 4, body: `{"events":[${texts.slice(0, 3).join(',')}]}` }],
  );
  assert.deepEqual((await process.quarantine.list('a', 10, '', false)).items.map(({ body }) => body), [null]);
  const status = await process.delivery.status('a');
  assert.deepEqual([status.quarantinedEntries, status.backlogEntries, status.state], [3, 0, 'idle']);
  await skip(world, process, txnId);
  assert.equal((await process.delivery.status('a')).quarantinedEntries, 3, 'skipping again changes nothing');
  sound(world);
});

test('skipping what is not in flight is refused by what it is', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 1 } });
  world.answer = (_, { txnId }) => (txnId === world.pushes[0]?.txnId ? OK : DOWN);
  world.routeMany(['a'], 2);
  await world.quiet();
  const [delivered] = world.pushes.map(({ txnId }) => txnId);
  assert.ok(delivered !== undefined && delivered !== inFlight(world));
  await assert.rejects(skip(world, process, delivered), refusedAs('DELIVERY_STATE_FORBIDS', new RegExp(`in flight is ${inFlight(world)}`)));
  for (const unknown of ['99999999999999999999', 'x', '-1', '0', '1e3']) await assert.rejects(skip(world, process, unknown), refusedAs('TRANSACTION_NOT_FOUND'));
  await assert.rejects(process.delivery.commands.skip('b', '1', 'x', () => Promise.resolve(false)), refusedAs('APPSERVICE_NOT_FOUND'));
});

test('a skip that comes before the acknowledgement is stored wins; one that comes after it finds nothing in flight', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 2 } });
  const held = later();
  world.answer = (_, { txnId }) => (txnId === world.pushes[0]?.txnId ? held.answer : OK);
  const texts = world.routeMany(['a'], 4);
  await world.quiet();
  const first = inFlight(world);
  const { promise, resolve } = Promise.withResolvers<undefined>();
  // The mark is durable, and its answer is still on its way, when the appservice acknowledges.
  process.connection.diesAt = (point) => {
    if (point === 'after writeStates') process.connection.frozenUntil = promise;
    return false;
  };
  const skipping = process.delivery.commands.skip('a', first, 'poison', () => Promise.resolve(false));
  await world.quiet();
  assert.equal(world.state('a').transaction?.skip?.reason, 'poison');
  held.give(OK);
  process.connection.diesAt = () => false;
  process.connection.frozenUntil = null;
  resolve(undefined);
  await world.end(skipping);
  await world.quiet();
  assert.deepEqual(world.received('a'), texts, 'the appservice has taken it');
  assert.deepEqual((await process.quarantine.list('a', 10, '', false)).items.map(({ txnId }) => txnId), [first], 'and it is in quarantine');
  assert.equal((await process.delivery.status('a')).deliveredEntries, 2);
  const [, second] = world.pushes.map(({ txnId }) => txnId);
  await assert.rejects(skip(world, process, second ?? ''), refusedAs('DELIVERY_STATE_FORBIDS', /No transaction is in flight/));
  sound(world);
});

test('a paused queue can be skipped in, and a damaged one: what the log has lost is not there, the queue goes on', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 3 } });
  world.answer = () => DOWN;
  const texts = world.routeMany(['a'], 6);
  await world.quiet();
  await process.delivery.setPaused('a', true);
  const at = world.store.entries.findIndex(({ position }) => position === 3);
  const damaged = world.store.entries[at];
  assert.ok(damaged);
  world.store.entries[at] = { ...damaged, appserviceIds: [] };
  await skip(world, process, inFlight(world));
  assert.deepEqual((await process.quarantine.list('a', 10, '', false)).items.map(({ entryCount }) => entryCount), [2]);
  assert.equal(world.state('a').transaction, null);
  world.answer = () => OK;
  await process.delivery.setPaused('a', false);
  await world.quiet();
  assert.deepEqual(world.received('a'), texts.slice(3));
});

test('R71 nothing is dropped when the quarantine is full: the event waits and is told, until there is room', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 1 } });
  const state = world.state('a');
  world.store.writeState('test', { ...state, revision: state.revision + 1, quarantinedEntries: 10_000 });
  world.answer = ({ body }) => (Buffer.from(body).includes('"e2"') ? TOO_LARGE : OK);
  const texts = world.routeMany(['a'], 2);
  await world.advance(60_000);
  assert.deepEqual(world.received('a'), []);
  const status = await process.delivery.status('a');
  assert.deepEqual([status.state, status.lastError?.kind, world.store.records.quarantined.size], ['retrying', 'too_large', 0]);
  assert.match(status.lastError?.message ?? '', /quarantine is full/);
  assert.equal(new Set(world.pushes.map(({ txnId }) => txnId)).size, 1);
  await world.end(process.delivery.commands.recount('a', () => Promise.resolve(0)));
  await world.advance(600_000);
  assert.deepEqual(world.received('a'), texts.slice(1));
  assert.equal(world.state('a').quarantinedEntries, 1);
});

test('I2 a transaction that is redelivered comes at the end of the queue, in its order, once, under a new txn id', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 3 } });
  world.answer = () => DOWN;
  const texts = world.routeMany(['a'], 3);
  await world.quiet();
  const txnId = inFlight(world);
  await assert.rejects(process.quarantine.redeliver('a', txnId), refusedAs('DELIVERY_STATE_FORBIDS', /SkipTransaction/));
  await skip(world, process, txnId);
  world.answer = () => OK;
  const more = world.routeMany(['a'], 2);
  await world.quiet();
  await world.end(process.quarantine.redeliver('a', txnId));
  await world.quiet();
  assert.deepEqual(world.received('a'), [...more, ...texts]);
  await world.end(process.quarantine.redeliver('a', txnId));
  await world.quiet();
  assert.equal(world.received('a').length, 5, 'repeating it delivers nothing again');
  await assert.rejects(process.quarantine.discard('a', txnId), refusedAs('TRANSACTION_NOT_FOUND'));
  assert.deepEqual([world.state('a').quarantinedEntries, world.store.records.quarantined.size], [0, 0]);
  sound(world);
});

test('discarding gives up one transaction of the shelf and counts what is left', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 1 } });
  world.answer = () => TOO_LARGE;
  world.routeMany(['a'], 3);
  await world.quiet();
  const ids = (await process.quarantine.list('a', 2, '', false)).items.map(({ txnId }) => txnId);
  assert.equal(ids.length, 2);
  await world.end(process.quarantine.discard('a', ids[0] ?? ''));
  assert.equal((await process.delivery.status('a')).quarantinedEntries, 2);
  const page = await process.quarantine.list('a', 1, '', false);
  assert.deepEqual([page.items[0]?.txnId, page.nextPageToken], [ids[1], ids[1]]);
  const last = await process.quarantine.list('a', 1, page.nextPageToken, false);
  assert.deepEqual([last.items.length, last.nextPageToken], [1, '']);
  await assert.rejects(process.quarantine.list('a', 1, 'nonsense', false), refusedAs('INVALID_FIELD'));
  await assert.rejects(process.quarantine.discard('a', ids[0] ?? ''), refusedAs('TRANSACTION_NOT_FOUND'));
  for (const odd of ['', '0', '-1', '007', '1'.repeat(60)]) await assert.rejects(process.quarantine.discard('a', odd), refusedAs('TRANSACTION_NOT_FOUND'));
});

test('I11 a replay delivers again from a position, in order and under new txn ids, and gives up what is in flight', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 2 } });
  const texts = world.routeMany(['a'], 5);
  await world.quiet();
  world.answer = () => DOWN;
  const more = world.routeMany(['a'], 1);
  await world.quiet();
  world.answer = () => OK;
  assert.equal(await world.end(process.delivery.commands.replay('a', { kind: 'position', position: 4 })), 4);
  await world.advance(1_000);
  assert.deepEqual(world.received('a'), [...texts, ...texts.slice(2), ...more]);
  const status = await process.delivery.status('a');
  assert.deepEqual([status.backlogEntries, status.state, status.deliveredLogPosition], [0, 'idle', world.store.tail]);
  sound(world);
});

test('a replay from a time begins with the first segment written at or after it', async () => {
  const { world, process } = await worldOf();
  const all: string[][] = [];
  for (let at = 0; at < 6; at++) {
    all.push(world.routeMany(['a'], 1 + (at % 3)));
    await world.advance(1_000);
  }
  const thirdMs = world.clock.nowMs() - 4_000;
  assert.equal(world.received('a').length, all.flat().length);
  const from = await world.end(process.delivery.commands.replay('a', { kind: 'time', timeMs: thirdMs }));
  await world.quiet();
  assert.deepEqual(world.received('a').slice(all.flat().length), all.slice(2).flat());
  assert.equal(from, 2 + all.slice(0, 2).flat().length);
  await assert.rejects(process.delivery.commands.replay('a', { kind: 'time', timeMs: world.clock.nowMs() + 1 }), refusedAs('DELIVERY_STATE_FORBIDS', /still to be delivered/));
});

test('a replay from where the log is not whole, from before this life, or from what is still to come is refused with what there is', async () => {
  const { world, process } = await worldOf();
  for (let at = 0; at < 4; at++) world.routeMany(['a'], 2);
  await world.quiet();
  const from = (position: number) => world.end(process.delivery.commands.replay('a', { kind: 'position', position }));
  const oldest = (position: number) => (error: unknown) => refusedAs('POSITION_NOT_RETAINED')(error) && (error as RefusalError).details.metadata?.['oldest_log_position'] === String(position);
  await assert.rejects(from(1), oldest(2));
  world.store.trim(5);
  await assert.rejects(from(3), oldest(6));
  await assert.rejects(world.end(process.delivery.commands.replay('a', { kind: 'time', timeMs: 0 })), oldest(6));
  await assert.rejects(from(world.store.tail + 1), refusedAs('DELIVERY_STATE_FORBIDS'));
  assert.equal(await from(6), 6);
  await world.quiet();
  assert.equal(world.received('a').length, 8 + 4);
});

test('I5 every command works on a replica that does not deliver to the appservice, within a look of the one that does', async () => {
  const world = new DeliveryWorld();
  world.put('a');
  const options = { exclusive: false, settings: { eventsMax: 2 } };
  const processes = [await world.start(options), await world.start(options)];
  await world.advance(5_000);
  const other = processes.find(({ presence }) => presence.replicaId !== world.state('a').leaseHolder);
  assert.ok(other);
  const held = later();
  world.answer = () => held.answer;
  const texts = world.routeMany(['a'], 3);
  await world.quiet();
  const txnId = inFlight(world);
  const skipping = other.delivery.commands.skip('a', txnId, 'hangs', () => other.quarantine.has('a', txnId));
  world.answer = () => OK;
  await world.end(skipping);
  await world.advance(2_000);
  assert.deepEqual(world.received('a'), texts.slice(2));
  assert.deepEqual(world.pushes.map(({ heard }) => heard), ['aborted', 'delivered'], 'the attempt on its way was given up');
  await world.end(other.quarantine.redeliver('a', txnId));
  await world.advance(2_000);
  assert.deepEqual(world.received('a'), [...texts.slice(2), ...texts.slice(0, 2)]);
  await world.end(other.delivery.commands.replay('a', { kind: 'position', position: 2 }));
  await world.advance(2_000);
  assert.deepEqual(world.received('a').slice(3), [...texts, ...texts.slice(0, 2)]);
  assert.equal((await world.end(other.delivery.status('a'))).backlogEntries, 0);
  sound(world);
  await world.end(other.delivery.commands.stop('a'));
  await world.advance(2_000);
  world.routeMany(['a'], 1);
  await world.advance(5_000);
  assert.equal(world.received('a').length, 8);
});

for (const command of ['pause', 'stop'] as const) {
  test(`M1 R76 a ${command} right after an id was registered anew holds for the new life, though no sender has noticed yet that it began`, async () => {
    const world = new DeliveryWorld();
    world.put('a');
    const options = { exclusive: false };
    const processes = [await world.start(options), await world.start(options)];
    await world.advance(5_000);
    const holder = processes.find(({ presence }) => presence.replicaId === world.state('a').leaseHolder);
    const other = processes.find((process) => process !== holder);
    assert.ok(holder && other);
    world.answer = () => DOWN;
    world.routeMany(['a'], 3);
    await world.advance(1_000);
    const thaw = world.freeze(holder);
    world.remove('a', 'discard');
    world.put('a');
    world.answer = () => OK;
    const { commands } = other.delivery;
    await world.end(command === 'pause' ? commands.setPaused('a', true) : commands.stop('a'));
    thaw();
    const texts = world.routeMany(['a'], 2);
    await world.advance(30_000);
    const { deliveryState, paused, sincePosition } = world.state('a');
    assert.deepEqual([deliveryState, paused, sincePosition], command === 'pause' ? ['idle', true, world.registrations.get('a')?.since] : ['failed', false, world.registrations.get('a')?.since]);
    assert.deepEqual(world.received('a'), []);
    if (command === 'stop') return;
    assert.equal((await world.end(holder.delivery.status('a'))).backlogEntries, 2, 'what waited in the life before is not counted');
    await world.end(other.delivery.setPaused('a', false));
    await world.advance(30_000);
    assert.deepEqual(world.received('a'), texts);
  });
}

test('I10 a replay reaches back no further than entries stay on a shared store, so that nobody trims them from under it', async () => {
  const { world, process } = await worldOf({ settings: { replayAgeMaxMs: 10_000 } });
  world.routeMany(['a'], 2);
  await world.advance(8_000);
  world.routeMany(['a'], 2);
  await world.advance(4_000);
  const from = (position: number) => world.end(process.delivery.commands.replay('a', { kind: 'position', position }));
  const isKeptFrom4 = (error: unknown) => refusedAs('POSITION_NOT_RETAINED')(error) && (error as RefusalError).details.metadata?.['oldest_log_position'] === '4';
  await assert.rejects(from(2), isKeptFrom4);
  await assert.rejects(world.end(process.delivery.commands.replay('a', { kind: 'time', timeMs: 0 })), isKeptFrom4);
  assert.equal(await from(4), 4);
  await world.quiet();
  assert.equal(world.received('a').length, 4 + 2);
});

test('R76 a replay right after an id was registered anew does not reach into the life before', async () => {
  const { world, process } = await worldOf();
  world.routeMany(['a'], 3);
  await world.quiet();
  process.connection.frozenUntil = new Promise(() => undefined);
  world.remove('a', 'discard');
  world.put('a');
  process.connection.frozenUntil = null;
  await assert.rejects(world.end(process.delivery.commands.replay('a', { kind: 'position', position: 3 })), refusedAs('POSITION_NOT_RETAINED'));
});

test('I1 a replay does not undo a skip that is on its way to the quarantine', async () => {
  const { world, process } = await worldOf({ settings: { eventsMax: 2 } });
  const before = world.routeMany(['a'], 2);
  await world.quiet();
  world.answer = (_, { txnId }) => (txnId === inFlight(world) && world.state('a').deliveredPosition < 4 ? DOWN : OK);
  world.routeMany(['a'], 3);
  await world.quiet();
  const txnId = inFlight(world);
  // The shelf cannot be written for a moment.
  process.connection.fault = (operation) => (operation === 'changeRecord' ? 'not_done' : 'none');
  const skipping = process.delivery.commands.skip('a', txnId, 'poison', () => Promise.resolve(false));
  await world.quiet();
  await assert.rejects(world.end(process.delivery.commands.replay('a', { kind: 'position', position: 2 })), refusedAs('DELIVERY_STATE_FORBIDS', /on its way to the quarantine/));
  process.connection.fault = () => 'none';
  await world.end(skipping);
  await world.advance(10_000);
  assert.deepEqual((await process.quarantine.list('a', 10, '', false)).items.map((item) => item.txnId), [txnId]);
  await world.end(process.delivery.commands.replay('a', { kind: 'position', position: 2 }));
  world.answer = () => OK;
  await world.advance(10_000);
  assert.deepEqual(world.received('a').slice(0, 2), before);
  sound(world);
});
