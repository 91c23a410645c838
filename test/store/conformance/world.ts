/** What the cases of the suite are given, and the plain values they make and compare. */
import type { Store } from '../../../src/store/port.ts';
import type { AppserviceState, QuarantinedTransaction, RoutedEntry, StoredRoom, TransactionRecord } from '../../../src/store/port.ts';
import type { Entry, Route, Segment, StoredRegistration } from '../../../src/store/segment.ts';

/** An adapter under test. */
export interface ConformanceSubject {
  /** Opens a handle on the data. The first one finds it empty; later ones find what earlier ones left. */
  open(): Promise<Store>;
  /** Several handles may be open at once, as of several routers. Otherwise concurrent callers share one. */
  readonly allowsTwoHandles: boolean;
  /** The data outlives its handles. */
  readonly isDurable: boolean;
  /** Resolves once the store's own clock has moved on by `durationMs` or more. */
  passTime(durationMs: number): Promise<void>;
}

export interface ConformanceCase {
  readonly title: string;
  /** Only for data that outlives its handle. */
  readonly needsDurable?: boolean;
  run(world: World): Promise<void>;
}

let names = 0;

export class World implements AsyncDisposable {
  readonly subject: ConformanceSubject;
  #store: Store;
  #second: Store;

  private constructor(subject: ConformanceSubject, store: Store, second: Store) {
    this.subject = subject;
    this.#store = store;
    this.#second = second;
  }

  static async open(subject: ConformanceSubject): Promise<World> {
    const store = await subject.open();
    return new World(subject, store, subject.allowsTwoHandles ? await subject.open() : store);
  }

  get store(): Store {
    return this.#store;
  }

  /** Another handle on the same data; the same one where the adapter allows only one. */
  get second(): Store {
    return this.#second;
  }

  /** A name that nothing is stored under yet. */
  readonly fresh = (prefix = 'hs'): string => `${prefix}${++names}.example.org`;

  /** Closes all handles and opens the data again. */
  async reopen(): Promise<void> {
    await this[Symbol.asyncDispose]();
    this.#store = await this.subject.open();
    this.#second = this.subject.allowsTwoHandles ? await this.subject.open() : this.#store;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
    if (this.#second !== this.#store) await this.#second[Symbol.asyncDispose]();
  }
}

/** Texts that have broken databases before: each is a valid id or JSON text. */
export const ODD_TEXTS: readonly string[] = [
  '__proto__',
  'constructor',
  'a.b.c',
  '$set',
  '$where.$in',
  'nul\0inside',
  'caf\u00e9',
  'cafe\u0301',
  '\u{1f980}\u{10ffff}',
  '\ufeffbom',
  '%_?*[a-z]',
  `'; DROP TABLE segments; --"`,
  '\\ud800 looks lone',
  'a',
  'A',
  'a ',
  ' a',
  'line\nbreak\u2028\u202e',
  '0',
  'x'.repeat(2_000),
];

export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

export function eventEntry(text: string): Entry {
  return { kind: 'event', json: bytesOf(text) };
}

export function eventEntries(count: number, label = 'e'): Entry[] {
  return Array.from({ length: count }, (_, index) => eventEntry(`{"${label}":${index}}`));
}

/** A route whose sums are those of `entries`. */
export function routeTo(appserviceId: string, ranges: readonly number[], entries: readonly Entry[]): Route {
  let entryCount = 0;
  let bytes = 0;
  for (let at = 0; at < ranges.length; at += 2) {
    for (const { json } of entries.slice(ranges[at], (ranges[at + 1] ?? -1) + 1)) {
      entryCount++;
      bytes += json.byteLength;
    }
  }
  return { appserviceId, ranges, entryCount, bytes };
}

export interface SegmentParts extends Partial<Omit<Segment, 'entries' | 'routes'>> {
  readonly entries?: readonly Entry[];
  /** Appservice id and ranges. */
  readonly routes?: readonly (readonly [appserviceId: string, ranges: readonly number[]])[];
}

/** A segment of one event for nobody, but for what `parts` says. */
export function segmentOf(serverName: string, firstPosition: number, parts: SegmentParts = {}): Segment {
  const { entries = eventEntries(1), routes = [], ...rest } = parts;
  return {
    serverName,
    firstPosition,
    entries,
    routes: routes.map(([id, ranges]) => routeTo(id, ranges, entries)),
    roomDeltas: [],
    streamPositions: {},
    registrationChanges: [],
    registrationsVersion: 0,
    nonce: `${serverName}-${firstPosition}`,
    timeMs: 1_700_000_000_000 + firstPosition,
    ...rest,
  };
}

/** Appends segments one after the other, each with the parts given; throws if a place is taken. Returns the position of the last entry. */
export async function appendAll(store: Store, serverName: string, all: readonly SegmentParts[], after = 0): Promise<number> {
  let tail = after;
  for (const parts of all) {
    const segment = segmentOf(serverName, tail + 1, parts);
    const outcome = await store.append(segment);
    if (outcome.kind !== 'appended') throw new Error(`position ${tail + 1} of ${serverName} is taken`);
    tail += segment.entries.length;
  }
  return tail;
}

/** `count` segments of `size` entries each, every one routed to the appservice whole. */
export function routedSegments(count: number, size: number, appserviceId: string): SegmentParts[] {
  return Array.from({ length: count }, (_, at) => ({ entries: eventEntries(size, `s${at}`), routes: [[appserviceId, [0, size - 1]]] }));
}

/** Comparable whatever kind of byte array it is. */
export function readable(segment: Segment): unknown {
  return { ...segment, entries: segment.entries.map(({ kind, json }) => ({ kind, hex: hexOf(json) })) };
}

export function readableEntry({ json, ...rest }: RoutedEntry): unknown {
  return { ...rest, hex: hexOf(json) };
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

export function textOf(bytes: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
}

/** Without limits that matter. */
export const ALL_SEGMENTS = { segmentsMax: 10_000, bytesMax: 1_000_000_000 };
export const ALL_ENTRIES = { entriesMax: 10_000, bytesMax: 1_000_000_000 };

export function transactionOf(parts: Partial<TransactionRecord> = {}): TransactionRecord {
  return { txnId: '1700000000000001', ranges: [1, 3, 7, 7], entryCount: 4, through: 9, cutTimeMs: 1_700_000_000_000, attemptCount: 2, nextAttemptTimeMs: 1_700_000_004_000, ...parts };
}

export function stateOf(serverName: string, appserviceId: string, parts: Partial<AppserviceState> = {}): AppserviceState {
  return {
    serverName,
    appserviceId,
    revision: 1,
    leaseHolder: null,
    leaseEpoch: 0,
    deliveryState: 'idle',
    paused: false,
    parked: false,
    sincePosition: 0,
    deliveredPosition: 0,
    lastTxnId: '0',
    transaction: null,
    split: null,
    lastFailure: null,
    deliveredEntries: 0,
    deliveredTransactions: 0,
    attempts: 0,
    failedAttempts: 0,
    quarantinedEntries: 0,
    ...parts,
  };
}

/** The count and the bytes are those of the entries. */
export function quarantinedOf(serverName: string, appserviceId: string, txnId: string, parts: Partial<QuarantinedTransaction> = {}): QuarantinedTransaction {
  const entries = parts.entries ?? [{ kind: 'event', json: bytesOf(`{"txn":"${txnId}"}`) }];
  const bytes = entries.reduce((sum, { json }) => sum + json.byteLength, 0);
  return { serverName, appserviceId, txnId, reason: 'the appservice refuses it', timeMs: 1_700_000_000_000, firstPosition: 4, lastPosition: 4, bodyKeys: [], entryCount: entries.length, bytes, entries, ...parts };
}

export function roomOf(roomId: string, position: number, parts: Partial<StoredRoom> = {}): StoredRoom {
  return { roomId, position, localMembers: null, localAliases: null, partialMembers: {}, ...parts };
}

export function registrationOf(label: string): StoredRegistration {
  return { json: `{"id":"${label}"}`, asTokenSealed: `sealed-as-${label}`, hsTokenSealed: `sealed-hs-${label}`, asTokenHash: `hash-as-${label}`, hsTokenHash: `hash-hs-${label}` };
}

/** An object with the given keys as its own, `__proto__` among them. */
export function recordOf<Value>(pairs: readonly (readonly [string, Value])[]): Readonly<Record<string, Value>> {
  return Object.fromEntries(pairs);
}

export function byText(left: string, right: string): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
