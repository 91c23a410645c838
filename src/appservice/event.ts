/**
 * A room event as it crosses the door: parsed once for its routing fields, its bytes kept as they came.
 */
import { isUtf8 } from 'node:buffer';
import { isJsonObject, nestsDeeper } from './json.ts';
import { RefusalError } from './refusal.ts';

/**
 * Client-format event, Matrix specification "Room events". In the texts a lone surrogate is U+FFFD, as any store gives
 * it back, so that routing comes to the same when the log is read again; `json` has it as it came.
 */
export interface RoutingEvent {
  /** The JSON text without surrounding white space; a view of the bytes that arrived. */
  readonly json: Uint8Array;
  readonly eventId: string;
  readonly type: string;
  readonly sender: string;
  readonly roomId: string;
  /** Present exactly for state events, the empty string included (R52). */
  readonly stateKey: string | undefined;
  /** `content.membership`, if it is a string. */
  readonly membership: string | undefined;
}

export const EVENT_BYTES_MAX = 512 * 1024;
export const EVENT_DEPTH_MAX = 128;

const REQUIRED = ['event_id', 'type', 'sender', 'room_id'] as const;

/**
 * Parses one event. `field` is its path in the request, for the refusal. Strict JSON in valid UTF-8, no byte order
 * mark; of duplicate keys the last counts; nothing beyond the routing fields is judged. Throws a RefusalError.
 */
export function parseEvent(bytes: Uint8Array, field: string): RoutingEvent {
  const json = withoutSurroundingSpace(bytes);
  if (json.byteLength > EVENT_BYTES_MAX) throw malformed(field, `An event has at most ${EVENT_BYTES_MAX} bytes; this one has ${json.byteLength}.`);
  const text = textOf(json, field);
  const event = parseObject(text, field);
  const { event_id: eventId, type, sender, room_id: roomId, content, state_key: stateKey } = event;
  if (!isNamed(eventId) || !isNamed(type) || !isNamed(sender) || !isNamed(roomId)) {
    const missing = REQUIRED.find((name) => !isNamed(event[name]));
    throw malformed(field, `An event needs "${missing}", a string that is not empty.`);
  }
  if (!isJsonObject(content)) throw malformed(field, 'An event needs "content", a JSON object.');
  if (stateKey !== undefined && typeof stateKey !== 'string') throw malformed(field, 'The "state_key" of a state event is a string.');
  const { membership } = content;
  const parsed = { json, eventId, type, sender, roomId, stateKey, membership: typeof membership === 'string' ? membership : undefined };
  // Only an escape can bring a lone surrogate into valid UTF-8.
  return text.includes('\\u') ? withWellFormedTexts(parsed) : parsed;
}

function isNamed(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

function withWellFormedTexts(event: RoutingEvent): RoutingEvent {
  const { eventId, type, sender, roomId, stateKey } = event;
  return {
    ...event,
    eventId: eventId.toWellFormed(),
    type: type.toWellFormed(),
    sender: sender.toWellFormed(),
    roomId: roomId.toWellFormed(),
    stateKey: stateKey?.toWellFormed(),
  };
}

function textOf(json: Uint8Array, field: string): string {
  if (!isUtf8(json)) throw malformed(field, 'An event is JSON in valid UTF-8.');
  return Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString('utf8');
}

function parseObject(text: string, field: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw malformed(field, 'An event is one JSON object, strictly as RFC 8259 has it, without a byte order mark.');
  }
  if (!isJsonObject(value)) throw malformed(field, 'An event is a JSON object.');
  if (nestsDeeper(text, value, EVENT_DEPTH_MAX)) throw malformed(field, `An event nests at most ${EVENT_DEPTH_MAX} levels deep.`);
  return value;
}

function withoutSurroundingSpace(bytes: Uint8Array): Uint8Array {
  let start = 0;
  let end = bytes.byteLength;
  while (start < end && isSpace(bytes[start])) start++;
  while (end > start && isSpace(bytes[end - 1])) end--;
  return start === 0 && end === bytes.byteLength ? bytes : bytes.subarray(start, end);
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function malformed(field: string, message: string): RefusalError {
  return new RefusalError('INVALID_FIELD', message, { field });
}
