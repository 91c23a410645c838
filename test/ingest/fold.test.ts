import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RoutedGroup } from '../../src/ingest/group-router.ts';
import type { ParsedSubmission } from '../../src/ingest/submission.ts';
import { Upkeep } from '../../src/ingest/upkeep.ts';
import { seededRandom, VirtualClock } from '../support/clock.ts';
import { openLedger, routedIds, silent } from '../support/ledger-world.ts';
import type { LedgerWorld } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { member, registration, submission } from '../support/routing.ts';

const USERS = ['@_irc_a:hs.test', '@_irc_b:hs.test', '@_xmpp_a:hs.test', '@alice:hs.test', '@_irc_far:elsewhere.test', '@_irc_bot:hs.test'];
const ROOMS = ['!one:hs.test', '!two:hs.test', '!three'];

function pick<Item>(items: readonly Item[], next: () => number): Item {
  const item = items[Math.floor(next() * items.length)];
  assert.ok(item !== undefined);
  return item;
}

/** Submissions that join, leave, talk and bring contexts at random; the same seed makes the same ones. */
function randomSubmissions(seed: number, count: number): ParsedSubmission[] {
  const { next } = seededRandom(seed);
  let position = 0;
  return Array.from({ length: count }, (_, at) => {
    const events = Array.from({ length: 1 + Math.floor(next() * 4) }, () => {
      const room = pick(ROOMS, next);
      const id = `$${++position}`;
      if (next() < 0.5) return { id, room, sender: pick(USERS, next), at: position };
      return { ...member(id, pick(USERS, next), pick(['join', 'leave', 'invite', 'ban'], next), room), at: position };
    });
    const rooms =
      next() < 0.3
        ? [{ roomId: pick(ROOMS, next), localMembers: next() < 0.5 ? USERS.filter(() => next() < 0.3) : undefined, localAliases: next() < 0.5 ? ['#irc_x:hs.test'].filter(() => next() < 0.5) : undefined }]
        : [];
    return { ...submission(events), rooms, stream: at % 2 === 0 ? 'even' : 'odd' };
  });
}

function upkeepOf(world: LedgerWorld, log: MemoryLog, delivered: ReadonlyMap<string, number> = new Map()): Upkeep {
  return new Upkeep(
    {
      fold: world.fold,
      ledger: world.ledger,
      store: log,
      clock: new VirtualClock(Date.now() + 1_000_000),
      logger: silent,
      deliveredPositions: () => delivered,
      intervalMs: 1000,
      checkpointIntervalMs: 5000,
      dirtyRoomsMax: 100,
      cutPositions: () => ({ asOfMs: Infinity, positions: new Map<string, number>() }),
      expired: () => undefined,
      ephemeralAgeMaxMs: 300_000,
      trimIntervalMs: 5000,
      retentionMs: 0,
      trimSegmentsMax: 7,
      trimCallsMax: 100,
    },
    0,
  );
}

function roomsOf(world: LedgerWorld): unknown[] {
  return ROOMS.map((room) => {
    const { localMembers, localAliases, partialMembers } = world.fold.rooms.get(room).toStored();
    return [localMembers?.toSorted(), localAliases?.toSorted(), Object.entries(partialMembers).toSorted()];
  });
}

test('a restart at any point, from any checkpoint, decides as a process that never stopped (R40, R65)', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const submissions = randomSubmissions(seed, 60);
    const { next } = seededRandom(seed + 1000);
    const steady = new MemoryLog();
    const restarted = new MemoryLog();
    await using one = await openLedger(steady);
    let other = await openLedger(restarted);
    for (const world of [one, other]) for (const id of ['irc', 'xmpp']) await world.put(registration(id));
    for (const item of submissions) {
      await one.ledger.submit(item);
      await other.ledger.submit(item);
      if (next() < 0.2) await upkeepOf(other, restarted).checkpoint();
      if (next() < 0.2) {
        // Nothing is flushed and nothing is said: as after a kill, but for the positions of unwanted items.
        await other.ledger.flush();
        other = await openLedger(restarted);
      }
    }
    for (const id of ['irc', 'xmpp']) assert.deepEqual(routedIds(restarted, id), routedIds(steady, id), `seed ${seed}`);
    await Promise.all([one, other].map((world) => world.fold.rooms.load(ROOMS)));
    assert.deepEqual(roomsOf(other), roomsOf(one), `seed ${seed}`);
    await other[Symbol.asyncDispose]();
  }
});

test('a group that lost its append leaves no trace in the rooms', async () => {
  for (let seed = 1; seed <= 50; seed++) {
    const log = new MemoryLog();
    await using world = await openLedger(log);
    for (const id of ['irc', 'xmpp']) await world.put(registration(id));
    const submissions = randomSubmissions(seed, 12);
    for (const item of submissions.slice(0, 6)) await world.ledger.submit(item);
    await world.fold.rooms.load(ROOMS);
    const before = roomsOf(world);
    const interested = ROOMS.map((room) => world.fold.rooms.get(room).interested(world.fold.index));
    new RoutedGroup(world.fold, submissions.slice(6)).undo();
    assert.deepEqual(roomsOf(world), before, `seed ${seed}`);
    assert.deepEqual(ROOMS.map((room) => world.fold.rooms.get(room).interested(world.fold.index)), interested, `seed ${seed}`);
  }
});

test('trimming removes what everybody is past and nothing that somebody is owed (I1)', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.put(registration('xmpp'));
  await world.ledger.submit(submission([member('$1', '@_irc_a:hs.test', 'join'), member('$2', '@_xmpp_a:hs.test', 'join', '!x')]));
  for (let n = 0; n < 30; n++) await world.ledger.submit(submission([{ id: `$i${n}` }, { id: `$x${n}`, room: '!x' }]));
  const total = log.segments.length;
  const none = upkeepOf(world, log);
  await none.checkpoint();
  await none.trim();
  assert.equal(log.segments.filter(({ routes }) => routes.length > 0).length, total - 2, 'an appservice whose position is unknown holds everything');
  const half = upkeepOf(world, log, new Map([['irc', world.fold.tail], ['xmpp', 24]]));
  await half.checkpoint();
  await half.trim();
  assert.equal(routedIds(log, 'xmpp').at(0), '$x10', 'the entry at 24 is delivered, the next is not');
  assert.equal(log.segments.at(-1)?.firstPosition, world.fold.tail - 1);
});

test('nothing above the checkpoint is trimmed, since a start replays it', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  for (let n = 0; n < 5; n++) await world.ledger.submit(submission([member(`$${n}`, '@_irc_a:hs.test', n % 2 === 0 ? 'join' : 'leave')]));
  const before = log.segments.length;
  await upkeepOf(world, log, new Map([['irc', world.fold.tail]])).trim();
  assert.equal(log.segments.length, before);
});

test('a checkpoint that fails is made up for by the next', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([member('$1', '@_irc_a:hs.test', 'join')]));
  const upkeep = upkeepOf(world, log);
  log.isDown = true;
  await assert.rejects(upkeep.checkpoint());
  log.isDown = false;
  await upkeep.checkpoint();
  const fold = await log.loadFold();
  assert.deepEqual([fold.checkpoint.position, fold.registrations.length], [2, 1]);
  const [room] = await log.loadRooms('hs.test', ['!r:hs.test']);
  assert.deepEqual(room, { roomId: '!r:hs.test', position: 2, localMembers: null, localAliases: null, partialMembers: { '@_irc_a:hs.test': true } });
});

test('R76 a start after a checkpoint that was cut off between its parts finds the lives of the registrations as they were', async () => {
  const log = new MemoryLog();
  const world = await openLedger(log);
  const since = await world.put(registration('irc'));
  await upkeepOf(world, log).checkpoint();
  await world.put(registration('irc', { rate_limited: false }));
  await world.ledger.changeRegistrations(() => [{ kind: 'removed', appserviceId: 'irc', backlog: 'park' }]);
  const saved = world.fold.takeChangedRegistrations();
  await log.saveFold('hs.test', { rooms: [], registrations: saved, checkpoint: { position: 0, streamPositions: {}, registrationsVersion: 0 } });
  await world[Symbol.asyncDispose]();
  await using restarted = await openLedger(log);
  const found = restarted.fold.registrations.get('irc');
  assert.deepEqual([found?.registration, found?.backlog, found?.since], [null, 'park', since]);
});

test('rooms beyond the limit are forgotten only when the store has them', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  for (let n = 0; n < 1500; n += 100) {
    await world.ledger.submit(submission(Array.from({ length: 100 }, (_, at) => member(`$${n + at}`, '@_irc_a:hs.test', 'join', `!${n + at}`))));
  }
  assert.equal(world.fold.rooms.size, 1500);
  await upkeepOf(world, log).checkpoint();
  await world.ledger.submit(submission([{ id: '$last', room: '!1' }]));
  assert.equal(world.fold.rooms.size, 1000);
  const again = await world.ledger.submit(submission([{ id: '$again', room: '!0' }, { id: '$more', room: '!700' }]));
  assert.equal(again.routed, 2);
});
