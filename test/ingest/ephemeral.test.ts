/** Ephemeral data in the log: who gets it, what they see of it, and what a group comes to. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseEphemeral } from '../../src/appservice/ephemeral.ts';
import type { OtherItems, ParsedSubmission, SubmittedEphemeral } from '../../src/ingest/submission.ts';
import { openLedger } from '../support/ledger-world.ts';
import type { LedgerWorld } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { member, registration, submission } from '../support/routing.ts';
import type { EventFields } from '../support/routing.ts';

const ROOM = '!r:hs.test';
const PERSON = '@alice:hs.test';
const ghost = (appserviceId: string, name = 'g'): string => `@_${appserviceId}_${name}:hs.test`;

interface Item {
  readonly at?: number;
  readonly rooms?: readonly string[];
  readonly [key: string]: unknown;
}

const typing = (userIds: readonly string[], room = ROOM): Item => ({ type: 'm.typing', room_id: room, content: { user_ids: userIds } });
const online = (sender: string, presence = 'online'): Item => ({ type: 'm.presence', sender, content: { presence } });
const receiptsIn = (content: object, room = ROOM): Item => ({ type: 'm.receipt', room_id: room, content });
const read = (user: string, event: string, more: object = {}, room = ROOM): Item => receiptsIn({ [event]: { 'm.read': { [user]: { ts: 1, ...more } } } }, room);

function submit(items: readonly Item[], events: readonly EventFields[] = []): ParsedSubmission {
  const ephemeral = items.map(({ at = 0, rooms = [], ...event }): SubmittedEphemeral => ({ event: parseEphemeral(Buffer.from(JSON.stringify(event)), 'ephemeral'), roomIds: rooms, streamPosition: at }));
  const roomIds = ephemeral.flatMap(({ event, roomIds: named }) => (event.kind === 'presence' ? named : [event.roomId]));
  const others: OtherItems = { ephemeral, toDevice: [], deviceLists: [], deviceKeys: [], roomIds, count: ephemeral.length };
  return submission(events, { others });
}

/** Texts of the kind that are routed to the appservice in the whole log, in order. */
function routed({ segments }: MemoryLog, appserviceId: string, wanted = 'ephemeral'): string[] {
  return segments.flatMap(({ entries, routes }) => {
    const ranges = routes.find((route) => route.appserviceId === appserviceId)?.ranges ?? [];
    return entries.flatMap(({ kind, json }, index) => (kind === wanted && ranges.some((first, at) => at % 2 === 0 && index >= first && index <= (ranges[at + 1] ?? -1)) ? [Buffer.from(json).toString()] : []));
  });
}

const objects = (log: MemoryLog, appserviceId: string): unknown[] => routed(log, appserviceId).map((text): unknown => JSON.parse(text));

async function world(log: MemoryLog, ...ids: readonly string[]): Promise<LedgerWorld> {
  const opened = await openLedger(log);
  for (const id of ids) await opened.put(registration(id, id === 'plain' ? {} : id === 'old' ? { push_ephemeral_unstable: true } : id === 'away' ? { receive_ephemeral: true, url: null } : { receive_ephemeral: true }));
  return opened;
}

test('R78 R81 R82 typing and receipts go to who is interested in the room and opted in under either name, as they came', async () => {
  const log = new MemoryLog();
  await using opened = await world(log, 'new', 'old', 'plain', 'away', 'far');
  await opened.ledger.submit(submission(['new', 'old', 'plain', 'away'].map((id) => member(`$${id}`, ghost(id), 'join'))));
  const items = [typing([PERSON]), read(PERSON, '$1', { thread_id: 'main', odd: 1 }), typing([], '!other:hs.test'), read(PERSON, '$1', {}, '!other:hs.test')];
  const answer = await opened.ledger.submit(submit(items));
  assert.deepEqual([answer.accepted, answer.duplicates, answer.routed], [4, 0, 4]);
  const expected = items.slice(0, 2).map((item) => JSON.stringify(item));
  assert.deepEqual(['new', 'old', 'plain', 'away', 'far'].map((id) => routed(log, id)), [expected, expected, [], [], []]);
  await opened.ledger.submit(submit([typing([PERSON])], [member('$leave', ghost('new'), 'leave')]));
  assert.deepEqual([routed(log, 'new').length, routed(log, 'old').length], [2, 3], 'no further than the room concerns it');
});

test('R82 rooms of interest are those of the namespaces of rooms and aliases too', async () => {
  const log = new MemoryLog();
  await using opened = await openLedger(log);
  await opened.put(registration('rooms', { receive_ephemeral: true, namespaces: { users: [], aliases: [], rooms: [{ regex: '!r:', exclusive: false }] } }));
  await opened.put(registration('alias', { receive_ephemeral: true }));
  const { routed: before } = await opened.ledger.submit(submit([typing([PERSON])]));
  const context = { rooms: [{ roomId: ROOM, localAliases: ['#alias_1:hs.test'], localMembers: undefined }] };
  const { routed: after } = await opened.ledger.submit({ ...submit([typing([PERSON])]), ...context });
  assert.deepEqual([before, after], [1, 2]);
});

test('R83 R86 private receipts are seen by who has their user alone; what is left of an event is sent, nothing is not', async () => {
  const log = new MemoryLog();
  await using opened = await world(log, 'a', 'b', 'c');
  await opened.ledger.submit(submission(['a', 'b', 'c'].map((id) => member(`$${id}`, ghost(id), 'join'))));
  const hidden = (user: string, event = '$1'): Item => receiptsIn({ [event]: { 'm.read.private': { [user]: { ts: 2 } } } });
  const mixed = receiptsIn({ $1: { 'm.read': { [PERSON]: { ts: 1 } }, 'm.read.private': { [ghost('a')]: { ts: 2 }, [PERSON]: { ts: 3 }, '@_b_bot:hs.test': { ts: 4 }, '@_c_x:far.test': { ts: 5 } } } });
  const counts: number[] = [];
  for (const item of [mixed, hidden(PERSON), hidden(ghost('a')), receiptsIn({}), receiptsIn({ $1: { 'org.example.x': { [PERSON]: {} } } })]) {
    counts.push((await opened.ledger.submit(submit([item]))).routed);
  }
  assert.deepEqual(counts, [3, 0, 1, 0, 0]);
  const event = (content: object): unknown => receiptsIn({ $1: content });
  assert.deepEqual(objects(log, 'a'), [event({ 'm.read': { [PERSON]: { ts: 1 } }, 'm.read.private': { [ghost('a')]: { ts: 2 } } }), hidden(ghost('a'))]);
  assert.deepEqual(objects(log, 'b'), [event({ 'm.read': { [PERSON]: { ts: 1 } }, 'm.read.private': { '@_b_bot:hs.test': { ts: 4 } } })]);
  assert.deepEqual(objects(log, 'c'), [event({ 'm.read': { [PERSON]: { ts: 1 } } })]);
  assert.ok(log.segments.every(({ entries }) => entries.every(({ json }) => !Buffer.from(json).toString().includes(`"m.read.private":{"${PERSON}`))), 'nothing of it is stored');
});

test('R83 private receipts of many appservices in one room repeat the public ones for none of them', async () => {
  const log = new MemoryLog();
  const ids = Array.from({ length: 12 }, (_, at) => `a${at}x`);
  await using opened = await world(log, ...ids);
  await opened.ledger.submit(submission(ids.map((id) => member(`$${id}`, ghost(id), 'join'))));
  const hidden = Object.fromEntries(ids.map((id) => [ghost(id), { ts: 2 }]));
  const people = Object.fromEntries(Array.from({ length: 300 }, (_, at) => [`@p${at}:hs.test`, { ts: 1 }]));
  assert.equal((await opened.ledger.submit(submit([receiptsIn({ $1: { 'm.read': people, 'm.read.private': hidden } })]))).routed, 12);
  for (const id of ids) assert.deepEqual(objects(log, id), [receiptsIn({ $1: { 'm.read': people } }), receiptsIn({ $1: { 'm.read.private': { [ghost(id)]: { ts: 2 } } } })]);
  assert.equal(log.segments.at(-1)?.entries.length, 13);
});

test('R84 presence goes to who has the user or shares a room with it that the router or the homeserver knows, and to nobody else', async () => {
  const log = new MemoryLog();
  await using opened = await world(log, 'a', 'b', 'plain');
  await opened.ledger.submit(submission([member('$1', ghost('a'), 'join'), member('$2', ghost('plain'), 'join'), member('$3', PERSON, 'join'), member('$4', ghost('b'), 'join', '!s:hs.test'), member('$5', '@bob:hs.test', 'join', '!s:hs.test'), member('$6', '@bob:hs.test', 'leave', '!s:hs.test')]));
  const counts: number[] = [];
  for (const item of [online(PERSON), online('@bob:hs.test'), online(ghost('b')), online('@_b_bot:hs.test'), online('@far:far.test'), { ...online('@far:far.test'), rooms: [ROOM, '!s:hs.test'] }, online('@_a_g:far.test')]) {
    counts.push((await opened.ledger.submit(submit([item]))).routed);
  }
  assert.deepEqual(counts, [1, 0, 1, 1, 0, 2, 0]);
  assert.deepEqual([objects(log, 'a'), objects(log, 'b'), routed(log, 'plain')], [[online(PERSON), online('@far:far.test')], [online(ghost('b')), online('@_b_bot:hs.test'), online('@far:far.test')], []]);
  await opened.ledger.submit(submit([], [member('$7', ghost('b'), 'join')]));
  assert.equal((await opened.ledger.submit(submit([online(PERSON)]))).routed, 2, 'an appservice that came later');
  await opened.ledger.submit({ ...submit([]), rooms: [{ roomId: ROOM, localAliases: undefined, localMembers: [ghost('a'), ghost('b')] }] });
  assert.equal((await opened.ledger.submit(submit([online(PERSON)]))).routed, 0, 'a snapshot without the user');
});

test('R84 a room that an append was lost for is counted as it is in the log', async () => {
  const log = new MemoryLog();
  await using one = await world(log, 'a');
  await using other = await openLedger(log);
  await one.ledger.submit(submission([member('$1', ghost('a'), 'join'), member('$2', PERSON, 'join')]));
  assert.equal((await other.ledger.submit(submit([online(PERSON)]))).routed, 1);
  await one.ledger.submit(submission([member('$3', PERSON, 'leave')]));
  assert.equal((await other.ledger.submit(submit([online(PERSON), online(ghost('a'))]))).routed, 1);
});

test('R87 a group holds the newest typing of a room and the newest presence of a user, and every item is counted', async () => {
  const log = new MemoryLog();
  await using opened = await world(log, 'a');
  await opened.ledger.submit(submission([member('$1', ghost('a'), 'join'), member('$2', ghost('a'), 'join', '!s:hs.test')]));
  const items = [typing([PERSON]), typing(['@bob:hs.test'], '!s:hs.test'), online(ghost('a')), typing([]), online(ghost('a'), 'offline'), online(ghost('a', 'z'))];
  const { accepted, routed: count } = await opened.ledger.submit(submit(items));
  assert.deepEqual([accepted, count], [6, 6]);
  assert.deepEqual(objects(log, 'a'), [items[1], items[3], items[4], items[5]]);
});

test('R87 receipts of a room merge by type, user and thread; the newest counts, nothing is told twice and threads stay apart', async () => {
  const log = new MemoryLog();
  await using opened = await world(log, 'a');
  await opened.ledger.submit(submission([member('$1', ghost('a'), 'join'), member('$2', ghost('a'), 'join', '!s:hs.test')]));
  const bob = '@bob:hs.test';
  const other = read(bob, '$1', {}, '!s:hs.test');
  await opened.ledger.submit(submit([read(PERSON, '$1'), read(bob, '$1'), read(PERSON, '$2'), other, read(PERSON, '$2', { thread_id: '$t' }), receiptsIn({ $3: { 'm.read.private': { [ghost('a')]: { ts: 9 } } } })]));
  assert.deepEqual(objects(log, 'a'), [
    receiptsIn({ $1: { 'm.read': { [bob]: { ts: 1 } } }, $2: { 'm.read': { [PERSON]: { ts: 1 } } }, $3: { 'm.read.private': { [ghost('a')]: { ts: 9 } } } }),
    receiptsIn({ $2: { 'm.read': { [PERSON]: { ts: 1, thread_id: '$t' } } } }),
    other,
  ]);
});

test('R62 M6 ephemeral data stands behind the events of its group, whose order it does not touch', async () => {
  const log = new MemoryLog();
  await using opened = await world(log, 'a');
  const join = member('$1', ghost('a'), 'join');
  await Promise.all([opened.ledger.submit(submit([typing([PERSON])], [join, { id: '$2' }])), opened.ledger.submit(submit([], [{ id: '$3' }]))]);
  const [segment] = log.segments.slice(-1);
  assert.deepEqual(segment?.entries.map(({ kind }) => kind), ['event', 'event', 'event', 'ephemeral']);
});

test('I7 an ephemeral event shares the stream and its positions with all other items', async () => {
  const log = new MemoryLog();
  await using opened = await world(log, 'a');
  await opened.ledger.submit(submission([member('$1', ghost('a'), 'join')]));
  const first = await opened.ledger.submit(submit([{ ...typing([]), at: 3 }, { ...online('@nobody:hs.test'), at: 4 }]));
  assert.deepEqual([first.accepted, first.duplicates, first.streamPosition], [2, 0, 4]);
  const again = await opened.ledger.submit(submit([{ ...typing([]), at: 3 }, { ...typing([PERSON]), at: 5 }]));
  assert.deepEqual([again.accepted, again.duplicates, again.routed, again.streamPosition], [1, 1, 1, 5]);
  await Promise.all([6, 7].map((at) => opened.ledger.submit(submit([{ ...read(`@p${at}:hs.test`, '$1'), at }]))));
  await Promise.all(['one', 'other'].map((stream, at) => opened.ledger.submit({ ...submit([{ ...read(`@p${at}:hs.test`, '$1'), at: 9 }]), stream })));
  const runs = log.segments.slice(-4).map(({ streamRuns }) => streamRuns);
  assert.deepEqual(runs, [{ '': [0, 3, 1] }, { '': [0, 5, 1] }, { '': [0, 6, 1] }, { one: [0, 9, 1], other: [0, 9, 1] }], 'what was put together stands where the first of it did');
});

test('R87 ten thousand receipts of one room, as fast as they come, are few segments of one entry each', async () => {
  const log = new MemoryLog();
  await using opened = await openLedger(log, { queueItemsMax: 10_000 });
  await opened.put(registration('a', { receive_ephemeral: true }));
  await opened.ledger.submit(submission([member('$1', ghost('a'), 'join')]));
  const before = log.segments.length;
  const answers = await Promise.all(Array.from({ length: 10_000 }, (_, at) => opened.ledger.submit(submit([read(`@p${at % 100}:hs.test`, `$${at}`)]))));
  assert.ok(answers.every(({ accepted, routed: count }) => accepted === 1 && count === 1));
  const segments = log.segments.slice(before);
  assert.ok(segments.length <= 11, `${segments.length} segments`);
  assert.ok(segments.every(({ entries }) => entries.length === 1));
  const bytes = segments.flatMap(({ entries }) => entries).reduce((sum, { json }) => sum + json.byteLength, 0);
  assert.ok(bytes < 11 * 100 * 100, `${bytes} bytes`);
  const newest = JSON.parse(routed(log, 'a').at(-1) ?? '{}') as { content: object };
  assert.deepEqual(Object.keys(newest.content).length, 100);
});
