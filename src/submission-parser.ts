/**
 * A submission from the door to what ingest takes: every item is parsed and judged before any is applied. Everything here
 * throws a RefusalError that names the field at fault.
 */
import type { DeviceKeys } from './appservice/device-extensions.ts';
import { deviceKeysBytes } from './appservice/device-extensions.ts';
import { malformed } from './appservice/door-object.ts';
import { parseEphemeral } from './appservice/ephemeral.ts';
import { parseEvent } from './appservice/event.ts';
import { identifierProblem } from './appservice/identifier.ts';
import { parseToDevice } from './appservice/to-device.ts';
import type { OtherItems, ParsedSubmission, SubmittedDeviceList, SubmittedEphemeral, SubmittedToDevice } from './ingest/submission.ts';
import type { OtherItems as RawItems, Submission } from './rpc/ports.ts';

const ID_BYTES_MAX = 255;
const ROOM_ID_BYTES_MAX = 1_024;
/** Rooms of one change of devices or one presence. */
const ITEM_ROOMS_MAX = 1_000;
/** Rooms of all changes together, and of all presence: each is looked up. */
const ROOMS_MAX = 10_000;
const ALGORITHMS_MAX = 20;

export function parseSubmission({ stream, events, rooms, others: raw, place }: Submission): ParsedSubmission {
  let bytes = 0;
  const ascending = new Ascending('events');
  const parsed = events.map(({ json, streamPosition }, at) => {
    ascending.next(streamPosition, at);
    const event = parseEvent(json, `events[${at}].json`);
    bytes += event.json.byteLength;
    return { event, streamPosition };
  });
  if (raw === undefined) return { stream, events: parsed, rooms, bytes, place };
  const others = parseOthers(raw);
  for (const { event } of others.ephemeral) bytes += event.json.byteLength;
  for (const { json } of others.toDevice) bytes += json.byteLength;
  for (const { userId } of others.deviceLists) bytes += userId.length;
  for (const keys of others.deviceKeys) bytes += deviceKeysBytes(keys);
  return { stream, events: parsed, rooms, others, bytes, place };
}

/** Positions of one list of a request. */
class Ascending {
  readonly #list: string;
  #last = 0;

  constructor(list: string) {
    this.#list = list;
  }

  next(streamPosition: number, at: number): void {
    if (streamPosition === 0) return;
    if (streamPosition < this.#last) {
      throw malformed(`${this.#list}[${at}].stream_position`, 'Stream positions must not decrease within a list of a request. Send the items in stream order.');
    }
    this.#last = streamPosition;
  }
}

function parseOthers({ ephemeral: events, toDevice: messages, deviceLists: changes, deviceKeys: devices }: RawItems): OtherItems {
  const ephemeral = parseEphemeralList(events);
  const toDevice = parseToDeviceList(messages);
  const deviceLists = parseDeviceLists(changes);
  const deviceKeys = devices.map((device, at) => parseDeviceKeys(device, `device_keys[${at}]`));
  const roomIds = [...new Set([...deviceLists.flatMap((change) => change.roomIds), ...ephemeral.flatMap(({ event, roomIds: named }) => (event.kind === 'presence' ? named : [event.roomId]))])];
  return { ephemeral, toDevice, deviceLists, deviceKeys, roomIds, count: ephemeral.length + toDevice.length + deviceLists.length + deviceKeys.length };
}

function parseEphemeralList(events: RawItems['ephemeral']): SubmittedEphemeral[] {
  const ascending = new Ascending('ephemeral');
  const rooms = new RoomBounds('A presence', 'The presences');
  return events.map(({ json, roomIds, streamPosition }, at) => {
    ascending.next(streamPosition, at);
    const path = `ephemeral[${at}]`;
    const event = parseEphemeral(json, `${path}.json`);
    if (event.kind !== 'presence' && roomIds.length > 0) throw malformed(`${path}.room_ids`, 'Typing and receipts name their room in the event; name rooms here for presence alone.');
    rooms.judge(roomIds, path);
    return { event, roomIds, streamPosition };
  });
}

/** `one` and `all` begin the sentences of its refusals. */
class RoomBounds {
  readonly #one: string;
  readonly #all: string;
  #count = 0;

  constructor(one: string, all: string) {
    this.#one = one;
    this.#all = all;
  }

  judge(roomIds: readonly string[], path: string): void {
    if (roomIds.length > ITEM_ROOMS_MAX) throw malformed(`${path}.room_ids`, `${this.#one} names at most ${ITEM_ROOMS_MAX} rooms; this one names ${roomIds.length}.`);
    this.#count += roomIds.length;
    if (this.#count > ROOMS_MAX) throw malformed(`${path}.room_ids`, `${this.#all} in a request name at most ${ROOMS_MAX} rooms together. Divide it.`);
    for (const [at, roomId] of roomIds.entries()) {
      if (roomId === '' || Buffer.byteLength(roomId) > ROOM_ID_BYTES_MAX) throw malformed(`${path}.room_ids[${at}]`, `A room ID has 1 to ${ROOM_ID_BYTES_MAX} bytes.`);
    }
  }
}

function parseToDeviceList(messages: RawItems['toDevice']): SubmittedToDevice[] {
  const ascending = new Ascending('to_device');
  return messages.map(({ json, toUserId, toDeviceId, streamPosition }, at) => {
    ascending.next(streamPosition, at);
    const path = `to_device[${at}]`;
    const userId = userIdFrom(toUserId, `${path}.to_user_id`, 'Name the user that the message is for.');
    const deviceId = named(toDeviceId, `${path}.to_device_id`, 'Name the device that the message is for.');
    return { json: parseToDevice(json, { userId, deviceId }, `${path}.json`), userId, streamPosition };
  });
}

function parseDeviceLists(changes: RawItems['deviceLists']): SubmittedDeviceList[] {
  const ascending = new Ascending('device_lists');
  const rooms = new RoomBounds('A change of devices', 'The changes of devices');
  return changes.map(({ userId: user, roomIds, left, streamPosition }, at) => {
    ascending.next(streamPosition, at);
    const path = `device_lists[${at}]`;
    const userId = userIdFrom(user, `${path}.user_id`, 'Name the user whose devices changed.');
    rooms.judge(roomIds, path);
    return { userId, roomIds, left, streamPosition };
  });
}

function parseDeviceKeys({ userId: user, deviceId: device, oneTimeKeyCounts, unusedFallbackKeyTypes }: DeviceKeys, path: string): DeviceKeys {
  const userId = userIdFrom(user, `${path}.user_id`, 'Name the user whose device has the keys.');
  const deviceId = named(device, `${path}.device_id`, 'Name the device that has the keys.');
  const counts = Object.entries(oneTimeKeyCounts);
  if (counts.length > ALGORITHMS_MAX) throw malformed(`${path}.one_time_key_counts`, `A device has keys of at most ${ALGORITHMS_MAX} algorithms.`);
  for (const [algorithm, count] of counts) {
    named(algorithm, `${path}.one_time_key_counts`, 'Name the algorithm of the keys.');
    if (count < 0) throw malformed(`${path}.one_time_key_counts`, 'A number of keys is 0 or more.');
  }
  if (unusedFallbackKeyTypes.length > ALGORITHMS_MAX) throw malformed(`${path}.unused_fallback_key_types`, `A device has keys of at most ${ALGORITHMS_MAX} algorithms.`);
  for (const [at, algorithm] of unusedFallbackKeyTypes.entries()) named(algorithm, `${path}.unused_fallback_key_types[${at}]`, 'Name the algorithm of the key.');
  return { userId, deviceId, oneTimeKeyCounts: Object.fromEntries(counts), unusedFallbackKeyTypes: [...unusedFallbackKeyTypes] };
}

function userIdFrom(text: string, field: string, missing: string): string {
  if (text === '') throw malformed(field, missing);
  const problem = identifierProblem({ kind: 'users', identifier: text });
  if (problem !== null) throw malformed(field, problem);
  return text;
}

function named(text: string, field: string, missing: string): string {
  if (text === '') throw malformed(field, missing);
  if (Buffer.byteLength(text) > ID_BYTES_MAX) throw malformed(field, `This field has at most ${ID_BYTES_MAX} bytes.`);
  return text;
}
