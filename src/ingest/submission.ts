/**
 * A request as it waits for its group: parsed at the door, bytes untouched.
 */
import type { CallPlace } from '../appservice/call-order.ts';
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

/** Positions do not decrease within `events`. */
export interface ParsedSubmission {
  /** Name of the homeserver's writer. */
  readonly stream: string;
  readonly events: readonly SubmittedEvent[];
  readonly rooms: readonly SubmittedRoom[];
  /** JSON bytes of the events together. */
  readonly bytes: number;
  /** Among the submissions of its call; undefined: it stands alone. */
  readonly place?: CallPlace | undefined;
}

export interface SubmissionResult {
  /** Everything of the stream up to here has been taken over. */
  readonly streamPosition: number;
  /** Log position of the segment that holds what was wanted; the tail if nothing was. */
  readonly logPosition: number;
  readonly accepted: number;
  readonly duplicates: number;
  /** Event–appservice pairs queued. */
  readonly routed: number;
  /** Rooms for which a part is unknown that some registration's namespaces make matter. */
  readonly wantedRoomIds: readonly string[];
}
