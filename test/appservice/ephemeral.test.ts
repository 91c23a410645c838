/** Ephemeral events as they are judged at the door, put together, and overtaken. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseEphemeral } from '../../src/appservice/ephemeral.ts';
import type { Receipt } from '../../src/appservice/ephemeral.ts';
import { Overtaking } from '../../src/appservice/overtaking.ts';
import { receiptEvents } from '../../src/appservice/receipts.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';

const parse = (event: unknown): ReturnType<typeof parseEphemeral> => parseEphemeral(Buffer.from(typeof event === 'string' ? event : JSON.stringify(event)), 'ephemeral[3].json');

function assertRefused(event: unknown, message: RegExp): void {
  assert.throws(() => parse(event), (error) => {
    assert.ok(error instanceof RefusalError);
    assert.deepEqual([error.reason, error.details.field], ['INVALID_FIELD', 'ephemeral[3].json']);
    assert.match(error.message, message);
    return true;
  });
}

const receipts = (content: unknown): Record<string, unknown> => ({ type: 'm.receipt', room_id: '!r', content });

test('R81 R82 R84 typing, receipts and presence are taken as clients get them, their text as it came', () => {
  const typing = ' {"type":"m.typing", "room_id":"!r", "content":{"user_ids":["@a:b"],"x":1e2}} ';
  const event = parse(typing);
  assert.deepEqual(event, { kind: 'typing', json: Buffer.from(typing.trim()), roomId: '!r' });
  const presence = parse({ type: 'm.presence', sender: '@a:b', content: { presence: 'online', last_active_ago: 0, currently_active: true } });
  assert.deepEqual([presence.kind, presence.kind === 'presence' && presence.userId], ['presence', '@a:b']);
  const content = { $1: { 'm.read': { '@a:b': { ts: 7, thread_id: 'main', more: [] }, '@c:d': {} } }, $2: { 'm.read.private': { '@a:b': { ts: 0 } } } };
  const receipt = parse(receipts(content));
  assert.ok(receipt.kind === 'receipt');
  assert.deepEqual([receipt.roomId, receipt.isWhole, receipt.receipts], ['!r', true, [
    { type: 'm.read', eventId: '$1', userId: '@a:b', threadId: 'main', data: { ts: 7, thread_id: 'main', more: [] } },
    { type: 'm.read', eventId: '$1', userId: '@c:d', threadId: undefined, data: {} },
    { type: 'm.read.private', eventId: '$2', userId: '@a:b', threadId: undefined, data: { ts: 0 } },
  ]]);
});

test('R83 receipts of unknown types are left out, since nobody knows who may see them', () => {
  const event = parse(receipts({ $1: { 'org.example.read.hidden': { '@a:b': { ts: 1 } }, 'm.read': { '@a:b': { ts: 1 } } } }));
  assert.ok(event.kind === 'receipt');
  assert.deepEqual([event.isWhole, event.receipts.map(({ type }) => type)], [false, ['m.read']]);
});

test('R85 anything else is refused, and so is every unknown shape', () => {
  const read = (data: unknown, user = '@a:b', event = '$1'): unknown => receipts({ [event]: { 'm.read': { [user]: data } } });
  const users = (count: number): Record<string, unknown> => Object.fromEntries(Array.from({ length: count }, (_, at) => [`@u${at}:b`, {}]));
  const typing = (userIds: unknown): unknown => ({ type: 'm.typing', room_id: '!r', content: { user_ids: userIds } });
  const presence = (content: unknown, sender: unknown = '@a:b'): unknown => ({ type: 'm.presence', sender, content });
  for (const type of ['m.fully_read', 'm.room.message', 'm.tag', 'm.Typing']) assertRefused({ type, room_id: '!r', content: {} }, /m\.typing, m\.receipt or m\.presence/);
  for (const event of ['', '[]', '{}', { content: {} }, { type: 5, content: {} }]) assertRefused(event, /JSON object|"type"/);
  for (const type of ['m.typing', 'm.receipt', 'm.presence']) for (const content of [undefined, null, [], 'x']) assertRefused({ type, room_id: '!r', sender: '@a:b', content }, /"content", a JSON object/);
  for (const type of ['m.typing', 'm.receipt']) for (const roomId of [undefined, '', 7]) assertRefused({ type, room_id: roomId, content: { user_ids: [] } }, /"room_id"/);
  assertRefused({ type: 'm.typing', room_id: `!${'r'.repeat(1_024)}`, content: { user_ids: [] } }, /1024 bytes/);
  for (const userIds of [undefined, null, {}, '@a:b']) assertRefused(typing(userIds), /"user_ids", a list/);
  for (const user of [1, null, '', 'a', '@a', `@${'a'.repeat(255)}:b`]) assertRefused(typing([user]), /A user of an m\.typing is not a user ID/);
  assertRefused(typing(Object.keys(users(1_001))), /at most 1000 users; this one names 1001/);
  for (const byType of [null, [], 'x', 1]) assertRefused(receipts({ $1: byType }), /an object of receipt types/);
  for (const byUser of [null, [], 'x', 1]) for (const type of ['m.read', 'org.example.x']) assertRefused(receipts({ $1: { [type]: byUser } }), /an object of users/);
  for (const data of [null, [], 'x', 1]) assertRefused(read(data), /an object with "ts"/);
  for (const ts of [-1, 1.5, '7', null, 2 ** 60, {}]) assertRefused(read({ ts }), /whole number from 0/);
  for (const threadId of ['', 7, null, 'x'.repeat(256)]) assertRefused(read({ thread_id: threadId }), /"thread_id"/);
  for (const user of ['', 'a', '@a']) assertRefused(read({}, user), /A user of an m\.receipt is not a user ID/);
  for (const event of ['', `$${'e'.repeat(255)}`]) assertRefused(read({}, '@a:b', event), /event ID of a receipt has 1 to 255 bytes/);
  assertRefused(receipts({ $1: { 'm.read': users(600) }, $2: { 'org.example.x': users(401) } }), /at most 1000 receipts/);
  for (const sender of [null, 7, '', 'a']) assertRefused(presence({ presence: 'online' }, sender), /"sender" of an m\.presence is not a user ID/);
  for (const state of [undefined, '', 7]) assertRefused(presence({ presence: state }), /needs "presence"/);
  for (const ago of [-1, '1', null, 0.5]) assertRefused(presence({ presence: 'online', last_active_ago: ago }), /"last_active_ago"/);
});

const receipt = (userId: string, eventId: string, threadId?: string): Receipt => ({ type: 'm.read', eventId, userId, threadId, data: threadId === undefined ? { ts: 1 } : { ts: 1, thread_id: threadId } });
const contentsOf = (all: readonly Receipt[]): unknown[] => receiptEvents('!r', all).map((json) => (JSON.parse(Buffer.from(json).toString()) as { content: unknown }).content);

test('R82 R87 receipts of a room become one event, and a second where one cannot say it: one user, one event, two threads', () => {
  assert.deepEqual(contentsOf([receipt('@a:b', '$1'), receipt('@c:b', '$1', 'main'), receipt('@a:b', '$1', '$t'), receipt('@d:b', '$2'), receipt('@__proto__:b', '__proto__')]), [
    { $1: { 'm.read': { '@a:b': { ts: 1 }, '@c:b': { ts: 1, thread_id: 'main' } } }, $2: { 'm.read': { '@d:b': { ts: 1 } } }, ['__proto__']: { 'm.read': { '@__proto__:b': { ts: 1 } } } },
    { $1: { 'm.read': { '@a:b': { ts: 1, thread_id: '$t' } } } },
  ]);
  assert.deepEqual(Buffer.from(receiptEvents('!r', [receipt('@a:b', '$1')])[0] ?? []).toString(), '{"type":"m.receipt","room_id":"!r","content":{"$1":{"m.read":{"@a:b":{"ts":1}}}}}');
});

test('R86 no receipts are no event, and many are several of bounded size', () => {
  assert.deepEqual(contentsOf([]), []);
  const many = contentsOf(Array.from({ length: 1_201 }, (_, at) => receipt(`@u${at}:b`, '$1'))) as { $1: { 'm.read': object } }[];
  assert.deepEqual(many.map(({ $1 }) => Object.keys($1['m.read']).length), [500, 500, 201]);
});

test('R87 an ephemeral event is overtaken once all that it tells is told anew behind it', () => {
  const typing = (room: string) => ({ type: 'm.typing', room_id: room, content: { user_ids: [] } });
  const online = (sender: string) => ({ type: 'm.presence', sender, content: { presence: 'online' } });
  const read = (users: readonly string[], room = '!r', type = 'm.read', data: object = {}) => ({ type: 'm.receipt', room_id: room, content: { $1: { [type]: Object.fromEntries(users.map((user) => [user, data])) } } });
  const indexes = (events: readonly unknown[]): number[] => {
    const entries = events.map((event) => ({ json: Buffer.from(typeof event === 'string' ? event : JSON.stringify(event)) }));
    const overtaken = new Overtaking().of(entries);
    return entries.flatMap((entry, at) => (overtaken.has(entry) ? [at] : []));
  };
  assert.deepEqual(indexes([typing('!r'), typing('!s'), typing('!r'), online('@a:b'), online('@c:b'), online('@a:b')]), [0, 3]);
  assert.deepEqual(indexes([read(['@a:b', '@c:b']), read(['@a:b']), read(['@c:b'])]), [0], 'by several together');
  assert.deepEqual(indexes([read(['@a:b', '@c:b']), read(['@a:b'])]), [], 'not in part');
  assert.deepEqual(indexes([read(['@a:b']), read(['@a:b'], '!s'), read(['@a:b'], '!r', 'm.read.private'), read(['@a:b'], '!r', 'm.read', { thread_id: 'main' })]), [], 'another room, type, thread');
  assert.deepEqual(indexes(['7', '{', '{}', '{}', 'null', '{"type":"m.receipt","room_id":"!r","content":{}}', '{"type":"m.receipt","room_id":"!r","content":{}}']), [], 'what tells nothing is not overtaken');
});
