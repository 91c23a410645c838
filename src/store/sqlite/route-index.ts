/**
 * Which segments have something for an appservice.
 *
 *   append ──▶ fresh: the newest segments' routes, in memory    (on disk: in the segment's own row, `routed`)
 *                │ when there are enough of them, all at once
 *                ▼
 *              indexed: one row of `routes` for each owner and segment, ordered by owner
 *
 * The rows of one segment lie on as many pages as it has owners, so writing them one segment at a time costs far more than
 * the segment. Segments up to a server's `indexed_position` are indexed, those above are fresh and are read back from
 * their rows after a start. What is kept in memory changes inside a transaction; after a roll-back it is forgotten.
 */
import { isEphemeralRoute } from '../segment.ts';
import type { Segment } from '../segment.ts';
import type { Statements } from './statements.ts';
import { bytesOf, integerOf } from './statements.ts';

/** Of one segment: owner, index of the last entry routed with {@link EPHEMERAL_ONLY} or without, entry count, bytes; and so on for each owner. */
export type Routed = Uint32Array<ArrayBuffer>;
export const ROUTED_FIELDS = 4;
/** Added to the index where the owner gets ephemeral entries alone. */
const EPHEMERAL_ONLY = 0x8000_0000;

/** Fresh segments, or owners in them together, at which all become indexed. */
const FRESH_SEGMENTS_MAX = 32;
const FRESH_OWNERS_MAX = 16_384;

const INSERTED_ROWS = 64;
const INSERT_ONE = 'INSERT INTO routes VALUES (?, ?, ?, ?, ?)';
const INSERT_MANY = INSERT_ONE + ', (?, ?, ?, ?, ?)'.repeat(INSERTED_ROWS - 1);

interface FreshSegment {
  readonly firstPosition: number;
  readonly routed: Routed;
}

interface Row {
  readonly owner: number;
  readonly firstPosition: number;
  readonly lastPosition: number;
  readonly entryCount: number;
  readonly bytes: number;
}

/** Sums over an owner's routes; `firstPosition` is that of the oldest segment, null if there is none. */
export interface RouteSums {
  readonly entryCount: number;
  readonly bytes: number;
  readonly firstPosition: number | null;
}

export class RouteIndex {
  readonly #sql: Statements;
  readonly #fresh = new Map<number, FreshSegment[]>();

  constructor(sql: Statements) {
    this.#sql = sql;
  }

  /** After a roll-back. */
  forget(): void {
    this.#fresh.clear();
  }

  /** Inside the transaction that inserts the segment, after it. */
  add(server: number, firstPosition: number, routed: Routed): void {
    const loaded = this.#fresh.get(server);
    const fresh = loaded ?? this.#freshOf(server);
    if (loaded !== undefined) fresh.push({ firstPosition, routed });
    if (fresh.length >= FRESH_SEGMENTS_MAX || fresh.reduce((sum, segment) => sum + segment.routed.length, 0) >= FRESH_OWNERS_MAX * ROUTED_FIELDS) this.#index(server, fresh);
  }

  /** Inside the transaction that deletes the segment. */
  remove(server: number, firstPosition: number, routed: Routed): void {
    const fresh = this.#freshOf(server);
    const at = fresh.findIndex((segment) => segment.firstPosition === firstPosition);
    if (at >= 0) fresh.splice(at, 1);
    else for (let field = 0; field < routed.length; field += ROUTED_FIELDS) this.#sql.run('DELETE FROM routes WHERE owner_id = ? AND first_position = ?', routed[field] ?? 0, firstPosition);
  }

  /** First positions from `from` to `through` of the segments that have something for the owner, ascending. */
  *firstPositions(server: number, owner: number, from: number, through: number): Generator<number, void, undefined> {
    for (const row of this.#sql.iterate('SELECT first_position FROM routes WHERE owner_id = ? AND first_position >= ? AND first_position <= ? ORDER BY first_position', owner, from, through)) {
      yield integerOf(row['first_position']);
    }
    for (const { firstPosition, routed } of this.#freshOf(server)) {
      if (firstPosition >= from && firstPosition <= through && placeOf(owner, routed) >= 0) yield firstPosition;
    }
  }

  /** First position of the segment that begins at or below `position` and has an entry for the owner above it; null if there is none. */
  around(server: number, owner: number, position: number): number | null {
    for (const { firstPosition, routed } of this.#freshOf(server).toReversed()) {
      const place = firstPosition > position ? -1 : placeOf(owner, routed);
      if (place >= 0) return firstPosition + lastIndexAt(routed, place) > position ? firstPosition : null;
    }
    const row = this.#sql.get('SELECT first_position, last_position FROM routes WHERE owner_id = ? AND first_position <= ? ORDER BY first_position DESC LIMIT 1', owner, position);
    return row !== undefined && integerOf(row['last_position']) > position ? integerOf(row['first_position']) : null;
  }

  /** Over the owner's segments that begin above `after` and at or below `through`. */
  sums(server: number, owner: number, after: number, through: number): RouteSums {
    const row = this.#sql.get(
      'SELECT TOTAL(entry_count) AS entries, TOTAL(bytes) AS bytes, MIN(first_position) AS first FROM routes WHERE owner_id = ? AND first_position > ? AND first_position <= ?',
      owner, after, through,
    );
    let entryCount = integerOf(row?.['entries']);
    let bytes = integerOf(row?.['bytes']);
    let oldest = entryCount === 0 ? null : integerOf(row?.['first']);
    for (const { firstPosition, routed } of this.#freshOf(server)) {
      const place = firstPosition > after && firstPosition <= through ? placeOf(owner, routed) : -1;
      if (place < 0) continue;
      entryCount += routed[place + 2] ?? 0;
      bytes += routed[place + 3] ?? 0;
      oldest ??= firstPosition;
    }
    return { entryCount, bytes, firstPosition: oldest };
  }

  #freshOf(server: number): FreshSegment[] {
    const known = this.#fresh.get(server);
    if (known !== undefined) return known;
    const rows = this.#sql.all(
      'SELECT first_position, routed FROM segments WHERE server_id = ? AND first_position > (SELECT indexed_position FROM servers WHERE id = ?) ORDER BY first_position',
      server, server,
    );
    const fresh = rows.map((row) => ({ firstPosition: integerOf(row['first_position']), routed: routedFrom(row['routed']) }));
    this.#fresh.set(server, fresh);
    return fresh;
  }

  #index(server: number, fresh: FreshSegment[]): void {
    const rows = fresh.flatMap(rowsOf).sort((left, right) => left.owner - right.owner || left.firstPosition - right.firstPosition);
    const values = rows.flatMap(({ owner, firstPosition, lastPosition, entryCount, bytes }) => [owner, firstPosition, lastPosition, entryCount, bytes]);
    const columns = values.length / Math.max(1, rows.length);
    let at = 0;
    for (const step = INSERTED_ROWS * columns; step > 0 && at + step <= values.length; at += step) this.#sql.run(INSERT_MANY, ...values.slice(at, at + step));
    for (; at < values.length; at += columns) this.#sql.run(INSERT_ONE, ...values.slice(at, at + columns));
    this.#sql.run('UPDATE servers SET indexed_position = ? WHERE id = ?', fresh.at(-1)?.firstPosition ?? 0, server);
    fresh.length = 0;
  }
}

/** The owners are 0 for now: they have their numbers in the file. */
export function routedOf(segment: Pick<Segment, 'entries' | 'routes'>): Routed {
  const { routes } = segment;
  const routed = new Uint32Array(routes.length * ROUTED_FIELDS);
  for (const [at, route] of routes.entries()) {
    const { ranges, entryCount, bytes } = route;
    routed[at * ROUTED_FIELDS + 1] = (ranges.at(-1) ?? 0) + (isEphemeralRoute(segment, route) ? EPHEMERAL_ONLY : 0);
    routed[at * ROUTED_FIELDS + 2] = entryCount;
    routed[at * ROUTED_FIELDS + 3] = bytes;
  }
  return routed;
}

/** As it is stored. */
export function routedFrom(value: unknown): Routed {
  const bytes = bytesOf(value);
  return new Uint32Array(bytes.slice().buffer, 0, bytes.byteLength >>> 2);
}

/** Index of the last entry routed to the owner whose fields begin at `place`. */
export function lastIndexAt(routed: Routed, place: number): number {
  return (routed[place + 1] ?? 0) % EPHEMERAL_ONLY;
}

export function isEphemeralAt(routed: Routed, place: number): boolean {
  return (routed[place + 1] ?? 0) >= EPHEMERAL_ONLY;
}

/** Where the owner's fields begin; -1 if it has none. */
function placeOf(owner: number, routed: Routed): number {
  for (let at = 0; at < routed.length; at += ROUTED_FIELDS) if (routed[at] === owner) return at;
  return -1;
}

function rowsOf({ firstPosition, routed }: FreshSegment): Row[] {
  const rows: Row[] = [];
  for (let at = 0; at < routed.length; at += ROUTED_FIELDS) {
    rows.push({ owner: routed[at] ?? 0, firstPosition, lastPosition: firstPosition + lastIndexAt(routed, at), entryCount: routed[at + 2] ?? 0, bytes: routed[at + 3] ?? 0 });
  }
  return rows;
}
