/**
 * What the two doors need of the house, declared here by who needs it. `service.ts` brings the implementations.
 * Expected refusals are {@link Refusal}s thrown by the implementations: rpc/errors.ts has the one table that maps them.
 */
import type { AppserviceIdentity, AuthenticateRequest } from '../appservice/authenticate.ts';
import type { CallPlace } from '../appservice/call-order.ts';
import type { Actor, AuthorizeRequest, NamespaceVerdict } from '../appservice/authorize.ts';
import type { DeviceKeys } from '../appservice/device-extensions.ts';
import type { DeliveryState } from '../appservice/delivery-state.ts';
import type { DomainEventRecord } from '../appservice/domain-event.ts';
import type { RoutingVerdict } from '../appservice/explain.ts';
import type { Subject } from '../appservice/identifier.ts';
import type { KeysResult } from '../appservice/key-request.ts';
import type { PingOutcome } from '../appservice/ping.ts';
import type { Provision, ProvisionSubject } from '../appservice/provisioning.ts';
import type { RefusalError } from '../appservice/refusal.ts';
import type { Registration } from '../appservice/registration.ts';
import type { ThirdPartyKind, ThirdPartyMatches, ThirdPartyProtocols, ThirdPartyQuestion } from '../appservice/third-party.ts';

export type { RefusalError };

/** A request of SubmitEvents as it crosses into the house. Bytes may be views on the request's buffer. */
export interface Submission {
  readonly stream: string;
  readonly events: readonly { readonly json: Uint8Array; readonly streamPosition: number }[];
  readonly rooms: readonly RoomContext[];
  /** Undefined: nothing but events. */
  readonly others?: OtherItems | undefined;
  /** Undefined: none. */
  readonly unknownUserIds?: readonly string[] | undefined;
  /** Among the messages of one stream; undefined: a call of its own. */
  readonly place?: CallPlace | undefined;
}

/** What a request has beside room events, as it came. */
export interface OtherItems {
  readonly ephemeral: readonly { readonly json: Uint8Array; readonly roomIds: readonly string[]; readonly streamPosition: number }[];
  readonly toDevice: readonly { readonly json: Uint8Array; readonly toUserId: string; readonly toDeviceId: string; readonly streamPosition: number }[];
  readonly deviceLists: readonly { readonly userId: string; readonly roomIds: readonly string[]; readonly left: boolean; readonly streamPosition: number }[];
  readonly deviceKeys: readonly DeviceKeys[];
}

export interface RoomContext {
  readonly roomId: string;
  /** Undefined: absent, changes nothing. */
  readonly localAliases: readonly string[] | undefined;
  readonly localMembers: readonly string[] | undefined;
}

export interface SubmissionResult {
  readonly streamPosition: number;
  readonly logPosition: number;
  readonly accepted: number;
  readonly duplicates: number;
  readonly routed: number;
  readonly wantedRoomIds: readonly string[];
}

export interface DeliveredPosition {
  readonly appserviceId: string;
  readonly streamPosition: number;
}

export interface PingRequest {
  readonly appservice: Exclude<Actor, { readonly kind: 'person' }>;
  /** Undefined: the appservice gets none. */
  readonly transactionId: string | undefined;
}

export interface RegistrationWarning {
  readonly code: string;
  readonly message: string;
}

/** What the router service calls, for one homeserver. All reject with RefusalError or StoreError. */
export interface HomeserverPort {
  submit(submission: Submission): Promise<SubmissionResult>;
  streamPosition(stream: string): Promise<{ streamPosition: number; logPosition: number }>;
  /** Per appservice, in order of the ids: up to which position everything of the stream that concerns it is dealt with. */
  deliveredPositions(stream: string): Promise<readonly DeliveredPosition[]>;
  checkNamespace(subject: Subject): NamespaceVerdict;
  /** Returns the id of the deciding appservice, if one decided; throws a RefusalError if refused. */
  authorize(request: AuthorizeRequest): string | undefined;
  /** Throws a RefusalError if no appservice has the token, or it may not act as the user. */
  authenticate(request: AuthenticateRequest): AppserviceIdentity;
  /** A ping that fails is an outcome; an appservice id that is not known is a RefusalError. */
  ping(request: PingRequest): Promise<PingOutcome>;
  /** Asks the appservices that may have the user or the alias; a RefusalError if none says yes and not all say no. */
  query(subject: ProvisionSubject): Promise<Provision>;
  /** Undefined: all. An appservice that fails is left out and named. */
  thirdPartyProtocols(protocol: string | undefined): Promise<ThirdPartyProtocols>;
  /** An appservice that fails is left out and named. */
  thirdPartyMatches(kind: ThirdPartyKind, question: ThirdPartyQuestion): Promise<ThirdPartyMatches>;
  /** Bytes of JSON: what is wanted, and what the homeserver has. An appservice that fails is no keys. */
  claimKeys(wanted: Uint8Array, held: Uint8Array): Promise<KeysResult>;
  queryKeys(wanted: Uint8Array, held: Uint8Array): Promise<KeysResult>;
}

/** What operators see of one appservice. Times are wall clock milliseconds. */
export interface AppserviceStatus {
  readonly appserviceId: string;
  readonly state: DeliveryState;
  readonly paused: boolean;
  readonly deliveredLogPosition: number;
  readonly backlogEntries: number;
  readonly backlogBytes: number;
  readonly oldestEntryTimeMs: number | null;
  readonly transaction: {
    readonly txnId: string;
    readonly eventCount: number;
    readonly attemptCount: number;
    readonly nextAttemptTimeMs: number;
  } | null;
  /** Why nothing is sent although something waits, when that is by an operator's word: no URL, paused, parked. */
  readonly heldBy: 'no_url' | 'paused' | 'parked' | null;
  readonly quarantinedEntries: number;
  /** The replica that delivers to it; null while none does. */
  readonly leaseHolder: string | null;
  readonly lastError: { readonly kind: string; readonly httpStatus: number | null; readonly message: string; readonly timeMs: number } | null;
  readonly deliveredEntries: number;
  readonly attempts: number;
  readonly failedAttempts: number;
}

export interface PutRegistrationRequest {
  readonly source: { readonly kind: 'yaml'; readonly text: string } | { readonly kind: 'registration'; readonly registration: Registration };
  readonly validateOnly: boolean;
  readonly resumeParked: boolean;
}

export interface ExplainRoutingRequest {
  readonly event: { readonly kind: 'json'; readonly json: Uint8Array } | { readonly kind: 'id'; readonly eventId: string };
  /** What to take for known of rooms, for this question. */
  readonly rooms: readonly RoomContext[];
}

/** Where an event is on its way to one appservice. */
export interface EventDelivery {
  readonly whereabouts: 'not_routed' | 'queued' | 'in_flight' | 'held' | 'delivered' | 'quarantined' | 'given_up';
  readonly txnId: string | null;
  readonly attemptCount: number;
  readonly nextAttemptTimeMs: number | null;
  /** `user_query`: until the appservice has answered about a user whom the event concerns. */
  readonly heldBy: AppserviceStatus['heldBy'] | 'user_query';
}

export interface RoutingExplanation {
  readonly eventId: string;
  /** Null: the event was given as JSON. */
  readonly search: {
    readonly found: { readonly position: number; readonly timeMs: number } | null;
    readonly oldest: { readonly position: number; readonly timeMs: number } | null;
    readonly isComplete: boolean;
    readonly seen: { readonly stream: string; readonly position: number } | undefined;
  } | null;
  /** Null: the event was not found. */
  readonly room: { readonly roomId: string; readonly knowsMembers: boolean; readonly memberCount: number; readonly knowsAliases: boolean; readonly aliasCount: number } | null;
  /** `delivery` is null for an event that was given as JSON. */
  readonly appservices: readonly (RoutingVerdict & { readonly delivery: EventDelivery | null })[];
}

export interface KeyRotationRequest {
  /** A new key is made only if this is the one that seals; undefined: in any case. */
  readonly replacedKeyId: string | undefined;
  /** All routers that share the store read the same key file. */
  readonly sharedKeyFile: boolean;
}

/** Who rotates and why, for the audit. */
export interface KeyRotationOrder extends KeyRotationRequest {
  /** May be empty. */
  readonly reason: string;
  readonly actor: string;
}

export interface KeyRotationResult {
  readonly sealingKeyId: string;
  readonly keyCreated: boolean;
  /** Registrations sealed anew by this call. */
  readonly resealedCount: number;
  /** Of each key, that which seals first, the registrations with a token sealed with it. */
  readonly keys: readonly { readonly keyId: string; readonly registrationCount: number }[];
}

export interface Page<Item> {
  readonly items: readonly Item[];
  /** Pass to go on; empty at the end. */
  readonly nextPageToken: string;
}

/** A transaction in quarantine. */
export interface ShelvedTransaction {
  readonly txnId: string;
  readonly reason: string;
  readonly timeMs: number;
  readonly firstPosition: number;
  readonly lastPosition: number;
  readonly entryCount: number;
  /** JSON bytes of its entries together. */
  readonly bytes: number;
  /** As it was pushed; null unless asked for. */
  readonly body: Uint8Array | null;
}

export interface AuditRecord {
  readonly timeMs: number;
  readonly actor: string;
  readonly action: string;
  readonly appserviceId: string;
  readonly txnId: string | null;
  readonly reason: string;
}

/** What an operator orders for one appservice, and why. */
export interface Order {
  readonly appserviceId: string;
  readonly reason: string;
  /** Name of the operator's credential. */
  readonly actor: string;
}

export interface TransactionOrder extends Order {
  readonly txnId: string;
}

export interface ReplayOrder extends Order {
  /** A log position, or the first one written at or after a wall clock. */
  readonly start: { readonly kind: 'position'; readonly position: number } | { readonly kind: 'time'; readonly timeMs: number };
}

/**
 * What the admin service calls, for one homeserver. All reject with RefusalError or StoreError. `actor` is the name of the
 * operator's credential.
 */
export interface AdminPort {
  putRegistration(request: PutRegistrationRequest, actor: string): Promise<{ registration: Registration; warnings: readonly RegistrationWarning[] }>;
  /** Registrations carry their tokens in here; the edge must never put them into an answer. */
  getRegistration(appserviceId: string): Registration;
  listRegistrations(pageSize: number, pageToken: string): Page<Registration>;
  deleteRegistration(appserviceId: string, backlog: 'discard' | 'park', actor: string): Promise<void>;
  getAppservice(appserviceId: string): Promise<AppserviceStatus>;
  listAppservices(pageSize: number, pageToken: string): Promise<Page<AppserviceStatus>>;
  setPaused(appserviceId: string, paused: boolean, actor: string): Promise<AppserviceStatus>;
  retryNow(appserviceId: string, actor: string): Promise<AppserviceStatus>;
  stop(order: Order): Promise<AppserviceStatus>;
  skip(order: TransactionOrder): Promise<AppserviceStatus>;
  redeliver(order: TransactionOrder): Promise<AppserviceStatus>;
  discard(order: TransactionOrder): Promise<AppserviceStatus>;
  /** With the log position from which on is delivered again. */
  replay(order: ReplayOrder): Promise<{ readonly status: AppserviceStatus; readonly from: number }>;
  listQuarantined(appserviceId: string, pageSize: number, pageToken: string, withBodies: boolean): Promise<Page<ShelvedTransaction>>;
  /** Newest first; of one appservice unless `appserviceId` is undefined. */
  listAudit(appserviceId: string | undefined, pageSize: number, pageToken: string): Promise<Page<AuditRecord>>;
  /** Of the whole process, whatever homeserver it is asked of. */
  rotateEncryptionKey(order: KeyRotationOrder): Promise<KeyRotationResult>;
  /** An event that is not found is an answer. */
  explainRouting(request: ExplainRoutingRequest): Promise<RoutingExplanation>;
  /**
   * Domain events from now on, until `signal` aborts; only of `appserviceIds` unless that is empty. A slow reader
   * loses the oldest: `droppedCount` says how many were lost just before this one.
   */
  watch(appserviceIds: readonly string[], signal: AbortSignal): AsyncIterable<{ record: DomainEventRecord; droppedCount: number }>;
}

/** The homeservers this router serves. */
export interface Homeservers {
  readonly defaultServerName: string;
  /** Undefined for a server name that this router does not serve. */
  router(serverName: string): HomeserverPort | undefined;
  admin(serverName: string): AdminPort | undefined;
  /** Undefined for a homeserver that does not send its traffic by the ingress. */
  ingress(serverName: string): IngressStatus | undefined;
}

/** What the doors tell the metrics. `code` is the gRPC status code. Never throws. */
export interface RpcMeter {
  observe(method: string, code: number, durationMs: number): void;
}

/** A request on the HTTP port that is neither a call nor a probe. */
export interface IngressRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly authorization: string | undefined;
  /** Rejects if the request ends early. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface IngressAnswer {
  readonly status: number;
  /** JSON text. */
  readonly body: string;
}

/** How an unmodified homeserver's own traffic stands. Times are wall clock milliseconds. */
export interface IngressStatus {
  /** Null: none since the start. */
  readonly lastTransactionTimeMs: number | null;
  /** Since the start. */
  readonly shelvedItemCount: number;
  /** Rooms of which something is not known that matters. */
  readonly unknownRoomCount: number;
  /** Some of them. */
  readonly unknownRoomIds: readonly string[];
  /** Why rooms cannot be looked up, in a sentence; null if they can. */
  readonly problem: string | null;
  /** The start, or the refusal, since which no transaction was taken, so that something may wait at the homeserver; null: there is none. */
  readonly gapSinceMs: number | null;
}

/** The Application Service API, as a homeserver calls it. */
export interface IngressPort {
  /** Null: it is no path of this API. Never rejects. */
  answer(request: IngressRequest): Promise<IngressAnswer> | null;
}

/** What `/healthz`, `/readyz` and `/metrics` answer. */
export interface HttpProbes {
  ready(): { readonly ready: boolean; readonly detail: Readonly<Record<string, unknown>> };
  metrics(): Promise<{ readonly contentType: string; readonly text: string }>;
}
