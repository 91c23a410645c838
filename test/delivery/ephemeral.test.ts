/** Ephemeral data at the cut: who is sent it and under which keys, what is left out, and what it never does to events. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Registration } from '../../src/appservice/registration.ts';
import { DeliveryWorld, DOWN, OK, TOO_LARGE } from '../support/delivery-world.ts';

const STABLE = 'ephemeral';
const UNSTABLE = 'de.sorunome.msc2409.ephemeral';
const AGE_MS = 300_000;

type Item = Parameters<DeliveryWorld['routeKinds']>[1][number];

const event = (name: string): Item => ({ kind: 'event', text: `{"event_id":"${name}"}` });
const ephemeral = (value: object): Item => ({ kind: 'ephemeral', text: JSON.stringify(value) });
const typing = (room: string, user = '@a:b'): Item => ephemeral({ type: 'm.typing', room_id: room, content: { user_ids: [user] } });
const online = (user: string, presence = 'online'): Item => ephemeral({ type: 'm.presence', sender: user, content: { presence } });
const read = (room: string, eventId: string, ...users: readonly string[]): Item =>
  ephemeral({ type: 'm.receipt', room_id: room, content: { [eventId]: { 'm.read': Object.fromEntries(users.map((user) => [user, { ts: 1 }])) } } });

async function downWorld(patch: Partial<Registration> = { receive_ephemeral: true }, settings: object = {}): Promise<DeliveryWorld> {
  const world = new DeliveryWorld();
  world.answer = () => DOWN;
  world.put('a', patch);
  await world.start({ settings });
  return world;
}

/** The appservice comes back, and everything that waits is dealt with. */
async function recover(world: DeliveryWorld): Promise<void> {
  world.answer = () => OK;
  await world.processes[0]?.delivery.retryNow('a');
  await world.quiet();
  await world.advance(1_000);
}

/** Bodies of the transactions that were accepted. */
function accepted(world: DeliveryWorld): string[] {
  return world.pushesTo('a').flatMap(({ answered, text }) => (answered === 'delivered' ? [text] : []));
}

const body = (events: readonly Item[], items: readonly Item[], keys: readonly string[] = [STABLE]): string => {
  const list = (all: readonly Item[]): string => `[${all.map(({ text }) => text).join(',')}]`;
  return `{"events":${list(events)}${items.length === 0 ? '' : keys.map((key) => `,"${key}":${list(items)}`).join('')}}`;
};

const leftOut = (world: DeliveryWorld): string[] => world.metered.filter((line) => line.startsWith('left out'));

test('R78 R79 R80 M6 the keys are those of the flags, both if both; without one nothing is sent, and without data no key', async () => {
  for (const [patch, keys] of [
    [{ receive_ephemeral: true }, [STABLE]],
    [{ push_ephemeral_unstable: true }, [UNSTABLE]],
    [{ receive_ephemeral: true, push_ephemeral_unstable: true }, [STABLE, UNSTABLE]],
    [{}, []],
  ] as const) {
    const world = await downWorld(patch);
    world.answer = () => OK;
    world.routeKinds(['a'], [typing('!r'), event('e1')]);
    await world.quiet();
    world.routeKinds(['a'], [event('e2')]);
    await world.quiet();
    world.routeKinds(['a'], [online('@a:b')]);
    await world.quiet();
    const bodies = [body([event('e1')], [typing('!r')], keys), body([event('e2')], []), body([], [online('@a:b')], keys)];
    assert.deepEqual(accepted(world), keys.length === 0 ? bodies.slice(0, 2) : bodies);
  }
});

test('R74 R78 R88 what is left of an opt-in that ended is left out and counted, without an empty transaction', async () => {
  const world = await downWorld();
  world.routeKinds(['a'], [event('e1')]);
  await world.quiet();
  world.routeKinds(['a'], [typing('!r'), online('@a:b')]);
  world.put('a', {});
  await recover(world);
  assert.deepEqual([accepted(world), leftOut(world)], [[body([event('e1')], [])], ['left out a ephemeral not_wanted 2']]);
  assert.equal(world.state('a').deliveredPosition, 4);
});

test('R88 past its age it is left out at the cut and counted by reason; events of any age go', async () => {
  const world = await downWorld();
  world.routeKinds(['a'], [event('e1')]);
  await world.quiet();
  world.routeKinds(['a'], [typing('!old'), event('e2'), read('!old', '$1', '@a:b')]);
  await world.advance(AGE_MS - 10_000);
  world.routeKinds(['a'], [read('!new', '$1', '@a:b'), event('e3')]);
  await world.advance(10_001);
  await recover(world);
  assert.deepEqual(accepted(world), [body([event('e1')], []), body([event('e2'), event('e3')], [read('!new', '$1', '@a:b')])]);
  assert.deepEqual(leftOut(world), ['left out a ephemeral expired 2']);
  assert.deepEqual(world.logged.filter(({ message }) => message.startsWith('entries are left out')).map(({ level, fields }) => [level, fields['kind'], fields['reason'], fields['entry_count']]), [['debug', 'ephemeral', 'expired', 2]]);
  const [process] = world.processes;
  assert.equal((await process?.delivery.status('a'))?.backlogEntries, 0);
});

test('R59 R88 I3 what was cut is repeated whatever its age, and after a crash too, byte for byte', async () => {
  const world = await downWorld({ receive_ephemeral: true, push_ephemeral_unstable: true });
  const [first] = world.processes;
  assert.ok(first !== undefined);
  world.routeKinds(['a'], [typing('!r', '@old:b'), read('!r', '$1', '@a:b'), online('@a:b')]);
  await world.quiet();
  world.routeKinds(['a'], [typing('!r', '@new:b')]);
  await world.advance(2 * AGE_MS);
  world.crash(first);
  await world.start();
  await world.advance(2 * AGE_MS);
  await recover(world);
  const expected = body([], [typing('!r', '@old:b'), read('!r', '$1', '@a:b'), online('@a:b')], [STABLE, UNSTABLE]);
  const pushes = world.pushesTo('a');
  assert.ok(pushes.length > 5);
  assert.deepEqual([new Set(pushes.map(({ text }) => text)), new Set(pushes.map(({ txnId }) => txnId)).size], [new Set([expected]), 1]);
  assert.deepEqual(leftOut(world), ['left out a ephemeral expired 1']);
});

test('R87 R88 typing, presence and receipts that newer ones overtake are left out; the order of the rest stays', async () => {
  const world = await downWorld();
  world.routeKinds(['a'], [event('e1')]);
  await world.quiet();
  const items = [typing('!r', '@x:b'), online('@a:b'), read('!r', '$1', '@a:b', '@c:b'), event('e2'), typing('!s'), read('!r', '$2', '@a:b'), online('@a:b', 'offline'), typing('!r', '@y:b'), read('!r', '$3', '@a:b')];
  for (const item of items) world.routeKinds(['a'], [item]);
  await recover(world);
  const [, , kept, , s, , offline, y, last] = items;
  assert.deepEqual(accepted(world).slice(1), [body([event('e2')], [kept, s, offline, y, last].flatMap((item) => item ?? []))]);
  assert.deepEqual(leftOut(world), ['left out a ephemeral overtaken 3']);
});

test('R88 nothing counts as overtaken by what is past its age', async () => {
  const world = await downWorld({ receive_ephemeral: true }, { ephemeralAgeMaxMs: 1_000 });
  world.routeKinds(['a'], [event('e1')]);
  await world.quiet();
  world.routeKinds(['a'], [typing('!r', '@x:b'), typing('!r', '@y:b')]);
  await world.advance(1_001);
  await recover(world);
  assert.deepEqual(leftOut(world), ['left out a ephemeral expired 2']);
});

test('R72 M6 ephemeral data has its own limit, and events go in order however much of it there is', async () => {
  const world = await downWorld({ receive_ephemeral: true }, { ephemeralMax: 10, eventsMax: 5 });
  world.routeKinds(['a'], [event('first')]);
  await world.quiet();
  const rooms = Array.from({ length: 25 }, (_, at) => typing(`!r${at}`));
  world.routeKinds(['a'], [event('e1'), ...rooms.slice(0, 12), event('e2'), ...rooms.slice(12), event('e3')]);
  await recover(world);
  assert.deepEqual(accepted(world).slice(1), [body([event('e1')], rooms.slice(0, 10)), body([event('e2')], rooms.slice(10, 20)), body([event('e3')], rooms.slice(20))]);
});

test('R71 R88 a transaction refused as too large is cut smaller with its ephemeral data, which may be left out by then', async () => {
  const world = await downWorld();
  world.routeKinds(['a'], [event('e1'), typing('!r'), typing('!s'), event('e2')]);
  await world.advance(AGE_MS + 1);
  world.answer = ({ body: bytes }) => (bytes.byteLength > 100 ? TOO_LARGE : OK);
  await world.processes[0]?.delivery.retryNow('a');
  await world.advance(60_000);
  assert.deepEqual(accepted(world), [body([event('e1'), event('e2')], [])]);
  assert.deepEqual(leftOut(world), ['left out a ephemeral expired 2']);
});

test('R87 ten thousand receipts a second for one room, a minute long, leave in few transactions after an outage', async () => {
  const world = await downWorld();
  world.routeKinds(['a'], [event('e1')]);
  await world.quiet();
  const users = Array.from({ length: 500 }, (_, at) => `@p${at}:b`);
  // As groups make of them: some forty receipts in each entry.
  let next = 0;
  for (let second = 0; second < 60; second++) {
    for (let group = 0; group < 250; group++) world.routeKinds(['a'], [read('!r', `$${second}`, ...Array.from({ length: 40 }, () => users[next++ % users.length] ?? ''))]);
    await world.clock.advance(1_000);
  }
  world.routeKinds(['a'], [event('e2')]);
  await recover(world);
  const bodies = accepted(world).slice(1);
  assert.ok(bodies.length <= 16, `${bodies.length} transactions of 15,000 entries`);
  assert.ok(bodies.every((text) => text.length < 200_000));
  const newest = new Map<string, string>();
  for (const text of bodies) {
    for (const { content } of (JSON.parse(text) as { ephemeral: { content: Record<string, { 'm.read': object }> }[] }).ephemeral) {
      for (const [eventId, byType] of Object.entries(content)) for (const user of Object.keys(byType['m.read'])) newest.set(user, eventId);
    }
  }
  assert.deepEqual(newest, new Map(users.map((user) => [user, '$59'])), 'everybody’s newest receipt is there, and last');
  assert.deepEqual(world.received('a'), ['{"event_id":"e1"}', '{"event_id":"e2"}']);
});

test('R88 the log is told what a transaction still holds, also after a 413, and what went from it expired is counted and no longer waits', async () => {
  const world = await downWorld();
  const [process] = world.processes;
  assert.ok(process !== undefined);
  const { delivery } = process;
  world.routeKinds(['a'], [event('e1'), typing('!r')]);
  await world.quiet();
  world.routeKinds(['a'], [typing('!s'), typing('!t')]);
  world.routeKinds(['a'], [event('e2')]);
  await world.quiet();
  const through = 3;
  assert.deepEqual(delivery.cutPositions(), { asOfMs: world.clock.nowMs(), positions: new Map([['a', through]]) });
  assert.equal((await delivery.status('a')).backlogEntries, 5);
  world.store.entries.splice(world.store.entries.findIndex(({ position }) => position === 4), 2);
  delivery.expired([{ appserviceId: 'a', entryCount: 2 }, { appserviceId: 'elsewhere', entryCount: 1 }]);
  assert.deepEqual(leftOut(world), ['left out a ephemeral expired 2', 'left out elsewhere ephemeral expired 1']);
  await world.advance(1_000);
  assert.equal((await delivery.status('a')).backlogEntries, 3);
  let sent = 0;
  world.answer = () => (sent++ === 0 ? TOO_LARGE : DOWN);
  await delivery.retryNow('a');
  await world.quiet();
  assert.deepEqual(delivery.cutPositions().positions, new Map([['a', through]]));
  await recover(world);
  assert.deepEqual([world.received('a').length, (await delivery.status('a')).backlogEntries], [2, 0]);
});

test('R88 where others may deliver too, what is cut is known as of the last look at their states', async () => {
  const world = new DeliveryWorld();
  world.put('a', { receive_ephemeral: true });
  const process = await world.start({ exclusive: false });
  const { delivery } = process;
  const before = delivery.cutPositions().asOfMs;
  assert.ok(before <= world.clock.nowMs());
  const thaw = world.freeze(process);
  await world.advance(60_000);
  assert.equal(delivery.cutPositions().asOfMs, before);
  thaw();
  await world.advance(5_000);
  assert.ok(delivery.cutPositions().asOfMs > before + 60_000);
  await world.stop(process);
});
