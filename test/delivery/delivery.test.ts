import assert from 'node:assert/strict';
import { test } from 'node:test';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, DOWN, eventsOf, later, OK, rejected, TOO_LARGE } from '../support/delivery-world.ts';
import type { ProcessOptions } from '../support/delivery-world.ts';

async function worldOf(ids: readonly string[], options: ProcessOptions = {}) {
  const world = new DeliveryWorld();
  for (const id of ids) world.put(id);
  return { world, process: await world.start(options) };
}

function sound(world: DeliveryWorld, failovers = 0): void {
  assert.deepEqual(violations(world, { failovers, isDrained: true }), []);
}

test('R49 R50 R51 R53 the body is {"events":[…]} with each event byte for byte as it came', async () => {
  const { world } = await worldOf(['a']);
  const odd = ['{ "b" : 1,\t"a":"\\u00e9", "unsigned":{"age":1.50} }', '{"a":1,"a":2}'];
  world.route(['a'], odd);
  await world.quiet();
  assert.deepEqual(world.pushes.map(({ text }) => text), [`{"events":[${odd.join(',')}]}`]);
});

test('R57 M4 txn ids are decimal, strictly growing and seeded from the wall clock in microseconds', async () => {
  const { world } = await worldOf(['a']);
  for (let round = 0; round < 3; round++) {
    world.routeMany(['a'], 1);
    await world.quiet();
  }
  const seed = BigInt(world.clock.nowMs()) * 1000n;
  assert.deepEqual(world.pushes.map(({ txnId }) => txnId), [seed, seed + 1n, seed + 2n].map(String));
});

test('R57 ids do not come back after the store was lost', async () => {
  const { world, process } = await worldOf(['a']);
  world.routeMany(['a'], 150);
  await world.quiet();
  await world.stop(process);
  world.store.states.clear();
  world.store.accepted.length = 0;
  await world.advance(1);
  await world.start();
  const ids = world.pushes.map(({ txnId }) => txnId);
  assert.equal(new Set(ids).size, 4);
});

test('R58 two transactions of identical content have two ids', async () => {
  const { world } = await worldOf(['a']);
  world.route(['a'], ['{"event_id":"same"}']);
  await world.quiet();
  world.route(['a'], ['{"event_id":"same"}']);
  await world.quiet();
  assert.equal(new Set(world.pushes.map(({ txnId }) => txnId)).size, 2);
});

test('R59 R60 R66 M1 a failed attempt is repeated under the same id with the same bytes, whatever arrived meanwhile', async () => {
  const { world } = await worldOf(['a']);
  let failures = 3;
  world.answer = () => (failures-- > 0 ? rejected(500) : OK);
  const first = world.routeMany(['a'], 1);
  await world.quiet();
  const second = world.routeMany(['a'], 5);
  await world.advance(20_000);
  const [one, ...others] = world.pushes;
  assert.equal(world.pushes.length, 5);
  for (const { txnId, text } of others.slice(0, 3)) assert.deepEqual([txnId, text], [one?.txnId, one?.text]);
  assert.deepEqual(eventsOf(one?.text ?? ''), first);
  assert.deepEqual(eventsOf(others[3]?.text ?? ''), second);
  sound(world);
});

test('R61 M2 sends no transaction before the last is acknowledged', async () => {
  const { world } = await worldOf(['a']);
  const held = later();
  world.answer = () => held.answer;
  world.routeMany(['a'], 350);
  await world.quiet();
  assert.equal(world.pushes.length, 1);
  world.answer = () => OK;
  held.give(OK);
  await world.quiet();
  assert.equal(world.pushes.length, 4);
  sound(world);
});

test('R62 R69 R70 M3 a backlog leaves in log order in transactions of 100', async () => {
  const { world } = await worldOf(['a']);
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.quiet();
  for (let round = 0; round < 8; round++) world.routeMany(['a'], 50);
  world.answer = () => OK;
  await world.advance(2_000);
  assert.deepEqual(world.pushes.map(({ text }) => eventsOf(text).length), [1, 1, 100, 100, 100, 100]);
  sound(world);
});

test('R63 I8 an appservice that hangs does not delay another', async () => {
  const { world } = await worldOf(['hangs', 'quick']);
  world.answer = ({ appserviceId }) => (appserviceId === 'hangs' ? new Promise(() => undefined) : OK);
  const texts = world.routeMany(['hangs', 'quick'], 250);
  await world.quiet();
  assert.deepEqual(world.received('quick'), texts);
  assert.equal(world.pushesTo('hangs').length, 1);
});

test('R63 I8 a thousand that hang leave the others their turn', async () => {
  const ids = Array.from({ length: 1000 }, (_, at) => `h${at}`);
  const { world } = await worldOf([...ids, 'quick']);
  world.answer = ({ appserviceId }) => (appserviceId === 'quick' ? OK : new Promise(() => undefined));
  world.routeMany([...ids, 'quick'], 1);
  await world.advance(1_000);
  assert.equal(world.received('quick').length, 1);
  assert.equal(world.pushes.length, 1001);
});

test('R64 telling what was routed waits for nothing', async () => {
  const { world } = await worldOf(['a']);
  world.answer = () => new Promise(() => undefined);
  world.routeMany(['a'], 1);
  assert.equal(world.pushes.length, 0);
  await world.quiet();
  assert.equal(world.pushes.length, 1);
});

test('R65 I3 I10 a start resumes the transaction in flight under its id and bytes, without new traffic', async () => {
  const { world, process } = await worldOf(['a']);
  world.answer = () => new Promise(() => undefined);
  world.routeMany(['a'], 130);
  await world.quiet();
  world.crash(process);
  world.answer = () => OK;
  await world.start();
  const [before, after] = world.pushes;
  assert.deepEqual([after?.txnId, after?.text], [before?.txnId, before?.text]);
  assert.deepEqual(world.pushes.map(({ text }) => eventsOf(text).length), [100, 100, 30]);
  sound(world, 1);
});

test('R66 waits 2, 4 … 512 s, never less than half, and begins anew after a success', async () => {
  const { world } = await worldOf(['a']);
  world.answer = () => DOWN;
  world.routeMany(['a'], 1);
  await world.quiet();
  for (let hours = 0; hours < 12 && world.pushes.length < 13; hours++) await world.advance(3_600_000);
  const gaps = world.pushes.slice(1).map(({ timeMs }, at) => timeMs - (world.pushes[at]?.timeMs ?? 0));
  const wholes = [2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512, 512].map((seconds) => seconds * 1000);
  for (const [at, whole] of wholes.entries()) {
    const gap = gaps[at] ?? 0;
    assert.ok(gap >= whole / 2 && gap <= whole, `gap ${at} is ${gap}, not within ${whole / 2} and ${whole}`);
  }
  assert.ok(new Set(gaps).size > 9, 'the jitter differs');
  world.answer = () => OK;
  await world.advance(512_000);
  world.answer = () => DOWN;
  const count = world.pushes.length;
  world.routeMany(['a'], 1);
  await world.advance(2_000);
  assert.equal(world.pushes.length, count + 2);
});

test('R67 R73 a 2xx counts as delivered, anything else is tried again', async () => {
  for (const outcome of [rejected(301), rejected(400), rejected(401), rejected(404), rejected(500), DOWN]) {
    const { world } = await worldOf(['a']);
    world.answer = () => outcome;
    world.routeMany(['a'], 1);
    await world.quiet();
    assert.equal(world.state('a').deliveryState, 'retrying');
    world.answer = () => ({ kind: 'delivered', httpStatus: 204 });
    await world.advance(2_000);
    assert.equal(world.state('a').deliveryState, 'idle');
    sound(world);
  }
});

test('R68 an appservice that answers 4xx for hours loses nothing', async () => {
  const { world } = await worldOf(['a']);
  world.answer = () => rejected(403);
  const texts = world.routeMany(['a'], 120);
  await world.advance(10_000_000);
  assert.equal(world.received('a').length, 0);
  world.answer = () => OK;
  await world.advance(512_000);
  assert.deepEqual(world.received('a'), texts);
});

test('R68 Retry-After lengthens the wait, up to the longest backoff, and never shortens it', async () => {
  for (const [retryAfterMs, leastMs, mostMs] of [[60_000, 60_000, 60_000], [9_999_999, 512_000, 512_000], [0, 1_000, 2_000]] as const) {
    const { world } = await worldOf(['a']);
    world.answer = () => rejected(429, retryAfterMs);
    world.routeMany(['a'], 1);
    await world.quiet();
    world.answer = () => OK;
    await world.advance(600_000);
    const waited = (world.pushes[1]?.timeMs ?? 0) - (world.pushes[0]?.timeMs ?? 0);
    assert.ok(waited >= leastMs && waited <= mostMs, `waited ${waited}`);
  }
});

test('R71 after 413 the same entries go smaller under new ids, and the refused id is not used again', async () => {
  const { world } = await worldOf(['a']);
  world.answer = ({ body }) => (eventsOf(Buffer.from(body).toString()).length > 30 ? TOO_LARGE : OK);
  const texts = world.routeMany(['a'], 230);
  await world.quiet();
  assert.deepEqual(world.received('a'), texts);
  const sizes = world.pushes.map(({ text }) => eventsOf(text).length);
  assert.deepEqual(sizes, [100, 50, 25, 25, 25, 25, 100, 50, 25, 25, 25, 25, 30]);
  assert.equal(new Set(world.pushes.map(({ txnId }) => txnId)).size, sizes.length);
  assert.equal(world.state('a').split, null);
  sound(world);
});

test('R71 an event that is refused alone goes to quarantine with its bytes, and the queue moves on', async () => {
  const { world } = await worldOf(['a']);
  world.answer = ({ body }) => (Buffer.from(body).includes('"e5"') ? TOO_LARGE : OK);
  const texts = world.routeMany(['a'], 8);
  await world.quiet();
  assert.deepEqual(world.received('a'), texts.filter((text) => !text.includes('"e5"')));
  const [shelved] = [...world.store.records.quarantined.values()];
  assert.equal(world.store.records.quarantined.size, 1);
  assert.deepEqual(shelved?.entries.map(({ kind, json }) => [kind, Buffer.from(json).toString()]), [['event', '{"event_id":"e5"}']]);
  assert.deepEqual([shelved?.firstPosition, shelved?.lastPosition], [5, 5]);
  assert.equal(world.state('a').quarantinedEntries, 1);
  assert.ok(world.logged.some(({ level, fields }) => level === 'error' && fields.txn_id === shelved?.txnId));
  sound(world);
});

test('R71 the quarantine has it before the queue moves on, even if the shelf fails for a while', async () => {
  const { world, process } = await worldOf(['a']);
  world.answer = () => TOO_LARGE;
  let failures = 3;
  process.connection.fault = (operation) => (operation === 'changeRecord' && failures-- > 0 ? 'not_done' : 'none');
  world.routeMany(['a'], 1);
  await world.quiet();
  assert.equal(world.state('a').deliveredPosition, 1);
  await world.advance(5_000);
  assert.equal(world.state('a').deliveredPosition, 2);
  assert.equal(world.store.records.quarantined.size, 1);
  assert.equal(world.pushes.length, 1, 'the refused id is not sent again meanwhile');
});

test('R70 the byte cap counts the whole body; a larger event goes alone', async () => {
  const { world } = await worldOf(['a'], { settings: { bytesMax: 100 } });
  let filler = 0x61;
  const text = (size: number): string => `{"k":"${String.fromCharCode(filler++).repeat(size - 8)}"}`;
  // 13 bytes around, a comma between: 43 + 1 + 43 is exactly 100.
  world.route(['a'], [text(43), text(43), text(43), text(44), text(300), text(10)]);
  await world.quiet();
  assert.deepEqual(world.pushes.map((push) => push.text.length), [100, 56, 57, 313, 23]);
  sound(world);
});

test('R77 M4 the delivered position moves only after acknowledgement and never back', async () => {
  const { world } = await worldOf(['a']);
  const held = later();
  world.answer = () => held.answer;
  world.routeMany(['a'], 3);
  await world.advance(50_000);
  assert.equal(world.state('a').deliveredPosition, 1);
  held.give(OK);
  await world.quiet();
  assert.equal(world.state('a').deliveredPosition, 4);
  sound(world);
});

test('M1 the states are idle, delivering, retrying, delivering, idle, and are told', async () => {
  const { world } = await worldOf(['a']);
  let failures = 1;
  world.answer = () => (failures-- > 0 ? DOWN : OK);
  world.routeMany(['a'], 1);
  await world.advance(2_000);
  const told = world.events.flatMap((event) => (event.kind === 'state_changed' ? [event.state] : []));
  assert.deepEqual(told, ['delivering', 'retrying', 'delivering', 'idle']);
});

test('M8 domain events carry exactly their fields', async () => {
  const { world } = await worldOf(['a']);
  let failures = 2;
  world.answer = () => (failures-- > 0 ? DOWN : OK);
  world.routeMany(['a'], 7);
  await world.advance(10_000);
  const transaction_id = world.pushes[0]?.txnId ?? '';
  assert.deepEqual(world.events.filter(({ kind }) => kind !== 'state_changed'), [
    { kind: 'delivery_failed', service_id: 'a', transaction_id, retry_count: 1 },
    { kind: 'delivery_failed', service_id: 'a', transaction_id, retry_count: 2 },
    { kind: 'events_delivered', service_id: 'a', transaction_id, event_count: 7 },
  ]);
});

test('M8 R18 there is one log line per attempt, with everything and without a token', async () => {
  const { world } = await worldOf(['a']);
  let failures = 1;
  world.answer = () => (failures-- > 0 ? rejected(503) : OK);
  world.routeMany(['a'], 2);
  await world.advance(2_000);
  const lines = world.logged.filter(({ message }) => message === 'delivery attempt');
  const common = { server_name: 'hs.example', appservice_id: 'a', txn_id: world.pushes[0]?.txnId, event_count: 2, body_bytes: world.pushes[0]?.text.length, path: 'v1', failure: null, misconfiguration: false, duration_ms: 0 };
  const next = world.store.accepted.find(({ after }) => after.deliveryState === 'retrying')?.after.transaction?.nextAttemptTimeMs;
  assert.deepEqual(lines.map(({ fields }) => fields), [
    { ...common, attempt: 1, outcome: 'rejected', http_status: 503, error: 'The appservice answered 503.', next_attempt_time_ms: next },
    { ...common, attempt: 2, outcome: 'delivered', http_status: 200, error: null, next_attempt_time_ms: null },
  ]);
  assert.doesNotMatch(JSON.stringify(world.logged), /as_a|hs_a/);
});

test('R106 the line of an attempt says which path decided', async () => {
  const { world } = await worldOf(['a']);
  world.answer = () => ({ ...OK, path: 'legacy' });
  world.routeMany(['a'], 2);
  await world.advance(2_000);
  assert.deepEqual(world.logged.filter(({ message }) => message === 'delivery attempt').map(({ fields }) => fields['path']), ['legacy']);
  assert.deepEqual(world.metered, ['attempt a delivered', 'delivered a 2']);
});

test('metrics hear of every attempt and of what was delivered', async () => {
  const { world } = await worldOf(['a']);
  let failures = 1;
  world.answer = () => (failures-- > 0 ? DOWN : OK);
  world.routeMany(['a'], 2);
  await world.advance(2_000);
  assert.deepEqual(world.metered, ['attempt a unreachable', 'attempt a delivered', 'delivered a 2']);
});
