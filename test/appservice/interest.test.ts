/** Who gets a room event, requirement by requirement. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseEvent } from '../../src/appservice/event.ts';
import { roomDeltasOf } from '../../src/appservice/interest.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { eventOf, RoutedWorld } from '../support/routed-world.ts';
import { registration, SERVER } from '../support/routing.ts';
import capturedEvents from './captured-events.json' with { type: 'json' };

const ROOM = '!r:hs.test';
const GHOST = '@_irc_ann:hs.test';
const PERSON = '@alice:hs.test';
const REMOTE = '@bob:other.test';
const REMOTE_GHOST = '@_irc_ann:other.test';

const irc = registration('irc', {
  namespaces: { users: [{ regex: '@_irc_.*', exclusive: true }], aliases: [{ regex: '#irc_.*', exclusive: false }], rooms: [] },
});
const IRC_BOT = '@_irc_bot:hs.test';
const bot = registration('bot', { sender_localpart: 'helperbot', namespaces: { users: [], aliases: [], rooms: [] } });
const BOT = '@helperbot:hs.test';

for (const membership of ['join', 'leave', 'invite', 'ban', 'knock', 'org.example.odd']) {
  test(`R29 a membership of a local namespaced user is delivered: ${membership}`, async () => {
    const world = await RoutedWorld.of(irc);
    assert.deepEqual(world.member(ROOM, GHOST, membership, REMOTE), ['irc']);
  });
}

test('R29 a member event of a namespaced user without a string membership is delivered and changes nothing', async () => {
  const world = await RoutedWorld.of(irc);
  assert.deepEqual(world.route(eventOf({ roomId: ROOM, type: 'm.room.member', sender: REMOTE, stateKey: GHOST })), ['irc']);
  assert.deepEqual(world.message(ROOM, REMOTE), []);
});

test('a member event without a state key concerns nobody but its sender', async () => {
  const world = await RoutedWorld.of(irc);
  assert.deepEqual(world.route(eventOf({ roomId: ROOM, type: 'm.room.member', sender: REMOTE, membership: 'join' })), []);
});

test('an event of another type with a namespaced user as state key is no membership', async () => {
  const world = await RoutedWorld.of(irc);
  assert.deepEqual(world.route(eventOf({ roomId: ROOM, type: 'org.example.state', sender: REMOTE, stateKey: GHOST, membership: 'join' })), []);
  assert.deepEqual(world.message(ROOM, REMOTE), []);
});

test('R30 a membership of the sender user is delivered though it is in no namespace', async () => {
  const world = await RoutedWorld.of(bot);
  assert.deepEqual(world.member(ROOM, BOT, 'invite', PERSON), ['bot']);
  assert.deepEqual(world.member(ROOM, '@helperbot:other.test', 'invite', PERSON), []);
});

test('R31 with a local namespaced user joined, everybody’s events are delivered', async () => {
  const world = await RoutedWorld.of(irc);
  world.member(ROOM, GHOST, 'join');
  for (const sender of [PERSON, REMOTE, GHOST]) assert.deepEqual(world.message(ROOM, sender), ['irc']);
  assert.deepEqual(world.member(ROOM, '@carol:far.test', 'join'), ['irc']);
  assert.deepEqual(world.message('!elsewhere:hs.test', PERSON), []);
});

test('R32 with the sender user joined, everybody’s events are delivered', async () => {
  const world = await RoutedWorld.of(bot);
  world.member(ROOM, BOT, 'join');
  assert.deepEqual(world.message(ROOM, REMOTE), ['bot']);
});

for (const membership of ['invite', 'leave', 'knock', 'ban']) {
  test(`R33 a namespaced user who is not joined is no reason to deliver: ${membership}`, async () => {
    const world = await RoutedWorld.of(irc);
    world.member(ROOM, GHOST, membership, PERSON);
    assert.deepEqual(world.message(ROOM, PERSON), []);
  });
}

test('R34 a joined remote user who matches the pattern is no reason to deliver', async () => {
  const world = await RoutedWorld.of(irc);
  world.member(ROOM, REMOTE_GHOST, 'join');
  world.context(ROOM, { members: [REMOTE_GHOST, '@_irc_ann:evilhs.test', '@_irc_ann:hs.test:8448'] });
  assert.deepEqual(world.message(ROOM, PERSON), []);
});

test('R35 a remote user who matches the pattern is no reason to deliver as sender or as target', async () => {
  const world = await RoutedWorld.of(irc);
  assert.deepEqual(world.message(ROOM, REMOTE_GHOST), []);
  assert.deepEqual(world.member(ROOM, REMOTE_GHOST, 'invite', PERSON), []);
});

test('R36 R28 every event of a room whose id matches is delivered, ids without a domain included', async () => {
  const rooms = registration('rooms', { namespaces: { users: [], aliases: [], rooms: [{ regex: '!f-8c6mp.*', exclusive: false }] } });
  const world = await RoutedWorld.of(rooms);
  assert.deepEqual(world.message('!f-8c6mpzp_eoj5irpsMbHoByYWg3zNtLrzs7LKdvBqU', REMOTE), ['rooms']);
  assert.deepEqual(world.message('!g-8c6mpzp_eoj5irpsMbHoByYWg3zNtLrzs7LKdvBqU', REMOTE), []);
});

test('R37 every event of a room with a matching local alias is delivered; an alias of another server counts for nothing', async () => {
  const world = await RoutedWorld.of(irc);
  world.context(ROOM, { aliases: ['#irc_a:other.test'] });
  assert.deepEqual(world.message(ROOM, REMOTE), []);
  world.context(ROOM, { aliases: ['#irc_a:hs.test'] });
  assert.deepEqual(world.message(ROOM, REMOTE), ['irc']);
});

test('R37 what a canonical alias event claims is no fact', async () => {
  const world = await RoutedWorld.of(irc);
  const json = JSON.stringify({ event_id: '$e', type: 'm.room.canonical_alias', room_id: ROOM, sender: REMOTE, state_key: '', content: { alias: '#irc_a:hs.test' } });
  assert.deepEqual(world.route(parseEvent(Buffer.from(json), 'events[0].json')), []);
  assert.deepEqual(world.message(ROOM, REMOTE), []);
});

test('R38 events by a namespaced user or the sender user are delivered though none is joined', async () => {
  const world = await RoutedWorld.of(irc, bot);
  assert.deepEqual(world.message(ROOM, GHOST), ['irc']);
  assert.deepEqual(world.message(ROOM, IRC_BOT), ['irc']);
  assert.deepEqual(world.message(ROOM, BOT), ['bot']);
});

for (const [what, membership, sender] of [['leave', 'leave', GHOST], ['kick', 'leave', PERSON], ['ban', 'ban', REMOTE]] as const) {
  test(`R39 the ${what} of the last member is delivered, and nothing after it`, async () => {
    const world = await RoutedWorld.of(irc);
    world.member(ROOM, GHOST, 'join');
    assert.deepEqual(world.member(ROOM, GHOST, membership, sender), ['irc']);
    assert.deepEqual(world.message(ROOM, PERSON), []);
  });
}

test('R39 while another member stays, delivery goes on', async () => {
  const world = await RoutedWorld.of(irc);
  world.context(ROOM, { members: [GHOST, '@_irc_bob:hs.test', PERSON] });
  world.member(ROOM, GHOST, 'leave');
  assert.deepEqual(world.message(ROOM, PERSON), ['irc']);
  world.member(ROOM, '@_irc_bob:hs.test', 'leave');
  assert.deepEqual(world.message(ROOM, PERSON), []);
});

test('R40 the join itself, the first event after an alias and the first after a registration are delivered', async () => {
  const world = await RoutedWorld.of(irc);
  assert.deepEqual(world.member(ROOM, GHOST, 'join'), ['irc']);
  world.context('!second:hs.test', { aliases: ['#irc_b:hs.test'] });
  assert.deepEqual(world.message('!second:hs.test', PERSON), ['irc']);
  world.member('!third:hs.test', BOT, 'join');
  assert.deepEqual(world.message('!third:hs.test', PERSON), []);
  await world.register(irc, bot);
  assert.deepEqual(world.message('!third:hs.test', PERSON), ['bot']);
  await world.register(bot);
  assert.deepEqual(world.message(ROOM, PERSON), []);
});

test('R41 delivery by alias ends with the last matching alias', async () => {
  const world = await RoutedWorld.of(irc);
  world.context(ROOM, { aliases: ['#irc_a:hs.test', '#irc_b:hs.test', '#plain:hs.test'] });
  world.context(ROOM, { aliases: ['#irc_b:hs.test', '#plain:hs.test'] });
  assert.deepEqual(world.message(ROOM, PERSON), ['irc']);
  world.context(ROOM, { aliases: ['#plain:hs.test'] });
  assert.deepEqual(world.message(ROOM, PERSON), []);
});

test('R42 an appservice with several reasons is named once, and all are in registration order', async () => {
  const many = registration('many', {
    namespaces: {
      users: [{ regex: '@_irc_.*', exclusive: false }, { regex: '@.*', exclusive: false }],
      aliases: [{ regex: '#.*', exclusive: false }],
      rooms: [{ regex: '!.*', exclusive: false }],
    },
  });
  const world = await RoutedWorld.of(bot, many, irc);
  world.context(ROOM, { members: [GHOST, BOT], aliases: ['#irc_a:hs.test'] });
  assert.deepEqual(world.message(ROOM, IRC_BOT), ['bot', 'many', 'irc']);
  assert.deepEqual(world.member(ROOM, GHOST, 'leave', BOT), ['bot', 'many', 'irc']);
});

test('R42 with nothing added by sender or target the room’s own list is handed on', async () => {
  const world = await RoutedWorld.of(irc);
  world.member(ROOM, GHOST, 'join');
  assert.equal(world.message(ROOM, PERSON), world.message(ROOM, GHOST));
});

test('R43 exclusive or not makes no difference to who gets events', async () => {
  const withExclusive = (exclusive: boolean): Registration =>
    registration('x', { namespaces: { users: [{ regex: '@_irc_.*', exclusive }], aliases: [{ regex: '#irc_.*', exclusive }], rooms: [] } });
  for (const exclusive of [true, false]) {
    const world = await RoutedWorld.of(irc, withExclusive(exclusive));
    world.context(ROOM, { aliases: ['#irc_a:hs.test'] });
    assert.deepEqual(world.message(ROOM, PERSON), ['irc', 'x']);
    assert.deepEqual(world.message('!other:hs.test', GHOST), ['irc', 'x']);
  }
});

test('R44 an appservice gets its own events back', async () => {
  const world = await RoutedWorld.of(irc);
  world.member(ROOM, IRC_BOT, 'join');
  assert.deepEqual(world.message(ROOM, IRC_BOT), ['irc']);
  assert.deepEqual(world.message(ROOM, GHOST), ['irc']);
});

test('R45 R47 an invite of a namespaced user, and its rescission, reach the appservice though nothing is known of the room', async () => {
  const world = await RoutedWorld.of(irc);
  const roomId = '!never-joined:other.test';
  assert.deepEqual(world.member(roomId, GHOST, 'invite', REMOTE), ['irc']);
  assert.deepEqual(world.message(roomId, REMOTE), []);
  assert.deepEqual(world.member(roomId, GHOST, 'leave', REMOTE), ['irc']);
});

test('R46 nothing is queued for an appservice without a URL, by whatever rule', async () => {
  const silent = registration('silent', {
    url: null,
    namespaces: { users: [{ regex: '@.*', exclusive: true }], aliases: [{ regex: '#.*', exclusive: false }], rooms: [{ regex: '!.*', exclusive: false }] },
  });
  const world = await RoutedWorld.of(silent, irc);
  world.context(ROOM, { members: [GHOST, '@_silent_bot:hs.test'], aliases: ['#irc_a:hs.test'] });
  assert.deepEqual(world.message(ROOM, '@_silent_bot:hs.test'), ['irc']);
  assert.deepEqual(world.member('!other:hs.test', PERSON, 'join'), []);
});

test('R48 an event that says of itself that it was soft-failed is routed like any other: leaving it out is the homeserver’s word', async () => {
  const world = await RoutedWorld.of(irc);
  const json = JSON.stringify({ event_id: '$e', type: 'm.room.message', room_id: ROOM, sender: GHOST, content: {}, unsigned: { soft_failed: true } });
  assert.deepEqual(world.route(parseEvent(Buffer.from(json), 'events[0].json')), ['irc']);
});

test('M15 an appservice with one non-exclusive alias namespace sees every message of a room so named', async () => {
  const logger = registration('logger', { namespaces: { users: [], aliases: [{ regex: '#logged_.*', exclusive: false }], rooms: [] } });
  const world = await RoutedWorld.of(logger);
  world.context(ROOM, { aliases: ['#logged_cats:hs.test'], members: [PERSON] });
  for (const sender of [PERSON, REMOTE]) assert.deepEqual(world.message(ROOM, sender), ['logger']);
  assert.deepEqual(world.member(ROOM, REMOTE, 'join'), ['logger']);
  assert.deepEqual(world.message('!unnamed:hs.test', PERSON), []);
});

test('R31 the captured events of a real homeserver route by membership as they are', async () => {
  const people = registration('people', { namespaces: { users: [{ regex: '@(alice|bob):hs\\.test', exclusive: false }], aliases: [], rooms: [] } });
  const world = await RoutedWorld.of(people, bot);
  for (const captured of capturedEvents) {
    const json = Buffer.from(JSON.stringify(captured));
    const event = parseEvent(json, 'events[0].json');
    assert.deepEqual(event.json, json);
    assert.equal(event.membership, 'membership' in captured.content ? captured.content.membership : undefined);
    const concerns = [captured.sender, captured.type === 'm.room.member' ? captured.state_key : ''].some((user) => user === '@alice:hs.test' || user === '@bob:hs.test');
    if (concerns) assert.deepEqual(world.route(event), ['people']);
  }
});

test('a membership changes the room only for a local user, and only a join joins', () => {
  const delta = (stateKey: string | undefined, membership: string | undefined, type = 'm.room.member'): unknown =>
    roomDeltasOf(eventOf({ roomId: ROOM, type, sender: PERSON, stateKey, membership }), SERVER);
  assert.deepEqual(delta(GHOST, 'join'), { kind: 'joined', roomId: ROOM, userId: GHOST });
  for (const other of ['leave', 'ban', 'invite', 'knock', 'odd', '']) assert.deepEqual(delta(GHOST, other), { kind: 'left', roomId: ROOM, userId: GHOST });
  assert.equal(delta(REMOTE, 'join'), null);
  assert.equal(delta(GHOST, undefined), null);
  assert.equal(delta(undefined, 'join'), null);
  assert.equal(delta(GHOST, 'join', 'm.room.topic'), null);
});
