/** Events that wait until an appservice has been asked about an unknown user: what waits, and what becomes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HOLD_BYTES_MAX, HOLD_ENTRIES_MAX, HOLD_USERS_MAX, HOLDS_BYTES_MAX, HOLDS_MAX } from '../../src/ingest/holds.ts';
import { StoreError } from '../../src/store/errors.ts';
import { everywhere, GHOST, holdOf, invite, openHolds, release, unknowing, upkeepOf } from '../support/holds-world.ts';
import { systemClock } from '../../src/clock.ts';
import { openLedger, routedIds } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import type { AppendFault } from '../support/memory-store.ts';
import { member, registration, submission } from '../support/routing.ts';

test('M5 R110 R119 I8 an event that concerns an unknown user waits for its appservice, with what follows in that room, and for nothing else', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(everywhere('irc'));
  await world.put(everywhere('xmpp'));
  const answer = await world.ledger.submit(unknowing([{ id: '$before', room: '!a', at: 1 }, { ...invite('$invite', '!a'), at: 2 }, { id: '$behind', room: '!a', at: 3 }, { id: '$other', room: '!b', at: 4 }]));
  assert.deepEqual([answer.accepted, answer.routed, answer.streamPosition, answer.logPosition], [4, 8, 4, 6], 'the answer does not wait');
  await world.ledger.submit(submission([{ id: '$later', room: '!a', at: 5 }, { id: '$elsewhere', room: '!b', at: 6 }]));
  assert.deepEqual(routedIds(log, 'irc'), ['$before', '$other', '$elsewhere']);
  assert.deepEqual(routedIds(log, 'xmpp'), ['$before', '$invite', '$behind', '$other', '$later', '$elsewhere']);
  assert.deepEqual(openHolds(world), [['irc', '!a', [GHOST], 3]]);

  await release(world, 'irc', '!a');
  await world.ledger.submit(submission([{ id: '$last', room: '!a', at: 7 }]));
  assert.deepEqual(routedIds(log, 'irc'), ['$before', '$other', '$elsewhere', '$invite', '$behind', '$later', '$last']);
  assert.deepEqual(routedIds(log, 'xmpp').slice(6), ['$last'], 'nobody else gets it again');
  assert.deepEqual([openHolds(world), world.fold.holds.bytes, world.fold.holds.entryCount], [[], 0, 0]);
});

test('M5 an unknown sender is asked about as well; remote users, sender users and what nobody claims are not (R111, R113)', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(everywhere('irc'));
  const users = ['@alice:hs.test', '@_irc_bot:hs.test', '@_irc_far:elsewhere.test', GHOST];
  await world.ledger.submit(unknowing(users.map((sender, at) => ({ id: `$${at}`, room: `!${at}`, sender })), users));
  assert.deepEqual(openHolds(world), [['irc', '!3', [GHOST], 1]]);
  await world.ledger.submit(unknowing([{ id: '$mentions', room: '!4', type: 'm.room.message', sender: '@alice:hs.test', stateKey: GHOST }]));
  assert.deepEqual(openHolds(world).length, 1, 'only a membership has a target');
});

test('M5 each appservice that claims the user waits for itself (I8), and one without a url for nothing', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  const users = [{ regex: '@_irc_.*', exclusive: false }];
  for (const [id, url] of [['irc', undefined], ['twin', undefined], ['mute', null]] as const) await world.put(registration(id, { namespaces: { users, aliases: [], rooms: [] }, ...(url === null ? { url } : {}) }));
  await world.ledger.submit(unknowing([invite('$invite', '!a')]));
  assert.deepEqual(openHolds(world), [['irc', '!a', [GHOST], 1], ['twin', '!a', [GHOST], 1]]);
  await release(world, 'twin', '!a');
  assert.deepEqual([routedIds(log, 'irc'), routedIds(log, 'twin'), openHolds(world).length], [[], ['$invite'], 1]);
});

test('R114 an appservice that has answered lately is not asked again, but what waits already keeps its place', async () => {
  const log = new MemoryLog();
  const answered = new Set<string>();
  await using world = await openLedger(log, {}, systemClock, { answers: { isAnswered: (appserviceId, userId) => answered.has(`${appserviceId} ${userId}`) } });
  await world.put(everywhere('irc'));
  await world.ledger.submit(unknowing([invite('$1', '!a')]));
  answered.add(`irc ${GHOST}`);
  await world.ledger.submit(unknowing([invite('$2', '!a'), invite('$3', '!b')]));
  assert.deepEqual([routedIds(log, 'irc'), openHolds(world)], [['$3'], [['irc', '!a', [GHOST], 2]]]);
});

test('I7 a request sent again does not wait twice', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(everywhere('irc'));
  const events = [{ ...invite('$1', '!a'), at: 1 }, { id: '$2', room: '!a', at: 2 }];
  await world.ledger.submit(unknowing(events));
  assert.equal((await world.ledger.submit(unknowing([...events, { id: '$3', room: '!a', at: 3 }]))).duplicates, 2);
  await release(world, 'irc', '!a');
  assert.deepEqual((await world.ledger.submit(unknowing(events))).duplicates, 2);
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2', '$3']);
});

test('M5 a release that finds a further user leaves the room waiting', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(everywhere('irc'));
  await world.ledger.submit(unknowing([invite('$1', '!a')]));
  const hold = holdOf(world, 'irc', '!a');
  const more = world.ledger.submit(unknowing([invite('$2', '!a', '@_irc_second:hs.test')], ['@_irc_second:hs.test']));
  await world.ledger.release(hold, () => hold.userIds.size === 1);
  await more;
  assert.deepEqual([openHolds(world), routedIds(log, 'irc')], [[['irc', '!a', [GHOST, '@_irc_second:hs.test'], 2]], []]);
  await world.ledger.release(hold, () => hold.userIds.size === 2);
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2']);
});

for (const kind of ['events', 'bytes', 'users', 'rooms', 'bytes of all'] as const) {
  test(`I1 I2 more ${kind} than may wait: what waits is routed, then the rest without a question, and that is told`, async () => {
    const log = new MemoryLog();
    let unasked = 0;
    await using world = await openLedger(log, {}, systemClock, { unasked: (count) => void (unasked += count) });
    await world.put(everywhere('irc'));
    const pad = 'x'.repeat(Math.ceil(HOLD_BYTES_MAX / 20));
    const user = (at: number): string => `@_irc_${at}:hs.test`;
    const [count, roomOf, userOf, sizes] = {
      events: [HOLD_ENTRIES_MAX + 1, () => '!a', () => GHOST, ''] as const,
      bytes: [20, () => '!a', () => GHOST, pad] as const,
      users: [HOLD_USERS_MAX + 1, () => '!a', user, ''] as const,
      rooms: [HOLDS_MAX + 1, (at: number) => `!${at}`, () => GHOST, ''] as const,
      'bytes of all': [Math.ceil(HOLDS_BYTES_MAX / pad.length), (at: number) => `!${at}`, () => GHOST, pad] as const,
    }[kind];
    const ids: string[] = [];
    for (let at = 0; at < count; at++) {
      const id = `$${at}${sizes}`;
      ids.push(id);
      await world.ledger.submit(unknowing([invite(id, roomOf(at), userOf(at))], [userOf(at)]));
    }
    assert.ok(unasked >= 1, 'it is told');
    const inOneRoom = roomOf(0) === roomOf(1);
    assert.deepEqual(routedIds(log, 'irc'), inOneRoom ? ids : ids.slice(-unasked));
    assert.equal(world.fold.holds.count, inOneRoom ? 0 : count - unasked);
    for (const hold of [...world.fold.holds.all()]) await world.ledger.release(hold, () => true);
    assert.deepEqual(routedIds(log, 'irc').sort(), ids.sort());
  });
}

for (const before of [0, HOLD_ENTRIES_MAX - 1]) test(`the room of one group can fill up, be released and wait again, all in order, with ${before} that wait before`, async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(everywhere('irc'));
  const ids = Array.from({ length: HOLD_ENTRIES_MAX + 10 }, (_, at) => `$${at}`);
  if (before > 0) await world.ledger.submit(unknowing(ids.slice(0, before).map((id) => invite(id, '!a'))));
  await world.ledger.submit(unknowing(ids.slice(before).map((id) => invite(id, '!a'))));
  assert.deepEqual(openHolds(world), [['irc', '!a', [GHOST], 9]]);
  assert.deepEqual(routedIds(log, 'irc'), ids.slice(0, HOLD_ENTRIES_MAX + 1));
  await release(world, 'irc', '!a');
  assert.deepEqual(routedIds(log, 'irc'), ids);
});

test('a registration that is removed, or loses its url, takes what waits into its queue first; another change leaves it waiting', async () => {
  for (const change of ['park', 'discard', 'no url', 'rate limit'] as const) {
    const log = new MemoryLog();
    await using world = await openLedger(log);
    await world.put(everywhere('irc'));
    await world.ledger.submit(unknowing([invite('$1', '!a'), invite('$2', '!b')]));
    if (change === 'no url') await world.put(everywhere('irc', { url: null }));
    else if (change === 'rate limit') await world.put(everywhere('irc', { rate_limited: false }));
    else await world.ledger.changeRegistrations(() => [{ kind: 'removed', appserviceId: 'irc', backlog: change }]);
    if (change === 'rate limit') {
      assert.equal(openHolds(world).length, 2, change);
      continue;
    }
    assert.deepEqual([openHolds(world), routedIds(log, 'irc')], [[], ['$1', '$2']], change);
    assert.equal(log.segments.at(-1)?.registrationChanges.length, 1, 'the change comes after');
  }
});

test('R98 the numbers of keys go with what is released, as they are then', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(everywhere('irc', { device_extensions: true }));
  const keys = (count: number) => ({ userId: '@_irc_a:hs.test', deviceId: 'D', oneTimeKeyCounts: { a: count }, unusedFallbackKeyTypes: [] });
  const others = (count: number) => ({ ephemeral: [], toDevice: [], deviceLists: [], deviceKeys: [keys(count)], roomIds: [], count: 1 });
  await world.ledger.submit(submission([member('$join', '@_irc_a:hs.test', 'join', '!a')], { others: others(1) }));
  await world.ledger.submit(unknowing([{ id: '$e', room: '!a', type: 'm.room.encrypted', sender: GHOST }]));
  await world.ledger.submit(submission([], { others: others(2) }));
  assert.ok(!log.segments.some(({ entries }) => entries.some(({ kind }) => kind === 'device_keys')), 'nothing is told before');
  await release(world, 'irc', '!a');
  const told = log.segments.at(-1)?.entries.map(({ kind, json }) => [kind, Buffer.from(json).toString()]);
  assert.deepEqual(told?.map(([kind]) => kind), ['device_keys', 'event']);
  assert.match(told?.[0]?.[1] ?? '', /"a":2/);
});

test('R65 I1 a restart finds what waits, from the log and from the checkpoint, and its segments are not trimmed', async () => {
  for (const isSaved of [false, true]) {
    const log = new MemoryLog();
    const first = await openLedger(log);
    await first.put(everywhere('irc'));
    await first.put(everywhere('xmpp'));
    await first.ledger.submit(submission([{ id: '$early', room: '!b' }]));
    await first.ledger.submit(unknowing([invite('$1', '!a'), { id: '$2', room: '!a' }]));
    for (let n = 0; n < 20; n++) await first.ledger.submit(submission([{ id: `$b${n}`, room: '!b' }]));
    const upkeep = upkeepOf(first, log);
    if (isSaved) await upkeep.checkpoint();
    await upkeep.trim();
    await first.ledger.submit(submission([{ id: '$3', room: '!a' }]));
    // Left as a kill leaves it.
    await using second = await openLedger(log);
    assert.deepEqual(openHolds(second), [['irc', '!a', [GHOST], 3]]);
    assert.deepEqual([second.fold.holds.bytes, second.fold.holds.entryCount], [first.fold.holds.bytes, 3]);
    const before = routedIds(log, 'irc');
    assert.equal(before.includes('$early'), !isSaved, 'control: what nobody is owed is trimmed');
    await release(second, 'irc', '!a');
    assert.deepEqual(routedIds(log, 'irc').slice(before.length), ['$1', '$2', '$3']);
    const after = upkeepOf(second, log);
    await after.checkpoint();
    await after.trim();
    assert.equal(log.segments.length, 1, 'nothing holds the log back any more');
  }
});

test('a start from a checkpoint whose hold another replica has released and trimmed goes on without it', async () => {
  const log = new MemoryLog();
  await using first = await openLedger(log);
  await first.put(everywhere('irc'));
  await first.ledger.submit(unknowing([invite('$1', '!a')]));
  await upkeepOf(first, log).checkpoint();
  const load = log.loadFold.bind(log);
  const old = await load();
  await release(first, 'irc', '!a');
  await first.ledger.submit(submission([{ id: '$2', room: '!a' }]));
  const held = log.segments.findIndex(({ holds }) => holds !== undefined);
  log.segments.splice(held, 1);
  log.loadFold = () => Promise.resolve(old);
  await using second = await openLedger(log);
  assert.deepEqual(openHolds(second), []);
});

test('a log that lacks what waits is unreadable, and not silently short of an event', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(everywhere('irc'));
  await world.ledger.submit(unknowing([invite('$1', '!a')]));
  await upkeepOf(world, log).checkpoint();
  await world.ledger.submit(submission([{ id: '$2', room: '!b' }]));
  log.segments.splice(log.segments.findIndex(({ holds }) => holds !== undefined), 1);
  await assert.rejects(openLedger(log), (error: unknown) => error instanceof StoreError && error.kind === 'unreadable');
});

test('M5 a release of a room that was released meanwhile leaves alone what waits there anew', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(everywhere('irc'));
  await world.ledger.submit(unknowing([invite('$1', '!a')]));
  const old = holdOf(world, 'irc', '!a');
  await release(world, 'irc', '!a');
  await world.ledger.submit(unknowing([invite('$2', '!a')]));
  await world.ledger.release(old, () => true);
  assert.deepEqual([openHolds(world), routedIds(log, 'irc')], [[['irc', '!a', [GHOST], 1]], ['$1']]);
});

test('I11 of two replicas that release the same room one does, and both find it closed', async () => {
  const log = new MemoryLog();
  await using a = await openLedger(log);
  await using b = await openLedger(log);
  await a.put(everywhere('irc'));
  await a.ledger.submit(unknowing([invite('$1', '!a'), { id: '$2', room: '!a' }]));
  await b.ledger.flush();
  assert.deepEqual(openHolds(b), openHolds(a));
  let isFirst = true;
  log.beforeAppend = async (): Promise<AppendFault> => {
    // Both are on their way before either arrives.
    if (isFirst) {
      isFirst = false;
      await release(b, 'irc', '!a');
    }
    return 'none';
  };
  await release(a, 'irc', '!a');
  await b.ledger.flush();
  assert.deepEqual([openHolds(a), openHolds(b), routedIds(log, 'irc')], [[], [], ['$1', '$2']]);
});

test('a group that lost its append to a release is routed anew: what would have waited does not', async () => {
  const log = new MemoryLog();
  await using a = await openLedger(log);
  await using b = await openLedger(log);
  await a.put(everywhere('irc'));
  await a.ledger.submit(unknowing([invite('$1', '!a')]));
  await b.ledger.flush();
  let isFirst = true;
  log.beforeAppend = async (): Promise<AppendFault> => {
    if (isFirst) {
      isFirst = false;
      await release(b, 'irc', '!a');
    }
    return 'none';
  };
  await a.ledger.submit(submission([{ id: '$2', room: '!a' }]));
  assert.deepEqual([openHolds(a), routedIds(log, 'irc')], [[], ['$1', '$2']]);
});

test('a release whose answer was lost is in the log once, however often it is asked for', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log, { catchUpIntervalMs: 1 });
  await world.put(everywhere('irc'));
  await world.ledger.submit(unknowing([invite('$1', '!a')]));
  const hold = holdOf(world, 'irc', '!a');
  let faults = 2;
  log.beforeAppend = () => (faults-- > 0 ? (faults === 1 ? 'not_done' : 'answer_lost') : 'none');
  for (let tries = 0; world.fold.holds.isOpen(hold); tries++) {
    assert.ok(tries < 1_000);
    await world.ledger.release(hold, () => true).catch(() => systemClock.sleep(1));
  }
  assert.deepEqual(routedIds(log, 'irc'), ['$1']);
});
