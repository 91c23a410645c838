import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seenIdOf, SeenIds, textFromSeenIds } from '../../src/ingest/seen-ids.ts';
import type { SeenId } from '../../src/ingest/seen-ids.ts';
import type { SeenPage } from '../../src/store/port.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { openLedger, routedIds } from '../support/ledger-world.ts';
import type { LedgerWorld } from '../support/ledger-world.ts';
import { member, registration, submission } from '../support/routing.ts';
import type { EventFields } from '../support/routing.ts';
import type { SubmissionResult } from '../../src/ingest/submission.ts';

const EVERYTHING = { namespaces: { users: [], aliases: [], rooms: [{ regex: '!r.*', exclusive: false }] } };

function take({ ledger }: LedgerWorld, events: readonly EventFields[]): Promise<SubmissionResult> {
  return ledger.submit(submission(events, { ids: { events: events.map(({ id }) => seenIdOf(id)), others: undefined } }));
}

/** Ids from 1 upward, settled in runs. */
function settle(seen: SeenIds, from: number, count: number): void {
  for (let first = from; first < from + count; first += 1_000) {
    seen.settle(textFromSeenIds(Array.from({ length: Math.min(1_000, from + count - first) }, (_, at): SeenId => BigInt(first + at))));
  }
}

test('I7 an event counts once by its id, in one submission, in several, and in one group', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc', EVERYTHING));
  const results = await Promise.all([take(world, [{ id: '$a' }, { id: '$a' }, { id: '$b' }]), take(world, [{ id: '$b' }, { id: '$c' }])]);
  assert.deepEqual(results.map(({ accepted, duplicates }) => [accepted, duplicates]), [[2, 1], [1, 1]]);
  assert.equal((await take(world, [{ id: '$c' }])).duplicates, 1);
  assert.deepEqual(routedIds(log, 'irc'), ['$a', '$b', '$c']);
});

test('I7 ids are known after a kill, from the log and from a checkpoint', async () => {
  const log = new MemoryLog();
  {
    await using world = await openLedger(log);
    await world.put(registration('irc', EVERYTHING));
    await take(world, [{ id: '$a' }]);
    await log.saveFold('hs.test', { rooms: [], registrations: world.fold.takeChangedRegistrations(), seenPages: world.fold.seen.beginSave(world.fold.tail), checkpoint: { position: world.fold.tail, streamPositions: {}, registrationsVersion: 1 } });
    await take(world, [{ id: '$b' }]);
  }
  await using again = await openLedger(log);
  assert.deepEqual((await take(again, [{ id: '$a' }, { id: '$b' }, { id: '$c' }])).duplicates, 2);
  assert.deepEqual(routedIds(log, 'irc'), ['$a', '$b', '$c']);
});

test('I7 of two replicas that are sent the same event at once one takes it', async () => {
  const log = new MemoryLog();
  await using one = await openLedger(log);
  await one.put(registration('irc', EVERYTHING));
  await using other = await openLedger(log);
  const held = Promise.withResolvers<'none'>();
  let appends = 0;
  // Both have routed the event as new before either is written.
  log.beforeAppend = () => {
    if (++appends === 2) held.resolve('none');
    return held.promise;
  };
  const results = await Promise.all([take(one, [{ id: '$a' }]), take(other, [{ id: '$a' }])]);
  assert.deepEqual(results.map(({ accepted }) => accepted).sort(), [0, 1]);
  assert.deepEqual(routedIds(log, 'irc'), ['$a']);
});

test('ids of what nobody wants cost no write of their own, and are in the log after the next flush', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc', EVERYTHING));
  const before = log.segments.length;
  await take(world, [{ id: '$x', room: '!other' }]);
  assert.equal(log.segments.length, before);
  assert.equal((await take(world, [{ id: '$x', room: '!other' }])).duplicates, 1);
  await world.ledger.flush();
  await using again = await openLedger(log);
  assert.equal((await take(again, [{ id: '$x', room: '!other' }])).duplicates, 1);
});

test('R40 an old membership that comes again does not bring back who has left', async () => {
  const log = new MemoryLog();
  const irc = registration('irc', { namespaces: { users: [{ regex: '@ghost:.*', exclusive: true }], aliases: [], rooms: [] } });
  {
    await using world = await openLedger(log);
    await world.put(irc);
    await take(world, [member('$join', '@ghost:hs.test', 'join'), member('$rename', '@ghost:hs.test', 'join')]);
    await take(world, [member('$leave', '@ghost:hs.test', 'leave')]);
  }
  await using again = await openLedger(log);
  await take(again, [member('$join', '@ghost:hs.test', 'join'), member('$rename', '@ghost:hs.test', 'join')]);
  await take(again, [{ id: '$after' }]);
  assert.deepEqual(routedIds(log, 'irc'), ['$join', '$rename', '$leave']);
});

test('the newest half million ids at least are known, the oldest are forgotten, and a store gives back the same', () => {
  const seen = new SeenIds();
  const store = new Map<number, SeenPage>();
  const save = (): void => {
    for (const page of seen.beginSave(1)) store.set(page.slot, page);
    seen.saved(true);
  };
  const count = 1_700_000;
  for (let from = 1; from <= count; from += 100_000) {
    settle(seen, from, 100_000);
    save();
  }
  const restored = new SeenIds();
  restored.restore([...store.values()]);
  for (const each of [seen, restored]) {
    assert.ok(each.has(BigInt(count)));
    assert.ok(each.has(BigInt(count - 524_288)));
    assert.ok(!each.has(1n));
  }
  // Both go on alike.
  for (const each of [seen, restored]) settle(each, count + 1, 10_000);
  const pages = [...store.values()].reduce((most, { page }) => Math.max(most, page), 0);
  const grown = [seen, restored].map((each) => each.beginSave(2).map(({ page, ids }) => [page, Buffer.from(ids).toString('hex')]));
  assert.deepEqual(grown[0], grown[1]);
  assert.ok((grown[0] ?? []).every(([page]) => Number(page) >= pages));
  assert.ok(store.size <= 256);
});

test('I7 a save that a crash cut short, and the replay after it, come to the same pages', () => {
  const whole = new SeenIds();
  settle(whole, 1, 9_000);
  const ahead = whole.beginSave(9);
  const replayed = new SeenIds();
  replayed.restore(ahead.slice(0, 2));
  settle(replayed, 1, 9_000);
  assert.deepEqual(replayed.beginSave(9).at(-1), ahead.at(-1));
  for (const id of [1n, 5_000n, 9_000n]) assert.ok(replayed.has(id));
});

test('a save that failed is repeated with what came since', () => {
  const seen = new SeenIds();
  settle(seen, 1, 10);
  assert.equal(seen.beginSave(1)[0]?.ids.byteLength, 80);
  settle(seen, 11, 10);
  seen.saved(false);
  assert.equal(seen.beginSave(2)[0]?.ids.byteLength, 160);
  seen.saved(true);
  assert.deepEqual(seen.beginSave(3), []);
});
