/** Transactions with more than events: what goes along, what is left out, and that a body once cut is the same for ever. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RoutedKind } from '../../src/appservice/body-keys.ts';
import { violations } from '../support/delivery-checker.ts';
import { transactionBody } from '../../src/appservice/transaction-body.ts';
import { DeliveryWorld, DOWN, OK, TOO_LARGE } from '../support/delivery-world.ts';

const ALL = { receive_ephemeral: true, push_ephemeral_unstable: true, device_extensions: true };
const TO_DEVICE = 'de.sorunome.msc2409.to_device';
const of = (kind: RoutedKind, text: string) => ({ kind, text });
const event = (name: string) => of('event', `{"event_id":"${name}"}`);
const message = (name: string) => of('to_device', `{"type":"${name}"}`);
const list = (user: string) => of('device_list', `{"user_id":"${user}","left":false}`);
const keys = (user: string) => of('device_keys', `{"${user}":{"D":{"counts":{},"fallback":[]}}}`);
const numbered = (count: number, make: (name: string) => ReturnType<typeof event>, from = 0) => Array.from({ length: count }, (_, at) => make(`n${from + at}`));

async function statusOf(world: DeliveryWorld): Promise<{ backlogEntries: number; backlogBytes: number; deliveredLogPosition: number }> {
  const [process] = world.processes;
  assert.ok(process !== undefined);
  const { backlogEntries, backlogBytes, deliveredLogPosition } = await process.delivery.status('a');
  return { backlogEntries, backlogBytes, deliveredLogPosition };
}

test('R59 R65 R91 I3 a mixed transaction keeps its bytes over a crash, whatever the registration opts in to by then', async () => {
  const world = new DeliveryWorld();
  world.answer = () => DOWN;
  world.put('a', ALL);
  const first = await world.start();
  world.routeKinds(['a'], [event('e1'), of('ephemeral', '{"type":"m.typing"}'), message('m1'), list('@u'), keys('@u')]);
  await world.quiet();
  const body =
    '{"events":[{"event_id":"e1"}],"ephemeral":[{"type":"m.typing"}],"de.sorunome.msc2409.ephemeral":[{"type":"m.typing"}],"de.sorunome.msc2409.to_device":[{"type":"m1"}],' +
    '"org.matrix.msc3202.device_lists":{"changed":["@u"],"left":[]},"org.matrix.msc3202.device_one_time_keys_count":{"@u":{"D":{}}},"org.matrix.msc3202.device_unused_fallback_key_types":{"@u":{"D":[]}}}';
  assert.deepEqual(world.pushesTo('a').map(({ text }) => text), [body]);
  world.crash(first);
  world.put('a', {});
  await world.start();
  await world.advance(600_000);
  world.put('a', { receive_ephemeral: true });
  world.routeKinds(['a'], [message('m2'), list('@v')]);
  world.answer = () => OK;
  await world.advance(600_000);
  const pushes = world.pushesTo('a');
  assert.ok(pushes.length > 3);
  assert.deepEqual(pushes.map(({ text }) => text), [...pushes.slice(0, -1).map(() => body), `{"events":[],"${TO_DEVICE}":[{"type":"m2"}]}`]);
  assert.equal(new Set(pushes.slice(0, -1).map(({ txnId }) => txnId)).size, 1);
  assert.deepEqual(await statusOf(world), { backlogEntries: 0, backlogBytes: 0, deliveredLogPosition: world.store.tail });
});

test('R70 R72 M3 each kind has a limit of its own, and nothing overtakes what waits for the next transaction', async () => {
  const world = new DeliveryWorld();
  let isUp = false;
  world.answer = () => (isUp ? OK : DOWN);
  world.put('a', ALL);
  await world.start();
  world.routeKinds(['a'], [event('first')]);
  await world.quiet();
  world.routeKinds(['a'], [...numbered(60, message), ...numbered(150, event), ...numbered(95, message, 60)]);
  isUp = true;
  await world.advance(600_000);
  const parsed = world.pushesTo('a').slice(2).map(({ text }) => JSON.parse(text) as { events: unknown[]; [TO_DEVICE]?: unknown[] });
  assert.deepEqual(parsed.map((body) => [body.events.length, body[TO_DEVICE]?.length ?? 0]), [[100, 60], [50, 95]]);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: false }), []);
});

test('R74 R94 what the appservice has no use for is passed without a transaction, alone or along with others, and no longer counts as waiting', async () => {
  const world = new DeliveryWorld();
  world.put('a', {});
  await world.start();
  world.routeKinds(['a'], [message('m1'), list('@u')]);
  await world.quiet();
  assert.deepEqual(world.pushesTo('a'), []);
  assert.deepEqual(await statusOf(world), { backlogEntries: 0, backlogBytes: 0, deliveredLogPosition: world.store.tail });
  world.routeKinds(['a'], [message('m2'), event('e1'), list('@u'), event('e2'), message('m3')]);
  await world.quiet();
  assert.deepEqual(world.pushesTo('a').map(({ text }) => text), ['{"events":[{"event_id":"e1"},{"event_id":"e2"}]}']);
  assert.deepEqual(await statusOf(world), { backlogEntries: 0, backlogBytes: 0, deliveredLogPosition: world.store.tail });
  world.routeKinds(['a'], numbered(25_000, message).concat(event('e3')));
  await world.advance(5_000);
  assert.equal(world.pushesTo('a').at(-1)?.text, '{"events":[{"event_id":"e3"}]}');
  assert.deepEqual([await statusOf(world), world.state('a').deliveryState], [{ backlogEntries: 0, backlogBytes: 0, deliveredLogPosition: world.store.tail }, 'idle']);
});

test('R71 a mixed transaction that is too large is cut smaller; the one entry refused alone goes to quarantine, whatever its kind', async () => {
  const world = new DeliveryWorld();
  world.put('a', { receive_ephemeral: true });
  world.answer = ({ body }) => {
    const { events, [TO_DEVICE]: messages = [] } = JSON.parse(Buffer.from(body).toString()) as { events: unknown[]; [TO_DEVICE]?: { type: string }[] };
    return messages.some(({ type }) => type === 'poison') || events.length + messages.length > 3 ? TOO_LARGE : OK;
  };
  await world.start();
  world.routeKinds(['a'], [event('e1'), message('m1'), list('@left-out'), event('e2'), message('poison'), list('@left-out'), message('m2'), event('e3')]);
  await world.advance(60_000);
  const received = world.received('a');
  assert.deepEqual(received.filter((text) => text.includes('event_id')), ['e1', 'e2', 'e3'].map((name) => `{"event_id":"${name}"}`));
  assert.deepEqual(received.filter((text) => text.includes('type')), ['m1', 'm2'].map((name) => `{"type":"${name}"}`));
  const [shelved] = world.store.records.quarantined.values();
  assert.deepEqual([world.store.records.quarantined.size, Buffer.from(transactionBody(shelved?.entries ?? [], shelved?.bodyKeys ?? [])).toString()], [1, `{"events":[],"${TO_DEVICE}":[{"type":"poison"}]}`]);
  assert.deepEqual(await statusOf(world), { backlogEntries: 0, backlogBytes: 0, deliveredLogPosition: world.store.tail });
});

test('R65 what a transaction in flight settles is known again after a restart, left-out entries at its ends and all', async () => {
  const world = new DeliveryWorld();
  world.answer = () => DOWN;
  world.put('a', {});
  const first = await world.start();
  world.routeKinds(['a'], [message('m1'), event('e1'), message('m2'), event('e2'), message('m3')]);
  await world.quiet();
  world.crash(first);
  await world.start();
  world.routeKinds(['a'], [event('e3')]);
  world.answer = () => OK;
  const calls = (): number => world.store.calls.filter((call) => call === 'measureRoutes').length;
  const before = calls();
  await world.advance(600_000);
  assert.deepEqual(world.received('a'), ['{"event_id":"e1"}', '{"event_id":"e2"}', '{"event_id":"e3"}']);
  assert.deepEqual(await statusOf(world), { backlogEntries: 0, backlogBytes: 0, deliveredLogPosition: world.store.tail });
  assert.equal(calls(), before, 'the backlog need not be counted anew');
});
