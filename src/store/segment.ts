/**
 * What the log is made of. All values are immutable once appended.
 *
 * log position   a contiguous integer per homeserver, from 1. Safe integers only.
 * entry          one thing that some appservice wants, with the bytes it arrived in.
 * segment        what one group commit appended: entries, their routes, and the facts that changed with them.
 * route          appservice → which entries of the segment it gets.
 */
import type { RoutedKind } from '../appservice/body-keys.ts';
import type { DeviceKeys } from '../appservice/device-extensions.ts';

/** `mark` takes a log position for a segment that changes facts without carrying anything to deliver; it is never routed. */
export type EntryKind = RoutedKind | 'mark';

export interface Entry {
  readonly kind: EntryKind;
  /** The JSON text, without surrounding white space: of an event as it arrived. Empty for a mark. */
  readonly json: Uint8Array;
}

/**
 * The entries of a segment that one appservice gets, as index ranges, both ends included, flattened and ascending:
 * `[0, 3, 7, 7]` is the entries 0, 1, 2, 3 and 7.
 */
export interface Route {
  readonly appserviceId: string;
  readonly ranges: readonly number[];
  readonly entryCount: number;
  /** JSON bytes of those entries together. */
  readonly bytes: number;
}

/** One change of what is known of a room. Applied in order. */
export type RoomDelta =
  | { readonly kind: 'joined'; readonly roomId: string; readonly userId: string }
  | { readonly kind: 'left'; readonly roomId: string; readonly userId: string }
  /** Nothing is known of this user, the whole list being unknown (only as an inverse, never in a segment). */
  | { readonly kind: 'forgotten'; readonly roomId: string; readonly userId: string }
  /** A snapshot of the joined local users; null makes them unknown again (only as an inverse, never in a segment). */
  | { readonly kind: 'members'; readonly roomId: string; readonly userIds: readonly string[] | null }
  /** A snapshot of the local aliases; null as above. */
  | { readonly kind: 'aliases'; readonly roomId: string; readonly roomAliases: readonly string[] | null };

/** What a segment does to the events of a room that wait for one appservice until it has been asked about users (ingest/holds.ts). Applied in order. */
export type HoldChange =
  /** These entries of the segment wait behind what waits already, and `userIds` are to be asked about besides. */
  | { readonly kind: 'held'; readonly appserviceId: string; readonly roomId: string; readonly userIds: readonly string[]; readonly indexes: readonly number[] }
  /** What has waited is routed by this segment, as entries of its own, and nothing waits any more. */
  | { readonly kind: 'released'; readonly appserviceId: string; readonly roomId: string };

/** A registration put or removed at this point of the log. */
export type RegistrationChange =
  /**
   * With `resumeParked`, a put over a removed registration goes on with its parked backlog; without, a put over a
   * removed one begins a new life of that id, which never sees what was queued before (R76).
   */
  | { readonly kind: 'put'; readonly appserviceId: string; readonly registration: StoredRegistration; readonly resumeParked: boolean }
  /** `park` keeps what is queued, undelivered; `discard` gives it up. */
  | { readonly kind: 'removed'; readonly appserviceId: string; readonly backlog: 'discard' | 'park' };

export interface Segment {
  readonly serverName: string;
  /** Log position of the first entry. There is at least one entry. */
  readonly firstPosition: number;
  readonly entries: readonly Entry[];
  readonly routes: readonly Route[];
  readonly roomDeltas: readonly RoomDelta[];
  /** Stream name → stream position that becomes durable with this segment. */
  readonly streamPositions: Readonly<Record<string, number>>;
  /** Where every stream stood before this segment. Absent: nothing is routed by it, or it is not known. */
  readonly streamsBefore?: Readonly<Record<string, number>>;
  /**
   * Which entries have which stream positions. By stream, runs of consecutive entries with consecutive positions, each
   * as its first entry's index, that entry's position, and the number of entries, flattened and by ascending index:
   * `[0, 7, 2, 5, 12, 1]` is 7 and 8 for the entries 0 and 1, and 12 for entry 5. Absent: none has one, or it is not known.
   */
  readonly streamRuns?: Readonly<Record<string, readonly number[]>>;
  /** The latest numbers of keys of devices that an appservice is told of. Absent: none changed. */
  readonly deviceKeys?: readonly DeviceKeys[];
  /** Its entries are those of this transaction, out of the quarantine. Absent: they came from the homeserver. */
  readonly redelivery?: Redelivery;
  /** Absent: nothing begins to wait and nothing ends. */
  readonly holds?: readonly HoldChange[];
  readonly registrationChanges: readonly RegistrationChange[];
  /** Log position of the newest registration change that the routes were decided with; 0 before any. */
  readonly registrationsVersion: number;
  /** Names this append for ever: tells one's own segment from a rival's after an unknown outcome. */
  readonly nonce: string;
  /** The writer's wall clock. */
  readonly timeMs: number;
}

/** Names a transaction in quarantine. */
export interface RedeliveredKey {
  readonly appserviceId: string;
  readonly txnId: string;
}

export interface Redelivery extends RedeliveredKey {
  /** Redelivered before, and known to have left the quarantine: they need not be remembered any more. */
  readonly settled: readonly RedeliveredKey[];
}

/** True if the appservice gets nothing of this segment but ephemeral entries. */
export function isEphemeralRoute({ entries }: Pick<Segment, 'entries'>, { ranges }: Pick<Route, 'ranges'>): boolean {
  for (let range = 0; range + 1 < ranges.length; range += 2) {
    for (let index = ranges[range] ?? 0; index <= (ranges[range + 1] ?? -1); index++) if (entries[index]?.kind !== 'ephemeral') return false;
  }
  return ranges.length > 0;
}

/** Log position of the last entry. */
export function lastPosition(segment: Pick<Segment, 'firstPosition' | 'entries'>): number {
  return segment.firstPosition + segment.entries.length - 1;
}

/** A registration at rest: everything in the clear but the tokens, which are sealed text bound to owner and field. */
export interface StoredRegistration {
  /** The registration's fields without `as_token` and `hs_token`, as JSON text. */
  readonly json: string;
  readonly asTokenSealed: string;
  readonly hsTokenSealed: string;
  /** Keyed hash of the as_token, for look-ups and the uniqueness rule (R7). */
  readonly asTokenHash: string;
  readonly hsTokenHash: string;
}
