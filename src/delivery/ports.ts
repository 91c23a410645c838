/**
 * What delivery needs of the rest of the house, declared here by who needs it.
 */
import type { RoutedKind } from '../appservice/body-keys.ts';
import type { Registration } from '../appservice/registration.ts';
import type { LeftOutReason } from '../appservice/transaction.ts';
import type { RoutedEntry, RouteLimits } from '../store/port.ts';

/** Reads what is routed to an appservice. Served from memory for recent segments, from the store otherwise. */
export interface RouteReader {
  /** As SegmentLog.readRoute; sees at least every segment whose routes were announced by {@link RouteAnnouncement}. */
  readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]>;
}

/** A durable segment's route to one appservice, told to delivery after the append: a hint that also keeps the backlog counters. */
export interface RouteAnnouncement {
  readonly appserviceId: string;
  /** Log positions of the first and last entry routed. */
  readonly firstPosition: number;
  readonly lastPosition: number;
  readonly entryCount: number;
  /** JSON bytes of these entries together. */
  readonly bytes: number;
  readonly timeMs: number;
}

/** One appservice id as the fold of the log has it at this moment. */
export interface RegistrationInForce {
  readonly appserviceId: string;
  /** Log position of its newest change. */
  readonly position: number;
  /** Log position at which this life of the id began (R76). */
  readonly since: number;
  /** Null: removed; `backlog` says what becomes of the queue. Tokens in the clear. */
  readonly registration: Registration | null;
  readonly backlog: 'discard' | 'park' | null;
}

/** The registrations in force, asked again for each attempt (R20). */
export interface RegistrationSource {
  find(serverName: string, appserviceId: string): RegistrationInForce | undefined;
  /** All of a homeserver, removed ones included. */
  list(serverName: string): readonly RegistrationInForce[];
}

export interface PushRequest {
  readonly serverName: string;
  readonly appserviceId: string;
  /** Has a `url`. */
  readonly registration: Registration;
  readonly txnId: string;
  readonly body: Uint8Array;
}

/** How one attempt ended: a value, never an exception. `message` is one safe sentence for operators: no token, no body of the peer. */
export type PushOutcome = PushEnd & {
  /** What decided came by the legacy path; by that of version 1 if absent. */
  readonly path?: 'legacy';
};

export type PushEnd =
  /** A 2xx, whatever the body (R67, R73). */
  | { readonly kind: 'delivered'; readonly httpStatus: number }
  /** 413: the same entries must be cut smaller (R71). */
  | { readonly kind: 'too_large'; readonly httpStatus: number; readonly message: string }
  /** Any other answer. `misconfiguration`: 401, 403, 404 and the like, which people have to mend. */
  | { readonly kind: 'rejected'; readonly httpStatus: number; readonly misconfiguration: boolean; readonly retryAfterMs: number | null; readonly message: string }
  /** No answer. `failure` is one of a closed set, such as `timeout`, `connection_refused`, `connection_reset`, `dns`, `tls`, `address_refused`, `bad_response`. */
  | { readonly kind: 'unreachable'; readonly failure: string; readonly message: string }
  /** `signal` was aborted; nothing is known of the appservice. */
  | { readonly kind: 'aborted' };

/** The one path to a PUT of a transaction. */
export interface Push {
  /** Never rejects. Ends within the appservice's time-out. */
  push(request: PushRequest, signal: AbortSignal): Promise<PushOutcome>;
}

/** What delivery tells the metrics. Never throws. */
export interface DeliveryMeter {
  /** `outcome` is the kind of the PushOutcome; `attempt` counts those of this transaction from 1. */
  attempt(serverName: string, appserviceId: string, outcome: PushOutcome['kind'], durationMs: number, attempt: number): void;
  delivered(serverName: string, appserviceId: string, entryCount: number): void;
  /** Entries that were routed to the appservice and are not sent. */
  leftOut(serverName: string, appserviceId: string, kind: RoutedKind, reason: LeftOutReason, count: number): void;
}
