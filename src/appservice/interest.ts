/**
 * Who gets a room event, ephemeral data, a to-device message, news of devices (Application Service API, section "Pushing events";
 * requirements R29 to R48, R78 to R84).
 */
import type { RoutingEvent } from './event.ts';
import { wantsDeviceExtensions, wantsEphemeral, wantsToDevice } from './body-keys.ts';
import { isLocalUser } from './identifier.ts';
import type { NamespaceIndex } from './namespaces.ts';
import type { Registration } from './registration.ts';

/** A room as far as interest needs it. */
export interface InterestedRoom {
  /** The appservices interested in the room by its id, its aliases and its joined local users, in registration order. */
  interested(index: NamespaceIndex): readonly string[];
}

const NOBODY: readonly string[] = [];

/** A membership of one local user as an event tells it. Shaped like a room delta of the log. */
export interface MembershipDelta {
  readonly kind: 'joined' | 'left';
  readonly roomId: string;
  readonly userId: string;
}

/** What the event changes in its room: a local user is joined from here on, or is not. Null if nothing. */
export function roomDeltasOf(event: RoutingEvent, serverName: string): MembershipDelta | null {
  const { type, stateKey, membership, roomId } = event;
  if (type !== 'm.room.member' || stateKey === undefined || membership === undefined || !isLocalUser(stateKey, serverName)) return null;
  return { kind: membership === 'join' ? 'joined' : 'left', roomId, userId: stateKey };
}

/**
 * The appservices interested in the event, each once, in registration order. `room` is as of just after the event:
 * a leave reaches the appservice of the one who left by the rule on membership targets (R29, R39).
 */
export function interestedAppservices(event: RoutingEvent, room: InterestedRoom, index: NamespaceIndex): readonly string[] {
  const byRoom = room.interested(index);
  const bySender = index.interested('users', event.sender);
  const byTarget = event.type === 'm.room.member' && event.stateKey !== undefined ? index.interested('users', event.stateKey) : NOBODY;
  if (includesAll(byRoom, bySender) && includesAll(byRoom, byTarget)) return byRoom;
  return index.inOrder([...byRoom, ...bySender, ...byTarget]);
}

/** The appservices that get a to-device message to this user: it is local, and theirs by namespace or as their own (R89). */
export function toDeviceAppservices(userId: string, index: NamespaceIndex): string[] {
  return takers(index.interested('users', userId), wantsToDevice, index);
}

/** The appservices that are told of changes of a user's devices: it is theirs, or in a room they are interested in. */
export function deviceListAppservices(userId: string, rooms: readonly InterestedRoom[], index: NamespaceIndex): string[] {
  if (!index.hasDeviceExtensions) return [];
  const interested = [index.interested('users', userId), ...rooms.map((room) => room.interested(index))].flat();
  return takers(index.inOrder(interested), wantsDeviceExtensions, index);
}

/** The appservices that are told the numbers of keys of this user's devices (R98). */
export function deviceKeysAppservices(userId: string, index: NamespaceIndex): string[] {
  return index.hasDeviceExtensions ? takers(index.interested('users', userId), wantsDeviceExtensions, index) : [];
}

/** Of these, the appservices that opted in to ephemeral data (R78). */
export function ephemeralTakers(appserviceIds: readonly string[], index: NamespaceIndex): readonly string[] {
  return index.hasEphemeral ? takers(appserviceIds, wantsEphemeral, index) : NOBODY;
}

/** Of `readers`, the appservices that see this user's private receipts: it is theirs, by namespace or as their own (R83). */
export function privateReaders(userId: string, readers: readonly string[], index: NamespaceIndex): readonly string[] {
  const owners = index.interested('users', userId);
  return readers.filter((id) => owners.includes(id));
}

/** The appservices that get a user's presence: it is theirs, or they are interested in a room that it is joined to (R84). */
export function presenceAppservices(userId: string, rooms: Iterable<InterestedRoom>, index: NamespaceIndex): readonly string[] {
  if (!index.hasEphemeral) return NOBODY;
  const found = new Set(ephemeralTakers(index.interested('users', userId), index));
  for (const room of rooms) {
    if (found.size === index.ephemeralCount) break;
    for (const id of room.interested(index)) if (!found.has(id) && ephemeralTakers([id], index).length > 0) found.add(id);
  }
  return index.inOrder(found);
}

export function isToldOfDevices(appserviceId: string, index: NamespaceIndex): boolean {
  const registration = index.registration(appserviceId);
  return registration !== undefined && wantsDeviceExtensions(registration);
}

function takers(appserviceIds: readonly string[], wants: (registration: Registration) => boolean, index: NamespaceIndex): string[] {
  return appserviceIds.filter((id) => {
    const registration = index.registration(id);
    return registration !== undefined && wants(registration);
  });
}

function includesAll(all: readonly string[], some: readonly string[]): boolean {
  for (const id of some) if (!all.includes(id)) return false;
  return true;
}
