/** The log on an open SQLite file, synchronous. Writes expect an open transaction. */
import { collectRouted, decodeSegment, measureRoute } from '../segment-codec.ts';
import type { AppendOutcome, ExpiredEntries, RoutedEntry, RouteLimits, RouteMeasure, TrimOutcome, TrimRequest } from '../port.ts';
import type { Segment } from '../segment.ts';
import { isEphemeralAt, lastIndexAt, ROUTED_FIELDS, RouteIndex, routedFrom } from './route-index.ts';
import type { Routed } from './route-index.ts';
import type { Row, Statements } from './statements.ts';
import { bytesOf, integerOf } from './statements.ts';

/** A segment as it crosses to the worker. */
export interface PostedSegment {
  readonly serverName: string;
  readonly firstPosition: number;
  readonly lastPosition: number;
  readonly timeMs: number;
  readonly jsonBytes: number;
  readonly nonce: string;
  /** In the order of `routed`, whose owners are filled in here. */
  readonly appserviceIds: readonly string[];
  readonly routed: Routed;
  readonly body: Uint8Array;
}

export interface PostedBody {
  readonly firstPosition: number;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** A step of trim ends after these; the caller goes on from there. They keep it near 10 ms. */
const TRIMMED_BYTES_MAX = 32 * 1024 * 1024;
const TRIMMED_ROUTES_MAX = 5_000;

export class SegmentTables {
  readonly #sql: Statements;
  readonly #routes: RouteIndex;

  constructor(sql: Statements) {
    this.#sql = sql;
    this.#routes = new RouteIndex(sql);
  }

  /** After a roll-back: what is remembered may be of writes that did not happen. */
  forget(): void {
    this.#routes.forget();
  }

  append(segment: PostedSegment): AppendOutcome {
    const { serverName, firstPosition, lastPosition, timeMs, jsonBytes, nonce, appserviceIds, routed, body } = segment;
    const known = this.#sql.server(serverName);
    const stored = this.#sql.get('SELECT nonce FROM segments WHERE server_id = ? AND first_position = ?', known, firstPosition);
    if (stored !== undefined) return { kind: stored['nonce'] === nonce ? 'appended' : 'lost' };
    const tail = this.#tail(known);
    if (firstPosition <= tail) return { kind: 'lost' };
    if (firstPosition > tail + 1) throw new Error(`an append at ${firstPosition} would leave a hole after ${tail}`);
    const server = this.#sql.makeServer(serverName);
    for (const [at, id] of appserviceIds.entries()) routed[at * ROUTED_FIELDS] = this.#sql.makeOwner(server, id);
    this.#sql.run(
      'INSERT INTO segments (server_id, first_position, last_position, time_ms, json_bytes, nonce, routed, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      server, firstPosition, lastPosition, timeMs, jsonBytes, nonce, new Uint8Array(routed.buffer), body,
    );
    this.#routes.add(server, firstPosition, routed);
    return { kind: 'appended' };
  }

  readSegments(serverName: string, from: number, limits: { segmentsMax: number; bytesMax: number }): PostedBody[] {
    const found: PostedBody[] = [];
    let bytes = 0;
    const rows = this.#sql.iterate(
      'SELECT first_position, json_bytes, body FROM segments WHERE server_id = ? AND first_position >= ? ORDER BY first_position LIMIT ?',
      this.#sql.server(serverName), from, limits.segmentsMax,
    );
    for (const row of rows) {
      found.push({ firstPosition: integerOf(row['first_position']), body: bytesOf(row['body']) });
      bytes += integerOf(row['json_bytes']);
      if (bytes >= limits.bytesMax) break;
    }
    return found;
  }

  readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): RoutedEntry[] {
    const found: RoutedEntry[] = [];
    const server = this.#sql.server(serverName);
    const owner = this.#sql.owner(server, appserviceId);
    let bytes = 0;
    for (const first of this.#routes.firstPositions(server, owner, this.#routes.around(server, owner, after) ?? after + 1, through)) {
      bytes = collectRouted(this.#segment(server, serverName, first), appserviceId, after, through, limits, found, bytes);
      if (bytes < 0) break;
    }
    return compact(found);
  }

  measureRoutes(serverName: string, after: ReadonlyMap<string, number>, through: number): RouteMeasure[] {
    const server = this.#sql.server(serverName);
    const newest = this.#newestEndingBy(server, through);
    return [...after].map(([appserviceId, position]) => {
      const owner = this.#sql.owner(server, appserviceId);
      let { entryCount, bytes, firstPosition } = this.#routes.sums(server, owner, position, newest);
      const cut = this.#routes.around(server, owner, position);
      if (cut !== null && cut <= newest) {
        const measured = measureRoute(this.#segment(server, serverName, cut), appserviceId, position);
        entryCount += measured.entryCount;
        bytes += measured.bytes;
        firstPosition = cut;
      }
      return { appserviceId, entryCount, bytes, firstSegment: firstPosition, oldestTimeMs: firstPosition === null ? null : this.#timeMs(server, firstPosition) };
    });
  }

  trim(serverName: string, request: TrimRequest): TrimOutcome {
    const server = this.#sql.server(serverName);
    const tail = this.#tail(server);
    const held = new HeldSegments(request, (id) => this.#sql.owner(server, id));
    const looked = this.#sql.all(
      'SELECT id, first_position, last_position, time_ms, json_bytes, routed FROM segments WHERE server_id = ? AND first_position > ? AND last_position <= ? ORDER BY first_position LIMIT ?',
      server, request.after, request.through, request.segmentsMax,
    );
    let removedSegments = 0;
    let removedBytes = 0;
    let removedRoutes = 0;
    for (const row of looked) {
      const first = integerOf(row['first_position']);
      const routed = routedFrom(row['routed']);
      if (integerOf(row['last_position']) === tail || integerOf(row['time_ms']) >= request.beforeMs || !held.release(first, routed, integerOf(row['time_ms']))) continue;
      this.#routes.remove(server, first, routed);
      this.#sql.run('DELETE FROM segments WHERE id = ?', integerOf(row['id']));
      removedSegments++;
      removedBytes += integerOf(row['json_bytes']);
      removedRoutes += routed.length / ROUTED_FIELDS;
      if (removedBytes >= TRIMMED_BYTES_MAX || removedRoutes >= TRIMMED_ROUTES_MAX) return { removedSegments, expired: held.expired, nextAfter: first };
    }
    const last = looked.at(-1);
    return { removedSegments, expired: held.expired, nextAfter: looked.length < request.segmentsMax || last === undefined ? null : integerOf(last['first_position']) };
  }

  wholeFrom(serverName: string, from: number, through: number, segmentsMax: number): number {
    const rows = this.#sql.iterate(
      'SELECT first_position, last_position FROM segments WHERE server_id = ? AND first_position <= ? ORDER BY first_position DESC LIMIT ?',
      this.#sql.server(serverName), through, segmentsMax,
    );
    let whole = through + 1;
    for (const row of rows) {
      if (integerOf(row['last_position']) < whole - 1) break;
      whole = integerOf(row['first_position']);
      if (whole <= from) break;
    }
    return whole;
  }

  #segment(server: number, serverName: string, firstPosition: number): Segment {
    const row = this.#sql.get('SELECT body FROM segments WHERE server_id = ? AND first_position = ?', server, firstPosition);
    return decodeSegment(serverName, firstPosition, bytesOf(row?.['body']));
  }

  /** First position of the newest segment that ends at or below `through`; 0 if there is none. */
  #newestEndingBy(server: number, through: number): number {
    const rows = this.#sql.all('SELECT first_position, last_position FROM segments WHERE server_id = ? AND first_position <= ? ORDER BY first_position DESC LIMIT 2', server, through);
    const newest: Row | undefined = rows.find((row) => integerOf(row['last_position']) <= through);
    return newest === undefined ? 0 : integerOf(newest['first_position']);
  }

  #timeMs(server: number, firstPosition: number): number {
    return integerOf(this.#sql.get('SELECT time_ms FROM segments WHERE server_id = ? AND first_position = ?', server, firstPosition)?.['time_ms']);
  }

  /** Log position of the last entry ever appended, as far as the newest segment or the checkpoint tell. */
  #tail(server: number): number {
    const row = this.#sql.get('SELECT last_position FROM segments WHERE server_id = ? ORDER BY first_position DESC LIMIT 1', server);
    if (row !== undefined) return integerOf(row['last_position']);
    return integerOf(this.#sql.get('SELECT position FROM checkpoints WHERE server_id = ?', server)?.['position'] ?? 0);
  }
}

/** What holds segments back from being trimmed, and what it no longer does. */
class HeldSegments {
  readonly #delivered: ReadonlyMap<number, number>;
  readonly #cutThrough: ReadonlyMap<number, { readonly appserviceId: string; readonly position: number }>;
  readonly #expiredBeforeMs: number;
  readonly #expired = new Map<string, number>();

  constructor({ deliveredPositions, expired }: TrimRequest, ownerOf: (appserviceId: string) => number) {
    this.#delivered = new Map([...deliveredPositions].map(([id, position]) => [ownerOf(id), position]));
    this.#cutThrough = new Map([...(expired?.cutThrough ?? [])].map(([appserviceId, position]) => [ownerOf(appserviceId), { appserviceId, position }]));
    this.#expiredBeforeMs = expired?.beforeMs ?? 0;
  }

  /** Entries that went undelivered with the segments released. */
  get expired(): ExpiredEntries[] {
    return [...this.#expired].map(([appserviceId, entryCount]) => ({ appserviceId, entryCount }));
  }

  /** False if the segment is held. */
  release(firstPosition: number, routed: Routed, timeMs: number): boolean {
    const expired: ExpiredEntries[] = [];
    for (let at = 0; at < routed.length; at += ROUTED_FIELDS) {
      const owner = routed[at] ?? 0;
      const position = this.#delivered.get(owner);
      if (position === undefined || firstPosition + lastIndexAt(routed, at) <= position) continue;
      const cut = this.#cutThrough.get(owner);
      if (timeMs >= this.#expiredBeforeMs || !isEphemeralAt(routed, at) || cut === undefined || firstPosition <= cut.position) return false;
      expired.push({ appserviceId: cut.appserviceId, entryCount: routed[at + 2] ?? 0 });
    }
    for (const { appserviceId, entryCount } of expired) this.#expired.set(appserviceId, entryCount + (this.#expired.get(appserviceId) ?? 0));
    return true;
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
