/**
 * Routes what a submission has beside room events, after its events: ephemeral data, to-device messages and news of devices.
 * The rooms are as of after the submission's events.
 */
import { deviceListEntry } from '../appservice/device-extensions.ts';
import { deviceListAppservices, toDeviceAppservices } from '../appservice/interest.ts';
import type { Fold } from './fold.ts';
import type { GroupDeviceKeys } from './group-device-keys.ts';
import type { GroupEphemeral } from './group-ephemeral.ts';
import type { ItemSink } from './item-sink.ts';
import type { OtherItems } from './submission.ts';

export interface RoutedItems {
  readonly accepted: number;
  readonly routed: number;
}

/** The group in which they are routed. */
export interface RoutingGroup {
  readonly fold: Fold;
  readonly keys: GroupDeviceKeys;
  readonly ephemeral: GroupEphemeral;
  readonly sink: ItemSink;
  /** Of the submission. */
  readonly stream: string;
}

/** `isNew`: asked once for each item that has a position, in order within its list. */
export function routeOthers(others: OtherItems, { fold, keys, ephemeral, sink, stream }: RoutingGroup, isNew: (streamPosition: number) => boolean): RoutedItems {
  const { index, rooms } = fold;
  // They have no positions: each is the latest there is.
  let accepted = others.deviceKeys.length;
  let routed = 0;
  for (const { event, roomIds, streamPosition } of others.ephemeral) {
    if (!isNew(streamPosition)) continue;
    accepted++;
    routed += ephemeral.route(event, roomIds, { stream, streamPosition });
  }
  for (const { json, userId, streamPosition } of others.toDevice) {
    if (!isNew(streamPosition)) continue;
    accepted++;
    const appserviceIds = toDeviceAppservices(userId, index);
    if (appserviceIds.length > 0) keys.attachUser(userId);
    routed += sink.add('to_device', json, appserviceIds, streamPosition);
  }
  for (const change of others.deviceLists) {
    if (!isNew(change.streamPosition)) continue;
    accepted++;
    const shared = index.hasDeviceExtensions ? change.roomIds.map((roomId) => rooms.get(roomId)) : [];
    routed += sink.add('device_list', deviceListEntry(change), deviceListAppservices(change.userId, shared, index), change.streamPosition);
  }
  return { accepted, routed };
}
