/**
 * Judges a history by the named invariants of docs/architecture.md. It knows nothing of how routers work: it looks at what
 * homeservers submitted and were answered, what the log came to hold, which states were stored, and what appservices got.
 */
import type { Calm } from './chaos.ts';
import { deliveryBreaches } from './check-delivery.ts';
import { ingestBreaches } from './check-ingest.ts';
import { stateBreaches } from './check-states.ts';
import type { History } from './history.ts';
import type { HomeserverClient } from './homeserver-client.ts';
import { viewOf } from './log-view.ts';
import type { StreamWriter } from './rooms.ts';
import type { SimStore } from './sim-store.ts';

export interface Breach {
  /** Begins with the invariant's number and name. */
  readonly text: string;
  /** Names that the lines of interest in the history carry. */
  readonly about: readonly string[];
}

export interface Evidence {
  readonly history: History;
  readonly store: SimStore;
  readonly writers: readonly StreamWriter[];
  readonly clients: readonly HomeserverClient[];
  readonly calm: Calm;
  readonly troubleMs: number;
  readonly peaceMs: number;
}

export function breachesOf(evidence: Evidence): Breach[] {
  const view = viewOf(evidence.history.segments);
  return [...evidence.history.breaches, ...view.breaches, ...ingestBreaches(evidence, view), ...stateBreaches(evidence, view), ...deliveryBreaches(evidence, view)];
}
