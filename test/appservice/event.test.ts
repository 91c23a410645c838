/** The door for events: contract section 6, "Event bounds". */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { EVENT_BYTES_MAX, EVENT_DEPTH_MAX, parseEvent } from '../../src/appservice/event.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import capturedEvents from './captured-events.json' with { type: 'json' };

const FIELD = 'events[3].json';
const EVENT = { event_id: '$e', type: 'm.room.message', room_id: '!r:hs.test', sender: '@a:hs.test', content: { body: 'hello' } };

const text = (changes: Record<string, unknown> = {}): string => JSON.stringify({ ...EVENT, ...changes });
const parse = (json: string | Uint8Array): ReturnType<typeof parseEvent> => parseEvent(typeof json === 'string' ? Buffer.from(json) : json, FIELD);

function assertRefused(json: string | Uint8Array, message: RegExp): void {
  assert.throws(
    () => parse(json),
    (error: unknown) => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === FIELD && message.test(error.message),
  );
}

test('R51 R52 the routing fields are told and the bytes are those that came', () => {
  const json = Buffer.from(text({ state_key: '' }));
  assert.deepEqual(parse(json), {
    json,
    eventId: '$e',
    type: 'm.room.message',
    sender: '@a:hs.test',
    roomId: '!r:hs.test',
    stateKey: '',
    membership: undefined,
  });
  assert.equal(parse(text()).stateKey, undefined);
});

test('R53 R51 white space around the event is left off, that inside and every odd value stay, without a copy', () => {
  const inner = '{ "event_id":"$e", "type":"t","room_id":"!r","sender":"s","content":{"n":1e999,"__proto__":{"polluted":1},"big":123456789012345678901234567890},"constructor":null}';
  const bytes = Buffer.from(` \r\n\t${inner}\n `);
  const { json } = parse(bytes);
  assert.equal(Buffer.from(json).toString(), inner);
  assert.equal(json.buffer, bytes.buffer);
  assert.equal(Reflect.get({}, 'polluted'), undefined);
});

test('real events of a homeserver parse, whatever they carry', () => {
  for (const captured of capturedEvents) {
    const { eventId, type, stateKey } = parse(JSON.stringify(captured));
    assert.deepEqual([eventId, type, stateKey], [captured.event_id, captured.type, 'state_key' in captured ? captured.state_key : undefined]);
  }
});

test('of duplicate keys the last counts', () => {
  const event = parse(`{"sender":"@old:hs.test",${text().slice(1, -1)},"sender":"@new:hs.test","content":{"membership":"join"}}`);
  assert.deepEqual([event.sender, event.membership], ['@new:hs.test', 'join']);
  assertRefused(`${text().slice(0, -1)},"sender":7}`, /"sender"/);
});

test('a membership is told only if it is a string', () => {
  for (const membership of [1, null, {}, ['join'], undefined]) assert.equal(parse(text({ content: { membership } })).membership, undefined);
  assert.equal(parse(text({ content: { membership: '' } })).membership, '');
  assert.equal(parse(text({ content: JSON.parse('{"__proto__":{"membership":"join"}}') })).membership, undefined);
});

for (const name of ['event_id', 'type', 'sender', 'room_id']) {
  test(`R51 an event needs ${name}, a string that is not empty`, () => {
    for (const value of [undefined, null, '', 5, ['x'], { x: 1 }]) assertRefused(text({ [name]: value }), new RegExp(`"${name}"`));
  });
}

test('an event needs a content that is an object, and a state key only if it is a string', () => {
  for (const content of [undefined, null, 'x', 5, []]) assertRefused(text({ content }), /"content"/);
  for (const stateKey of [null, 5, {}, []]) assertRefused(text({ state_key: stateKey }), /"state_key"/);
  assertRefused('{"__proto__":{"event_id":"$e","type":"t","room_id":"!r","sender":"s","content":{}}}', /"event_id"/);
});

test('what is not one strict JSON object is refused', () => {
  const nots = ['', '  ', 'null', '[]', '"x"', '5', `[${text()}]`, `${text()}{}`, `${text()},`, text().slice(0, -1), `${text().slice(0, -1)},}`, "{'a':1}", `${text()}//x`, text({ n: 'N' }).replace('"N"', 'NaN'), text({ n: 'N' }).replace('"N"', '01'), text({ body: 'x' }).replace('"x"', '"\t"')];
  for (const not of nots) assertRefused(not, /JSON object/);
  assertRefused(`\ufeff${text()}`, /byte order mark/);
  assertRefused(Buffer.from(`${text()}\u00a0`), /strictly/);
});

test('what is not valid UTF-8 is refused', () => {
  const at = (bytes: number[]): Buffer => Buffer.concat([Buffer.from('{"x":"'), Buffer.from(bytes), Buffer.from(`",${text().slice(1)}`)]);
  assert.equal(parse(at([0xc3, 0xa4])).eventId, '$e');
  for (const bad of [[0xff], [0xc3], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0x80]]) assertRefused(at(bad), /UTF-8/);
});

test('lone surrogates and NUL in escapes travel; in the routing texts a lone surrogate is U+FFFD, as a store gives it back', () => {
  const json = `{"event_id":"$\\ud800","type":"t\\u0000","room_id":"!\\udc00r","sender":"@\\ud83d\\ude00","state_key":"\\ud800x","content":{"membership":"\\ud800"}}`;
  const event = parse(json);
  assert.equal(Buffer.from(event.json).toString(), json);
  assert.deepEqual([event.eventId, event.type, event.roomId, event.sender, event.stateKey], ['$\ufffd', 't\0', '!\ufffdr', '@\u{1f600}', '\ufffdx']);
});

test('an event may have as many bytes as allowed, and not one more', () => {
  const room = EVENT_BYTES_MAX - text({ pad: '' }).length;
  assert.equal(parse(text({ pad: 'x'.repeat(room) })).json.byteLength, EVENT_BYTES_MAX);
  assert.equal(parse(`\n${text({ pad: 'x'.repeat(room) })}\n`).json.byteLength, EVENT_BYTES_MAX);
  assertRefused(text({ pad: 'x'.repeat(room + 1) }), /at most 524288 bytes/);
});

test('an event may nest as deep as allowed, and not one deeper, in objects and in arrays', () => {
  const nested = (levels: number, open: string, close: string, inner = '1'): string => text({ x: 'X' }).replace('"X"', `${open.repeat(levels)}${inner}${close.repeat(levels)}`);
  for (const [open, close] of [['[', ']'], ['{"a":', '}'], ['[{"__proto__":', '}]']] as const) {
    const each = open.startsWith('[{') ? 2 : 1;
    const levels = Math.floor((EVENT_DEPTH_MAX - 1) / each);
    assert.equal(parse(nested(levels, open, close)).eventId, '$e');
    assertRefused(nested(levels + 1, open, close), /128 levels/);
  }
  assertRefused(nested(200_000, '[', ']'), /128 levels/);
  assert.equal(parse(text({ x: Array.from({ length: 1000 }, () => [{}]), y: '{[{['.repeat(1000) })).eventId, '$e');
});

test('any JSON value whatever either parses as it says or is refused with a RefusalError', () => {
  const values = fc.oneof(fc.json(), fc.string(), fc.record({ event_id: fc.string(), type: fc.string(), room_id: fc.string(), sender: fc.string(), content: fc.dictionary(fc.string(), fc.jsonValue()), state_key: fc.oneof(fc.string(), fc.constant(undefined)) }).map((event) => JSON.stringify(event)));
  fc.assert(
    fc.property(values, (json) => {
      try {
        const event = parse(json);
        const whole = JSON.parse(json) as typeof EVENT;
        assert.deepEqual([event.eventId, event.type, event.sender, event.roomId], [whole.event_id, whole.type, whole.sender, whole.room_id]);
      } catch (error) {
        assert.ok(error instanceof RefusalError);
      }
    }),
    { numRuns: 500, seed: 51 },
  );
});
