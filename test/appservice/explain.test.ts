/** An explanation names those who get the event, whatever the registrations, the rooms' histories and the events. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { RoutingEvent } from '../../src/appservice/event.ts';
import { explainRouting } from '../../src/appservice/explain.ts';
import type { ExplainedRoom } from '../../src/appservice/explain.ts';
import type { RoomState } from '../../src/room/room-state.ts';
import type { Step } from '../support/reference-matcher.ts';
import { history } from '../support/room-histories.ts';
import { compile, eventOf, RoutedWorld } from '../support/routed-world.ts';
import { registration } from '../support/routing.ts';

const LIMITS = { reasonsMax: 8, totalReasonsMax: 1_000 };
const ROOM = '!r:hs.test';

/** Ways to explain it wrongly, for the controls. */
type Mistake = { readonly room?: (room: RoomState) => ExplainedRoom; readonly event?: (event: RoutingEvent) => RoutingEvent };

const agreement = ({ room: seenRoom = (room) => room, event: seenEvent = (event) => event }: Mistake = {}): fc.IAsyncProperty<[Step[]]> =>
  fc.asyncProperty(history, async (steps) => {
    const world = new RoutedWorld(await compile([]));
    for (const step of steps) {
      if (step.kind === 'registrations') await world.register(...step.registrations);
      else if (step.kind === 'context') world.context(step.roomId, step);
      else {
        const event = eventOf(step.event);
        const routed = world.route(event);
        const verdicts = explainRouting(seenEvent(event), seenRoom(world.room(event.roomId)), world.index, LIMITS);
        assert.deepEqual(verdicts.filter(({ interested }) => interested).map(({ appserviceId }) => appserviceId), routed);
      }
    }
  });

test('I9 R29 R30 R31 R32 R36 R37 R38 R46 an explanation names exactly those who get the event', async () => {
  await fc.assert(agreement(), { numRuns: 1500, seed: 9 });
});

const without = (room: RoomState, part: Partial<ExplainedRoom>): ExplainedRoom => ({
  knowsMembers: room.knowsMembers,
  knowsAliases: room.knowsAliases,
  joinedUsers: () => room.joinedUsers(),
  roomAliases: () => room.roomAliases(),
  ...part,
});
const MISTAKES: Readonly<Record<string, Mistake>> = {
  'aliases do not count': { room: (room) => without(room, { roomAliases: () => [] }) },
  'members do not count': { room: (room) => without(room, { joinedUsers: () => [] }) },
  'the sender does not count': { event: (event) => ({ ...event, sender: '@nobody:far.test' }) },
  'the target does not count': { event: (event) => ({ ...event, stateKey: undefined }) },
  'the room does not count': { event: (event) => ({ ...event, roomId: '!none' }) },
};

for (const [name, mistake] of Object.entries(MISTAKES)) {
  test(`control: the comparison notices that ${name}`, async () => {
    const { failed } = await fc.check(agreement(mistake), { numRuns: 1500, seed: 9, endOnFailure: true });
    assert.equal(failed, true);
  });
}

test('every rule is told by its name, with who or what it applies to and the pattern', async () => {
  const world = await RoutedWorld.of(
    registration('irc', { namespaces: { users: [{ regex: '@_irc_.*', exclusive: true }], aliases: [{ regex: '#irc_.*', exclusive: false }], rooms: [{ regex: '!r:', exclusive: false }] } }),
    registration('idle', { sender_localpart: 'idle', namespaces: { users: [], aliases: [], rooms: [] } }),
  );
  world.context(ROOM, { members: ['@_irc_ann:hs.test', '@alice:hs.test'], aliases: ['#irc_a:hs.test', '#x:hs.test'] });
  const event = eventOf({ roomId: ROOM, type: 'm.room.member', sender: '@_irc_bot:hs.test', stateKey: '@_irc_bob:hs.test', membership: 'invite' });
  const [irc, idle] = explainRouting(event, world.room(ROOM), world.index, LIMITS);
  assert.deepEqual(irc, {
    appserviceId: 'irc',
    interested: true,
    reasons: [
      { rule: 'sender', identifier: '@_irc_bot:hs.test', regex: '@_irc_.*' },
      { rule: 'sender', identifier: '@_irc_bot:hs.test', regex: null },
      { rule: 'member_target', identifier: '@_irc_bob:hs.test', regex: '@_irc_.*' },
      { rule: 'room_id', identifier: ROOM, regex: '!r:' },
      { rule: 'room_alias', identifier: '#irc_a:hs.test', regex: '#irc_.*' },
      { rule: 'joined_member', identifier: '@_irc_ann:hs.test', regex: '@_irc_.*' },
    ],
    reasonCount: 6,
    lacksUrl: false,
    wantsContext: false,
  });
  assert.deepEqual(idle, { appserviceId: 'idle', interested: false, reasons: [], reasonCount: 0, lacksUrl: false, wantsContext: false });
});

test('R46 what has no URL is told with its reasons, and what is unknown of the room is said where it matters', async () => {
  const none = { users: [], aliases: [], rooms: [] };
  const world = await RoutedWorld.of(
    registration('mute', { url: null, namespaces: { ...none, rooms: [{ regex: '!r:', exclusive: false }] } }),
    registration('alias', { namespaces: { ...none, aliases: [{ regex: '#a', exclusive: false }] } }),
    registration('room', { namespaces: { ...none, rooms: [{ regex: '!other', exclusive: false }] } }),
  );
  const verdicts = (): unknown[] =>
    explainRouting(eventOf({ roomId: ROOM, type: 'm.room.message', sender: '@alice:hs.test' }), world.room(ROOM), world.index, LIMITS).map(({ appserviceId, interested, lacksUrl, wantsContext }) => [
      appserviceId,
      interested ? 'interested' : lacksUrl ? 'no url' : wantsContext ? 'unknown' : 'not interested',
    ]);
  assert.deepEqual(verdicts(), [['mute', 'no url'], ['alias', 'unknown'], ['room', 'unknown']]);
  world.context(ROOM, { members: [] });
  assert.deepEqual(verdicts(), [['mute', 'no url'], ['alias', 'unknown'], ['room', 'not interested']]);
  world.context(ROOM, { aliases: [] });
  assert.deepEqual(verdicts(), [['mute', 'no url'], ['alias', 'not interested'], ['room', 'not interested']]);
});

test('of many reasons the first few are told and all are counted', async () => {
  const world = await RoutedWorld.of(registration('irc'), registration('again', { namespaces: { users: [{ regex: '@_irc_', exclusive: false }], aliases: [], rooms: [] } }));
  world.context(ROOM, { members: Array.from({ length: 20 }, (_, at) => `@_irc_${at}:hs.test`) });
  const event = eventOf({ roomId: ROOM, type: 'm.room.message', sender: '@alice:hs.test' });
  const verdicts = explainRouting(event, world.room(ROOM), world.index, { reasonsMax: 5, totalReasonsMax: 8 });
  assert.deepEqual(verdicts.map(({ reasons, reasonCount }) => [reasons.length, reasonCount]), [[4, 20], [4, 20]]);
});
