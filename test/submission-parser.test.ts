import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../src/appservice/refusal.ts';
import type { OtherItems } from '../src/rpc/ports.ts';
import { parseSubmission } from '../src/submission-parser.ts';

const json = Buffer.from('{"event_id":"$e","type":"m.room.message","sender":"@a:hs.test","room_id":"!r:hs.test","content":{}}');
const message = Buffer.from(' { "type":"m.x", "sender":"@a:hs.test","content":{"n":1e999} } \n');
const TO_DEVICE = { json: message, toUserId: '@b:hs.test', toDeviceId: 'DEV', streamPosition: 0 };
const CHANGE = { userId: '@b:far.test', roomIds: ['!r'], left: false, streamPosition: 0 };
const KEYS = { userId: '@b:hs.test', deviceId: 'DEV', oneTimeKeyCounts: { signed_curve25519: 3 }, unusedFallbackKeyTypes: ['signed_curve25519'] };

function positionsOf(...positions: readonly number[]): number[] {
  const events = positions.map((streamPosition) => ({ json, streamPosition }));
  return parseSubmission({ stream: '', events, rooms: [] }).events.map(({ streamPosition }) => streamPosition);
}

function parse(others: Partial<OtherItems>): ReturnType<typeof parseSubmission> {
  return parseSubmission({ stream: '', events: [], rooms: [], others: { ephemeral: [], toDevice: [], deviceLists: [], deviceKeys: [], ...others } });
}

function assertRefused(field: string, others: Partial<OtherItems>): void {
  assert.throws(() => parse(others), (error) => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === field, field);
}

test('positions that decrease within a request are refused at the place where they do', () => {
  for (const [positions, at] of [[[2, 1], 1], [[1, 5, 5, 4], 3], [[3, 0, 2], 2]] as const) {
    assert.throws(() => positionsOf(...positions), (error) => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === `events[${at}].stream_position`);
  }
});

test('positions may repeat, leave gaps, and be absent in between', () => {
  for (const positions of [[], [7], [1, 1, 9], [0, 0], [4, 0, 4, 0, 5]]) assert.deepEqual(positionsOf(...positions), positions);
});

test('positions ascend within each list alone', () => {
  const { others } = parse({ toDevice: [{ ...TO_DEVICE, streamPosition: 5 }, { ...TO_DEVICE, streamPosition: 7 }], deviceLists: [{ ...CHANGE, streamPosition: 4 }, { ...CHANGE, streamPosition: 6 }] });
  assert.deepEqual([others?.toDevice.map(({ streamPosition }) => streamPosition), others?.deviceLists.map(({ streamPosition }) => streamPosition)], [[5, 7], [4, 6]]);
  assertRefused('to_device[1].stream_position', { toDevice: [{ ...TO_DEVICE, streamPosition: 5 }, { ...TO_DEVICE, streamPosition: 4 }] });
  assertRefused('device_lists[1].stream_position', { deviceLists: [{ ...CHANGE, streamPosition: 5 }, { ...CHANGE, streamPosition: 4 }] });
});

test('R89 the recipient is put at the end of the message, whose text stays as it came', () => {
  const { others, bytes } = parse({ toDevice: [{ ...TO_DEVICE, toUserId: '@"\\é:hs.test' }] });
  const text = Buffer.from(others?.toDevice[0]?.json ?? []).toString();
  assert.equal(text, '{ "type":"m.x", "sender":"@a:hs.test","content":{"n":1e999} ,"to_user_id":"@\\"\\\\é:hs.test","to_device_id":"DEV"}');
  assert.deepEqual(JSON.parse(text), { type: 'm.x', sender: '@a:hs.test', content: { n: Infinity }, to_user_id: '@"\\é:hs.test', to_device_id: 'DEV' });
  assert.equal(bytes, Buffer.byteLength(text));
});

test('R89 a to-device message without a recipient or of another shape is refused at the field at fault', () => {
  const faults: Record<string, Partial<typeof TO_DEVICE>[]> = {
    'to_device[1].to_user_id': [{ toUserId: '' }, { toUserId: 'b:hs.test' }, { toUserId: '@b' }, { toUserId: `@${'b'.repeat(255)}:hs.test` }],
    'to_device[1].to_device_id': [{ toDeviceId: '' }, { toDeviceId: 'D'.repeat(256) }],
    'to_device[1].json': [
      '', '[]', 'null', '{}', '{"type":"t","sender":"@a:b"}', '{"type":"t","sender":"@a:b","content":[]}', '{"type":"","sender":"@a:b","content":{}}', '{"type":"t","sender":7,"content":{}}',
      '{"type":"t","sender":"@a:b","content":{}}{}', '\ufeff{"type":"t","sender":"@a:b","content":{}}', '{"type":"t","sender":"@a:b","content":{},"to_user_id":"@c:hs.test"}',
      '{"type":"t","sender":"@a:b","content":{},"to_device_id":null}', `{"type":"t","sender":"@a:b","content":${'{"a":'.repeat(128)}1${'}'.repeat(128)}}`, `{"type":"t","sender":"@a:b","content":{"x":"${'x'.repeat(512 * 1024)}"}}`,
    ].map((text) => ({ json: Buffer.from(text) })),
  };
  for (const [field, all] of Object.entries(faults)) for (const fault of all) assertRefused(field, { toDevice: [TO_DEVICE, { ...TO_DEVICE, ...fault }] });
  assertRefused('to_device[0].json', { toDevice: [{ ...TO_DEVICE, json: Uint8Array.of(0x7b, 0xff, 0x7d) }] });
});

test('R81 R84 ephemeral events say their rooms: in the event, or beside a presence, within bounds', () => {
  const many = (count: number): string[] => Array.from({ length: count }, (_, at) => `!r${at}`);
  const typing = { json: Buffer.from('{"type":"m.typing","room_id":"!t","content":{"user_ids":[]}}'), roomIds: [], streamPosition: 0 };
  const presence = { json: Buffer.from(' {"type":"m.presence","sender":"@a:hs.test","content":{"presence":"online"}}'), roomIds: ['!p', '!q'], streamPosition: 0 };
  const { others, bytes } = parse({ ephemeral: [typing, { ...presence, streamPosition: 3 }, presence] });
  assert.deepEqual([others?.roomIds, others?.count, bytes], [['!t', '!p', '!q'], 3, typing.json.byteLength + 2 * (presence.json.byteLength - 1)]);
  assertRefused('ephemeral[1].stream_position', { ephemeral: [{ ...typing, streamPosition: 5 }, { ...typing, streamPosition: 4 }] });
  assertRefused('ephemeral[0].room_ids', { ephemeral: [{ ...typing, roomIds: ['!t'] }] });
  assertRefused('ephemeral[1].room_ids[0]', { ephemeral: [presence, { ...presence, roomIds: [''] }] });
  assertRefused('ephemeral[0].room_ids', { ephemeral: [{ ...presence, roomIds: many(1_001) }] });
  assertRefused('ephemeral[10].room_ids', { ephemeral: Array.from({ length: 11 }, () => ({ ...presence, roomIds: many(1_000) })) });
  assertRefused('ephemeral[1].json', { ephemeral: [typing, { ...typing, json: Buffer.from('{"type":"m.direct","content":{}}') }] });
});

test('R94 R97 changes of devices and numbers of keys of another shape are refused at the field at fault', () => {
  const many = (count: number): string[] => Array.from({ length: count }, (_, at) => `!r${at}`);
  assertRefused('device_lists[0].user_id', { deviceLists: [{ ...CHANGE, userId: '' }] });
  assertRefused('device_lists[0].room_ids[1]', { deviceLists: [{ ...CHANGE, roomIds: ['!r', ''] }] });
  assertRefused('device_lists[0].room_ids', { deviceLists: [{ ...CHANGE, roomIds: many(1_001) }] });
  assertRefused('device_lists[10].room_ids', { deviceLists: Array.from({ length: 11 }, () => ({ ...CHANGE, roomIds: many(1_000) })) });
  assertRefused('device_keys[0].user_id', { deviceKeys: [{ ...KEYS, userId: 'b' }] });
  assertRefused('device_keys[1].device_id', { deviceKeys: [KEYS, { ...KEYS, deviceId: '' }] });
  assertRefused('device_keys[0].one_time_key_counts', { deviceKeys: [{ ...KEYS, oneTimeKeyCounts: { signed_curve25519: -1 } }] });
  assertRefused('device_keys[0].unused_fallback_key_types[1]', { deviceKeys: [{ ...KEYS, unusedFallbackKeyTypes: ['a', ''] }] });
  assert.deepEqual(parse({ deviceKeys: [KEYS], deviceLists: [CHANGE, { ...CHANGE, roomIds: ['!r', '!s'] }] }).others, { ephemeral: [], toDevice: [], deviceLists: [CHANGE, { ...CHANGE, roomIds: ['!r', '!s'] }], deviceKeys: [KEYS], roomIds: ['!r', '!s'], count: 3 });
});
