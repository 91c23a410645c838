/**
 * The store port: four roles, each with its promises. Every adapter passes test/store/conformance.
 *
 * Rules for all methods:
 * - Data of one `serverName` must never be visible under another.
 * - A resolved write must be durable: fsync on one machine, majority and journal on a replica set.
 * - A method must reject only with a {@link StoreError} (errors.ts); expected refusals are values.
 * - Positions and times are safe integers. Ids are opaque strings of any Unicode text.
 * - Every list is bounded by a limit that the caller passes or that this page names.
 */
import type { BodyKey, RoutedKind } from '../appservice/body-keys.ts';
import type { DeviceKeys } from '../appservice/device-extensions.ts';
import type { DeliveryState } from '../appservice/delivery-state.ts';
import type { RedeliveredKey, Segment, StoredRegistration } from './segment.ts';

/** What {@link SegmentLog.append} came to. */
export type AppendOutcome =
  /** The segment is durable at its position. */
  | { readonly kind: 'appended' }
  /** Another segment has that position. Nothing was written. Read on from there. */
  | { readonly kind: 'lost' };

/**
 * Which ephemeral entries nobody is owed any more: those of segments written before `beforeMs` that begin above the
 * appservice's position in `cutThrough`, up to which they may be in a transaction. One that is absent there is owed all.
 */
export interface ExpiredTerms {
  readonly beforeMs: number;
  readonly cutThrough: ReadonlyMap<string, number>;
}

/** Ephemeral entries that went without having been delivered. */
export interface ExpiredEntries {
  readonly appserviceId: string;
  readonly entryCount: number;
}

export interface TrimRequest {
  /** Segments with a first position at or below this are not looked at. */
  readonly after: number;
  /** No segment that ends above this may go: the fold's checkpoint. */
  readonly through: number;
  /** Only segments written before this wall clock may go. */
  readonly beforeMs: number;
  /** Delivered position by appservice. One that is absent holds nothing back. */
  readonly deliveredPositions: ReadonlyMap<string, number>;
  /** Absent: nothing is. */
  readonly expired?: ExpiredTerms;
  /** Look at no more than this many segments. */
  readonly segmentsMax: number;
}

export interface TrimOutcome {
  readonly removedSegments: number;
  /** One for each appservice that lost some, in any order. */
  readonly expired: readonly ExpiredEntries[];
  /** Pass as `after` to go on; null when the end was reached. */
  readonly nextAfter: number | null;
}

/** What waits for one appservice: everything routed to it above a position. */
export interface RouteMeasure {
  readonly appserviceId: string;
  readonly entryCount: number;
  readonly bytes: number;
  /** First position and writer's wall clock of the oldest segment counted; null when nothing waits. */
  readonly firstSegment: number | null;
  readonly oldestTimeMs: number | null;
}

/** One entry routed to one appservice. */
export interface RoutedEntry {
  readonly position: number;
  readonly kind: RoutedKind;
  readonly json: Uint8Array;
  /** Writer's wall clock of its segment. */
  readonly timeMs: number;
}

export interface RouteLimits {
  readonly entriesMax: number;
  readonly bytesMax: number;
}

export interface SegmentLimits {
  readonly segmentsMax: number;
  readonly bytesMax: number;
  readonly mayLag?: boolean;
}

/** The log of segments. Terminology: segment.ts. */
export interface SegmentLog {
  /**
   * Appends `segment` if, and only if, its first position is the tail's last position + 1 (1 for an empty log): a
   * compare-and-set. Of several writers with the same tail exactly one gets `appended`. The outcome is never a guess:
   * an answer lost on the way is settled by the nonce, or the call rejects with kind `unavailable`, after which the
   * segment may or may not be there and the caller must read on from its tail before it appends again.
   */
  append(segment: Segment): Promise<AppendOutcome>;
  /**
   * Segments with first position ≥ `from`, ascending, at most `segmentsMax` and stopping after the one that takes the
   * sum of JSON bytes to `bytesMax` or beyond; at least one if there is any. Reads the newest durable state; with
   * `mayLag` one that has all that this store was told of before, such as who won an append, and may lack newer things.
   */
  readSegments(serverName: string, from: number, limits: SegmentLimits): Promise<Segment[]>;
  /**
   * The entries routed to the appservice with `after` < position ≤ `through`, ascending: at most `entriesMax` (≤ 10,000),
   * and stopping before the entry that would take the sum of JSON bytes above `bytesMax`; at least one if there is any.
   * Fewer than asked for and fewer than there are is allowed only at these limits. Reads the newest durable state.
   */
  readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]>;
  /**
   * What is routed to each of the given appservices above its given position, in segments that end at or below
   * `through`. Of the one segment that the position lies in, only the entries above it count.
   */
  measureRoutes(serverName: string, after: ReadonlyMap<string, number>, through: number): Promise<RouteMeasure[]>;
  /**
   * Removes segments that everybody is past: those that end at or below `through`, are older than `beforeMs`, and whose
   * every route is past: its last entry is at or below that appservice's delivered position, or it has nothing but
   * entries that are expired. The newest segment always stays.
   */
  trim(serverName: string, request: TrimRequest): Promise<TrimOutcome>;
  /**
   * The lowest log position from which to `through` no segment is missing: looks from there down, at no more than
   * `segmentsMax` (≤ 10,000) segments, and no further than the segment that holds `from`. `through` + 1 if the one that
   * holds `through` is missing itself. To look further, call again with what was returned less one as `through`.
   */
  wholeFrom(serverName: string, from: number, through: number, segmentsMax: number): Promise<number>;
}

/** What is known of one room, valid at a log position. Null lists are unknown. */
export interface StoredRoom {
  readonly roomId: string;
  readonly position: number;
  readonly localMembers: readonly string[] | null;
  readonly localAliases: readonly string[] | null;
  /** Users seen to join (true) or leave (false) while the whole list was unknown. */
  readonly partialMembers: Readonly<Record<string, boolean>>;
}

/** Events of one room that wait for one appservice, in order, by where their bytes are: those segments are not trimmed. */
export interface StoredHold {
  readonly appserviceId: string;
  readonly roomId: string;
  /** To be asked about. */
  readonly userIds: readonly string[];
  /** The first log position of a segment, and which of its entries. At most 5,000 in all holds together. */
  readonly entries: readonly { readonly firstPosition: number; readonly index: number }[];
}

/** Everything up to `position` is materialised in the room and registration documents. */
export interface Checkpoint {
  readonly position: number;
  readonly streamPositions: Readonly<Record<string, number>>;
  /** The latest numbers of keys of devices; at most 10,000 devices. Absent: none are known. */
  readonly deviceKeys?: readonly DeviceKeys[];
  /** Redelivered transactions of which it is not known that they have left the quarantine. Absent: there are none. */
  readonly redelivered?: readonly RedeliveredKey[];
  /** What waits until an appservice has been asked; at most 1,000. Absent: nothing does. */
  readonly holds?: readonly StoredHold[];
  /** Log position of the newest registration change at or below `position`. */
  readonly registrationsVersion: number;
  /** Which events were last seen in each stream; at most 4,096 in all. Absent: none is remembered. */
  readonly seenEvents?: readonly SeenEvent[];
}

/** Which event was at a position of a stream. */
export interface SeenEvent {
  readonly stream: string;
  readonly position: number;
  /** Of its id: enough to tell it from another. */
  readonly hash: string;
}

/** The newest change of one appservice id. */
export interface PositionedRegistration {
  readonly appserviceId: string;
  /** Log position of that change. */
  readonly position: number;
  /** Log position at which this life of the id began (R76): the first put, or the put after a removal that did not resume. */
  readonly since: number;
  /** Null: it is removed, and `backlog` says what became of the queue. */
  readonly registration: StoredRegistration | null;
  readonly backlog: 'discard' | 'park' | null;
}

/** A run of the ids that were seen, in the order of the log; see ingest/seen-ids.ts. */
export interface SeenPage {
  /** Where it is kept; a later page takes the place of an earlier one in the same slot. */
  readonly slot: number;
  /** Its number in the order of all pages that ever were. */
  readonly page: number;
  /** Log position at which it is valid. */
  readonly position: number;
  /** At most 64 KiB. */
  readonly ids: Uint8Array;
}

/** The part of the fold that a start loads whole. */
export interface Fold {
  readonly checkpoint: Checkpoint;
  /** One per appservice id, removed ones included. */
  readonly registrations: readonly PositionedRegistration[];
  /** In any order. Absent: there are none. */
  readonly seenPages?: readonly SeenPage[];
}

/** What {@link FoldStore.saveFold} writes: the changed parts only. */
export interface FoldChanges {
  readonly rooms: readonly StoredRoom[];
  readonly registrations: readonly PositionedRegistration[];
  /** At most 1,000. */
  readonly seenPages?: readonly SeenPage[];
  readonly checkpoint: Checkpoint;
}

/** The materialised fold of the log: rooms, registrations, checkpoint. A cache of the log, needed because the log is trimmed. */
export interface FoldStore {
  /** The checkpoint (position 0 and empty parts before the first) and all registrations of the homeserver. */
  loadFold(serverName: string): Promise<Fold>;
  /** The stored ones among `roomIds` (at most 10,000), in any order. */
  loadRooms(serverName: string, roomIds: readonly string[]): Promise<StoredRoom[]>;
  /**
   * Writes each room, registration and seen page unless the stored one is valid at the same or a later position; then, and
   * only after all of them are durable, the checkpoint, unless the stored one is at the same or a later position. A seen
   * page is durable before the next of the list is written.
   * Not atomic as a whole; safe to repeat.
   */
  saveFold(serverName: string, changes: FoldChanges): Promise<void>;
}

/** A transaction that was cut and is not finished: a txn id, a closed choice of log entries, and how they are shown. */
export interface TransactionRecord {
  /** Decimal integer as text; grows with every cut of an appservice. */
  readonly txnId: string;
  /**
   * The choice: of the entries routed to this appservice, those in these log position ranges, both ends included,
   * flattened and ascending.
   */
  readonly ranges: readonly number[];
  /** What the body has beside `events`, decided at the cut. Absent: nothing. */
  readonly bodyKeys?: readonly BodyKey[];
  readonly entryCount: number;
  /** Delivered position once this transaction is complete; at or above the last of the ranges. */
  readonly through: number;
  readonly cutTimeMs: number;
  /** Attempts that have ended without success. */
  readonly attemptCount: number;
  /** Wall clock before which no attempt is made, unless a wake cuts the wait short. */
  readonly nextAttemptTimeMs: number;
  /** An operator's word: it is not sent any more and goes to quarantine. Absent: nobody said so. */
  readonly skip?: { readonly reason: string; readonly timeMs: number };
}

/** Why an attempt did not deliver, classified; text is safe to show. */
export interface AttemptFailure {
  readonly kind: string;
  readonly httpStatus: number | null;
  readonly message: string;
  readonly timeMs: number;
}

/** The delivery state of one appservice. One document; every change of it is one compare-and-set of `revision`. */
export interface AppserviceState {
  readonly serverName: string;
  readonly appserviceId: string;
  /** Grows by one with every write; 0 is never stored. */
  readonly revision: number;
  /** Who delivers. `epoch` grows with every change of holder, so a holder that was paused is fenced. */
  readonly leaseHolder: string | null;
  readonly leaseEpoch: number;
  readonly deliveryState: DeliveryState;
  readonly paused: boolean;
  /** The registration was deleted with its backlog kept. Parked states hold the log back and are not delivered. */
  readonly parked: boolean;
  /** `since` of the registration that this state belongs to: a recycled id starts anew (R76). */
  readonly sincePosition: number;
  /** Everything routed to it at or below this is acknowledged, quarantined, skipped or discarded. Goes back by a replay only. */
  readonly deliveredPosition: number;
  /** The newest txn id given out; "0" before the first. */
  readonly lastTxnId: string;
  readonly transaction: TransactionRecord | null;
  /** After a 413: up to and including `through`, cut no more than `entriesMax` entries (R71). */
  readonly split: { readonly through: number; readonly entriesMax: number } | null;
  readonly lastFailure: AttemptFailure | null;
  readonly deliveredEntries: number;
  readonly deliveredTransactions: number;
  readonly attempts: number;
  readonly failedAttempts: number;
  /** Entries on the quarantine's shelf. */
  readonly quarantinedEntries: number;
  /** Replays so far: each may move the delivered position back. Absent: none. */
  readonly replayCount?: number;
}

export type StateWriteOutcome = 'written' | 'conflict';

/** Delivery states and leases. A state is never removed: its txn ids must keep growing. */
export interface AppserviceStateStore {
  /** All states of the homeserver. Reads the newest durable state. */
  loadStates(serverName: string): Promise<AppserviceState[]>;
  /**
   * Writes each state whose stored revision is its own minus one (none stored = 0). Each write is its own compare-and-set; the outcomes are in the order of `states`. Two for one appservice
   * in one call are a bug of the caller. An answer lost on the way is settled by reading back, or the call rejects with
   * `unavailable` and any of the writes may or may not have happened.
   */
  writeStates(states: readonly AppserviceState[]): Promise<StateWriteOutcome[]>;
  /**
   * Says that `replicaId` lives for `ttlMs` more by the store's clock, and returns all replica ids that live by that
   * clock, ascending, itself included. With `ttlMs` 0 it takes leave: the id is not among those returned.
   */
  heartbeat(replicaId: string, ttlMs: number): Promise<string[]>;
}

/** A transaction taken out of the queue, with its entries copied: the log may be trimmed. */
export interface QuarantinedTransaction {
  readonly serverName: string;
  readonly appserviceId: string;
  readonly txnId: string;
  readonly reason: string;
  readonly timeMs: number;
  readonly firstPosition: number;
  readonly lastPosition: number;
  /** What its body had beside `events`. */
  readonly bodyKeys: readonly BodyKey[];
  readonly entryCount: number;
  /** JSON bytes of its entries together. */
  readonly bytes: number;
  /** In log order; none where only the rest was asked for. */
  readonly entries: readonly { readonly kind: RoutedKind; readonly json: Uint8Array }[];
}

/** One thing that an operator did. */
export interface AuditEntry {
  readonly serverName: string;
  /** Unique; ascending as text in the order of the times. */
  readonly auditId: string;
  readonly timeMs: number;
  /** Name of the credential. */
  readonly actor: string;
  /** Name of the method called. */
  readonly action: string;
  readonly appserviceId: string;
  readonly txnId: string | null;
  readonly reason: string;
}

export type RecordChange =
  /** Keyed by appservice and txn id; one that is there already stays as it is. */
  | { readonly kind: 'quarantine'; readonly transaction: QuarantinedTransaction }
  | { readonly kind: 'unquarantine'; readonly serverName: string; readonly appserviceId: string; readonly txnId: string }
  /** Keeps the newest `entriesMax` of the homeserver. */
  | { readonly kind: 'audit'; readonly entry: AuditEntry; readonly entriesMax: number }
  | { readonly kind: 'unaudit'; readonly serverName: string; readonly auditId: string };

/** The kinds of records, with what each is read by. */
export interface OperatorRecords {
  readonly quarantine: QuarantinedTransaction;
  readonly audit: AuditEntry;
}

export interface RecordQueries {
  /** In txn id order, above `afterTxnId` (null = from the start). */
  readonly quarantine: { readonly serverName: string; readonly appserviceId: string; readonly afterTxnId: string | null; readonly countMax: number; readonly withEntries: boolean };
  /** Newest first, below `beforeId` (null = from the newest); of one appservice unless `appserviceId` is null. */
  readonly audit: { readonly serverName: string; readonly appserviceId: string | null; readonly beforeId: string | null; readonly countMax: number };
}

export type RecordKind = keyof OperatorRecords;

/** What is kept for operators beside the log: the quarantine, and what they did. */
export interface OperatorRecordStore {
  /** False: it was so already. Whether an answer that was lost would have said so is not known; repeating is safe. */
  changeRecord(change: RecordChange): Promise<boolean>;
  /** At most `countMax` (≤ 1,001). Reads the newest durable state. */
  readRecords<Kind extends RecordKind>(kind: Kind, query: RecordQueries[Kind]): Promise<OperatorRecords[Kind][]>;
}

export interface Store extends SegmentLog, FoldStore, AppserviceStateStore, OperatorRecordStore, AsyncDisposable {}
