/**
 * What delivery needs of the rest of the house, declared here by its consumer.
 */
import type { EntryKind } from '../store/segment.ts';
import type { Registration } from '../appservice/registration.ts';

/** One entry routed to one appservice. */
export interface RoutedEntry {
  readonly position: number;
  readonly kind: EntryKind;
  readonly json: Uint8Array;
}

export interface RouteLimits {
  readonly entriesMax: number;
  /** Reading stops before the entry that would take the sum of JSON bytes above this; at least one entry is returned if there is any. */
  readonly bytesMax: number;
}

/** Reads what is routed to an appservice. Served from memory for recent segments, from the store otherwise. */
export interface RouteReader {
  /**
   * Entries routed to the appservice with `after` < position ≤ `through`, ascending. Empty when there are none up to
   * the durable tail. Rejects with a StoreError.
   */
  readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]>;
}

/** The registration in force at this moment, tokens in the clear, or undefined if there is none (R20: asked again for each attempt). */
export interface RegistrationSource {
  find(serverName: string, appserviceId: string): Registration | undefined;
}
