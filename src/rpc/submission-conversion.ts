/** SubmitEventsRequest from the wire, and its answer back. */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { SubmitEventsRequestSchema, SubmitEventsResponseSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { invalid, position, streamName } from './conversion.ts';
import type { OtherItems, RoomContext, Submission, SubmissionResult } from './ports.ts';

const ITEMS_MAX = 1000;
const ROOMS_MAX = 1000;
const ROOM_ID_BYTES_MAX = 1024;
const ALIASES_MAX = 1000;
const MEMBERS_MAX = 200_000;
const UNKNOWN_USERS_MAX = 1000;

type Request = MessageShape<typeof SubmitEventsRequestSchema>;

/** The JSON bytes that a request holds on to. */
export function submissionBytes({ events, ephemeral, toDevice }: Request): number {
  let bytes = 0;
  for (const { json } of events) bytes += json.byteLength;
  for (const { json } of ephemeral) bytes += json.byteLength;
  for (const { json } of toDevice) bytes += json.byteLength;
  return bytes;
}

export function submissionFrom(request: Request): Submission {
  const { events, rooms } = request;
  boundItems(request);
  const others = othersFrom(request);
  const unknownUserIds = bounded(request.unknownUserIds, UNKNOWN_USERS_MAX, 'unknown_user_ids') ?? [];
  return {
    stream: streamName(request.stream),
    events: events.map(({ json, streamPosition }, at) => ({ json, streamPosition: position(streamPosition, `events[${at}].stream_position`) })),
    rooms: roomContextsFrom(rooms),
    ...(others === undefined ? {} : { others }),
    ...(unknownUserIds.length === 0 ? {} : { unknownUserIds }),
  };
}

export function roomContextsFrom(rooms: Request['rooms']): RoomContext[] {
  if (rooms.length > ROOMS_MAX) throw invalid('rooms', `A request has at most ${ROOMS_MAX} rooms; this one has ${rooms.length}. Divide it.`);
  return rooms.map((room, at) => {
    const roomId = room.roomId;
    if (roomId === '' || Buffer.byteLength(roomId) > ROOM_ID_BYTES_MAX) throw invalid(`rooms[${at}].room_id`, `A room context needs a room_id of at most ${ROOM_ID_BYTES_MAX} bytes.`);
    return {
      roomId,
      localAliases: bounded(room.localAliases?.roomAliases, ALIASES_MAX, `rooms[${at}].local_aliases.room_aliases`),
      localMembers: bounded(room.localMembers?.userIds, MEMBERS_MAX, `rooms[${at}].local_members.user_ids`),
    };
  });
}

function bounded(list: string[] | undefined, countMax: number, field: string): readonly string[] | undefined {
  if (list !== undefined && list.length > countMax) throw invalid(field, `This list has at most ${countMax} items; this one has ${list.length}.`);
  return list;
}

export function submissionResultTo(result: SubmissionResult): MessageInitShape<typeof SubmitEventsResponseSchema> {
  const { streamPosition, logPosition, accepted, duplicates, routed, wantedRoomIds } = result;
  return { streamPosition: BigInt(streamPosition), logPosition: BigInt(logPosition), accepted, duplicates, routed, wantedRoomIds: [...wantedRoomIds] };
}

/** Throws an RpcStatus if the request has more items than it may, all lists together. */
function boundItems({ events, ephemeral, toDevice, deviceLists, deviceKeys }: Request): void {
  const count = events.length + ephemeral.length + toDevice.length + deviceLists.length + deviceKeys.length;
  if (count <= ITEMS_MAX) return;
  const [longest] = [
    { field: 'events', length: events.length },
    { field: 'ephemeral', length: ephemeral.length },
    { field: 'to_device', length: toDevice.length },
    { field: 'device_lists', length: deviceLists.length },
    { field: 'device_keys', length: deviceKeys.length },
  ].sort((one, other) => other.length - one.length);
  throw invalid(longest?.field ?? 'events', `A request has at most ${ITEMS_MAX} items in all lists together; this one has ${count}. Divide it.`);
}

/** Undefined if there are none. */
function othersFrom({ ephemeral, toDevice, deviceLists, deviceKeys }: Request): OtherItems | undefined {
  if (ephemeral.length + toDevice.length + deviceLists.length + deviceKeys.length === 0) return undefined;
  return {
    ephemeral: ephemeral.map(({ json, roomIds, streamPosition }, at) => ({ json, roomIds, streamPosition: position(streamPosition, `ephemeral[${at}].stream_position`) })),
    toDevice: toDevice.map(({ json, toUserId, toDeviceId, streamPosition }, at) => ({ json, toUserId, toDeviceId, streamPosition: position(streamPosition, `to_device[${at}].stream_position`) })),
    deviceLists: deviceLists.map(({ userId, roomIds, left, streamPosition }, at) => ({ userId, roomIds, left, streamPosition: position(streamPosition, `device_lists[${at}].stream_position`) })),
    deviceKeys: deviceKeys.map(({ userId, deviceId, oneTimeKeyCounts, unusedFallbackKeyTypes }) => ({ userId, deviceId, oneTimeKeyCounts, unusedFallbackKeyTypes })),
  };
}
