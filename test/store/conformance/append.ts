/** SegmentLog.append: a compare-and-set on the tail, and nothing is lost or changed in what was given. */
import assert from 'node:assert/strict';
import type { AppendOutcome, Store } from '../../../src/store/port.ts';
import type { Entry, Segment } from '../../../src/store/segment.ts';
import { lastPosition } from '../../../src/store/segment.ts';
import type { ConformanceCase, World } from './world.ts';
import { ALL_ENTRIES, ALL_SEGMENTS, ODD_TEXTS, appendAll, bytesOf, eventEntries, eventEntry, hexOf, readable, recordOf, registrationOf, segmentOf, textOf } from './world.ts';

const MIB = 1024 * 1024;

async function stored(store: Store, serverName: string): Promise<Segment[]> {
  return store.readSegments(serverName, 1, ALL_SEGMENTS);
}

async function roundTrips({ store, second }: World, segment: Segment): Promise<void> {
  assert.deepEqual(await store.append(segment), { kind: 'appended' });
  assert.deepEqual((await stored(second, segment.serverName)).map(readable), [readable(segment)]);
}

function count(outcomes: readonly AppendOutcome[], kind: AppendOutcome['kind']): number {
  return outcomes.filter((outcome) => outcome.kind === kind).length;
}

/** Appends at whatever the tail is until `wins` segments of its own are in; reads on when it loses. */
async function race(store: Store, serverName: string, label: string, wins: number): Promise<number> {
  let tail = 0;
  let losses = 0;
  for (let won = 0; won < wins; ) {
    const segment = segmentOf(serverName, tail + 1, { nonce: `${label}-${won}`, entries: eventEntries(1 + (won % 3), label) });
    if ((await store.append(segment)).kind === 'appended') {
      tail = lastPosition(segment);
      won++;
      continue;
    }
    losses++;
    const news = await store.readSegments(serverName, tail + 1, ALL_SEGMENTS);
    const last = news.at(-1);
    assert.ok(last !== undefined, 'a lost append has a rival that can be read');
    tail = lastPosition(last);
  }
  return losses;
}

export const appendCases: readonly ConformanceCase[] = [
  {
    title: 'puts the first segment at position 1 of an empty log',
    run: async (world) => {
      await roundTrips(world, segmentOf(world.fresh(), 1));
    },
  },
  {
    title: 'R62 keeps segments in the order of their positions',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ entries: eventEntries(3) }, { entries: eventEntries(1) }, { entries: eventEntries(12) }]);
      assert.deepEqual((await stored(store, name)).map(({ firstPosition, entries }) => [firstPosition, entries.length]), [[1, 3], [4, 1], [5, 12]]);
    },
  },
  {
    title: 'is lost where another segment stands, and changes nothing of it',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const first = segmentOf(name, 1, { nonce: 'first' });
      assert.deepEqual(await store.append(first), { kind: 'appended' });
      assert.deepEqual(await second.append(segmentOf(name, 1, { nonce: 'rival', entries: eventEntries(5) })), { kind: 'lost' });
      assert.deepEqual((await stored(store, name)).map(readable), [readable(first)]);
    },
  },
  {
    title: 'is lost at a position inside an earlier segment',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await appendAll(store, name, [{ entries: eventEntries(5) }]);
      for (const position of [2, 5]) assert.deepEqual(await store.append(segmentOf(name, position, { nonce: 'inside' })), { kind: 'lost' });
      assert.equal((await stored(store, name)).length, 1);
    },
  },
  {
    title: 'refuses a segment that would leave a hole, and writes nothing',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await assert.rejects(store.append(segmentOf(name, 2)));
      await appendAll(store, name, [{ entries: eventEntries(2) }]);
      await assert.rejects(store.append(segmentOf(name, 4)));
      assert.equal((await stored(store, name)).length, 1);
      assert.equal(await appendAll(store, name, [{}], 2), 3);
    },
  },
  {
    title: 'knows its own segment by the nonce when it is told the same again',
    run: async ({ store, second, fresh }) => {
      const segment = segmentOf(fresh(), 1, { nonce: 'mine' });
      assert.deepEqual(await store.append(segment), { kind: 'appended' });
      assert.deepEqual(await store.append(segment), { kind: 'appended' });
      assert.deepEqual(await second.append(segment), { kind: 'appended' });
      assert.equal((await stored(store, segment.serverName)).length, 1);
    },
  },
  {
    title: 'knows its own segment by the nonce after the log went on',
    run: async ({ store, second, fresh }) => {
      const segment = segmentOf(fresh(), 1, { nonce: 'mine', entries: eventEntries(2) });
      assert.deepEqual(await store.append(segment), { kind: 'appended' });
      await appendAll(second, segment.serverName, [{}, {}], 2);
      assert.deepEqual(await store.append(segment), { kind: 'appended' });
      assert.equal((await stored(store, segment.serverName)).length, 3);
    },
  },
  {
    title: 'gives a place to exactly one of twenty callers at once',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const rivals = Array.from({ length: 20 }, (_, at) => segmentOf(name, 1, { nonce: `rival-${at}`, entries: eventEntries(1 + at) }));
      const outcomes = await Promise.all(rivals.map((rival, at) => (at % 2 === 0 ? store : second).append(rival)));
      assert.equal(count(outcomes, 'appended'), 1);
      assert.equal(count(outcomes, 'lost'), 19);
      const winner = rivals[outcomes.findIndex(({ kind }) => kind === 'appended')];
      assert.deepEqual((await stored(store, name)).map(readable), winner === undefined ? [] : [readable(winner)]);
    },
  },
  {
    title: 'R62 lets two writers race for the tail without a hole, an overlap or a loss',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await Promise.all([race(store, name, 'left', 20), race(second, name, 'right', 20)]);
      const segments = await stored(store, name);
      let tail = 0;
      for (const segment of segments) {
        assert.equal(segment.firstPosition, tail + 1);
        tail = lastPosition(segment);
      }
      const nonces = segments.map(({ nonce }) => nonce);
      for (const label of ['left', 'right']) assert.deepEqual(nonces.filter((nonce) => nonce.startsWith(label)), Array.from({ length: 20 }, (_, at) => `${label}-${at}`));
    },
  },
  {
    title: 'R63 counts the positions of each server name by itself',
    run: async ({ store, fresh }) => {
      const serverNames = Array.from({ length: 8 }, () => fresh());
      await Promise.all(serverNames.map((name, at) => appendAll(store, name, Array.from({ length: 1 + at }, () => ({})))));
      for (const [at, name] of serverNames.entries()) assert.equal((await stored(store, name)).length, 1 + at);
    },
  },
  {
    title: 'I3 gives back every field of a segment exactly',
    run: async (world) => {
      const entries: Entry[] = [
        eventEntry('{"type":"m.room.message"}'),
        { kind: 'ephemeral', json: bytesOf('{"type":"m.typing"}') },
        { kind: 'to_device', json: bytesOf('{}') },
        { kind: 'device_list', json: bytesOf('{"user_id":"@a:b"}') },
        { kind: 'mark', json: new Uint8Array(0) },
      ];
      await roundTrips(world, {
        ...segmentOf(world.fresh(), 1, { entries, routes: [['irc', [0, 1, 3, 3]], ['mail', [2, 2]]] }),
        roomDeltas: [
          { kind: 'joined', roomId: '!r:example.org', userId: '@a:example.org' },
          { kind: 'left', roomId: '!r:example.org', userId: '@b:example.org' },
          { kind: 'members', roomId: '!r', userIds: ['@c:example.org', '@d:example.org'] },
          { kind: 'members', roomId: '!s', userIds: [] },
          { kind: 'aliases', roomId: '!r', roomAliases: ['#a:example.org'] },
        ],
        streamPositions: { '': 17, events: Number.MAX_SAFE_INTEGER },
        registrationChanges: [
          { kind: 'put', appserviceId: 'irc', registration: registrationOf('irc'), resumeParked: true },
          { kind: 'put', appserviceId: 'mail', registration: registrationOf('mail'), resumeParked: false },
          { kind: 'removed', appserviceId: 'old', backlog: 'discard' },
          { kind: 'removed', appserviceId: 'older', backlog: 'park' },
        ],
        registrationsVersion: 12,
        nonce: 'a nonce \u{1f980}',
        timeMs: 1_764_000_000_123,
      });
    },
  },
  {
    title: 'R51 I3 gives back the bytes of an entry exactly, valid text or not',
    run: async (world) => {
      const entries = ODD_TEXTS.map((text) => eventEntry(JSON.stringify({ text })));
      entries.push(eventEntry('{"a":"\\ud800","b":"\\udfff\\ud83d","c":"\\u0000"}'), eventEntry('{ "z" :1e400,"__proto__":{"a":-0.0}}'), eventEntry('{"dup":1,"dup":2}'));
      entries.push({ kind: 'event', json: Uint8Array.from({ length: 256 }, (_, at) => at) });
      await roundTrips(world, segmentOf(world.fresh(), 1, { entries, routes: [['all', [0, entries.length - 1]]] }));
    },
  },
  {
    title: 'gives back odd ids in routes, streams and rooms exactly',
    run: async (world) => {
      const entries = eventEntries(ODD_TEXTS.length);
      await roundTrips(world, {
        ...segmentOf(world.fresh(), 1, { entries, routes: ODD_TEXTS.map((id, at) => [id, [at, at]]) }),
        streamPositions: recordOf(ODD_TEXTS.map((stream, at) => [stream, at + 1])),
        roomDeltas: ODD_TEXTS.map((text) => ({ kind: 'joined', roomId: text, userId: `@${text}` })),
        registrationChanges: ODD_TEXTS.map((text) => ({ kind: 'put', appserviceId: text, registration: registrationOf(text), resumeParked: false })),
      });
    },
  },
  {
    title: 'takes odd server names and keeps them apart',
    run: async ({ store, fresh }) => {
      const serverNames = ODD_TEXTS.map((text) => `${text}${fresh('')}${text}`);
      for (const name of serverNames) await appendAll(store, name, [{ entries: [eventEntry(JSON.stringify(name))] }]);
      for (const name of serverNames) assert.deepEqual((await stored(store, name)).map(({ serverName, entries }) => [serverName, entries.map(({ json }) => textOf(json))]), [[name, [JSON.stringify(name)]]]);
    },
  },
  {
    title: 'takes a segment of 1,000 entries and 8 MiB',
    run: async (world) => {
      const entries = Array.from({ length: 1_000 }, (_, at) => eventEntry(`{"n":${at},"pad":"${'p'.repeat(8 * 1024 + 380)}"}`));
      assert.ok(entries.reduce((sum, { json }) => sum + json.byteLength, 0) >= 8 * MIB);
      await roundTrips(world, segmentOf(world.fresh(), 1, { entries, routes: [['all', [0, 999]], ['last', [999, 999]]] }));
    },
  },
  {
    title: 'takes an entry of 512 KiB',
    run: async (world) => {
      const large = eventEntry(`"${'\u00e9'.repeat(256 * 1024 - 1)}"`);
      assert.equal(large.json.byteLength, 512 * 1024);
      const segment = segmentOf(world.fresh(), 1, { entries: [eventEntry('1'), large, eventEntry('2')], routes: [['irc', [1, 1]]] });
      await roundTrips(world, segment);
      assert.deepEqual((await world.store.readRoute(segment.serverName, 'irc', 0, 3, ALL_ENTRIES)).map(({ json }) => hexOf(json)), [hexOf(large.json)]);
    },
  },
  {
    title: 'R63 takes a segment with routes to 2,000 appservices',
    run: async (world) => {
      const entries = eventEntries(200);
      const routes = Array.from({ length: 2_000 }, (_, at): [string, number[]] => [`appservice-${at}`, [at % 100, (at % 100) + (at % 90)]]);
      const segment = segmentOf(world.fresh(), 1, { entries, routes });
      await roundTrips(world, segment);
      for (const at of [0, 999, 1_999]) {
        const found = await world.store.readRoute(segment.serverName, `appservice-${at}`, 0, 200, ALL_ENTRIES);
        assert.deepEqual([found.length, found[0]?.position], [(at % 90) + 1, (at % 100) + 1]);
      }
    },
  },
  {
    title: 'takes a segment with a snapshot of 20,000 members',
    run: async (world) => {
      const userIds = Array.from({ length: 20_000 }, (_, at) => `@person-${at}:example.org`);
      await roundTrips(world, { ...segmentOf(world.fresh(), 1), roomDeltas: [{ kind: 'members', roomId: '!large', userIds }] });
    },
  },
  {
    title: 'keeps what it was given, whatever the caller does with the bytes afterwards, and leaves them usable',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const request = bytesOf('{"n":1}{"n":2}');
      const entries: Entry[] = [{ kind: 'event', json: request.subarray(0, 7) }, { kind: 'event', json: request.subarray(7) }];
      const appending = store.append(segmentOf(name, 1, { entries, routes: [['irc', [0, 1]]] }));
      assert.equal((await appending).kind, 'appended');
      assert.equal(textOf(request), '{"n":1}{"n":2}');
      request.fill(0);
      assert.deepEqual((await store.readRoute(name, 'irc', 0, 2, ALL_ENTRIES)).map(({ json }) => textOf(json)), ['{"n":1}', '{"n":2}']);
    },
  },
  {
    title: 'R65 I1 still has what it answered for after it is closed and opened again, and goes on from there',
    needsDurable: true,
    run: async (world) => {
      const name = world.fresh();
      await appendAll(world.store, name, [{ entries: eventEntries(3) }, { entries: eventEntries(2) }]);
      const before = (await stored(world.store, name)).map(readable);
      await world.reopen();
      assert.deepEqual((await stored(world.store, name)).map(readable), before);
      assert.deepEqual(await world.store.append(segmentOf(name, 4, { nonce: 'rival' })), { kind: 'lost' });
      assert.equal(await appendAll(world.store, name, [{}], 5), 6);
    },
  },
];
