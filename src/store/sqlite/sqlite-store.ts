/**
 * The embedded store: one SQLite file, owned by one process, worked on by a thread of its own (worker.ts).
 *
 *   opening ──▶ working ──thread ends──▶ lost     every call rejects with `unavailable`
 *                  │
 *                  └─────dispose──────▶ closed    what was asked for is done first; further calls reject with `unavailable`
 *
 * Calls wait in a bounded queue. An append crosses as one buffer, which is handed over and not copied.
 */
import { Worker } from 'node:worker_threads';
import type { Clock } from '../../clock.ts';
import { StoreError } from '../errors.ts';
import type {
  AppendOutcome,
  AppserviceState,
  Fold,
  FoldChanges,
  OperatorRecords,
  RecordChange,
  RecordKind,
  RecordQueries,
  RoutedEntry,
  RouteLimits,
  RouteMeasure,
  StateWriteOutcome,
  Store,
  StoredRoom,
  TrimOutcome,
  TrimRequest,
} from '../port.ts';
import { decodeEntryList, decodeSegment, encodeEntryList, encodeSegment } from '../segment-codec.ts';
import type { Segment } from '../segment.ts';
import { lastPosition } from '../segment.ts';
import { prepareFile } from './file.ts';
import type { Arguments, Method, Replies, Reply, Request, Result, WorkerSettings } from './protocol.ts';
import { OPENING } from './protocol.ts';
import { routedOf } from './route-index.ts';

/** Calls that may wait for the worker, and what they may weigh together. A single call is taken whatever it weighs. */
const WAITING_CALLS_MAX = 20_000;
const WAITING_BYTES_MAX = 128 * 1024 * 1024;
/** What a call, a state, a room and a member weigh, near enough. */
const CALL_BYTES = 200;
const DOCUMENT_BYTES = 1_000;
const ID_BYTES = 60;

export interface SqliteOptions {
  /** `:memory:` or a path; its folder is created. */
  readonly path: string;
  readonly clock: Pick<Clock, 'nowMs'>;
  /** The file grows to no more than this many pages of 4 KiB; no limit if left out. */
  readonly pagesMax?: number;
  /** The bound of the queue in bytes; 128 MiB if left out. */
  readonly waitingBytesMax?: number;
  /** The thread's program; worker.ts if left out. */
  readonly program?: URL;
}

interface Waiting {
  readonly bytes: number;
  settle(result: unknown): void;
  refuse(error: unknown): void;
}

/** Opens or creates the file. Rejects with a StoreError that says what to do. */
export async function openSqliteStore(options: SqliteOptions): Promise<Store> {
  const path = options.path === ':memory:' ? options.path : prepareFile(options.path);
  const settings: WorkerSettings = { path, pagesMax: options.pagesMax ?? 0 };
  const worker = new Worker(options.program ?? new URL('./worker.ts', import.meta.url), { workerData: settings });
  const store = new SqliteStore(worker, options);
  try {
    await store.opened;
  } catch (error) {
    await store[Symbol.asyncDispose]();
    throw error instanceof StoreError ? new StoreError(error.kind, `the database ${path} cannot be used: ${error.message}`, { cause: error }) : error;
  }
  return store;
}

class SqliteStore implements Store {
  readonly opened: Promise<'opened'>;
  readonly #worker: Worker;
  readonly #clock: Pick<Clock, 'nowMs'>;
  readonly #waitingBytesMax: number;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ended: Promise<void>;
  #waitingBytes = 0;
  #nextId = OPENING + 1;
  #lost: StoreError | null = null;

  constructor(worker: Worker, { clock, waitingBytesMax = WAITING_BYTES_MAX }: SqliteOptions) {
    this.#worker = worker;
    this.#clock = clock;
    this.#waitingBytesMax = waitingBytesMax;
    const opening = Promise.withResolvers<'opened'>();
    this.opened = opening.promise;
    worker.on('message', (replies: Replies) => {
      for (const reply of replies) {
        if (reply.kind === 'opened') opening.resolve(reply.kind);
        else if (reply.kind === 'failed' && reply.id === OPENING) opening.reject(errorOf(reply));
        else this.#settle(reply);
      }
    });
    const failed = (cause: unknown): void => {
      this.#lose(cause);
      opening.reject(new StoreError('unavailable', 'its thread ended before it was open', { cause }));
    };
    worker.on('error', failed);
    this.#ended = new Promise((resolve) => {
      worker.on('exit', () => {
        failed(undefined);
        resolve();
      });
    });
  }

  append(segment: Segment): Promise<AppendOutcome> {
    const { serverName, firstPosition, timeMs, nonce, entries, routes } = segment;
    const body = encodeSegment(segment);
    const jsonBytes = entries.reduce((sum, { json }) => sum + json.byteLength, 0);
    const appserviceIds = routes.map(({ appserviceId }) => appserviceId);
    const routed = routedOf(segment);
    const posted = { serverName, firstPosition, lastPosition: lastPosition(segment), timeMs, jsonBytes, nonce, appserviceIds, routed, body };
    return this.#call('append', [posted], body.byteLength + routes.length * ID_BYTES, [body.buffer, routed.buffer]);
  }

  async readSegments(serverName: string, from: number, limits: { segmentsMax: number; bytesMax: number }): Promise<Segment[]> {
    const bodies = await this.#call('readSegments', [serverName, from, limits]);
    return bodies.map(({ firstPosition, body }) => decodeSegment(serverName, firstPosition, body));
  }

  readRoute(serverName: string, appserviceId: string, after: number, through: number, { entriesMax, bytesMax }: RouteLimits): Promise<RoutedEntry[]> {
    return this.#call('readRoute', [serverName, appserviceId, after, through, { entriesMax, bytesMax }]);
  }

  measureRoutes(serverName: string, after: ReadonlyMap<string, number>, through: number): Promise<RouteMeasure[]> {
    return this.#call('measureRoutes', [serverName, after, through], after.size * ID_BYTES);
  }

  trim(serverName: string, request: TrimRequest): Promise<TrimOutcome> {
    return this.#call('trim', [serverName, request], (request.deliveredPositions.size + (request.expired?.cutThrough.size ?? 0)) * ID_BYTES);
  }

  wholeFrom(serverName: string, from: number, through: number, segmentsMax: number): Promise<number> {
    return this.#call('wholeFrom', [serverName, from, through, segmentsMax]);
  }

  loadFold(serverName: string): Promise<Fold> {
    return this.#call('loadFold', [serverName]);
  }

  loadRooms(serverName: string, roomIds: readonly string[]): Promise<StoredRoom[]> {
    return this.#call('loadRooms', [serverName, roomIds], roomIds.length * ID_BYTES);
  }

  saveFold(serverName: string, changes: FoldChanges): Promise<void> {
    const ids = changes.rooms.reduce((sum, { localMembers, partialMembers }) => sum + (localMembers?.length ?? 0) + Object.keys(partialMembers).length, 0);
    return this.#call('saveFold', [serverName, changes], (changes.rooms.length + changes.registrations.length) * DOCUMENT_BYTES + ids * ID_BYTES);
  }

  loadStates(serverName: string): Promise<AppserviceState[]> {
    return this.#call('loadStates', [serverName]);
  }

  writeStates(states: readonly AppserviceState[]): Promise<StateWriteOutcome[]> {
    return this.#call('writeStates', [states], states.length * DOCUMENT_BYTES);
  }

  heartbeat(replicaId: string, ttlMs: number): Promise<string[]> {
    const nowMs = this.#clock.nowMs();
    return this.#call('heartbeat', [replicaId, nowMs + ttlMs, nowMs]);
  }

  changeRecord(change: RecordChange): Promise<boolean> {
    if (change.kind !== 'quarantine') return this.#call('changeRecord', [change], DOCUMENT_BYTES);
    const { entries, ...facts } = change.transaction;
    const body = encodeEntryList(entries);
    return this.#call('changeRecord', [{ kind: 'quarantine', facts, body }], body.byteLength, [body.buffer]);
  }

  readRecords<Kind extends RecordKind>(kind: Kind, query: RecordQueries[Kind]): Promise<OperatorRecords[Kind][]> {
    return this.#readers[kind](query);
  }

  readonly #readers: { readonly [Kind in RecordKind]: (query: RecordQueries[Kind]) => Promise<OperatorRecords[Kind][]> } = {
    quarantine: async (query) => {
      const posted = await this.#call('readQuarantined', [query]);
      return posted.map(({ facts, body }) => ({ ...facts, entries: body === null ? [] : decodeEntryList(body) }));
    },
    audit: (query) => this.#call('readAudit', [query]),
  };

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lost ??= new StoreError('unavailable', 'the store is closed');
    this.#worker.postMessage('close');
    await this.#ended;
  }

  #call<Name extends Method>(method: Name, args: Arguments<Name>, bytes = 0, transfer: ArrayBuffer[] = []): Promise<Result<Name>> {
    if (this.#lost !== null) return Promise.reject(this.#lost);
    const weight = CALL_BYTES + bytes;
    const isFull = this.#waiting.size >= WAITING_CALLS_MAX || this.#waitingBytes + weight > this.#waitingBytesMax;
    if (isFull && this.#waiting.size > 0) return Promise.reject(new StoreError('exhausted', 'too much waits for the database. Slow down, or give it a faster disk'));
    const id = this.#nextId++;
    const request: Request = { id, method, args };
    return new Promise((resolve, refuse) => {
      this.#worker.postMessage(request, transfer);
      this.#waitingBytes += weight;
      this.#waiting.set(id, { bytes: weight, settle: (result) => resolve(result as Result<Name>), refuse });
    });
  }

  #settle(reply: Exclude<Reply, { kind: 'opened' }>): void {
    const waiting = this.#waiting.get(reply.id);
    if (waiting === undefined) return;
    this.#waiting.delete(reply.id);
    this.#waitingBytes -= waiting.bytes;
    if (reply.kind === 'done') waiting.settle(reply.result);
    else waiting.refuse(errorOf(reply));
  }

  #lose(cause: unknown): void {
    this.#lost ??= new StoreError('unavailable', 'the thread of the database has ended. Restart the router', { cause });
    for (const waiting of this.#waiting.values()) waiting.refuse(this.#lost);
    this.#waiting.clear();
  }
}

function errorOf({ errorKind, message }: Extract<Reply, { kind: 'failed' }>): Error {
  return errorKind === null ? new Error(message) : new StoreError(errorKind, message);
}
