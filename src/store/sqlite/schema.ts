/**
 * The tables, and the steps from one version of them to the next. A file of a newer version is refused.
 *
 * Names of homeservers are stored once (`servers`); every key begins with the server's number.
 */
import type { DatabaseSync } from 'node:sqlite';
import { StoreError } from '../errors.ts';

const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE servers (id INTEGER PRIMARY KEY, server_name TEXT NOT NULL UNIQUE);
  CREATE TABLE segments (
    id INTEGER PRIMARY KEY, server_id INTEGER NOT NULL, first_position INTEGER NOT NULL, last_position INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, nonce TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (server_id, first_position));
  -- One row per appservice in a segment's routes: found by position, measured without reading bodies.
  CREATE TABLE routes (
    server_id INTEGER NOT NULL, appservice_id TEXT NOT NULL, first_position INTEGER NOT NULL, through INTEGER NOT NULL,
    entry_count INTEGER NOT NULL, bytes INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    PRIMARY KEY (server_id, appservice_id, first_position)) WITHOUT ROWID;
  CREATE INDEX routes_by_segment ON routes (server_id, first_position);
  CREATE TABLE rooms (server_id INTEGER NOT NULL, room_id TEXT NOT NULL, position INTEGER NOT NULL, room TEXT NOT NULL,
    PRIMARY KEY (server_id, room_id)) WITHOUT ROWID;
  CREATE TABLE registrations (server_id INTEGER NOT NULL, appservice_id TEXT NOT NULL, position INTEGER NOT NULL, registration TEXT NOT NULL,
    PRIMARY KEY (server_id, appservice_id)) WITHOUT ROWID;
  CREATE TABLE checkpoints (server_id INTEGER PRIMARY KEY, position INTEGER NOT NULL, checkpoint TEXT NOT NULL);
  CREATE TABLE appservice_states (server_id INTEGER NOT NULL, appservice_id TEXT NOT NULL, revision INTEGER NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (server_id, appservice_id)) WITHOUT ROWID;
  CREATE TABLE quarantined_transactions (
    server_id INTEGER NOT NULL, appservice_id TEXT NOT NULL, txn_id TEXT NOT NULL, txn_number INTEGER NOT NULL, facts TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (server_id, appservice_id, txn_id));
  CREATE TABLE replicas (replica_id TEXT PRIMARY KEY, until_ms INTEGER NOT NULL);
  `,
];

/** Brings the file to the version of this release. Rejects a newer one. */
export function migrate(database: DatabaseSync): void {
  const version = Number(database.prepare('PRAGMA user_version').get()?.['user_version'] ?? 0);
  if (version > MIGRATIONS.length) {
    throw new StoreError('unreadable', `the database has schema version ${version}, written by a newer release; this one knows ${MIGRATIONS.length}. Run that release, or restore a backup`);
  }
  for (const [at, step] of MIGRATIONS.entries()) {
    if (at < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${step} PRAGMA user_version = ${at + 1}; COMMIT;`);
  }
}
