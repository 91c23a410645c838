/**
 * Who gets a room event (Application Service API, section "Pushing events"; requirements R29 to R48).
 */
import type { RoutingEvent } from './event.ts';
import { isLocalUser } from './identifier.ts';
import type { NamespaceIndex } from './namespaces.ts';

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

function includesAll(all: readonly string[], some: readonly string[]): boolean {
  for (const id of some) if (!all.includes(id)) return false;
  return true;
}
