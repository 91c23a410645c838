/**
 * Collections, documents and their keys.
 *
 * Every key begins with the server name. Keys are documents compared field by field, in the order written here; ids stand
 * in them as values, never as field names, so any text will do. A range of keys is served by the index of `_id` alone.
 */
import type { Binary, Collection, Db } from 'mongodb';

/** A key of any collection, made by the functions below: each sets the fields of its collection, in order. */
export interface Key {
  readonly server_name: string;
  readonly first_position?: number;
  readonly room_id?: string;
  readonly appservice_id?: string;
  readonly txn_order?: string;
  readonly audit_id?: string;
}

export function segmentKey(serverName: string, firstPosition: number): Key {
  return { server_name: serverName, first_position: firstPosition };
}

export function roomKey(serverName: string, roomId: string): Key {
  return { server_name: serverName, room_id: roomId };
}

export function appserviceKey(serverName: string, appserviceId: string): Key {
  return { server_name: serverName, appservice_id: appserviceId };
}

/** Txn ids are decimal integers of any length: the number of digits, then the digits, are ordered as the numbers are. */
export function quarantineKey(serverName: string, appserviceId: string, txnId: string): Key {
  return { ...appserviceKey(serverName, appserviceId), txn_order: `${String(txnId.length).padStart(4, '0')} ${txnId}` };
}

export function auditKey(serverName: string, auditId: string): Key {
  return { server_name: serverName, audit_id: auditId };
}

/** All keys of the server: a shorter key is less than a longer one, and no text stands between a name and the same with a NUL. */
export function keysOfServer(serverName: string): { readonly $gte: Key; readonly $lt: Key } {
  return { $gte: { server_name: serverName }, $lt: { server_name: `${serverName}\0` } };
}

export interface StoredRoute {
  readonly appservice_id: string;
  /** Log position of the last entry routed. */
  readonly through: number;
  readonly entry_count: number;
  readonly bytes: number;
  /** Nothing but ephemeral entries. */
  readonly ephemeral?: true;
}

/** A segment, or, once trimmed, its tombstone: without `routes` and `body`, with `trimmed_at`. */
export interface SegmentDocument {
  readonly _id: Key;
  readonly last_position: number;
  readonly time_ms: number;
  readonly nonce: string;
  readonly routes?: readonly StoredRoute[];
  /** segment-codec.ts */
  readonly body?: Binary;
  /** By the database's clock. */
  readonly trimmed_at?: Date;
}

export interface RoomDocument {
  readonly _id: Key;
  readonly position: number;
  readonly local_members: readonly string[] | null;
  readonly local_aliases: readonly string[] | null;
  readonly partial_members: readonly { readonly user_id: string; readonly joined: boolean }[];
}

export interface RegistrationDocument {
  readonly _id: Key;
  readonly position: number;
  readonly since: number;
  readonly backlog: string | null;
  readonly registration: {
    readonly json: string;
    readonly as_token_sealed: string;
    readonly hs_token_sealed: string;
    readonly as_token_hash: string;
    readonly hs_token_hash: string;
  } | null;
}

export interface CheckpointDocument {
  readonly _id: Key;
  readonly position: number;
  readonly registrations_version: number;
  readonly stream_positions: readonly { readonly stream: string; readonly position: number }[];
  readonly device_keys?: readonly DeviceKeysFields[];
  readonly redelivered?: readonly { readonly appservice_id: string; readonly txn_id: string }[];
  readonly holds?: readonly HoldFields[];
}

export interface HoldFields {
  readonly appservice_id: string;
  readonly room_id: string;
  readonly user_ids: readonly string[];
  readonly entries: readonly { readonly first_position: number; readonly index: number }[];
}

export interface DeviceKeysFields {
  readonly user_id: string;
  readonly device_id: string;
  readonly one_time_keys: readonly { readonly algorithm: string; readonly count: number }[];
  readonly unused_fallback_key_types: readonly string[];
}

export interface TransactionFields {
  readonly txn_id: string;
  readonly ranges: readonly number[];
  readonly body_keys?: readonly string[];
  readonly entry_count: number;
  readonly through: number;
  readonly cut_time_ms: number;
  readonly attempt_count: number;
  readonly next_attempt_time_ms: number;
  readonly skip?: { readonly reason: string; readonly time_ms: number };
}

/** The fields of an AppserviceState under the names of the database. */
export interface StateFields {
  readonly revision: number;
  readonly lease_holder: string | null;
  readonly lease_epoch: number;
  readonly delivery_state: string;
  readonly paused: boolean;
  readonly parked: boolean;
  readonly since_position: number;
  readonly delivered_position: number;
  readonly last_txn_id: string;
  readonly transaction: TransactionFields | null;
  readonly split: { readonly through: number; readonly entries_max: number } | null;
  readonly last_failure: { readonly kind: string; readonly http_status: number | null; readonly message: string; readonly time_ms: number } | null;
  readonly delivered_entries: number;
  readonly delivered_transactions: number;
  readonly attempts: number;
  readonly failed_attempts: number;
  readonly quarantined_entries: number;
  readonly replay_count: number | null;
}

export interface StateDocument extends StateFields {
  readonly _id: Key;
  /** Nonces of the newest writes, newest last: tells one's own write from a rival's after an unknown outcome. */
  readonly nonces: readonly string[];
}

export interface QuarantinedDocument {
  readonly _id: Key;
  readonly txn_id: string;
  readonly reason: string;
  readonly time_ms: number;
  readonly first_position: number;
  readonly last_position: number;
  readonly body_keys: readonly string[];
  readonly entry_count: number;
  readonly bytes: number;
  /** segment-codec.ts */
  readonly entries: Binary;
}

export interface AuditDocument {
  readonly _id: Key;
  readonly time_ms: number;
  readonly actor: string;
  readonly action: string;
  readonly appservice_id: string;
  readonly txn_id: string | null;
  readonly reason: string;
}

export interface ReplicaDocument {
  readonly _id: string;
  /** By the database's clock. */
  readonly until: Date;
}

/** `schema` has the version; `fence` counts the writes that prove a primary (calls.ts). */
export interface MetaDocument {
  readonly _id: 'schema' | 'fence';
  readonly version?: number;
  readonly count?: number;
}

export interface Collections {
  readonly segments: Collection<SegmentDocument>;
  readonly rooms: Collection<RoomDocument>;
  readonly registrations: Collection<RegistrationDocument>;
  readonly checkpoints: Collection<CheckpointDocument>;
  readonly appserviceStates: Collection<StateDocument>;
  readonly quarantinedTransactions: Collection<QuarantinedDocument>;
  readonly auditEntries: Collection<AuditDocument>;
  readonly replicas: Collection<ReplicaDocument>;
  readonly meta: Collection<MetaDocument>;
}

export function collectionsOf(database: Db): Collections {
  return {
    segments: database.collection<SegmentDocument>('segments'),
    rooms: database.collection<RoomDocument>('rooms'),
    registrations: database.collection<RegistrationDocument>('registrations'),
    checkpoints: database.collection<CheckpointDocument>('checkpoints'),
    appserviceStates: database.collection<StateDocument>('appservice_states'),
    quarantinedTransactions: database.collection<QuarantinedDocument>('quarantined_transactions'),
    auditEntries: database.collection<AuditDocument>('audit_entries'),
    replicas: database.collection<ReplicaDocument>('replicas'),
    meta: database.collection<MetaDocument>('meta'),
  };
}
