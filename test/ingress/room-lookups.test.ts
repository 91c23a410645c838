import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RoutingEvent } from '../../src/appservice/event.ts';
import { parseEvent } from '../../src/appservice/event.ts';
import type { RoomAnswer, RoomFacts, RoomFinding, TransactionPiece } from '../../src/ingress/ports.ts';
import { RoomLookups } from '../../src/ingress/room-lookups.ts';
import { settle, VirtualClock } from '../support/clock.ts';
import { silent } from '../support/ledger-world.ts';

const WAIT_MS = 2_000;

interface Asked {
  readonly what: string;
  answer(answer: RoomAnswer): void;
}

/** A homeserver whose facts and answers a test scripts. */
class World implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly asked: Asked[] = [];
  readonly told: RoomFinding[] = [];
  answered = 0;
  readonly outcomes: string[] = [];
  readonly facts = new Map<string, Partial<RoomFacts>>();
  readonly homeserver = {
    serverName: 'hs.test',
    registrationsVersion: 1,
    hasAliasNamespaces: true,
    senderUserIds: [] as string[],
    roomFacts: (roomIds: readonly string[]): Promise<readonly RoomFacts[]> =>
      Promise.resolve(roomIds.map((roomId) => ({ roomId, wantsMembers: true, wantsAliases: true, localUser: null, partialMembers: {}, ...this.facts.get(roomId) }))),
    tellRooms: (findings: readonly RoomFinding[]): Promise<void> => {
      this.told.push(...findings);
      for (const { roomId, localMembers, localAliases } of findings) {
        this.facts.set(roomId, { ...this.facts.get(roomId), ...(localMembers === undefined ? {} : { wantsMembers: false, localUser: localMembers[0] ?? null }), ...(localAliases === undefined ? {} : { wantsAliases: false }) });
      }
      return Promise.resolve();
    },
  };
  readonly lookups: RoomLookups;

  constructor(...senderUserIds: readonly string[]) {
    this.homeserver.senderUserIds.push(...senderUserIds);
    const ask = (what: string): Promise<RoomAnswer> => {
      const { promise, resolve } = Promise.withResolvers<RoomAnswer>();
      this.asked.push({ what, answer: resolve });
      return promise;
    };
    const source = { joinedMembers: (roomId: string) => ask(`members ${roomId}`), roomAliases: (roomId: string, userId: string) => ask(`aliases ${roomId} as ${userId}`), joinedRooms: (userId: string) => ask(`rooms of ${userId}`) };
    this.lookups = new RoomLookups({ homeserver: this.homeserver, source, meter: { roomLookup: (outcome) => void this.outcomes.push(outcome) }, clock: this.clock, logger: silent, waitMs: WAIT_MS });
    this.lookups.start();
  }

  /** The nth question, once it is asked. */
  async nth(at: number): Promise<Asked> {
    for (;;) {
      const asked = this.asked[at];
      if (asked !== undefined) return asked;
      await this.clock.advance(20);
    }
  }

  async answerAll(...answers: readonly RoomAnswer[]): Promise<void> {
    for (const answer of answers) {
      (await this.nth(this.answered)).answer(answer);
      this.answered++;
      await settle();
    }
  }

  /** Answers what is asked by what it is, until nothing more is; 404 for what is not named. */
  async answerEverything(answers: Readonly<Record<string, RoomAnswer>>): Promise<void> {
    for (let idleTurns = 0; idleTurns < 5; idleTurns++) {
      await this.clock.advance(20);
      for (let asked = this.asked[this.answered]; asked !== undefined; asked = this.asked[this.answered]) {
        asked.answer(answers[asked.what] ?? { kind: 'refused', httpStatus: 404, errcode: null });
        this.answered++;
        idleTurns = 0;
        await settle();
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = this.lookups[Symbol.asyncDispose]();
    for (const { answer } of this.asked) answer({ kind: 'aborted' });
    await ended;
  }
}

function found(...identifiers: readonly string[]): RoomAnswer {
  return { kind: 'found', identifiers };
}

function event(type: string, roomId = '!r', stateKey?: string): RoutingEvent {
  return parseEvent(Buffer.from(JSON.stringify({ event_id: `$${type}`, type, room_id: roomId, sender: '@a:hs.test', content: {}, ...(stateKey === undefined ? {} : { state_key: stateKey }) })), 'event');
}

function piece(...events: readonly RoutingEvent[]): TransactionPiece {
  return { events, ephemeral: [], toDevice: [], deviceLists: [], deviceKeys: [], restDigest: null };
}

/** Whether it has ended by now. */
async function hasEnded(promise: Promise<void>): Promise<boolean> {
  let ended = false;
  void promise.then(() => {
    ended = true;
  });
  await settle();
  return ended;
}

test('R36 R37 the events of an unknown room wait until its local members and aliases are looked up and told', async () => {
  await using world = new World();
  const preparing = world.lookups.prepare(piece(event('m.room.message')));
  assert.equal(await hasEnded(preparing), false);
  await world.answerAll(found('@far:else.test', '@a:hs.test', '@b:hs.test'), found('#x:hs.test', '#y:else.test'));
  await preparing;
  assert.deepEqual(world.asked.map(({ what }) => what), ['members !r', 'aliases !r as @a:hs.test']);
  assert.deepEqual(world.told, [{ roomId: '!r', localMembers: ['@a:hs.test', '@b:hs.test'], localAliases: ['#x:hs.test'], partialMembers: {} }]);
  await world.lookups.prepare(piece(event('m.room.message')));
  assert.equal(world.asked.length, 2);
  assert.equal(world.lookups.status.unknownRoomCount, 0);
});

test('a look-up that takes long holds events up for its bound and no longer, and its answer counts when it comes', async () => {
  await using world = new World();
  const preparing = world.lookups.prepare(piece(event('m.room.message')));
  await world.nth(0);
  await world.clock.advance(WAIT_MS);
  await preparing;
  assert.deepEqual(world.lookups.status, { unknownRoomCount: 1, unknownRoomIds: ['!r'], problem: null });
  const asked = await world.nth(0);
  asked.answer(found('@a:hs.test'));
  (await world.nth(1)).answer(found());
  await settle();
  assert.deepEqual(world.told.map(({ localMembers }) => localMembers), [['@a:hs.test']]);
  assert.equal(world.lookups.status.unknownRoomCount, 0);
});

test('a room that is known, or that no namespace makes matter, is asked about by nobody, until the registrations change', async () => {
  await using world = new World();
  world.facts.set('!r', { wantsMembers: false, wantsAliases: false });
  await world.lookups.prepare(piece(event('m.room.message')));
  world.facts.set('!r', { wantsMembers: true, wantsAliases: false });
  await world.lookups.prepare(piece(event('m.room.message')));
  assert.equal(world.asked.length, 0);
  world.homeserver.registrationsVersion = 2;
  const preparing = world.lookups.prepare(piece(event('m.room.message')));
  await world.answerAll(found());
  await preparing;
  assert.deepEqual(world.asked.map(({ what }) => what), ['members !r']);
});

test('I1 what was looked up under older registrations does not count as all that matters for the newer ones', async () => {
  await using world = new World();
  world.homeserver.hasAliasNamespaces = false;
  world.facts.set('!r', { wantsAliases: false });
  const first = world.lookups.prepare(piece(event('m.room.message')));
  const members = await world.nth(0);
  world.homeserver.registrationsVersion = 2;
  world.homeserver.hasAliasNamespaces = true;
  world.facts.set('!r', { wantsAliases: true });
  const second = world.lookups.prepare(piece(event('m.room.message')));
  await settle();
  members.answer(found('@a:hs.test'));
  world.answered = 1;
  await settle();
  assert.equal(world.lookups.status.unknownRoomCount, 1);
  await world.answerEverything({ 'aliases !r as @a:hs.test': found('#a:hs.test') });
  await Promise.all([first, second]);
  assert.deepEqual(world.asked.map(({ what }) => what), ['members !r', 'aliases !r as @a:hs.test']);
  assert.equal(world.lookups.status.unknownRoomCount, 0);
});

test('a room whose creation is seen is known without asking, unless it was heard of before', async () => {
  await using world = new World();
  await world.lookups.prepare(piece(event('m.room.create', '!new', '')));
  assert.deepEqual(world.told, [{ roomId: '!new', localMembers: [], localAliases: [], partialMembers: {} }]);
  world.facts.set('!old', { partialMembers: { '@a:hs.test': true } });
  void world.lookups.prepare(piece(event('m.room.create', '!old', '')));
  assert.equal((await world.nth(0)).what, 'members !old');
});

test('R41 an event that may tell of aliases has them looked up again, and only a state event does', async () => {
  await using world = new World();
  world.facts.set('!r', { wantsMembers: false, wantsAliases: false, localUser: '@a:hs.test' });
  await world.lookups.prepare(piece(event('m.room.canonical_alias')));
  assert.equal(world.asked.length, 0);
  const preparing = world.lookups.prepare(piece(event('m.room.canonical_alias', '!r', '')));
  await world.answerAll(found('#new:hs.test'));
  await preparing;
  assert.deepEqual(world.told.map(({ localMembers, localAliases }) => [localMembers, localAliases]), [[undefined, ['#new:hs.test']]]);
});

test('aliases that no event told of are found once the room has been quiet about them for ten minutes, without a wait', async () => {
  await using world = new World();
  world.facts.set('!r', { wantsMembers: false, wantsAliases: false, localUser: '@a:hs.test' });
  await world.lookups.prepare(piece(event('m.room.message')));
  await world.clock.advance(600_001);
  await world.lookups.prepare(piece(event('m.room.message')));
  assert.equal((await world.nth(0)).what, 'aliases !r as @a:hs.test');
});

test('a room about which there is no answer is asked about again after a minute, then ever later, and holds up its first events alone', async () => {
  await using world = new World();
  const refused: RoomAnswer = { kind: 'refused', httpStatus: 403, errcode: 'M_FORBIDDEN' };
  const preparing = world.lookups.prepare(piece(event('m.room.message')));
  await world.answerAll(refused);
  await preparing;
  await world.lookups.prepare(piece(event('m.room.message')));
  await world.clock.advance(59_000);
  assert.equal(world.asked.length, 1);
  await world.clock.advance(1_100);
  assert.equal(world.asked.length, 2);
  world.asked[1]?.answer(refused);
  await world.clock.advance(119_000);
  assert.equal(world.asked.length, 2);
  await world.clock.advance(1_100);
  assert.equal(world.asked.length, 3);
});

test('M11 a homeserver that is away, limits, or knows no token holds up no events after the first, and all look-ups wait', async () => {
  for (const [answer, pauseMs] of [[{ kind: 'away', reason: 'HTTP 502' }, 1_000], [{ kind: 'limited', waitMs: 7_000 }, 7_000], [{ kind: 'unknown_token' }, 60_000]] as const) {
    await using world = new World();
    const preparing = world.lookups.prepare(piece(event('m.room.message')));
    await world.answerAll(answer);
    await preparing;
    assert.ok(world.lookups.status.problem !== null);
    await world.lookups.prepare(piece(event('m.room.message', '!other')));
    await world.clock.advance(pauseMs - 100);
    assert.equal(world.asked.length, 1, answer.kind);
    await world.clock.advance(200);
    assert.equal(world.asked.length, 3, answer.kind);
    for (const asked of world.asked) asked.answer(found('@a:hs.test'));
    await world.clock.advance(100);
    for (const asked of world.asked) asked.answer(found());
    await settle();
    assert.deepEqual(world.lookups.status, { unknownRoomCount: 0, unknownRoomIds: [], problem: null }, answer.kind);
  }
});

test('no more than four look-ups are under way, and they begin one after the other', async () => {
  await using world = new World();
  void world.lookups.prepare(piece(...Array.from({ length: 10 }, (_, at) => event('m.room.message', `!${at}`))));
  await world.clock.advance(30);
  assert.ok(world.asked.length <= 2);
  await world.clock.advance(1_000);
  assert.equal(world.asked.length, 4);
  assert.equal(world.lookups.status.unknownRoomCount, 10);
});

test('R31 at the start the rooms of the appservices\' own users are looked up, so that their first event waits for nothing', async () => {
  await using world = new World('@irc:hs.test', '@gone:hs.test');
  world.facts.set('!known', { wantsMembers: false, wantsAliases: false });
  await world.answerEverything({ 'rooms of @irc:hs.test': found('!a', '!known', '!b'), 'members !a': found('@x:hs.test'), 'aliases !a as @x:hs.test': found('#a:hs.test'), 'members !b': found('@irc:hs.test'), 'aliases !b as @irc:hs.test': found() });
  assert.deepEqual(world.asked.map(({ what }) => what).sort(), ['aliases !a as @x:hs.test', 'aliases !b as @irc:hs.test', 'members !a', 'members !b', 'rooms of @gone:hs.test', 'rooms of @irc:hs.test']);
  assert.deepEqual(world.told.map(({ roomId }) => roomId).sort(), ['!a', '!b']);
  const { length } = world.asked;
  assert.equal(await hasEnded(world.lookups.prepare(piece(event('m.room.message', '!a'), event('m.room.message', '!b')))), true);
  // A user whom the homeserver does not have is not asked about again, until a registration is new.
  await world.clock.advance(3_600_000);
  assert.equal(world.asked.length, length);
  world.homeserver.senderUserIds = ['@irc:hs.test', '@new:hs.test'];
  world.homeserver.registrationsVersion++;
  await world.clock.advance(60_000);
  assert.deepEqual(world.asked.slice(length).map(({ what }) => what), ['rooms of @new:hs.test']);
});

test('R31 the first event of a listed room waits for the look-up as any other, and before those that nothing waits for', async () => {
  await using world = new World('@irc:hs.test');
  const rooms = Array.from({ length: 30 }, (_, at) => `!${at}`);
  (await world.nth(0)).answer(found(...rooms));
  await world.nth(4);
  assert.equal(world.lookups.status.unknownRoomCount, 30);
  const preparing = world.lookups.prepare(piece(event('m.room.message', '!29')));
  assert.equal(await hasEnded(preparing), false);
  world.asked[1]?.answer(found());
  assert.equal((await world.nth(5)).what, 'members !29');
});

test('R31 M11 a homeserver that is away is asked for the rooms again later, and holds nothing up meanwhile', async () => {
  await using world = new World('@irc:hs.test');
  (await world.nth(0)).answer({ kind: 'away', reason: 'unreachable' });
  await settle();
  assert.match(world.lookups.status.problem ?? '', /cannot be asked about rooms: unreachable/);
  await world.lookups.prepare(piece(event('m.room.message')));
  await world.clock.advance(1_000);
  const asked = [await world.nth(1), await world.nth(2)];
  assert.deepEqual(asked.map(({ what }) => what).sort(), ['members !r', 'rooms of @irc:hs.test']);
});
