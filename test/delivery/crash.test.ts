import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Push } from '../../src/delivery/ports.ts';
import type { StoreFault } from '../support/delivery-store.ts';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, DOWN, eventsOf, OK, rejected, TOO_LARGE } from '../support/delivery-world.ts';
import type { ProcessOptions } from '../support/delivery-world.ts';

const SMALL = { eventsMax: 3, bytesMax: 400 };

/** Traffic for two appservices, one of which fails now and then, refuses an event, and pauses in between. */
async function scenario(world: DeliveryWorld): Promise<void> {
  let count = 0;
  world.answer = ({ appserviceId, body }) => {
    if (appserviceId === 'b') return OK;
    const events = eventsOf(Buffer.from(body).toString());
    if (events.some((event) => event.includes('"e7"'))) return TOO_LARGE;
    return ++count % 4 === 0 ? rejected(502) : count % 4 === 1 ? DOWN : OK;
  };
  world.routeMany(['a', 'b'], 2);
  await world.advance(500);
  world.routeMany(['a', 'b'], 8);
  await world.advance(5_000);
  world.routeMany(['a'], 1);
  await world.advance(3_000);
}

async function drain(world: DeliveryWorld): Promise<void> {
  world.answer = () => OK;
  await world.advance(20_000);
}

function worldOfTwo(): DeliveryWorld {
  const world = new DeliveryWorld();
  world.put('a');
  world.put('b');
  return world;
}

test('R65 I1 I2 I3 I4 I6 I11 a crash at any point loses nothing, reorders nothing, and repeats at most the transaction in flight', async () => {
  let points = 0;
  for (let at = 1; ; at++) {
    const world = worldOfTwo();
    let passed = 0;
    const process = world.launch({ settings: SMALL, diesAt: () => ++passed === at });
    await scenario(world);
    if (!process.connection.isDead) break;
    points++;
    world.crash(process);
    await world.start({ settings: SMALL });
    await drain(world);
    assert.deepEqual(violations(world, { failovers: 1, isDrained: true }), [], `crash at point ${at}`);
  }
  assert.ok(points > 60, `${points} points`);
});

test('R65 I10 a crash at any point of the recovery from a crash loses nothing either', async () => {
  for (let at = 1; ; at++) {
    const world = worldOfTwo();
    let passed = 0;
    const first = world.launch({ settings: SMALL, diesAt: () => ++passed === 23 });
    await scenario(world);
    world.crash(first);
    let again = 0;
    const second = world.launch({ settings: SMALL, diesAt: () => ++again === at });
    await world.advance(10_000);
    if (!second.connection.isDead) break;
    world.crash(second);
    await world.start({ settings: SMALL });
    await drain(world);
    assert.deepEqual(violations(world, { failovers: 2, isDrained: true }), [], `crash at point ${at}`);
  }
});

for (const lost of ['not_done', 'answer_lost'] satisfies StoreFault[]) {
  test(`R65 one store call ${lost === 'not_done' ? 'that fails' : 'whose answer is lost'}, whichever it is, costs nothing but time`, async () => {
    for (let at = 1; ; at++) {
      const world = worldOfTwo();
      const first = await world.start({ settings: SMALL });
      let calls = 0;
      first.connection.fault = () => (++calls === at ? lost : 'none');
      await scenario(world);
      if (calls < at) {
        assert.ok(at > 30, `${at} calls`);
        break;
      }
      await drain(world);
      assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), [], `${lost} at call ${at}`);
    }
  });
}

test('nothing is pushed while the store does not answer, and what was acknowledged meanwhile counts once it does', async () => {
  const world = worldOfTwo();
  const process = await world.start({ settings: SMALL });
  let down = false;
  process.connection.fault = () => (down ? 'not_done' : 'none');
  world.answer = () => {
    down = true;
    return OK;
  };
  world.routeMany(['a'], 9);
  await world.advance(60_000);
  assert.equal(world.pushes.length, 1);
  assert.equal(world.state('a').deliveredPosition, 1);
  world.answer = () => OK;
  down = false;
  await world.advance(10_000);
  assert.equal(world.pushes.length, 3);
  assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
});

for (const { awayMs, transactions } of [{ awayMs: 30_000, transactions: [1, 1] }, { awayMs: 90_000, transactions: [2] }]) {
  test(`I10 R88 a cut that could not be stored for ${awayMs / 1000} s is ${transactions.length === 1 ? 'made anew, since entries in it may have gone from the log' : 'stored as it is'}`, async () => {
    const world = worldOfTwo();
    const process = await world.start();
    let away = true;
    process.connection.fault = (operation) => (away && operation === 'writeStates' ? 'not_done' : 'none');
    world.routeMany(['a'], 1);
    await world.advance(1_000);
    world.routeMany(['a'], 1);
    await world.advance(awayMs);
    assert.equal(world.pushes.length, 0);
    away = false;
    await world.advance(10_000);
    assert.deepEqual(world.pushes.map(({ text }) => eventsOf(text).length), transactions);
    assert.deepEqual(violations(world, { failovers: 0, isDrained: true }), []);
  });
}

test('a damaged log stops the queue it belongs to, says so, and no other', async () => {
  const world = worldOfTwo();
  world.answer = () => DOWN;
  const process = await world.start({ settings: SMALL });
  world.routeMany(['a', 'b'], 3);
  await world.stop(process);
  const at = world.store.entries.findIndex(({ appserviceIds }) => appserviceIds.includes('a'));
  const damaged = world.store.entries[at];
  assert.ok(damaged);
  world.store.entries[at] = { ...damaged, appserviceIds: ['b'] };
  world.answer = () => OK;
  const again = await world.start({ settings: SMALL });
  await world.advance(20_000);
  assert.equal(world.received('a').length, 0);
  assert.equal(world.received('b').length, 3);
  const status = await again.delivery.status('a');
  assert.equal(status.lastError?.kind, 'store_unreadable');
  assert.ok(world.logged.some(({ level, fields }) => level === 'error' && fields.appservice_id === 'a'));
});

/** Each breaks the router in one way; the checker must see it, or its silence elsewhere means nothing. */
const BROKEN: readonly { name: string; finds: RegExp; options: ProcessOptions }[] = [
  { name: 'a new id on every retry', finds: /I4 NoGapSkip/, options: { breakPush: breaking((request, tries) => ({ ...request, txnId: String(BigInt(request.txnId) + BigInt(tries)) })) } },
  {
    name: 'a new choice on every retry',
    finds: /I3 Frozen/,
    options: { breakPush: breaking((request, tries) => ({ ...request, body: tries === 0 ? request.body : Buffer.from('{"events":[]}') })) },
  },
  {
    name: 'an entry left out by the reader',
    finds: /I1 NoLoss/,
    options: { breakRoutes: (routes) => ({ readRoute: async (...from) => (await routes.readRoute(...from)).filter(({ position }) => position % 5 !== 0) }) },
  },
  {
    name: 'entries read in the wrong order',
    finds: /I2 Order|I1 NoLoss/,
    options: { breakRoutes: (routes) => ({ readRoute: async (...from) => (await routes.readRoute(...from)).map((entry, at, all) => ({ ...entry, json: all[all.length - 1 - at]?.json ?? entry.json })) }) },
  },
];

function breaking(change: (request: Parameters<Push['push']>[0], tries: number) => Parameters<Push['push']>[0]): (push: Push) => Push {
  const tries = new Map<string, number>();
  return (push) => ({
    push(request, signal) {
      const before = tries.get(request.txnId) ?? 0;
      tries.set(request.txnId, before + 1);
      return push.push(change(request, before), signal);
    },
  });
}

for (const { name, finds, options } of BROKEN) {
  test(`control: the checker finds ${name}`, async () => {
    const world = worldOfTwo();
    await world.start({ settings: SMALL, ...options });
    await scenario(world);
    await drain(world);
    assert.match(violations(world, { failovers: 0, isDrained: true }).join('\n'), finds);
  });
}

test('control: the checker finds a completion that is kept in memory only', async () => {
  const world = worldOfTwo();
  const process = await world.start({ settings: SMALL });
  const { store } = world;
  const write = store.writeState.bind(store);
  // The router is told "written", the store forgets it: as if the process had not written at all.
  store.writeState = (connection, state) => (state.deliveredTransactions > 0 && connection === process.name ? 'written' : write(connection, state));
  world.routeMany(['b'], 9);
  await world.quiet();
  world.crash(process);
  await world.start({ settings: SMALL });
  await drain(world);
  assert.match(violations(world, { failovers: 1, isDrained: true }).join('\n'), /I4 NoGapSkip|I6 BoundedDuplicates/);
});

test('control: the checker finds a stale epoch and a position that goes back', async () => {
  const world = worldOfTwo();
  await world.start({ settings: SMALL });
  world.routeMany(['a', 'b'], 3);
  await world.quiet();
  const state = world.state('a');
  const { store } = world;
  store.writeState('p9', { ...state, revision: state.revision + 1, leaseEpoch: 0, deliveredPosition: 0 });
  const found = violations(world, { failovers: 0, isDrained: true }).join('\n');
  assert.match(found, /I5 Fenced/);
  assert.match(found, /I11 Monotone/);
});
