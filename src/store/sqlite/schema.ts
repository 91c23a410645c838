/**
 * The tables, and the steps from one version of them to the next.
 *
 * Names are stored once and numbered: `servers` for homeservers, `owners` for the appservices that a homeserver's routes
 * go to. Every key begins with one of these numbers.
 */
import type { DatabaseSync } from 'node:sqlite';
import { StoreError } from '../errors.ts';

/** "ASRt" in the head of the file: it is one of ours. */
const APPLICATION_ID = 0x41535274;

/** Step n leads from version n to n + 1. A step that was released never changes. */
const STEPS: readonly string[] = [
  `
  -- indexed_position: see route-index.ts.
  CREATE TABLE servers (id INTEGER PRIMARY KEY, server_name TEXT NOT NULL UNIQUE, indexed_position INTEGER NOT NULL DEFAULT 0);
  CREATE TABLE owners (id INTEGER PRIMARY KEY, server_id INTEGER NOT NULL, appservice_id TEXT NOT NULL, UNIQUE (server_id, appservice_id));
  -- routed: see route-index.ts. The body stands last: reading the rest does not touch its pages.
  CREATE TABLE segments (
    id INTEGER PRIMARY KEY, server_id INTEGER NOT NULL, first_position INTEGER NOT NULL, last_position INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    json_bytes INTEGER NOT NULL, nonce TEXT NOT NULL, routed BLOB NOT NULL, body BLOB NOT NULL, UNIQUE (server_id, first_position));
  -- Found by position, measured without reading bodies. last_position: of the last entry routed.
  CREATE TABLE routes (
    owner_id INTEGER NOT NULL, first_position INTEGER NOT NULL, last_position INTEGER NOT NULL, entry_count INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (owner_id, first_position)) WITHOUT ROWID;
  CREATE TABLE rooms (server_id INTEGER NOT NULL, room_id TEXT NOT NULL, position INTEGER NOT NULL, room TEXT NOT NULL,
    PRIMARY KEY (server_id, room_id)) WITHOUT ROWID;
  CREATE TABLE registrations (server_id INTEGER NOT NULL, appservice_id TEXT NOT NULL, position INTEGER NOT NULL, registration TEXT NOT NULL,
    PRIMARY KEY (server_id, appservice_id)) WITHOUT ROWID;
  CREATE TABLE checkpoints (server_id INTEGER PRIMARY KEY, position INTEGER NOT NULL, checkpoint TEXT NOT NULL);
  CREATE TABLE appservice_states (server_id INTEGER NOT NULL, appservice_id TEXT NOT NULL, revision INTEGER NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (server_id, appservice_id)) WITHOUT ROWID;
  -- Txn ids are decimal integers of any length: by number of digits, then by digits, they are ordered as the numbers are.
  CREATE TABLE quarantined_transactions (
    id INTEGER PRIMARY KEY, server_id INTEGER NOT NULL, appservice_id TEXT NOT NULL, digits INTEGER NOT NULL, txn_id TEXT NOT NULL, facts TEXT NOT NULL, body BLOB NOT NULL,
    UNIQUE (server_id, appservice_id, digits, txn_id));
  `,
  `
  -- The quarantine keeps entries where it kept the body made of them.
  DELETE FROM quarantined_transactions;
  -- By audit_id they are in the order of time.
  CREATE TABLE audit_entries (server_id INTEGER NOT NULL, audit_id TEXT NOT NULL, appservice_id TEXT NOT NULL, entry TEXT NOT NULL,
    PRIMARY KEY (server_id, audit_id)) WITHOUT ROWID;
  `,
];

/** Brings the file to the version that `steps` lead to. Throws a StoreError for a newer file and for one of another program. */
export function migrate(database: DatabaseSync, steps: readonly string[] = STEPS): void {
  const version = numberOf(database, 'user_version');
  const applicationId = numberOf(database, 'application_id');
  const isEmpty = version === 0 && applicationId === 0 && database.prepare('SELECT 1 FROM sqlite_schema LIMIT 1').get() === undefined;
  if (!isEmpty && applicationId !== APPLICATION_ID) throw new StoreError('unreadable', 'it is the database of another program. Choose another file in ROUTER_STORE');
  if (version > steps.length) {
    throw new StoreError('unreadable', `it has schema version ${version}, written by a newer release; this one knows ${steps.length}. Run that release, or restore a backup`);
  }
  for (const [at, step] of steps.entries()) {
    if (at < version) continue;
    database.exec(`BEGIN IMMEDIATE; ${step}; PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${at + 1}; COMMIT;`);
  }
}

function numberOf(database: DatabaseSync, pragma: string): number {
  return Number(database.prepare(`PRAGMA ${pragma}`).get()?.[pragma] ?? 0);
}
