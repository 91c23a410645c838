/**
 * A request as it waits for its group: parsed at the door, bytes untouched.
 */
import type { CallPlace } from '../appservice/call-order.ts';
import type { DeviceKeys, DeviceListChange } from '../appservice/device-extensions.ts';
import type { EphemeralEvent } from '../appservice/ephemeral.ts';
import type { RoutingEvent } from '../appservice/event.ts';

/** A room event and the homeserver's stream position of it; 0 = none. */
export interface SubmittedEvent {
  readonly event: RoutingEvent;
  readonly streamPosition: number;
}

/** Facts that the router cannot see in the events. They hold from just before the first event of their submission. */
export interface SubmittedRoom {
  readonly roomId: string;
  /** Undefined: absent, changes nothing. */
  readonly localAliases: readonly string[] | undefined;
  readonly localMembers: readonly string[] | undefined;
}

/** A to-device message as its appservices get it. */
export interface SubmittedToDevice {
  readonly json: Uint8Array;
  /** Its recipient. */
  readonly userId: string;
  readonly streamPosition: number;
}

export interface SubmittedDeviceList extends DeviceListChange {
  /** Rooms that the user shares, or shared, with local users, as far as the homeserver knows them. */
  readonly roomIds: readonly string[];
  readonly streamPosition: number;
}

export interface SubmittedEphemeral {
  readonly event: EphemeralEvent;
  /** Of presence: rooms that its user is joined to, as far as the homeserver names them. */
  readonly roomIds: readonly string[];
  readonly streamPosition: number;
}

/** What a submission has beside room events. Positions do not decrease within a list. */
export interface OtherItems {
  readonly ephemeral: readonly SubmittedEphemeral[];
  readonly toDevice: readonly SubmittedToDevice[];
  readonly deviceLists: readonly SubmittedDeviceList[];
  /** Have no positions: the latest counts. */
  readonly deviceKeys: readonly DeviceKeys[];
  /** All rooms that decide who gets one of them. */
  readonly roomIds: readonly string[];
  /** Items in all lists. */
  readonly count: number;
}

/** Positions do not decrease within `events`. */
export interface ParsedSubmission {
  /** Name of the homeserver's writer. */
  readonly stream: string;
  readonly events: readonly SubmittedEvent[];
  readonly rooms: readonly SubmittedRoom[];
  /** Undefined: nothing but events. */
  readonly others?: OtherItems | undefined;
  /** Local users without an account, whom appservices are asked about before they get an event that concerns one. Undefined: none. */
  readonly unknownUserIds?: ReadonlySet<string> | undefined;
  /** JSON bytes of the events and other items together. */
  readonly bytes: number;
  /** Among the submissions of its call; undefined: it stands alone. */
  readonly place?: CallPlace | undefined;
}

export interface SubmissionResult {
  /** Everything of the stream up to here has been taken over. */
  readonly streamPosition: number;
  /** Log position of the segment that holds what was wanted; the tail if nothing was. */
  readonly logPosition: number;
  /** Items of every list. */
  readonly accepted: number;
  readonly duplicates: number;
  /** Pairs of an item and an appservice that are queued. */
  readonly routed: number;
  /** Rooms for which a part is unknown that some registration's namespaces make matter. */
  readonly wantedRoomIds: readonly string[];
}
