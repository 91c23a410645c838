/** Submissions of one call stand in order: after a refusal none is taken over, or the refused one would be a duplicate when it is sent again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CallOrder } from '../../src/appservice/call-order.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { StoreError } from '../../src/store/errors.ts';
import { settle, VirtualClock } from '../support/clock.ts';
import { openLedger, routedIds } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import type { AppendFault } from '../support/memory-store.ts';
import { member, registration, submission } from '../support/routing.ts';

const JOIN = { ...member('$1', '@_irc_a:hs.test', 'join'), at: 1 };
const outcomeOf = (answer: Promise<unknown>): Promise<unknown> => answer.then(() => 'taken', (error: unknown) => error);

test('I1 what does not fit into the queue keeps out what follows in its call, and nothing else', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log, { queueBytesMax: 1000 });
  await world.put(registration('irc'));
  await world.ledger.submit(submission([JOIN]));
  const gate = Promise.withResolvers<AppendFault>();
  log.beforeAppend = () => gate.promise;
  const order = new CallOrder();
  const first = outcomeOf(world.ledger.submit(submission([{ id: '$2', at: 2 }], { place: order.nextPlace() })));
  await settle();
  const second = outcomeOf(world.ledger.submit(submission([{ id: '$3', at: 3 }], { place: order.nextPlace() })));
  const tooMuch = submission([{ id: `$4${'x'.repeat(1000)}`, at: 4 }]);
  const refused = outcomeOf(world.ledger.submit({ ...tooMuch, place: order.nextPlace() }));
  const after = outcomeOf(world.ledger.submit(submission([{ id: '$5', at: 5 }], { place: order.nextPlace() })));
  const other = outcomeOf(world.ledger.submit(submission([{ id: '$other', at: 1 }], { stream: 'other' })));
  gate.resolve('none');
  const [reason] = await Promise.all([refused, first, second]);
  assert.ok(reason instanceof RefusalError && reason.reason === 'QUEUE_FULL');
  assert.equal(await after, reason);
  assert.deepEqual([await first, await second, await other], ['taken', 'taken', 'taken']);
  assert.equal((await world.ledger.submit(tooMuch)).accepted, 1);
});

test('I1 what waited too long for a slow log keeps out what its call sends next', async () => {
  const log = new MemoryLog();
  const clock = new VirtualClock();
  await using world = await openLedger(log, {}, clock);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([JOIN]));
  const gate = Promise.withResolvers<AppendFault>();
  log.beforeAppend = () => gate.promise;
  const order = new CallOrder();
  const hanging = outcomeOf(world.ledger.submit(submission([{ id: '$2', at: 2 }], { place: order.nextPlace() })));
  await settle();
  const waiting = outcomeOf(world.ledger.submit(submission([{ id: '$3', at: 3 }], { place: order.nextPlace() })));
  await clock.advance(1250);
  const next = outcomeOf(world.ledger.submit(submission([{ id: '$4', at: 4 }], { place: order.nextPlace() })));
  gate.resolve('none');
  log.beforeAppend = () => 'none';
  for (const outcome of [await hanging, await waiting, await next]) assert.ok(outcome instanceof StoreError);
  for (const at of [2, 3, 4]) await world.ledger.submit(submission([{ id: `$${at}`, at }]));
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2', '$3', '$4']);
});

test('R77 I7 a rewound submission keeps out what its call sends while its refusal is on its way', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([JOIN]));
  const gate = Promise.withResolvers<void>();
  const readSegments = log.readSegments.bind(log);
  log.readSegments = async (...args) => {
    await gate.promise;
    return readSegments(...args);
  };
  const order = new CallOrder();
  const rewound = outcomeOf(world.ledger.submit(submission([{ id: '$new', at: 1 }], { place: order.nextPlace() })));
  await settle();
  const behind = outcomeOf(world.ledger.submit(submission([{ id: '$newer', at: 2 }], { place: order.nextPlace() })));
  gate.resolve();
  const outcomes = await Promise.all([rewound, behind]);
  for (const outcome of outcomes) assert.ok(outcome instanceof RefusalError && outcome.reason === 'STREAM_POSITION_REWOUND');
  assert.deepEqual(routedIds(log, 'irc'), ['$1']);
});

test('R77 a rewound submission keeps out those of its call that share its group', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([JOIN]));
  const order = new CallOrder();
  const outcomes = await Promise.all([
    outcomeOf(world.ledger.submit(submission([{ id: '$new', at: 1 }], { place: order.nextPlace() }))),
    outcomeOf(world.ledger.submit(submission([{ id: '$newer', at: 2 }], { place: order.nextPlace() }))),
  ]);
  for (const outcome of outcomes) assert.ok(outcome instanceof RefusalError && outcome.reason === 'STREAM_POSITION_REWOUND');
  assert.deepEqual(routedIds(log, 'irc'), ['$1']);
});
