/**
 * The store's operations on an open SQLite file, synchronous; runs in the worker. Writes expect an open transaction.
 * Values cross to the main thread by structured clone, so they are plain.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { collectRouted, decodeSegment, measureRoute } from '../segment-codec.ts';
import { StoreError } from '../errors.ts';
import type {
  AppendOutcome,
  AppserviceState,
  Checkpoint,
  Fold,
  FoldChanges,
  PositionedRegistration,
  QuarantinedTransaction,
  RoutedEntry,
  RouteLimits,
  RouteMeasure,
  StateWriteOutcome,
  StoredRoom,
  TrimOutcome,
  TrimRequest,
} from '../port.ts';

/** A segment as it crosses to the worker. */
export interface PostedSegment {
  readonly serverName: string;
  readonly firstPosition: number;
  readonly lastPosition: number;
  readonly timeMs: number;
  readonly nonce: string;
  readonly routes: readonly { readonly appserviceId: string; readonly through: number; readonly entryCount: number; readonly bytes: number }[];
  readonly body: Uint8Array;
}

export interface PostedBody {
  readonly firstPosition: number;
  readonly body: Uint8Array;
}

const SERVER_NAMES_MAX = 10_000;

type Row = Readonly<Record<string, unknown>>;

export class SqliteDatabase {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #serverIds = new Map<string, number>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** A rolled back transaction may have taken a server's number with it. */
  forgetServers(): void {
    this.#serverIds.clear();
  }

  append(segment: PostedSegment): AppendOutcome {
    const server = this.#serverId(segment.serverName, true);
    const known = this.#get('SELECT nonce FROM segments WHERE server_id = ? AND first_position = ?', server, segment.firstPosition);
    if (known !== undefined) return { kind: known['nonce'] === segment.nonce ? 'appended' : 'lost' };
    const tail = this.#tail(server);
    if (segment.firstPosition <= tail) return { kind: 'lost' };
    if (segment.firstPosition > tail + 1) throw new Error(`an append at ${segment.firstPosition} would leave a hole after ${tail}`);
    const { firstPosition, lastPosition, timeMs, nonce, body } = segment;
    this.#run('INSERT INTO segments (server_id, first_position, last_position, time_ms, nonce, body) VALUES (?, ?, ?, ?, ?, ?)', server, firstPosition, lastPosition, timeMs, nonce, body);
    for (const { appserviceId, through, entryCount, bytes } of segment.routes) {
      this.#run('INSERT INTO routes VALUES (?, ?, ?, ?, ?, ?, ?)', server, appserviceId, firstPosition, through, entryCount, bytes, timeMs);
    }
    return { kind: 'appended' };
  }

  readSegments(serverName: string, from: number, limits: { segmentsMax: number; bytesMax: number }): PostedBody[] {
    const found: PostedBody[] = [];
    let bytes = 0;
    const rows = this.#iterate('SELECT first_position, body FROM segments WHERE server_id = ? AND first_position >= ? ORDER BY first_position LIMIT ?', this.#serverId(serverName), from, limits.segmentsMax);
    for (const row of rows) {
      const body = bytesOf(row['body']);
      found.push({ firstPosition: Number(row['first_position']), body });
      bytes += body.byteLength;
      if (bytes >= limits.bytesMax) break;
    }
    return found;
  }

  readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): RoutedEntry[] {
    const found: RoutedEntry[] = [];
    let bytes = 0;
    const rows = this.#iterate(
      `SELECT s.first_position, s.body FROM routes r JOIN segments s ON s.server_id = r.server_id AND s.first_position = r.first_position
       WHERE r.server_id = ? AND r.appservice_id = ? AND r.first_position >= ? AND r.through > ? AND r.first_position <= ? ORDER BY r.first_position`,
      this.#serverId(serverName),
      appserviceId,
      this.#firstRouteAbove(serverName, appserviceId, after),
      after,
      through,
    );
    for (const row of rows) {
      const segment = decodeSegment(serverName, Number(row['first_position']), bytesOf(row['body']));
      bytes = collectRouted(segment, appserviceId, after, through, limits, found, bytes);
      if (bytes < 0) break;
    }
    return compact(found);
  }

  measureRoutes(serverName: string, after: ReadonlyMap<string, number>, through: number): RouteMeasure[] {
    const server = this.#serverId(serverName);
    return [...after].map(([appserviceId, position]) => {
      const sums = this.#get(
        `SELECT COUNT(*) AS routes, SUM(r.entry_count) AS entries, SUM(r.bytes) AS bytes, MIN(r.time_ms) AS oldest FROM routes r
         JOIN segments s ON s.server_id = r.server_id AND s.first_position = r.first_position
         WHERE r.server_id = ? AND r.appservice_id = ? AND r.first_position > ? AND s.last_position <= ?`,
        server, appserviceId, position, through,
      );
      let entryCount = Number(sums?.['entries'] ?? 0);
      let bytes = Number(sums?.['bytes'] ?? 0);
      let oldestTimeMs = sums?.['oldest'] === null || sums === undefined ? null : Number(sums['oldest']);
      const cut = this.#get(
        `SELECT s.first_position, s.body, s.time_ms FROM routes r JOIN segments s ON s.server_id = r.server_id AND s.first_position = r.first_position
         WHERE r.server_id = ? AND r.appservice_id = ? AND r.first_position = ? AND r.through > ? AND s.last_position <= ?`,
        server, appserviceId, this.#firstRouteAbove(serverName, appserviceId, position), position, through,
      );
      if (cut !== undefined && Number(cut['first_position']) <= position) {
        const measured = measureRoute(decodeSegment(serverName, Number(cut['first_position']), bytesOf(cut['body'])), appserviceId, position);
        entryCount += measured.entryCount;
        bytes += measured.bytes;
        if (measured.entryCount > 0) oldestTimeMs = Math.min(oldestTimeMs ?? Number(cut['time_ms']), Number(cut['time_ms']));
      }
      return { appserviceId, entryCount, bytes, oldestTimeMs: entryCount === 0 ? null : oldestTimeMs };
    });
  }

  trim(serverName: string, request: TrimRequest): TrimOutcome {
    const server = this.#serverId(serverName);
    const tail = this.#tail(server);
    const looked = this.#all(
      'SELECT first_position, last_position, time_ms FROM segments WHERE server_id = ? AND first_position > ? ORDER BY first_position LIMIT ?',
      server, request.after, request.segmentsMax,
    );
    let removedSegments = 0;
    for (const row of looked) {
      const first = Number(row['first_position']);
      const last = Number(row['last_position']);
      if (last === tail || last > request.through || Number(row['time_ms']) >= request.beforeMs) continue;
      const routes = this.#all('SELECT appservice_id, through FROM routes WHERE server_id = ? AND first_position = ?', server, first);
      if (routes.some((route) => Number(route['through']) > (request.deliveredPositions.get(String(route['appservice_id'])) ?? Infinity))) continue;
      this.#run('DELETE FROM routes WHERE server_id = ? AND first_position = ?', server, first);
      this.#run('DELETE FROM segments WHERE server_id = ? AND first_position = ?', server, first);
      removedSegments++;
    }
    const lastLooked = looked.at(-1);
    return { removedSegments, nextAfter: looked.length < request.segmentsMax || lastLooked === undefined ? null : Number(lastLooked['first_position']) };
  }

  loadFold(serverName: string): Fold {
    const server = this.#serverId(serverName);
    const stored = this.#get('SELECT checkpoint FROM checkpoints WHERE server_id = ?', server);
    const checkpoint = stored === undefined ? { position: 0, streamPositions: {}, registrationsVersion: 0 } : parsed<Checkpoint>(stored['checkpoint']);
    const registrations = this.#all('SELECT registration FROM registrations WHERE server_id = ? ORDER BY appservice_id', server);
    return { checkpoint, registrations: registrations.map((row) => parsed<PositionedRegistration>(row['registration'])) };
  }

  loadRooms(serverName: string, roomIds: readonly string[]): StoredRoom[] {
    const server = this.#serverId(serverName);
    return roomIds.flatMap((roomId) => {
      const row = this.#get('SELECT room FROM rooms WHERE server_id = ? AND room_id = ?', server, roomId);
      return row === undefined ? [] : [parsed<StoredRoom>(row['room'])];
    });
  }

  saveFold(serverName: string, { rooms, registrations, checkpoint }: FoldChanges): void {
    const server = this.#serverId(serverName, true);
    const newer = (table: string, key: string, value: string): string =>
      `INSERT INTO ${table} (server_id, ${key}, position, ${value}) VALUES (?, ?, ?, ?)
       ON CONFLICT (server_id, ${key}) DO UPDATE SET position = excluded.position, ${value} = excluded.${value} WHERE excluded.position > position`;
    for (const room of rooms) this.#run(newer('rooms', 'room_id', 'room'), server, room.roomId, room.position, JSON.stringify(room));
    for (const change of registrations) this.#run(newer('registrations', 'appservice_id', 'registration'), server, change.appserviceId, change.position, JSON.stringify(change));
    this.#run(
      `INSERT INTO checkpoints (server_id, position, checkpoint) VALUES (?, ?, ?)
       ON CONFLICT (server_id) DO UPDATE SET position = excluded.position, checkpoint = excluded.checkpoint WHERE excluded.position > position`,
      server, checkpoint.position, JSON.stringify(checkpoint),
    );
  }

  listServerNames(): string[] {
    return this.#all('SELECT server_name FROM servers ORDER BY server_name LIMIT ?', SERVER_NAMES_MAX).map((row) => String(row['server_name']));
  }

  loadStates(serverName: string): AppserviceState[] {
    return this.#all('SELECT state FROM appservice_states WHERE server_id = ? ORDER BY appservice_id', this.#serverId(serverName)).map((row) => parsed<AppserviceState>(row['state']));
  }

  writeStates(states: readonly AppserviceState[]): StateWriteOutcome[] {
    return states.map((state) => {
      const server = this.#serverId(state.serverName, true);
      const text = JSON.stringify(state);
      const changes =
        state.revision === 1
          ? this.#run('INSERT INTO appservice_states VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING', server, state.appserviceId, 1, text)
          : this.#run('UPDATE appservice_states SET revision = ?, state = ? WHERE server_id = ? AND appservice_id = ? AND revision = ?', state.revision, text, server, state.appserviceId, state.revision - 1);
      return changes === 1 ? 'written' : 'conflict';
    });
  }

  heartbeat(replicaId: string, untilMs: number, nowMs: number): string[] {
    if (untilMs > nowMs) this.#run('INSERT INTO replicas VALUES (?, ?) ON CONFLICT (replica_id) DO UPDATE SET until_ms = excluded.until_ms', replicaId, untilMs);
    else this.#run('DELETE FROM replicas WHERE replica_id = ?', replicaId);
    this.#run('DELETE FROM replicas WHERE until_ms <= ?', nowMs);
    return this.#all('SELECT replica_id FROM replicas ORDER BY replica_id').map((row) => String(row['replica_id']));
  }

  clearReplicas(): void {
    this.#run('DELETE FROM replicas');
  }

  putQuarantined({ body, ...facts }: QuarantinedTransaction): void {
    const server = this.#serverId(facts.serverName, true);
    this.#run('INSERT INTO quarantined_transactions VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING', server, facts.appserviceId, facts.txnId, BigInt(facts.txnId), JSON.stringify(facts), body);
  }

  listQuarantined(serverName: string, appserviceId: string, afterTxnId: string | null, limit: number): QuarantinedTransaction[] {
    const rows = this.#all(
      'SELECT facts, body FROM quarantined_transactions WHERE server_id = ? AND appservice_id = ? AND txn_number > ? ORDER BY txn_number LIMIT ?',
      this.#serverId(serverName), appserviceId, BigInt(afterTxnId ?? '-1'), limit,
    );
    return rows.map((row) => ({ ...parsed<Omit<QuarantinedTransaction, 'body'>>(row['facts']), body: bytesOf(row['body']) }));
  }

  /** First position of the first segment whose route ends above `after`: the newest that begins at or below it, or later. */
  #firstRouteAbove(serverName: string, appserviceId: string, after: number): number {
    const row = this.#get(
      'SELECT first_position FROM routes WHERE server_id = ? AND appservice_id = ? AND first_position <= ? ORDER BY first_position DESC LIMIT 1',
      this.#serverId(serverName), appserviceId, after,
    );
    return Number(row?.['first_position'] ?? 0);
  }

  /** Log position of the last entry ever appended, as far as the newest segment or the checkpoint tell. */
  #tail(server: number): number {
    const row = this.#get('SELECT last_position FROM segments WHERE server_id = ? ORDER BY first_position DESC LIMIT 1', server);
    if (row !== undefined) return Number(row['last_position']);
    return Number(this.#get('SELECT position FROM checkpoints WHERE server_id = ?', server)?.['position'] ?? 0);
  }

  /** The server's number; 0, which no server has, if it is unknown and not to be created. */
  #serverId(serverName: string, create = false): number {
    const known = this.#serverIds.get(serverName);
    if (known !== undefined) return known;
    if (create) this.#run('INSERT INTO servers (server_name) VALUES (?) ON CONFLICT DO NOTHING', serverName);
    const row = this.#get('SELECT id FROM servers WHERE server_name = ?', serverName);
    if (row === undefined) return 0;
    const id = Number(row['id']);
    this.#serverIds.set(serverName, id);
    return id;
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) this.#statements.set(sql, (statement = this.#database.prepare(sql)));
    return statement;
  }

  #run(sql: string, ...values: SqlValue[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  #get(sql: string, ...values: SqlValue[]): Row | undefined {
    return this.#statement(sql).get(...values);
  }

  #all(sql: string, ...values: SqlValue[]): Row[] {
    return this.#statement(sql).all(...values);
  }

  #iterate(sql: string, ...values: SqlValue[]): Iterable<Row> {
    return this.#statement(sql).iterate(...values);
  }
}

type SqlValue = string | number | bigint | Uint8Array;

function bytesOf(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new StoreError('unreadable', 'a stored value is not what it should be');
  return value;
}

/** What this adapter wrote as JSON itself. */
function parsed<Value>(text: unknown): Value {
  try {
    return JSON.parse(String(text)) as Value;
  } catch (error) {
    throw new StoreError('unreadable', 'a stored document cannot be read', { cause: error });
  }
}

/** Copies the entries' bytes into one buffer, so that they cross to the main thread without the rest of their segments. */
function compact(entries: readonly RoutedEntry[]): RoutedEntry[] {
  const bytes = new Uint8Array(entries.reduce((sum, { json }) => sum + json.byteLength, 0));
  let at = 0;
  return entries.map((entry) => {
    bytes.set(entry.json, at);
    at += entry.json.byteLength;
    return { ...entry, json: bytes.subarray(at - entry.json.byteLength, at) };
  });
}
