/** What is known of a room, and whom that makes interested. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { NamespaceIndex } from '../../src/appservice/namespaces.ts';
import type { Namespaces } from '../../src/appservice/registration.ts';
import { RoomState } from '../../src/room/room-state.ts';
import type { StoredRoom } from '../../src/store/port.ts';
import type { RoomDelta } from '../../src/store/segment.ts';
import { compile } from '../support/routed-world.ts';
import { registration } from '../support/routing.ts';

const roomId = '!r:hs.test';
const GHOST = '@_irc_ann:hs.test';
const none: Namespaces = { users: [], aliases: [], rooms: [] };
const irc = registration('irc', { namespaces: { users: [{ regex: '@_irc_', exclusive: true }], aliases: [{ regex: '#irc_', exclusive: false }], rooms: [] } });
const bot = registration('bot', { sender_localpart: 'bot', namespaces: { ...none, users: [{ regex: '@_irc_a', exclusive: false }] } });
const index = await compile([bot, irc]);

const joined = (userId: string): RoomDelta => ({ kind: 'joined', roomId, userId });
const left = (userId: string): RoomDelta => ({ kind: 'left', roomId, userId });
const members = (userIds: readonly string[] | null): RoomDelta => ({ kind: 'members', roomId, userIds });
const aliases = (roomAliases: readonly string[] | null): RoomDelta => ({ kind: 'aliases', roomId, roomAliases });

/** What is stored, with lists as sets are compared. */
function known(room: RoomState): StoredRoom {
  const { localMembers, localAliases, partialMembers, ...rest } = room.toStored();
  const sorted = (list: readonly string[] | null): string[] | null => (list === null ? null : [...list].sort());
  return { ...rest, localMembers: sorted(localMembers), localAliases: sorted(localAliases), partialMembers: Object.fromEntries(Object.entries(partialMembers).sort()) };
}

function roomAfter(...deltas: RoomDelta[]): RoomState {
  const room = RoomState.unknown(roomId);
  for (const delta of deltas) room.apply(delta);
  return room;
}

test('nothing is known of a room not heard of, and nobody is interested', () => {
  const room = RoomState.unknown(roomId);
  assert.deepEqual(room.toStored(), { roomId, position: 0, localMembers: null, localAliases: null, partialMembers: {} });
  assert.deepEqual(room.interested(index), []);
});

test('R31 R33 while the members are unknown, users seen to join count until they are seen to leave', () => {
  const room = roomAfter(joined(GHOST), left('@alice:hs.test'));
  assert.deepEqual(room.interested(index), ['bot', 'irc']);
  assert.deepEqual(room.toStored().partialMembers, { [GHOST]: true, '@alice:hs.test': false });
  room.apply(left(GHOST));
  assert.deepEqual(room.interested(index), []);
});

test('R31 a snapshot of the members replaces what was seen, and later joins and leaves go on from it', () => {
  const room = roomAfter(joined(GHOST), members(['@alice:hs.test']));
  assert.deepEqual(room.interested(index), []);
  assert.deepEqual(known(room), { roomId, position: 0, localMembers: ['@alice:hs.test'], localAliases: null, partialMembers: {} });
  room.apply(joined(GHOST));
  assert.deepEqual(room.interested(index), ['bot', 'irc']);
  assert.deepEqual(known(room).localMembers, [GHOST, '@alice:hs.test']);
});

test('R37 R41 a snapshot of the aliases replaces the one before', () => {
  const room = roomAfter(aliases(['#irc_a:hs.test', '#plain:hs.test']));
  assert.deepEqual(room.interested(index), ['irc']);
  room.apply(aliases([]));
  assert.deepEqual(room.interested(index), []);
  assert.deepEqual(known(room).localAliases, []);
});

test('R42 reasons are counted: the last one to go takes the interest with it', () => {
  const room = roomAfter(members([GHOST, '@_irc_bob:hs.test']), aliases(['#irc_a:hs.test']));
  assert.deepEqual(room.interested(index), ['bot', 'irc']);
  room.apply(left(GHOST));
  assert.deepEqual(room.interested(index), ['irc']);
  room.apply(aliases([]));
  assert.deepEqual(room.interested(index), ['irc']);
  room.apply(left('@_irc_bob:hs.test'));
  assert.deepEqual(room.interested(index), []);
});

test('the interested are the same array until they change', () => {
  const room = roomAfter(members([GHOST]));
  const before = room.interested(index);
  room.apply(joined('@alice:hs.test'));
  room.apply(joined('@_irc_another:hs.test'));
  assert.equal(room.interested(index), before);
  room.apply(joined('@bot:hs.test'));
  assert.equal(room.interested(index), before);
});

test('R40 another index of namespaces is asked anew, and its order holds', async () => {
  const room = roomAfter(joined(GHOST));
  assert.deepEqual(room.interested(index), ['bot', 'irc']);
  assert.deepEqual(room.interested(await compile([irc, bot])), ['irc', 'bot']);
  assert.deepEqual(room.interested(await compile([])), []);
  assert.deepEqual(room.interested(index), ['bot', 'irc']);
});

test('what changes nothing is no change', () => {
  const room = roomAfter(members([GHOST]), aliases(['#a:hs.test', '#b:hs.test']));
  for (const same of [joined(GHOST), left('@alice:hs.test'), members([GHOST, GHOST]), aliases(['#b:hs.test', '#a:hs.test'])]) assert.deepEqual(room.apply(same), []);
  const unknown = roomAfter(joined(GHOST));
  for (const same of [joined(GHOST), aliases(null), { kind: 'forgotten', roomId, userId: '@alice:hs.test' } as const]) assert.deepEqual(unknown.apply(same), []);
  assert.deepEqual(RoomState.unknown(roomId).apply(members(null)), []);
});

test('an empty list is known, an unknown one is not: context is wanted for the unknown parts that namespaces make matter', async () => {
  const noAliases = await compile([bot]);
  const noUrl = await compile([{ ...irc, url: null }]);
  for (const [room, all, users] of [
    [roomAfter(), true, true],
    [roomAfter(joined(GHOST)), true, true],
    [roomAfter(members([])), true, false],
    [roomAfter(aliases([])), true, true],
    [roomAfter(aliases([]), members([])), false, false],
  ] as const) {
    assert.equal(room.wantsContext(index), all);
    assert.equal(room.wantsContext(noAliases), users);
    assert.equal(room.wantsContext(noUrl), false);
  }
});

test('a room of 100,000 local members judges one user per join and none per event', async () => {
  let judged = 0;
  const counting = new Proxy(await compile([irc]), {
    get(target, name) {
      if (name !== 'interested') return Reflect.get(target, name, target);
      return (...asked: Parameters<NamespaceIndex['interested']>) => {
        judged++;
        return target.interested(...asked);
      };
    },
  });
  const room = roomAfter(members([...Array(100_000).keys()].map((at) => `@u${at}:hs.test`)));
  room.interested(counting);
  assert.ok(judged >= 100_000);
  judged = 0;
  for (let at = 0; at < 1000; at++) {
    room.apply(joined(`@new${at}:hs.test`));
    room.interested(counting);
    room.interested(counting);
  }
  assert.equal(judged, 1000);
});

const user = fc.constantFrom(GHOST, '@_irc_bob:hs.test', '@alice:hs.test', '@bot:hs.test', '@_irc_ann:other.test');
const alias = fc.constantFrom('#irc_a:hs.test', '#irc_b:hs.test', '#irc_a:other.test', '#x:hs.test');
const delta: fc.Arbitrary<RoomDelta> = fc.oneof(
  { weight: 4, arbitrary: user.map(joined) },
  { weight: 3, arbitrary: user.map(left) },
  { weight: 1, arbitrary: user.map((userId): RoomDelta => ({ kind: 'forgotten', roomId, userId })) },
  { weight: 2, arbitrary: fc.option(fc.array(user, { maxLength: 4 })).map(members) },
  { weight: 2, arbitrary: fc.option(fc.array(alias, { maxLength: 3 })).map(aliases) },
);

test('what apply returns takes the change back exactly, one by one and in a row, interest included', () => {
  fc.assert(
    fc.property(fc.array(delta, { maxLength: 12 }), fc.array(delta, { minLength: 1, maxLength: 8 }), (before, group) => {
      const room = roomAfter(...before);
      const start = known(room);
      const interested = [...room.interested(index)];
      const undo: RoomDelta[][] = [];
      for (const each of group) {
        const was = known(room);
        const inverses = room.apply(each);
        assert.equal(inverses.length === 0, JSON.stringify(known(room)) === JSON.stringify(was));
        undo.push(inverses);
      }
      for (const inverses of undo.toReversed()) for (const inverse of inverses) room.apply(inverse);
      assert.deepEqual(known(room), start);
      assert.deepEqual(room.interested(index), interested);
    }),
    { numRuns: 2000, seed: 1 },
  );
});

test('interest kept current by each change is what a room read back from the store finds', () => {
  fc.assert(
    fc.property(fc.array(delta, { maxLength: 20 }), (deltas) => {
      const room = RoomState.unknown(roomId);
      for (const each of deltas) {
        room.apply(each);
        assert.deepEqual(room.interested(index), RoomState.fromStored(room.toStored()).interested(index));
        assert.deepEqual(RoomState.fromStored(room.toStored()).toStored(), room.toStored());
      }
    }),
    { numRuns: 1000, seed: 2 },
  );
});
