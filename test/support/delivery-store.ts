/**
 * What delivery needs of the store, in memory and in the plainest way: delivery states, leases, quarantine, and the
 * routes of a log that a test appends to. Each process under test has its own connection, which a test can kill or
 * freeze at any call, and whose answers it can lose. Every accepted state is kept, for the checker.
 */
import type { RoutedKind } from '../../src/appservice/body-keys.ts';
import type { Clock } from '../../src/clock.ts';
import type { RouteAnnouncement, RouteReader } from '../../src/delivery/ports.ts';
import { StoreError } from '../../src/store/errors.ts';
import type { AppserviceState, AppserviceStateStore, OperatorRecords, OperatorRecordStore, RecordChange, RecordKind, RecordQueries, RoutedEntry, RouteLimits, RouteMeasure, SegmentLog, StateWriteOutcome } from '../../src/store/port.ts';
import type { Segment } from '../../src/store/segment.ts';
import { MemoryRecords } from './memory-records.ts';

export const SERVER = 'hs.example';

export interface LoggedEntry {
  readonly position: number;
  readonly kind: RoutedKind;
  readonly json: Uint8Array;
  readonly timeMs: number;
  readonly appserviceIds: readonly string[];
  /** Log positions of its segment's first and last entry. */
  readonly segmentFirst: number;
  readonly segmentEnd: number;
}

export interface AcceptedWrite {
  readonly connection: string;
  readonly before: AppserviceState | undefined;
  readonly after: AppserviceState;
}

export class DeliveryStore {
  readonly entries: LoggedEntry[] = [];
  readonly states = new Map<string, AppserviceState>();
  readonly records = new MemoryRecords();
  readonly accepted: AcceptedWrite[] = [];
  /** Calls in order, such as `writeStates:a,b`. */
  readonly calls: string[] = [];
  readonly #clock: Clock;
  readonly #livesUntilMs = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get tail(): number {
    return this.entries.at(-1)?.position ?? 0;
  }

  /** A position that carries nothing to deliver. */
  mark(): number {
    const position = this.tail + 1;
    this.entries.push({ position, kind: 'event', json: new Uint8Array(0), timeMs: this.#clock.nowMs(), appserviceIds: [], segmentFirst: position, segmentEnd: position });
    return position;
  }

  /** Appends one segment; each text goes to all the given appservices. */
  append(appserviceIds: readonly string[], texts: readonly string[]): RouteAnnouncement[] {
    return this.appendMixed(texts.map((text) => ({ text, appserviceIds })));
  }

  /** Appends one segment of entries with routes of their own. */
  appendMixed(items: readonly { readonly kind?: RoutedKind; readonly text: string; readonly appserviceIds: readonly string[] }[]): RouteAnnouncement[] {
    const first = this.tail + 1;
    const timeMs = this.#clock.nowMs();
    const segmentEnd = this.tail + items.length;
    const added = items.map(({ kind = 'event', text, appserviceIds }, at): LoggedEntry => ({ position: first + at, kind, json: Buffer.from(text), timeMs, appserviceIds, segmentFirst: first, segmentEnd }));
    this.entries.push(...added);
    const ids = new Set(items.flatMap(({ appserviceIds }) => appserviceIds));
    return [...ids].map((appserviceId) => {
      const own = added.filter((entry) => entry.appserviceIds.includes(appserviceId));
      const bytes = own.reduce((sum, { json }) => sum + json.byteLength, 0);
      return { appserviceId, firstPosition: own[0]?.position ?? 0, lastPosition: own.at(-1)?.position ?? 0, entryCount: own.length, bytes, timeMs };
    });
  }

  /** Log position up to which everything is removed. */
  trimmedThrough = 0;

  routedTo(appserviceId: string): LoggedEntry[] {
    return this.entries.filter(({ appserviceIds }) => appserviceIds.includes(appserviceId));
  }

  connect(name: string): StoreConnection {
    return new StoreConnection(name, this);
  }

  loadStates(): AppserviceState[] {
    return structuredClone([...this.states.values()]);
  }

  writeState(connection: string, state: AppserviceState): StateWriteOutcome {
    const before = this.states.get(state.appserviceId);
    if ((before?.revision ?? 0) !== state.revision - 1) return 'conflict';
    const after = structuredClone(state);
    this.states.set(state.appserviceId, after);
    this.accepted.push({ connection, before, after });
    return 'written';
  }

  heartbeat(replicaId: string, ttlMs: number): string[] {
    const nowMs = this.#clock.nowMs();
    if (ttlMs === 0) this.#livesUntilMs.delete(replicaId);
    else this.#livesUntilMs.set(replicaId, nowMs + ttlMs);
    return [...this.#livesUntilMs].flatMap(([id, untilMs]) => (untilMs > nowMs ? [id] : [])).sort();
  }

  readRoute(appserviceId: string, after: number, through: number, limits: RouteLimits): RoutedEntry[] {
    const read: RoutedEntry[] = [];
    let bytes = 0;
    for (const { position, kind, json, timeMs } of this.routedTo(appserviceId)) {
      if (position <= this.trimmedThrough || position <= after || position > through) continue;
      bytes += json.byteLength;
      if (read.length >= limits.entriesMax || (read.length > 0 && bytes > limits.bytesMax)) break;
      read.push({ position, kind, json, timeMs });
    }
    return read;
  }

  /** Removes the segments that end at or below `through`, as trimming does. */
  trim(through: number): void {
    this.trimmedThrough = this.entries.findLast(({ segmentEnd }) => segmentEnd <= through)?.segmentEnd ?? 0;
  }

  wholeFrom(from: number, through: number): number {
    if (through <= this.trimmedThrough) return through + 1;
    const first = this.entries.find(({ position }) => position >= from)?.segmentFirst ?? through + 1;
    return Math.max(this.trimmedThrough + 1, first);
  }

  /** As far as a replay looks at them: where they are, and when they were written. */
  readSegments(serverName: string, from: number, segmentsMax: number): Segment[] {
    const firsts = this.entries.filter(({ position, segmentFirst }) => position === segmentFirst && position >= from && position > this.trimmedThrough);
    return firsts.slice(0, segmentsMax).map(({ segmentFirst, segmentEnd, timeMs }) => ({
      serverName,
      firstPosition: segmentFirst,
      entries: this.entries.slice(segmentFirst - 1, segmentEnd).map(({ kind, json }) => ({ kind, json })),
      routes: [],
      roomDeltas: [],
      streamPositions: {},
      registrationChanges: [],
      registrationsVersion: 0,
      nonce: String(segmentFirst),
      timeMs,
    }));
  }

  measureRoutes(after: ReadonlyMap<string, number>, through: number): RouteMeasure[] {
    return [...after].map(([appserviceId, position]) => {
      const waiting = this.routedTo(appserviceId).filter((entry) => entry.position > Math.max(position, this.trimmedThrough) && entry.segmentEnd <= through);
      const bytes = waiting.reduce((sum, { json }) => sum + json.byteLength, 0);
      return { appserviceId, entryCount: waiting.length, bytes, firstSegment: waiting[0]?.segmentFirst ?? null, oldestTimeMs: waiting[0]?.timeMs ?? null };
    });
  }
}

export type StoreFault = 'none' | 'not_done' | 'answer_lost';

/** One process's way to the store. */
export class StoreConnection implements AppserviceStateStore, OperatorRecordStore, RouteReader, Pick<SegmentLog, 'measureRoutes' | 'readSegments' | 'wholeFrom'> {
  readonly name: string;
  readonly store: DeliveryStore;
  /** What happens to a call; asked for each. */
  fault: (operation: string) => StoreFault = () => 'none';
  /** Asked before a call takes effect and before its answer is given; true kills the process there. */
  diesAt: (point: string) => boolean = () => false;
  /** While set, nothing leaves or reaches the process. */
  frozenUntil: Promise<void> | null = null;
  isDead = false;

  constructor(name: string, store: DeliveryStore) {
    this.name = name;
    this.store = store;
  }

  kill(): void {
    this.isDead = true;
  }

  /** Passes a point at which the process may die; if it is dead, nothing ever goes on from here. */
  async pass(point: string): Promise<void> {
    if (!this.isDead && this.diesAt(point)) this.kill();
    while (this.frozenUntil !== null) await this.frozenUntil;
    if (this.isDead) await new Promise(() => undefined);
  }

  loadStates(): Promise<AppserviceState[]> {
    return this.#call('loadStates', () => this.store.loadStates());
  }

  writeStates(states: readonly AppserviceState[]): Promise<StateWriteOutcome[]> {
    const ids = states.map(({ appserviceId }) => appserviceId);
    if (new Set(ids).size !== ids.length) throw new Error('two states of one appservice in one call');
    return this.#call('writeStates', () => states.map((state) => this.store.writeState(this.name, state)), ids.join(','));
  }

  heartbeat(replicaId: string, ttlMs: number): Promise<string[]> {
    return this.#call('heartbeat', () => this.store.heartbeat(replicaId, ttlMs));
  }

  changeRecord(change: RecordChange): Promise<boolean> {
    return this.#call('changeRecord', () => this.store.records.change(change), change.kind);
  }

  readRecords<Kind extends RecordKind>(kind: Kind, query: RecordQueries[Kind]): Promise<OperatorRecords[Kind][]> {
    return this.#call('readRecords', () => this.store.records.read(kind, query), kind);
  }

  /** A step of the log. */
  appendOnce<Result>(effect: () => Result): Promise<Result> {
    return this.#call('append', effect);
  }

  readRoute(_serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]> {
    return this.#call('readRoute', () => this.store.readRoute(appserviceId, after, through, limits), appserviceId);
  }

  measureRoutes(_serverName: string, after: ReadonlyMap<string, number>, through: number): Promise<RouteMeasure[]> {
    return this.#call('measureRoutes', () => this.store.measureRoutes(after, through));
  }

  readSegments(serverName: string, from: number, limits: { segmentsMax: number; bytesMax: number }): Promise<Segment[]> {
    return this.#call('readSegments', () => this.store.readSegments(serverName, from, limits.segmentsMax));
  }

  wholeFrom(_serverName: string, from: number, through: number): Promise<number> {
    return this.#call('wholeFrom', () => this.store.wholeFrom(from, through));
  }

  async #call<Result>(operation: string, effect: () => Result, detail = ''): Promise<Result> {
    await this.pass(`before ${operation}`);
    this.store.calls.push(detail === '' ? operation : `${operation}:${detail}`);
    const fault = this.fault(operation);
    if (fault === 'not_done') throw new StoreError('unavailable', `${operation} was not done`);
    const result = effect();
    await this.pass(`after ${operation}`);
    if (fault === 'answer_lost') throw new StoreError('unavailable', `the answer of ${operation} was lost`);
    return result;
  }
}
