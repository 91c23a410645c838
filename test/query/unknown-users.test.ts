/** Who is asked about the users for whom events wait, when what waits is released, and what is remembered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { UserAnswer } from '../../src/appservice/provisioning.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { UnknownUsers, UNKNOWN_USERS_LIMITS } from '../../src/query/unknown-users.ts';
import type { UnknownUsersLimits, UnknownUsersOptions, WaitingRoom } from '../../src/query/unknown-users.ts';
import { StoreError } from '../../src/store/errors.ts';
import { settle, VirtualClock } from '../support/clock.ts';
import { silent } from '../support/ledger-world.ts';

interface Room extends WaitingRoom {
  readonly userIds: Set<string>;
}

/** Rooms that wait, and appservices that answer when the test says so. */
class World implements AsyncDisposable {
  readonly clock = new VirtualClock();
  readonly rooms = new Set<Room>();
  readonly asked: string[] = [];
  readonly released: string[] = [];
  readonly counted: UserAnswer[] = [];
  readonly pending = new Map<string, { resolve(answer: UserAnswer): void; reject(error: unknown): void }>();
  readonly unknown: UnknownUsers<Room>;
  isMine = true;
  failRelease: () => Error | null = () => null;
  beforeRelease: () => void = () => undefined;

  constructor(limits: Partial<UnknownUsersLimits> = {}) {
    const options: UnknownUsersOptions<Room> = {
      serverName: 'hs.test',
      clock: this.clock,
      logger: silent,
      meter: { asked: (answer) => void this.counted.push(answer) },
      waitingRooms: () => this.rooms,
      isOpen: (room) => this.rooms.has(room),
      isMine: () => this.isMine,
      ask: (appserviceId, userId) => {
        this.asked.push(`${appserviceId} ${userId}`);
        return new Promise((resolve, reject) => this.pending.set(`${appserviceId} ${userId}`, { resolve, reject }));
      },
      release: async (room, isDue) => {
        await Promise.resolve();
        const error = this.failRelease();
        if (error !== null) throw error;
        this.beforeRelease();
        if (!isDue()) return;
        this.rooms.delete(room);
        this.released.push(`${room.appserviceId} ${room.roomId}`);
      },
      limits: { ...UNKNOWN_USERS_LIMITS, ...limits },
    };
    this.unknown = new UnknownUsers(options);
  }

  open(appserviceId: string, roomId: string, ...userIds: string[]): Room {
    const room: Room = { appserviceId, roomId, userIds: new Set(userIds) };
    this.rooms.add(room);
    this.unknown.look();
    return room;
  }

  async answer(question: string, answer: UserAnswer): Promise<void> {
    const { pending } = this;
    pending.get(question)?.resolve(answer);
    pending.delete(question);
    await settle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = this.unknown[Symbol.asyncDispose]();
    for (const { resolve } of this.pending.values()) resolve('timeout');
    await ended;
    assert.equal(this.clock.sleeperCount, 0, 'nothing is left that sleeps');
  }
}

for (const answer of ['yes', 'no', 'failed', 'timeout', 'unclaimed'] as const) {
  test(`M5 R117 what waits is released once the appservice has answered ${answer}, and that is counted`, async () => {
    await using world = new World();
    world.open('irc', '!a', '@1');
    await settle();
    assert.deepEqual([world.asked, world.released], [['irc @1'], []]);
    await world.answer('irc @1', answer);
    assert.deepEqual([world.released, world.counted, world.unknown.followedCount], [['irc !a'], [answer], 0]);
    const isKept = answer === 'yes' || answer === 'no';
    assert.equal(world.unknown.isAnswered('irc', '@1'), isKept, 'R117: failures are not remembered');
    assert.equal(world.unknown.isAnswered('xmpp', '@1'), false);
    await world.clock.advance(60_000);
    assert.equal(world.unknown.isAnswered('irc', '@1'), false, 'nothing is remembered for long');
  });
}

test('R119 I8 one that gives no answer holds up its own room, and no other', async () => {
  await using world = new World();
  world.open('irc', '!hangs', '@1');
  world.open('irc', '!b', '@2');
  world.open('xmpp', '!hangs', '@1');
  await settle();
  assert.deepEqual(world.asked, ['irc @1', 'irc @2', 'xmpp @1'], 'all are asked at once, each for itself');
  await world.answer('irc @2', 'yes');
  await world.answer('xmpp @1', 'no');
  assert.deepEqual(world.released, ['irc !b', 'xmpp !hangs']);
  await world.clock.advance(29_999);
  assert.deepEqual(world.released.length, 2);
  await world.clock.advance(1);
  assert.deepEqual(world.released, ['irc !b', 'xmpp !hangs', 'irc !hangs'], 'no room waits longer than its time');
});

test('R121 a user for whom several rooms wait is asked about once', async () => {
  await using world = new World();
  world.open('irc', '!a', '@1');
  world.open('irc', '!b', '@1', '@2');
  await settle();
  assert.deepEqual(world.asked, ['irc @1', 'irc @2']);
  await world.answer('irc @1', 'yes');
  assert.deepEqual(world.released, ['irc !a']);
  world.open('irc', '!c', '@1');
  await settle();
  assert.deepEqual([world.asked.length, world.released], [2, ['irc !a', 'irc !c']], 'its answer is remembered');
  await world.answer('irc @2', 'yes');
  assert.deepEqual(world.released, ['irc !a', 'irc !c', 'irc !b']);
});

test('M5 a user that comes to a waiting room is asked about at once, even in the turn of its release', async () => {
  await using world = new World();
  const room = world.open('irc', '!a', '@1');
  room.userIds.add('@2');
  world.unknown.look();
  await settle();
  assert.deepEqual(world.asked, ['irc @1', 'irc @2']);
  world.beforeRelease = () => room.userIds.add('@3');
  await world.answer('irc @1', 'yes');
  assert.deepEqual(world.released, []);
  await world.answer('irc @2', 'yes');
  assert.deepEqual([world.asked.at(-1), world.released], ['irc @3', []]);
  await world.answer('irc @3', 'failed');
  assert.deepEqual(world.released, ['irc !a']);
});

test('an appservice is asked about so many users at a time; the others wait their turn, no longer than their time', async () => {
  await using world = new World({ appserviceAsksMax: 2 });
  for (const at of [1, 2, 3, 4]) world.open('irc', `!${at}`, `@${at}`);
  world.open('xmpp', '!x', '@x');
  await settle();
  assert.deepEqual(world.asked, ['irc @1', 'irc @2', 'xmpp @x']);
  await world.answer('irc @2', 'yes');
  assert.deepEqual([world.asked.at(-1), world.released], ['irc @3', ['irc !2']]);
  await world.clock.advance(30_000);
  assert.deepEqual([world.released.length, world.asked.includes('irc @4')], [5, false]);
});

for (const error of [new RefusalError('QUEUE_FULL', 'Too many queries are under way.'), new StoreError('unavailable', 'the log cannot be reached')]) test(`M11 while nothing can be asked (${error.constructor.name}) the question waits and the room with it`, async () => {
  await using world = new World();
  world.open('irc', '!a', '@1');
  await settle();
  world.pending.get('irc @1')?.reject(error);
  await world.clock.advance(1_000);
  assert.deepEqual([world.asked, world.released], [['irc @1', 'irc @1'], []]);
  await world.answer('irc @1', 'yes');
  assert.deepEqual(world.released, ['irc !a']);
});

test('M11 a release that the store refuses is tried again until it is done', async () => {
  await using world = new World();
  const failures: (Error | null)[] = [new StoreError('unavailable', 'down'), new RefusalError('QUEUE_FULL', 'full'), null];
  world.failRelease = () => failures.shift() ?? null;
  world.open('irc', '!a', '@1');
  await settle();
  await world.answer('irc @1', 'yes');
  assert.deepEqual(world.released, []);
  await world.clock.advance(2_000);
  assert.deepEqual([world.released, failures], [['irc !a'], []]);
});

test('what another replica releases is forgotten; what it leaves undone is done here in the end', async () => {
  await using world = new World();
  world.isMine = false;
  const done = world.open('irc', '!done', '@1');
  world.open('irc', '!left', '@2');
  await world.clock.advance(59_000);
  world.rooms.delete(done);
  world.unknown.look();
  assert.deepEqual(world.asked, []);
  await world.clock.advance(1_000);
  assert.deepEqual(world.asked, ['irc @2']);
  await world.answer('irc @2', 'yes');
  assert.deepEqual(world.released, ['irc !left']);
});

test('what becomes this replica’s is asked about within a second', async () => {
  await using world = new World();
  world.isMine = false;
  world.open('irc', '!a', '@1');
  await world.clock.advance(5_000);
  world.isMine = true;
  await world.clock.advance(1_000);
  assert.deepEqual(world.asked, ['irc @1']);
});

test('the memory of answers is bounded, the oldest goes first', async () => {
  await using world = new World({ answersMax: 2 });
  for (const at of [1, 2, 3]) {
    world.open('irc', `!${at}`, `@${at}`);
    await settle();
    await world.answer(`irc @${at}`, 'yes');
  }
  assert.deepEqual(['@1', '@2', '@3'].map((userId) => world.unknown.isAnswered('irc', userId)), [false, true, true]);
});

test('at the end nothing is released: the next start asks', async () => {
  const world = new World({ appserviceAsksMax: 1 });
  world.open('irc', '!a', '@1', '@2');
  world.isMine = false;
  world.open('xmpp', '!b', '@3');
  await settle();
  await world[Symbol.asyncDispose]();
  assert.deepEqual(world.released, []);
});

/** An appservice that answers nothing, asked about as many users as make it silent. */
async function silenced(world: World): Promise<void> {
  for (const at of [1, 2, 3]) world.open('irc', `!${at}`, `@${at}`);
  await settle();
  for (const at of [1, 2, 3]) await world.answer(`irc @${at}`, 'timeout');
}

test('R119 M5 of an appservice that answers nothing the rest are not asked about: what waits for its turn goes out at once', async () => {
  await using world = new World({ appserviceAsksMax: 4 });
  for (let at = 1; at <= 12; at++) world.open('irc', `!${at}`, `@${at}`);
  world.open('xmpp', '!x', '@1');
  await settle();
  await world.answer('irc @1', 'timeout');
  await world.answer('irc @2', 'timeout');
  assert.deepEqual([world.asked.length, world.released], [7, ['irc !1', 'irc !2']], 'twice in a row may be chance');
  await world.answer('irc @3', 'timeout');
  assert.deepEqual(world.asked.length, 7, 'nobody else is asked about');
  assert.deepEqual(world.released.toSorted(), Array.from({ length: 12 }, (_, at) => `irc !${at + 1}`).toSorted(), 'nothing waits for it any more, questions on their way included');
  assert.deepEqual(world.counted.filter((answer) => answer === 'silent').length, 6);
  assert.ok(world.unknown.isAnswered('irc', '@new'), 'nothing begins to wait for it');
  assert.equal(world.unknown.isAnswered('xmpp', '@new'), false, 'of others that says nothing');
  await world.answer('xmpp @1', 'yes');
  assert.equal(world.released.at(-1), 'xmpp !x');
});

test('R119 M5 an appservice that was silent is asked about one user after a while, and about all once it answers', async () => {
  await using world = new World();
  await silenced(world);
  await world.clock.advance(29_999);
  assert.ok(world.unknown.isAnswered('irc', '@4'));
  await world.clock.advance(1);
  assert.equal(world.unknown.isAnswered('irc', '@4'), false);
  world.open('irc', '!4', '@4');
  world.open('irc', '!5', '@5');
  await settle();
  assert.deepEqual([world.asked.slice(3), world.released.slice(3)], [['irc @4'], ['irc !5']], 'one question at a time');
  await world.answer('irc @4', 'timeout');
  assert.ok(world.unknown.isAnswered('irc', '@6'), 'silent for another while');
  await world.clock.advance(30_000);
  world.open('irc', '!6', '@6');
  await settle();
  await world.answer('irc @6', 'failed');
  for (const at of [7, 8]) world.open('irc', `!${at}`, `@${at}`);
  await settle();
  assert.deepEqual(world.asked.slice(4), ['irc @6', 'irc @7', 'irc @8'], 'any answer will do');
});

for (const between of ['yes', 'no', 'failed'] as const) {
  test(`R116 an appservice that answers ${between} now and then is not silent`, async () => {
    await using world = new World();
    const answers: UserAnswer[] = ['timeout', 'timeout', between, 'timeout', 'timeout'];
    for (const [at, given] of answers.entries()) {
      world.open('irc', `!${at}`, `@${at}`);
      await settle();
      await world.answer(`irc @${at}`, given);
    }
    assert.deepEqual([world.asked.length, world.unknown.isAnswered('irc', '@new')], [5, false]);
  });
}
