/** Fold and states on an open SQLite file, synchronous. Writes expect an open transaction. */
import type { AppserviceState, Checkpoint, Fold, FoldChanges, PositionedRegistration, StateWriteOutcome, StoredRoom } from '../port.ts';
import type { Statements } from './statements.ts';
import { parsed } from './statements.ts';

const SAVE_ROOM = newerOnly('rooms', 'room_id', 'room');
const SAVE_REGISTRATION = newerOnly('registrations', 'appservice_id', 'registration');

export class DocumentTables {
  readonly #sql: Statements;
  /** Replica id → wall clock until which it lives. Not in the file: this process is the only one, so nobody outlives it. */
  readonly #replicas = new Map<string, number>();

  constructor(sql: Statements) {
    this.#sql = sql;
  }

  loadFold(serverName: string): Fold {
    const server = this.#sql.server(serverName);
    const stored = this.#sql.get('SELECT checkpoint FROM checkpoints WHERE server_id = ?', server);
    const checkpoint = stored === undefined ? { position: 0, streamPositions: {}, registrationsVersion: 0 } : (parsed(stored['checkpoint']) as Checkpoint);
    const registrations = this.#sql.all('SELECT registration FROM registrations WHERE server_id = ? ORDER BY appservice_id', server);
    return { checkpoint, registrations: registrations.map((row) => parsed(row['registration']) as PositionedRegistration) };
  }

  loadRooms(serverName: string, roomIds: readonly string[]): StoredRoom[] {
    const server = this.#sql.server(serverName);
    return roomIds.flatMap((roomId) => {
      const row = this.#sql.get('SELECT room FROM rooms WHERE server_id = ? AND room_id = ?', server, roomId);
      return row === undefined ? [] : [parsed(row['room']) as StoredRoom];
    });
  }

  saveFold(serverName: string, { rooms, registrations, checkpoint }: FoldChanges): void {
    const server = this.#sql.makeServer(serverName);
    for (const room of rooms) this.#sql.run(SAVE_ROOM, server, room.roomId, room.position, JSON.stringify(room));
    for (const change of registrations) this.#sql.run(SAVE_REGISTRATION, server, change.appserviceId, change.position, JSON.stringify(change));
    this.#sql.run(
      `INSERT INTO checkpoints (server_id, position, checkpoint) VALUES (?, ?, ?)
       ON CONFLICT (server_id) DO UPDATE SET position = excluded.position, checkpoint = excluded.checkpoint WHERE excluded.position > position`,
      server, checkpoint.position, JSON.stringify(checkpoint),
    );
  }

  loadStates(serverName: string): AppserviceState[] {
    const rows = this.#sql.all('SELECT state FROM appservice_states WHERE server_id = ? ORDER BY appservice_id', this.#sql.server(serverName));
    return rows.map((row) => parsed(row['state']) as AppserviceState);
  }

  writeStates(states: readonly AppserviceState[]): StateWriteOutcome[] {
    return states.map((state) => {
      const { appserviceId, revision } = state;
      const server = this.#sql.makeServer(state.serverName);
      const text = JSON.stringify(state);
      const changes =
        revision === 1
          ? this.#sql.run('INSERT INTO appservice_states VALUES (?, ?, 1, ?) ON CONFLICT DO NOTHING', server, appserviceId, text)
          : this.#sql.run('UPDATE appservice_states SET revision = ?, state = ? WHERE server_id = ? AND appservice_id = ? AND revision = ?', revision, text, server, appserviceId, revision - 1);
      return changes === 1 ? 'written' : 'conflict';
    });
  }

  heartbeat(replicaId: string, untilMs: number, nowMs: number): string[] {
    this.#replicas.set(replicaId, untilMs);
    for (const [id, until] of this.#replicas) if (until <= nowMs) this.#replicas.delete(id);
    return [...this.#replicas.keys()].sort();
  }
}

function newerOnly(table: string, key: string, value: string): string {
  return `INSERT INTO ${table} (server_id, ${key}, position, ${value}) VALUES (?, ?, ?, ?)
    ON CONFLICT (server_id, ${key}) DO UPDATE SET position = excluded.position, ${value} = excluded.${value} WHERE excluded.position > position`;
}
