import type { RegistrationChange, Segment } from '../store/segment.ts';
import type { Fold } from './fold.ts';

/** The segment after the fold's tail that carries nothing to deliver: changes of registrations, and the positions that have run ahead. */
export function markSegment(fold: Fold, registrationChanges: readonly RegistrationChange[], nonce: string, timeMs: number): Segment {
  return {
    serverName: fold.serverName,
    firstPosition: fold.tail + 1,
    entries: [{ kind: 'mark', json: new Uint8Array(0) }],
    routes: [],
    roomDeltas: [],
    streamPositions: fold.streams.ahead(),
    registrationChanges,
    registrationsVersion: fold.registrationsVersion,
    nonce,
    timeMs,
  };
}
