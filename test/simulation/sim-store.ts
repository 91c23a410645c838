/**
 * The one store that all replicas share, in memory: what the port promises, and no more. Everything here takes effect at
 * once; what happens to a call on its way is in store-link.ts.
 */
import type { AppendOutcome, AppserviceState, Checkpoint, ExpiredEntries, FoldChanges, PositionedRegistration, RecordChange, RoutedEntry, RouteLimits, RouteMeasure, SeenPage, StateWriteOutcome, StoredRoom, TrimOutcome, TrimRequest } from '../../src/store/port.ts';
import { isEphemeralRoute, lastPosition } from '../../src/store/segment.ts';
import type { Route, Segment } from '../../src/store/segment.ts';
import { MemoryRecords } from '../support/memory-records.ts';
import type { History } from './history.ts';

interface RoomVersion {
  readonly room: StoredRoom;
  readonly timeMs: number;
}

/** What a store may tell other processes of at once. */
export type StoreChange =
  | { readonly kind: 'appended'; readonly firstPosition: number }
  | { readonly kind: 'lease'; readonly appserviceId: string; readonly holder: string | null }
  | { readonly kind: 'replicas' };

export interface Writer {
  readonly process: string;
  readonly replicaId: string;
}

export class SimStore {
  /** What is not trimmed, ascending. */
  readonly segments: Segment[] = [];
  readonly states = new Map<string, AppserviceState>();
  readonly records = new MemoryRecords();
  readonly #rooms = new Map<string, RoomVersion[]>();
  readonly #registrations = new Map<string, PositionedRegistration>();
  readonly #seenPages = new Map<number, SeenPage>();
  readonly #livesUntilMs = new Map<string, number>();
  readonly #history: History;
  #checkpoint: Checkpoint = { position: 0, streamPositions: {}, registrationsVersion: 0 };

  /** Told of what changes. */
  changed: (change: StoreChange) => void = () => undefined;

  constructor(history: History) {
    this.#history = history;
  }

  get tail(): number {
    const last = this.segments.at(-1);
    return last === undefined ? 0 : lastPosition(last);
  }

  append(segment: Segment, { process }: Writer): AppendOutcome {
    const { firstPosition } = segment;
    if (firstPosition <= this.tail) {
      const at = this.#indexOf(firstPosition);
      const known = this.segments[at];
      const isOwn = known?.firstPosition === firstPosition && known.nonce === segment.nonce;
      if (!isOwn) this.#history.note('append lost', process, String(firstPosition));
      return { kind: isOwn ? 'appended' : 'lost' };
    }
    if (firstPosition !== this.tail + 1) this.#history.breach(`I11 Monotone: ${process} appends at ${firstPosition}, beyond the end of the log at ${this.tail}`, [process]);
    this.segments.push(segment);
    this.#history.segments.push({ segment, process, order: this.#history.next(), timeMs: this.#history.nowMs });
    this.#history.note('appended', process, `${firstPosition}..${this.tail}`);
    this.changed({ kind: 'appended', firstPosition });
    return { kind: 'appended' };
  }

  readSegments(from: number, segmentsMax: number): Segment[] {
    const start = this.#indexOf(from);
    return this.segments.slice(start, start + segmentsMax);
  }

  readRoute(appserviceId: string, after: number, through: number, limits: RouteLimits): RoutedEntry[] {
    const read: RoutedEntry[] = [];
    let bytes = 0;
    for (let at = Math.max(0, this.#indexOf(after + 1) - 1); at < this.segments.length; at++) {
      const segment = this.segments[at];
      if (segment === undefined || segment.firstPosition > through) break;
      const route = routeOf(segment, appserviceId);
      if (route === undefined) continue;
      for (const { entry, position } of entriesOf(segment, route)) {
        if (position <= after || entry.kind === 'mark') continue;
        if (position > through) return read;
        bytes += entry.json.byteLength;
        if (read.length >= limits.entriesMax || (read.length > 0 && bytes > limits.bytesMax)) return read;
        read.push({ position, kind: entry.kind, json: entry.json, timeMs: segment.timeMs });
      }
    }
    return read;
  }

  measureRoutes(after: ReadonlyMap<string, number>, through: number): RouteMeasure[] {
    return [...after].map(([appserviceId, position]) => this.#measure(appserviceId, position, through));
  }

  #measure(appserviceId: string, after: number, through: number): RouteMeasure {
    let entryCount = 0;
    let bytes = 0;
    let first: Segment | null = null;
    for (let at = Math.max(0, this.#indexOf(after + 1) - 1); at < this.segments.length; at++) {
      const segment = this.segments[at];
      if (segment === undefined || lastPosition(segment) > through) break;
      const route = routeOf(segment, appserviceId);
      if (route === undefined) continue;
      for (const { entry, position } of entriesOf(segment, route)) {
        if (position <= after) continue;
        first ??= segment;
        entryCount++;
        bytes += entry.json.byteLength;
      }
    }
    return { appserviceId, entryCount, bytes, firstSegment: first?.firstPosition ?? null, oldestTimeMs: first?.timeMs ?? null };
  }

  trim(request: TrimRequest): TrimOutcome {
    const { after, through, beforeMs, deliveredPositions, segmentsMax } = request;
    const expired = new Map<string, number>();
    const start = this.#indexOf(after + 1);
    const looked = this.segments.slice(start, start + segmentsMax);
    const newest = this.segments.at(-1);
    let removedSegments = 0;
    for (const segment of looked) {
      if (segment === newest || lastPosition(segment) > through || segment.timeMs >= beforeMs) continue;
      const owed = segment.routes.filter((route) => segment.firstPosition + (route.ranges.at(-1) ?? 0) > (deliveredPositions.get(route.appserviceId) ?? Infinity));
      if (owed.some((route) => !isExpired(segment, route, request))) continue;
      this.segments.splice(this.segments.indexOf(segment), 1);
      removedSegments++;
      for (const { appserviceId, entryCount } of owed) expired.set(appserviceId, entryCount + (expired.get(appserviceId) ?? 0));
    }
    if (removedSegments > 0) this.#history.note('trimmed', 'store', `${removedSegments} through ${through}`);
    const told: ExpiredEntries[] = [...expired].map(([appserviceId, entryCount]) => ({ appserviceId, entryCount }));
    return { removedSegments, expired: told, nextAfter: looked.length === segmentsMax ? (looked.at(-1)?.firstPosition ?? null) : null };
  }

  wholeFrom(from: number, through: number, segmentsMax: number): number {
    let whole = through + 1;
    const below = this.segments.filter(({ firstPosition }) => firstPosition <= through);
    for (const segment of below.reverse().slice(0, segmentsMax)) {
      if (lastPosition(segment) < whole - 1 || whole <= from) break;
      whole = segment.firstPosition;
    }
    return whole;
  }

  get checkpoint(): Checkpoint {
    return this.#checkpoint;
  }

  registrations(): PositionedRegistration[] {
    return [...this.#registrations.values()];
  }

  seenPages(): SeenPage[] {
    return [...this.#seenPages.values()];
  }

  /** As it was at `asOfMs`, or newer. */
  loadRooms(roomIds: readonly string[], asOfMs: number): StoredRoom[] {
    return roomIds.flatMap((roomId) => this.#rooms.get(roomId)?.findLast(({ timeMs }) => timeMs <= asOfMs)?.room ?? []);
  }

  saveRooms(rooms: readonly StoredRoom[]): void {
    for (const room of rooms) {
      const versions = this.#rooms.get(room.roomId) ?? [];
      if ((versions.at(-1)?.room.position ?? -1) >= room.position) continue;
      versions.push({ room, timeMs: this.#history.nowMs });
      this.#rooms.set(room.roomId, versions);
    }
  }

  saveRegistrations({ registrations, seenPages = [] }: FoldChanges): void {
    for (const change of registrations) if ((this.#registrations.get(change.appserviceId)?.position ?? -1) < change.position) this.#registrations.set(change.appserviceId, change);
    for (const page of seenPages) if ((this.#seenPages.get(page.slot)?.position ?? -1) < page.position) this.#seenPages.set(page.slot, page);
  }

  saveCheckpoint(checkpoint: Checkpoint): void {
    if (checkpoint.position <= this.#checkpoint.position) return;
    this.#checkpoint = checkpoint;
    this.#history.note('checkpoint', 'store', String(checkpoint.position));
  }

  writeState(after: AppserviceState, { process, replicaId }: Writer): StateWriteOutcome {
    const before = this.states.get(after.appserviceId);
    if ((before?.revision ?? 0) !== after.revision - 1) return 'conflict';
    this.states.set(after.appserviceId, after);
    this.#history.writes.push({ process, replicaId, before, after, order: this.#history.next(), timeMs: this.#history.nowMs });
    const { transaction, leaseHolder, leaseEpoch, deliveredPosition, paused } = after;
    const txn = transaction === null ? '-' : `${transaction.txnId}[${transaction.ranges.join(',')}]#${transaction.attemptCount}${transaction.skip === undefined ? '' : ' skip'}`;
    this.#history.note('state', after.appserviceId, `r${after.revision} by ${process}: ${after.deliveryState}${paused ? ' paused' : ''}${after.parked ? ' parked' : ''} through ${deliveredPosition} txn ${txn} held by ${leaseHolder ?? 'nobody'} epoch ${leaseEpoch}`);
    if (before !== undefined && before.leaseHolder !== leaseHolder) this.changed({ kind: 'lease', appserviceId: after.appserviceId, holder: leaseHolder });
    return 'written';
  }

  heartbeat(replicaId: string, ttlMs: number): string[] {
    const { nowMs } = this.#history;
    const { size } = this.#livesUntilMs;
    if (ttlMs === 0) this.#livesUntilMs.delete(replicaId);
    else this.#livesUntilMs.set(replicaId, nowMs + ttlMs);
    if (this.#livesUntilMs.size !== size) this.changed({ kind: 'replicas' });
    for (const [id, untilMs] of this.#livesUntilMs) if (untilMs <= nowMs) this.#livesUntilMs.delete(id);
    return [...this.#livesUntilMs.keys()].sort();
  }

  changeRecord(change: RecordChange): boolean {
    const isNew = this.records.change(change);
    if (isNew && change.kind === 'quarantine') {
      this.#history.shelved.push({ transaction: change.transaction, order: this.#history.next() });
      this.#history.note('shelved', change.transaction.appserviceId, change.transaction.txnId);
    }
    return isNew;
  }

  /** Of the first segment that begins at or after the position. */
  #indexOf(position: number): number {
    let low = 0;
    let high = this.segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.segments[middle]?.firstPosition ?? Infinity) < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function routeOf({ routes }: Segment, appserviceId: string): Route | undefined {
  return routes.find((route) => route.appserviceId === appserviceId);
}

export function* entriesOf(segment: Segment, { ranges }: Pick<Route, 'ranges'>): Generator<{ readonly entry: Segment['entries'][number]; readonly position: number }, void, undefined> {
  for (let range = 0; range + 1 < ranges.length; range += 2) {
    for (let index = ranges[range] ?? 0; index <= (ranges[range + 1] ?? -1); index++) {
      const entry = segment.entries[index];
      if (entry !== undefined) yield { entry, position: segment.firstPosition + index };
    }
  }
}

function isExpired(segment: Segment, route: Route, { expired }: TrimRequest): boolean {
  return expired !== undefined && segment.timeMs < expired.beforeMs && segment.firstPosition > (expired.cutThrough.get(route.appserviceId) ?? Infinity) && isEphemeralRoute(segment, route);
}
