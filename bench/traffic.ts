/**
 * The traffic of the bench: appservices with one namespace of each kind, and room events of about 700 bytes that concern
 * exactly one of them, a third by its sender, a third by an alias of the room, a third by the room's id. Neighbours in the
 * stream concern different appservices, as in a homeserver with many rooms.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { writeFileSync } from 'node:fs';
import type { RegistrationSchema } from '../gen/matrix/appservice/v1/registration_pb.ts';
import { AppserviceAdmin } from '../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter, SubmitEventsRequestSchema } from '../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { RoomContextSchema } from '../gen/matrix/appservice/v1/event_pb.ts';
import type { RouterClient } from '../test/support/router-client.ts';

export const SERVER_NAME = 'hs.test';
export const EVENT_BYTES = 700;
const ROOMS_PER_APPSERVICE = 6;
const USERS_PER_APPSERVICE = 50;
const WAYS = ['sender', 'alias', 'room'] as const;
const PUTS_IN_FLIGHT = 16;
const ROOMS_PER_REQUEST = 500;
/** No common factor with any number of appservices used here, so that all get their turn. */
const STRIDE = 7_919;

export function appserviceId(at: number): string {
  return `as${String(at).padStart(4, '0')}`;
}

/** A registration with `namespaceCount` namespaces, in turn of users, aliases and rooms; the first three match its traffic. */
export function registrationOf(at: number, url: string | undefined, namespaceCount = 3): MessageInitShape<typeof RegistrationSchema> {
  const id = appserviceId(at);
  const list = (kind: number, sigil: string) =>
    Array.from({ length: Math.ceil((namespaceCount - kind) / WAYS.length) }, (_, n) => ({
      regex: `${sigil}${id}_${n === 0 ? '' : `more${n}_`}.*:${SERVER_NAME.replaceAll('.', '\\.')}`,
      exclusive: sigil !== '!',
    }));
  const namespaces = { users: list(0, '@_'), aliases: list(1, '#_'), rooms: list(2, '!') };
  return { id, ...(url === undefined ? {} : { url }), asToken: `as-token-${id}`, hsToken: `hs-token-${id}`, senderLocalpart: `_${id}_bot`, namespaces };
}

/** Puts the registrations of appservices `from` to `through - 1`. */
export async function putRegistrations(admin: RouterClient, from: number, through: number, urlOf: (at: number) => string | undefined, namespaceCount = 3): Promise<void> {
  let next = from;
  const putOn = async (): Promise<void> => {
    for (let at = next++; at < through; at = next++) {
      await admin.call(AppserviceAdmin.method.putRegistration, { source: { case: 'registration', value: registrationOf(at, urlOf(at), namespaceCount) } }, 120_000);
    }
  };
  await Promise.all(Array.from({ length: PUTS_IN_FLIGHT }, putOn));
}

interface Room {
  readonly roomId: string;
  readonly alias: string | null;
  /** The sender of event number `n`. */
  readonly sender: (n: number) => string;
}

function roomOf(appservice: number, room: number): Room {
  const id = appserviceId(appservice);
  const way = WAYS[room % WAYS.length];
  const person = (n: number): string => `@person${n % 500}:${SERVER_NAME}`;
  if (way === 'room') return { roomId: `!${id}_r${room}:${SERVER_NAME}`, alias: null, sender: person };
  const roomId = `!plain${room}of${appservice}:${SERVER_NAME}`;
  if (way === 'alias') return { roomId, alias: `#_${id}_room${room}:${SERVER_NAME}`, sender: person };
  return { roomId, alias: null, sender: (n) => `@_${id}_user${n % USERS_PER_APPSERVICE}:${SERVER_NAME}` };
}

/** Tells the router all it may want to know of the rooms, as a homeserver does when it meets them. */
export async function submitRooms(homeserver: RouterClient, appserviceCount: number): Promise<void> {
  const rooms: MessageInitShape<typeof RoomContextSchema>[] = [];
  for (let appservice = 0; appservice < appserviceCount; appservice++) {
    for (let room = 0; room < ROOMS_PER_APPSERVICE; room++) {
      const { roomId, alias } = roomOf(appservice, room);
      rooms.push({ roomId, localAliases: { roomAliases: alias === null ? [] : [alias] }, localMembers: { userIds: [] } });
    }
  }
  for (let at = 0; at < rooms.length; at += ROOMS_PER_REQUEST) {
    await homeserver.call(AppserviceRouter.method.submitEvents, { rooms: rooms.slice(at, at + ROOMS_PER_REQUEST) });
  }
}

/** Event number `n` of the stream. */
function eventOf(n: number, appserviceCount: number): Uint8Array {
  const appservice = (n * STRIDE) % appserviceCount;
  const { roomId, sender } = roomOf(appservice, Math.floor(n / appserviceCount) % ROOMS_PER_APPSERVICE);
  const event = {
    event_id: `$${n.toString(36).padStart(43, 'b')}`,
    type: 'm.room.message',
    room_id: roomId,
    sender: sender(n),
    origin_server_ts: 1_700_000_000_000 + n,
    unsigned: { age: 17 },
    // Written by the load generator where latency is measured; see load-client.ts.
    content: { msgtype: 'm.text', body: '', sent_ms: 0 },
  };
  const json = JSON.stringify(event).replace('"sent_ms":0', '"sent_ms":1000000000000.001');
  return Buffer.from(json.replace('"body":""', `"body":"${'x'.repeat(Math.max(0, EVENT_BYTES - json.length))}"`));
}

export interface Messages {
  /** Each with its gRPC prefix, for load-client.ts. */
  readonly file: string;
  /** Each with its length before it, for ghz. */
  readonly delimitedFile: string;
  readonly eventsPerMessage: number;
  readonly first: Uint8Array;
}

/**
 * Writes SubmitEventsRequest messages that together hold every kind of event. They bear no stream positions: the calls in
 * flight overtake each other, and they are sent again and again.
 */
export function writeMessages(fileStem: string, messageCount: number, eventsPerMessage: number, appserviceCount: number): Messages {
  const framed: Buffer[] = [];
  const delimited: Buffer[] = [];
  let first: Uint8Array | null = null;
  for (let at = 0; at < messageCount; at++) {
    const events = Array.from({ length: eventsPerMessage }, (_, n) => ({ json: eventOf(at * eventsPerMessage + n, appserviceCount) }));
    const message = toBinary(SubmitEventsRequestSchema, create(SubmitEventsRequestSchema, { events }));
    first ??= message;
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(message.length, 1);
    framed.push(prefix, Buffer.from(message));
    delimited.push(varint(message.length), Buffer.from(message));
  }
  if (first === null) throw new Error('there must be a message');
  const files = { file: `${fileStem}.frames`, delimitedFile: `${fileStem}.delimited` };
  writeFileSync(files.file, Buffer.concat(framed));
  writeFileSync(files.delimitedFile, Buffer.concat(delimited));
  return { ...files, eventsPerMessage, first };
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest & 127) | 128);
  }
}
