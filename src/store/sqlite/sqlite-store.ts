/**
 * The embedded store: one SQLite file, owned by one process, worked on by a thread of its own.
 *
 *   open ──▶ working ──worker ends──▶ lost     every call rejects with `unavailable`
 *              │
 *              └────dispose──▶ closed          what was asked for is finished first
 */
import { chmodSync, existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Clock } from '../../clock.ts';
import { StoreError } from '../errors.ts';
import type {
  AppendOutcome,
  AppserviceState,
  Fold,
  FoldChanges,
  QuarantinedTransaction,
  RoutedEntry,
  RouteLimits,
  RouteMeasure,
  StateWriteOutcome,
  Store,
  StoredRoom,
  TrimOutcome,
  TrimRequest,
} from '../port.ts';
import { decodeSegment, encodeSegment } from '../segment-codec.ts';
import type { Segment } from '../segment.ts';
import { lastPosition } from '../segment.ts';
import type { Arguments, Method, Replies, Reply, Request, Result, WorkerSettings } from './protocol.ts';

/** Calls that may wait for the worker. */
const WAITING_MAX = 20_000;

export interface SqliteOptions {
  /** `:memory:` or a path; its folder is created. */
  readonly path: string;
  readonly clock: Clock;
  /** See WorkerSettings. */
  readonly pagesMax?: number;
}

interface Waiting {
  settle(result: unknown): void;
  refuse(error: unknown): void;
}

/** Opens or creates the file. Rejects with a StoreError that says what to do. */
export async function openSqliteStore({ path, clock, pagesMax = 0 }: SqliteOptions): Promise<Store> {
  if (path !== ':memory:') prepareFile(path);
  const settings: WorkerSettings = { path, pagesMax };
  const worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData: settings });
  const store = new SqliteStore(worker, clock);
  try {
    await store.opened;
  } catch (error) {
    throw explained(error, path);
  }
  if (path !== ':memory:') for (const suffix of ['', '-wal', '-shm']) if (existsSync(path + suffix)) chmodSync(path + suffix, 0o600);
  return store;
}

function prepareFile(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new StoreError('unsuitable', `the folder of ${path} cannot be created; choose another in ROUTER_STORE or ROUTER_DATA_DIR`, { cause: error });
  }
}

function explained(error: unknown, path: string): unknown {
  if (!(error instanceof StoreError)) return error;
  const advice: Record<string, string> = {
    unsuitable: `the database ${path} cannot be opened: another process has it open, or it may not be read and written here. End the other process, or choose another file in ROUTER_STORE`,
    unreadable: `the database ${path} cannot be read: ${error.message}`,
    exhausted: `the database ${path} cannot be opened: the disk is full`,
    unavailable: `the database ${path} cannot be opened: ${error.message}`,
  };
  return new StoreError(error.kind, advice[error.kind] ?? error.message, { cause: error });
}

class SqliteStore implements Store {
  readonly opened: Promise<void>;
  readonly #worker: Worker;
  readonly #clock: Clock;
  readonly #waiting = new Map<number, Waiting>();
  readonly #ended: Promise<void>;
  #nextId = 1;
  #lost: StoreError | null = null;

  constructor(worker: Worker, clock: Clock) {
    this.#worker = worker;
    this.#clock = clock;
    const opening = Promise.withResolvers<void>();
    this.opened = opening.promise;
    worker.on('message', (replies: Replies) => {
      for (const reply of replies) {
        if (reply.kind === 'opened') opening.resolve();
        else if (reply.kind === 'failed' && reply.id === 0) opening.reject(errorOf(reply));
        else this.#settle(reply);
      }
    });
    worker.on('error', (error) => this.#lose(error));
    this.#ended = new Promise((resolve) => {
      worker.on('exit', () => {
        this.#lose(new Error('the worker ended'));
        opening.reject(new StoreError('unavailable', 'the worker ended before the database was open'));
        resolve();
      });
    });
  }

  append(segment: Segment): Promise<AppendOutcome> {
    const { serverName, firstPosition, timeMs, nonce } = segment;
    const routes = segment.routes.map(({ appserviceId, ranges, entryCount, bytes }) => ({ appserviceId, through: firstPosition + (ranges.at(-1) ?? 0), entryCount, bytes }));
    const body = encodeSegment(segment);
    return this.#call('append', [{ serverName, firstPosition, lastPosition: lastPosition(segment), timeMs, nonce, routes, body }], [body.buffer]);
  }

  async readSegments(serverName: string, from: number, limits: { segmentsMax: number; bytesMax: number }): Promise<Segment[]> {
    const bodies = await this.#call('readSegments', [serverName, from, limits]);
    return bodies.map(({ firstPosition, body }) => decodeSegment(serverName, firstPosition, body));
  }

  readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]> {
    return this.#call('readRoute', [serverName, appserviceId, after, through, limits]);
  }

  measureRoutes(serverName: string, after: ReadonlyMap<string, number>, through: number): Promise<RouteMeasure[]> {
    return this.#call('measureRoutes', [serverName, after, through]);
  }

  trim(serverName: string, request: TrimRequest): Promise<TrimOutcome> {
    return this.#call('trim', [serverName, request]);
  }

  loadFold(serverName: string): Promise<Fold> {
    return this.#call('loadFold', [serverName]);
  }

  loadRooms(serverName: string, roomIds: readonly string[]): Promise<StoredRoom[]> {
    return this.#call('loadRooms', [serverName, roomIds]);
  }

  saveFold(serverName: string, changes: FoldChanges): Promise<void> {
    return this.#call('saveFold', [serverName, changes]);
  }

  listServerNames(): Promise<string[]> {
    return this.#call('listServerNames', []);
  }

  loadStates(serverName: string): Promise<AppserviceState[]> {
    return this.#call('loadStates', [serverName]);
  }

  writeStates(states: readonly AppserviceState[]): Promise<StateWriteOutcome[]> {
    return this.#call('writeStates', [states]);
  }

  heartbeat(replicaId: string, ttlMs: number): Promise<string[]> {
    const nowMs = this.#clock.nowMs();
    return this.#call('heartbeat', [replicaId, nowMs + ttlMs, nowMs]);
  }

  putQuarantined(transaction: QuarantinedTransaction): Promise<void> {
    return this.#call('putQuarantined', [transaction]);
  }

  listQuarantined(serverName: string, appserviceId: string, afterTxnId: string | null, limit: number): Promise<QuarantinedTransaction[]> {
    return this.#call('listQuarantined', [serverName, appserviceId, afterTxnId, limit]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lost ??= new StoreError('unavailable', 'the store is closed');
    this.#worker.postMessage('close');
    await this.#ended;
  }

  #call<Name extends Method>(method: Name, args: Arguments<Name>, transfer: ArrayBuffer[] = []): Promise<Result<Name>> {
    if (this.#lost !== null) return Promise.reject(this.#lost);
    if (this.#waiting.size >= WAITING_MAX) return Promise.reject(new StoreError('exhausted', 'too many calls wait for the database'));
    const id = this.#nextId++;
    const request: Request = { id, method, args };
    return new Promise((resolve, refuse) => {
      this.#waiting.set(id, { settle: (result) => resolve(result as Result<Name>), refuse });
      this.#worker.postMessage(request, transfer);
    });
  }

  #settle(reply: Exclude<Reply, { kind: 'opened' }>): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.kind === 'done') waiting?.settle(reply.result);
    else waiting?.refuse(errorOf(reply));
  }

  #lose(cause: Error): void {
    this.#lost ??= new StoreError('unavailable', 'the database thread has ended; restart the router', { cause });
    for (const waiting of this.#waiting.values()) waiting.refuse(this.#lost);
    this.#waiting.clear();
  }
}

function errorOf({ errorKind, message }: Extract<Reply, { kind: 'failed' }>): Error {
  return errorKind === null ? new Error(message) : new StoreError(errorKind, message);
}
