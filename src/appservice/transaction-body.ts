/**
 * The body of a transaction (Application Service API, "Pushing events"): a function of the entries chosen and of the
 * keys stored with the transaction, so that every attempt sends the same bytes (I3).
 *
 *   {"events":[…]}                                  always there, `[]` if no event was chosen (R50)
 *   ,"KEY":[…]                                      per key of a list: the texts of the entries of its kind, in log order
 *   ,"org.matrix.msc3202.device_lists":{…}          what the entries come to together: device-extensions.ts
 *
 * Texts are joined as they arrived; nothing here re-serialises an event or a message.
 */
import type { BodyKey, RoutedKind } from './body-keys.ts';
import { KIND_OF_KEY } from './body-keys.ts';
import { deviceListsText, fallbackKeysText, oneTimeKeysText } from './device-extensions.ts';

export interface BodyEntry {
  readonly kind: RoutedKind;
  readonly json: Uint8Array;
}

const OPEN = Buffer.from('{"events":[');
const CLOSE = Buffer.from(']}');
const COMMA = 0x2c;
const LIST_OPEN = 0x5b;
const LIST_CLOSE = 0x5d;
const OBJECT_CLOSE = 0x7d;

/** Bytes of a body without entries and keys. */
export const EMPTY_BODY_BYTES = OPEN.byteLength + CLOSE.byteLength;

/** Bytes that a key adds to a body, its brackets included. */
export function keyBytes(key: BodyKey): number {
  return `,"${key}":[]`.length;
}

/** Each of `bodyKeys` is there, in their order; entries of kinds without a key must not be among `entries`. */
export function transactionBody(entries: readonly BodyEntry[], bodyKeys: readonly BodyKey[]): Uint8Array {
  if (bodyKeys.length === 0) return eventsBody(entries);
  const shown = bodyKeys.map((key) => ({ key, text: valueOf(key, entries.filter(({ kind }) => kind === KIND_OF_KEY[key])) }));
  const events = eventsBody(entries.filter(({ kind }) => kind === 'event'));
  const pieces: Uint8Array[] = [events.subarray(0, -1)];
  for (const { key, text } of shown) pieces.push(Buffer.from(`,"${key}":`), text);
  pieces.push(Uint8Array.of(OBJECT_CLOSE));
  return Buffer.concat(pieces);
}

function valueOf(key: BodyKey, entries: readonly BodyEntry[]): Uint8Array {
  switch (key) {
    case 'org.matrix.msc3202.device_lists':
      return Buffer.from(deviceListsText(entries));
    case 'org.matrix.msc3202.device_one_time_keys_count':
      return Buffer.from(oneTimeKeysText(entries));
    case 'org.matrix.msc3202.device_unused_fallback_key_types':
      return Buffer.from(fallbackKeysText(entries));
    default:
      return listOf(entries);
  }
}

function eventsBody(events: readonly BodyEntry[]): Uint8Array {
  const body = Buffer.allocUnsafeSlow(EMPTY_BODY_BYTES + joinedBytes(events));
  body.set(OPEN, 0);
  body.set(CLOSE, join(events, body, OPEN.byteLength));
  return body;
}

function listOf(entries: readonly BodyEntry[]): Uint8Array {
  const list = Buffer.allocUnsafe(2 + joinedBytes(entries));
  list[0] = LIST_OPEN;
  list[join(entries, list, 1)] = LIST_CLOSE;
  return list;
}

function joinedBytes(entries: readonly BodyEntry[]): number {
  let bytes = Math.max(0, entries.length - 1);
  for (const { json } of entries) bytes += json.byteLength;
  return bytes;
}

/** Returns where they end. */
function join(entries: readonly BodyEntry[], body: Uint8Array, start: number): number {
  let at = start;
  for (const [index, { json }] of entries.entries()) {
    if (index > 0) body[at++] = COMMA;
    body.set(json, at);
    at += json.byteLength;
  }
  return at;
}
