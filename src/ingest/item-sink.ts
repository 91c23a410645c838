import type { RoutedKind } from '../appservice/body-keys.ts';

/** Where the entries of a group in progress go. */
export interface ItemSink {
  /**
   * Puts the entry next in the group's segment, for these appservices; returns how many they are. Nothing if there are
   * none. `positions`: in the stream of the submission that is being routed, 0 = none; or, of what several submissions
   * come to together, the lowest in each stream.
   */
  add(kind: RoutedKind, json: Uint8Array, appserviceIds: readonly string[], positions: number | ReadonlyMap<string, number>): number;
}
