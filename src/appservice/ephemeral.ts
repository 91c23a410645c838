/**
 * Typing, receipts and presence as they cross the door (Matrix specification, "Typing notifications", "Receipts",
 * "Presence"): as clients get them, typing and receipts with `room_id`. Parsed once, judged here and nowhere else.
 */
import { isNamed, malformed, readDoorObject } from './door-object.ts';
import { identifierProblem } from './identifier.ts';
import { isJsonObject } from './json.ts';
import type { JsonObject } from './json.ts';

/** `json` is the text without surrounding white space, a view of the bytes that arrived. Ids are well-formed. */
export type EphemeralEvent =
  | { readonly kind: 'typing'; readonly json: Uint8Array; readonly roomId: string }
  | {
      readonly kind: 'receipt';
      readonly json: Uint8Array;
      readonly roomId: string;
      readonly receipts: readonly Receipt[];
      /** The event has nothing but these receipts, each as it stands here. */
      readonly isWhole: boolean;
    }
  | { readonly kind: 'presence'; readonly json: Uint8Array; readonly userId: string };

export const RECEIPT_TYPES = ['m.read', 'm.read.private'] as const;
export type ReceiptType = (typeof RECEIPT_TYPES)[number];

/** How far one user has read in a room, or in one thread of it. */
export interface Receipt {
  readonly type: ReceiptType;
  readonly eventId: string;
  readonly userId: string;
  /** Undefined: of the room whatever the thread. */
  readonly threadId: string | undefined;
  /** With `ts` and `thread_id`, as it came. */
  readonly data: JsonObject;
}

/** One user types in one line; people who type at the same time are few. */
const TYPING_USERS_MAX = 1_000;
const RECEIPTS_MAX = 1_000;
const ID_BYTES_MAX = 255;
const ROOM_ID_BYTES_MAX = 1_024;

/** `field` is its path in the request, for the refusal. Throws a RefusalError. */
export function parseEphemeral(bytes: Uint8Array, field: string): EphemeralEvent {
  const { json, object: event } = readDoorObject(bytes, field, 'An ephemeral event');
  const { type, content } = event;
  if (!isNamed(type)) throw malformed(field, 'An ephemeral event needs "type", a string that is not empty.');
  if (type !== 'm.typing' && type !== 'm.receipt' && type !== 'm.presence') {
    throw malformed(field, 'An ephemeral event is m.typing, m.receipt or m.presence. Put room events into events and messages to devices into to_device.');
  }
  if (!isJsonObject(content)) throw malformed(field, `An ${type} needs "content", a JSON object.`);
  if (type === 'm.presence') return { kind: 'presence', json, userId: presenceUser(event, content, field) };
  const roomId = roomIdOf(event, type, field);
  if (type === 'm.receipt') return { kind: 'receipt', json, roomId, ...receiptsOf(content, field) };
  judgeTyping(content, field);
  return { kind: 'typing', json, roomId };
}

function roomIdOf({ room_id: roomId }: JsonObject, type: string, field: string): string {
  if (!isNamed(roomId)) throw malformed(field, `An ${type} needs "room_id", a string that is not empty, beside its content.`);
  if (Buffer.byteLength(roomId) > ROOM_ID_BYTES_MAX) throw malformed(field, `A room ID has at most ${ROOM_ID_BYTES_MAX} bytes.`);
  return roomId.toWellFormed();
}

function judgeTyping({ user_ids: userIds }: JsonObject, field: string): void {
  if (!Array.isArray(userIds)) throw malformed(field, 'The content of an m.typing needs "user_ids", a list of the users who type; empty if nobody does.');
  if (userIds.length > TYPING_USERS_MAX) throw malformed(field, `An m.typing names at most ${TYPING_USERS_MAX} users; this one names ${userIds.length}.`);
  for (const userId of userIds) judgeUser(userId, 'm.typing', field);
}

function presenceUser({ sender }: JsonObject, { presence, last_active_ago: lastActiveAgo }: JsonObject, field: string): string {
  const userId = judgeUser(sender, 'm.presence', field, 'The "sender" of');
  if (!isNamed(presence)) throw malformed(field, 'The content of an m.presence needs "presence", a string such as online.');
  if (lastActiveAgo !== undefined && !isTime(lastActiveAgo)) throw malformed(field, 'The "last_active_ago" of an m.presence is a number of milliseconds, 0 or more.');
  return userId;
}

/** `{EVENT: {TYPE: {USER: {"ts": …, "thread_id": …}}}}` */
function receiptsOf(content: JsonObject, field: string): { receipts: Receipt[]; isWhole: boolean } {
  const receipts: Receipt[] = [];
  let isWhole = true;
  let count = 0;
  for (const [event, byType] of Object.entries(content)) {
    const eventId = judgeId(event, 'The event ID of a receipt', field);
    if (!isJsonObject(byType)) throw malformed(field, 'The content of an m.receipt has, for each event ID, an object of receipt types.');
    for (const [name, byUser] of Object.entries(byType)) {
      if (!isJsonObject(byUser)) throw malformed(field, 'The content of an m.receipt has, for each receipt type, an object of users.');
      const type = RECEIPT_TYPES.find((known) => known === name);
      isWhole &&= type !== undefined;
      const users = Object.entries(byUser);
      count += users.length;
      if (count > RECEIPTS_MAX) throw malformed(field, `An m.receipt has at most ${RECEIPTS_MAX} receipts. Divide it.`);
      for (const [user, data] of users) {
        const receipt = receiptOf(user, data, field);
        if (type !== undefined) receipts.push({ type, eventId, ...receipt });
      }
    }
  }
  return { receipts, isWhole };
}

function receiptOf(user: string, data: unknown, field: string): Pick<Receipt, 'userId' | 'threadId' | 'data'> {
  const userId = judgeUser(user, 'm.receipt', field);
  if (!isJsonObject(data)) throw malformed(field, 'A receipt in an m.receipt is an object with "ts".');
  const { ts, thread_id: threadId } = data;
  if (ts !== undefined && !isTime(ts)) throw malformed(field, 'The "ts" of a receipt is a time in milliseconds, a whole number from 0.');
  if (threadId === undefined) return { userId, threadId, data };
  if (!isNamed(threadId)) throw malformed(field, 'The "thread_id" of a receipt is a string that is not empty; leave it out for one of the whole room.');
  return { userId, threadId: judgeId(threadId, 'The "thread_id" of a receipt', field), data };
}

function judgeUser(user: unknown, type: string, field: string, what = 'A user of'): string {
  const problem = isNamed(user) ? identifierProblem({ kind: 'users', identifier: user }) : 'A user ID has the form @name:server.';
  if (!isNamed(user) || problem !== null) throw malformed(field, `${what} an ${type} is not a user ID. ${problem ?? ''}`);
  return user.toWellFormed();
}

function judgeId(id: string, what: string, field: string): string {
  if (id === '' || Buffer.byteLength(id) > ID_BYTES_MAX) throw malformed(field, `${what} has 1 to ${ID_BYTES_MAX} bytes.`);
  return id.toWellFormed();
}

function isTime(value: unknown): boolean {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
