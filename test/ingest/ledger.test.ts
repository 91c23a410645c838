import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { StoreError } from '../../src/store/errors.ts';
import { settle, VirtualClock } from '../support/clock.ts';
import { openLedger, routedIds } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import type { AppendFault } from '../support/memory-store.ts';
import { member, plainStored, registration, submission } from '../support/routing.ts';

const isRefusal = (reason: string) => (error: unknown) => error instanceof RefusalError && error.reason === reason;
const isStoreError = (kind: string) => (error: unknown) => error instanceof StoreError && error.kind === kind;

test('answers with positions and counts after the wanted events are in the log, in order', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  const result = await world.ledger.submit(submission([{ ...member('$1', '@_irc_a:hs.test', 'join'), at: 5 }, { id: '$2', at: 6 }, { id: '$3', room: '!other:hs.test', at: 7 }]));
  assert.deepEqual(result, { accepted: 3, duplicates: 0, routed: 2, streamPosition: 7, logPosition: 3, wantedRoomIds: ['!r:hs.test', '!other:hs.test'] });
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2']);
});

test('I7 skips what lies at or below the durable position, item by item, however it is divided anew', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  const events = [{ ...member('$1', '@_irc_a:hs.test', 'join'), at: 1 }, { id: '$2', at: 2 }, { id: '$3', at: 3 }, { id: '$4', at: 4 }];
  await world.ledger.submit(submission(events.slice(0, 2)));
  const again = await world.ledger.submit(submission(events.slice(1)));
  assert.deepEqual([again.accepted, again.duplicates], [2, 1]);
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2', '$3', '$4']);
});

test('several items of one request may share a position', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  const result = await world.ledger.submit(submission([{ ...member('$1', '@_irc_a:hs.test', 'join'), at: 1 }, { id: '$2', at: 1 }]));
  assert.equal(result.accepted, 2);
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2']);
});

test('R77 refuses a position that was taken over with another event and applies nothing of the request', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([{ ...member('$1', '@_irc_a:hs.test', 'join'), at: 10 }]));
  await assert.rejects(world.ledger.submit(submission([{ id: '$new', at: 10 }, { id: '$newer', at: 11 }])), isRefusal('STREAM_POSITION_REWOUND'));
  assert.deepEqual(routedIds(log, 'irc'), ['$1']);
  assert.equal((await world.ledger.submit(submission([{ id: '$11', at: 11 }]))).accepted, 1);
});

test('joins everything that waits into one append while another is outstanding', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([member('$join', '@_irc_a:hs.test', 'join')]));
  const gate = Promise.withResolvers<AppendFault>();
  log.beforeAppend = () => gate.promise;
  const first = world.ledger.submit(submission([{ id: '$0' }]));
  await settle();
  const others = Array.from({ length: 50 }, (_, at) => world.ledger.submit(submission([{ id: `$w${at}` }])));
  await settle();
  const before = log.appends;
  gate.resolve('none');
  await Promise.all([first, ...others]);
  assert.equal(log.appends, before + 1);
  assert.deepEqual(routedIds(log, 'irc').slice(1), ['$0', ...Array.from({ length: 50 }, (_, at) => `$w${at}`)]);
});

test('does not append what nobody wants; its position becomes durable with a flush', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  const result = await world.ledger.submit(submission([{ id: '$1', at: 9 }]));
  assert.equal(result.streamPosition, 9);
  assert.equal(log.segments.length, 0);
  await world.ledger.flush();
  assert.deepEqual(log.segments.map(({ entries, streamPositions }) => [entries.map(({ kind }) => kind), streamPositions['']]), [[['mark'], 9]]);
});

test('a drain makes the positions durable that ran ahead and refuses what comes later', async () => {
  const log = new MemoryLog();
  const world = await openLedger(log);
  await world.ledger.submit(submission([{ id: '$1', at: 9 }]));
  await world[Symbol.asyncDispose]();
  assert.equal(log.segments.at(-1)?.streamPositions[''], 9);
  await assert.rejects(world.ledger.submit(submission([{ id: '$2' }])), isRefusal('DRAINING'));
});

test('of two writers with one tail one wins, the other folds it and routes its own group anew on what it learnt', async () => {
  const log = new MemoryLog();
  await using a = await openLedger(log);
  await using b = await openLedger(log);
  await a.put(registration('irc'));
  // b knows neither the registration nor the join; both matter for its own event.
  await a.ledger.submit(submission([{ ...member('$join', '@_irc_a:hs.test', 'join'), at: 1 }]));
  const result = await b.ledger.submit(submission([member('$join2', '@bob:hs.test', 'join'), { id: '$hello' }], { stream: 'b' }));
  assert.equal(result.routed, 2);
  assert.deepEqual(routedIds(log, 'irc'), ['$join', '$join2', '$hello']);
});

test('a hint of what another appended has it folded at once; one of what is known asks the log for nothing', async () => {
  const log = new MemoryLog();
  await using one = await openLedger(log);
  await using two = await openLedger(log);
  await one.put(registration('irc'));
  two.ledger.appendedElsewhere(1);
  await two.ledger.betweenGroups(() => undefined);
  await settle();
  assert.deepEqual(two.folded.map(({ firstPosition }) => firstPosition), [1]);
  let reads = 0;
  const readSegments = log.readSegments.bind(log);
  log.readSegments = (...args) => (reads++, readSegments(...args));
  two.ledger.appendedElsewhere(1);
  await two.ledger.betweenGroups(() => undefined);
  assert.equal(reads, 0);
});

test('two writers racing for long leave no hole, lose nothing and keep the order of each', async () => {
  const log = new MemoryLog();
  log.beforeAppend = async (): Promise<AppendFault> => {
    await settle(1);
    return 'none';
  };
  await using a = await openLedger(log);
  await using b = await openLedger(log);
  await a.put(registration('irc'));
  await a.ledger.submit(submission([member('$join', '@_irc_a:hs.test', 'join')]));
  const writes = [a, b].map(async ({ ledger }, who) => {
    for (let n = 1; n <= 100; n++) await ledger.submit(submission([{ id: `$${who}-${n}`, at: n }], { stream: `s${who}` }));
  });
  await Promise.all(writes);
  const routed = routedIds(log, 'irc').slice(1);
  assert.equal(routed.length, 200);
  for (const who of [0, 1]) assert.deepEqual(routed.filter((id) => id.startsWith(`$${who}-`)), Array.from({ length: 100 }, (_, n) => `$${who}-${n + 1}`));
  log.segments.reduce((next, { firstPosition, entries }) => (assert.equal(firstPosition, next), firstPosition + entries.length), 1);
});

for (const fault of ['answer_lost', 'not_done'] as const) {
  test(`I1 I7 a caller that repeats after an append ended with "${fault}" has its events in the log exactly once`, async () => {
    const log = new MemoryLog();
    await using world = await openLedger(log, { catchUpIntervalMs: 1 });
    await world.put(registration('irc'));
    await world.ledger.submit(submission([{ ...member('$1', '@_irc_a:hs.test', 'join'), at: 1 }]));
    let faults = 1;
    log.beforeAppend = () => (faults-- > 0 ? fault : 'none');
    const events = submission([{ id: '$2', at: 2 }, { ...member('$3', '@_irc_a:hs.test', 'leave'), at: 3 }, { id: '$4', at: 4 }]);
    await assert.rejects(world.ledger.submit(events), isStoreError('unavailable'));
    while (!world.ledger.isFollowing) await settle(1);
    await world.ledger.submit(events);
    assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2', '$3']);
    assert.deepEqual(world.folded.flatMap(({ firstPosition }) => firstPosition), log.segments.map(({ firstPosition }) => firstPosition));
  });
}

test('what the store has no room for is refused alone; what fits goes on, in its order', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  log.beforeAppend = ({ entries }) => (entries.length > 2 ? 'no_room' : 'none');
  const events = [member('$1', '@_irc_a:hs.test', 'join'), { id: '$2' }, { id: '$3' }];
  await assert.rejects(world.ledger.submit(submission(events.map((event, at) => ({ ...event, at: at + 1 })))), isStoreError('exhausted'));
  assert.equal(world.ledger.isFollowing, true);
  assert.equal((await world.ledger.submit(submission(events.slice(0, 2).map((event, at) => ({ ...event, at: at + 1 }))))).routed, 2);
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2']);
});

test('a group that is routed too widely for one segment is divided, and each caller has its answer', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log, { groupRoutedMax: 3 });
  await world.put(registration('irc'));
  await world.ledger.submit(submission([member('$join', '@_irc_a:hs.test', 'join')]));
  const results = await Promise.all(Array.from({ length: 10 }, (_, at) => world.ledger.submit(submission([{ id: `$${at}`, at: at + 1 }]))));
  assert.deepEqual(results.map(({ streamPosition }) => streamPosition), Array.from({ length: 10 }, (_, at) => at + 1));
  assert.deepEqual(routedIds(log, 'irc').slice(1), Array.from({ length: 10 }, (_, at) => `$${at}`));
  assert.ok(log.segments.every(({ entries }) => entries.length <= 3));
});

test('refuses at once while the log cannot be reached and takes up again when it can', async () => {
  const log = new MemoryLog();
  const clock = new VirtualClock();
  await using world = await openLedger(log, {}, clock);
  await world.put(registration('irc'));
  log.isDown = true;
  await assert.rejects(world.ledger.submit(submission([member('$1', '@_irc_a:hs.test', 'join')])), isStoreError('unavailable'));
  await assert.rejects(world.ledger.submit(submission([{ id: '$2' }])), isStoreError('unavailable'));
  const appends = log.appends;
  log.isDown = false;
  await clock.advance(100);
  assert.equal(world.ledger.isFollowing, true);
  assert.equal((await world.ledger.submit(submission([member('$1', '@_irc_a:hs.test', 'join')]))).routed, 1);
  assert.equal(log.appends, appends + 1);
});

test('the append of what waits goes out before the last group is announced and answered, in order and whatever comes of it', async () => {
  for (const fault of ['none', 'answer_lost', 'not_done', 'no_room'] satisfies AppendFault[]) {
    const log = new MemoryLog();
    await using world = await openLedger(log);
    await world.put(registration('irc'));
    await world.ledger.submit(submission([member('$join', '@_irc_a:hs.test', 'join')]));
    const told: string[] = [];
    const announced = world.folded.length;
    const gates = [Promise.withResolvers<AppendFault>(), Promise.withResolvers<AppendFault>()];
    log.beforeAppend = () => {
      told.push(`append after ${world.folded.length - announced} announced`);
      return gates.shift()?.promise ?? 'none';
    };
    const [one, other] = gates;
    const first = world.ledger.submit(submission([{ id: '$1' }])).then(() => told.push('first'));
    await settle();
    const second = world.ledger.submit(submission([{ id: '$2' }])).then(() => told.push('second'), () => told.push('refused'));
    await settle();
    one?.resolve('none');
    await first;
    assert.deepEqual(told, ['append after 0 announced', 'append after 0 announced', 'first'], 'the first caller does not wait for the second append');
    assert.equal(world.folded.length - announced, 1);
    other?.resolve(fault);
    await second;
    assert.equal(told.at(-1), fault === 'none' ? 'second' : 'refused');
  }
});

test('answers callers within the time limit while an append hangs, and folds the append when it ends', async () => {
  const log = new MemoryLog();
  const clock = new VirtualClock();
  await using world = await openLedger(log, {}, clock);
  await world.put(registration('irc'));
  const gate = Promise.withResolvers<AppendFault>();
  log.beforeAppend = () => gate.promise;
  const events = submission([{ ...member('$1', '@_irc_a:hs.test', 'join'), at: 1 }]);
  const hanging = assert.rejects(world.ledger.submit(events), isStoreError('unavailable'));
  await settle();
  const queued = assert.rejects(world.ledger.submit(submission([{ id: '$2', at: 2 }])), isStoreError('unavailable'));
  await clock.advance(1250);
  await hanging;
  await queued;
  gate.resolve('none');
  log.beforeAppend = () => 'none';
  const again = await world.ledger.submit(events);
  assert.deepEqual([again.accepted, again.duplicates], [0, 1]);
  assert.deepEqual(routedIds(log, 'irc'), ['$1']);
});

test('a full queue is refused with the time to wait, and what waited is kept', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log, { queueItemsMax: 2 });
  await world.put(registration('irc'));
  const gate = Promise.withResolvers<AppendFault>();
  log.beforeAppend = () => gate.promise;
  const taken = world.ledger.submit(submission([member('$1', '@_irc_a:hs.test', 'join')]));
  await settle();
  const waiting = [world.ledger.submit(submission([{ id: '$2' }])), world.ledger.submit(submission([{ id: '$3' }]))];
  await assert.rejects(world.ledger.submit(submission([{ id: '$4' }])), (error) => error instanceof RefusalError && error.reason === 'QUEUE_FULL' && error.details.retryDelayMs === 1000);
  gate.resolve('none');
  await Promise.all([taken, ...waiting]);
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2', '$3']);
});

test('R40 a registration takes effect between two events, without restart, for members who joined long before', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.ledger.submit(submission([member('$join', '@_irc_a:hs.test', 'join')]));
  const before = world.ledger.submit(submission([{ id: '$before' }]));
  const put = world.put(registration('irc'));
  const after = world.ledger.submit(submission([{ id: '$after' }]));
  await Promise.all([before, put, after]);
  assert.deepEqual(routedIds(log, 'irc'), ['$after']);
});

test('R76 a removed id that is put again begins a new life unless it resumes what was parked', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  const since = await world.put(registration('irc'));
  await world.ledger.changeRegistrations(() => [{ kind: 'removed', appserviceId: 'irc', backlog: 'park' }]);
  assert.deepEqual([world.fold.registrations.get('irc')?.registration, world.fold.registrations.get('irc')?.backlog], [null, 'park']);
  await world.ledger.changeRegistrations(() => [{ kind: 'put', appserviceId: 'irc', registration: plainStored(registration('irc')), resumeParked: true }]);
  assert.equal(world.fold.registrations.get('irc')?.since, since);
  await world.ledger.changeRegistrations(() => [{ kind: 'removed', appserviceId: 'irc', backlog: 'discard' }]);
  const anew = await world.put(registration('irc'));
  assert.equal(world.fold.registrations.get('irc')?.since, anew);
});

test('a plan that refuses changes nothing and the loop goes on', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await assert.rejects(
    world.ledger.changeRegistrations(() => {
      throw new RefusalError('REGISTRATION_CONFLICT', 'no');
    }),
    isRefusal('REGISTRATION_CONFLICT'),
  );
  assert.equal(log.segments.length, 0);
  assert.equal((await world.ledger.submit(submission([{ id: '$1' }]))).accepted, 1);
});

test('more streams than the limit are refused', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log, { streamsMax: 1 });
  await world.ledger.submit(submission([{ id: '$1', at: 1 }], { stream: 'one' }));
  await assert.rejects(world.ledger.submit(submission([{ id: '$2', at: 1 }], { stream: 'two' })), isRefusal('INVALID_FIELD'));
});
