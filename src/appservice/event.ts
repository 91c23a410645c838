/**
 * A room event as it crosses the door: parsed once for its routing fields, its bytes kept as they came.
 */
import { isNamed, JSON_BYTES_MAX, JSON_DEPTH_MAX, malformed, readDoorObject } from './door-object.ts';
import { isJsonObject } from './json.ts';

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

export const EVENT_BYTES_MAX = JSON_BYTES_MAX;
export const EVENT_DEPTH_MAX = JSON_DEPTH_MAX;

const REQUIRED = ['event_id', 'type', 'sender', 'room_id'] as const;

/**
 * Parses one event. `field` is its path in the request, for the refusal. Strict JSON in valid UTF-8, no byte order
 * mark; of duplicate keys the last counts; nothing beyond the routing fields is judged. Throws a RefusalError.
 */
export function parseEvent(bytes: Uint8Array, field: string): RoutingEvent {
  const { json, text, object: event } = readDoorObject(bytes, field, 'An event');
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
