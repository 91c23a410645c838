/**
 * The thread that owns the SQLite file. Everything that waits is taken at once: the writes run in one transaction with
 * one fsync, then the reads, then all answers leave together. So no answer tells of a write that is not durable, and a
 * read sees committed data only.
 *
 * If the transaction fails, it is rolled back and each of its writes is tried alone: one operation that cannot be done
 * (no room for its bytes) fails without the others.
 */
import { DatabaseSync } from 'node:sqlite';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { StoreError } from '../errors.ts';
import type { StoreErrorKind } from '../errors.ts';
import { SqliteDatabase } from './database.ts';
import type { Reply, Request, WorkerSettings } from './protocol.ts';
import { WRITE_METHODS } from './protocol.ts';
import { migrate } from './schema.ts';

/** Requests taken into one transaction. */
const TAKEN_MAX = 512;
const PAGE_BYTES = 8192;

const SQLITE_BUSY = 5;
const SQLITE_IOERR = 10;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_CANTOPEN = 14;
const SQLITE_NOTADB = 26;
const KIND_BY_CODE: ReadonlyMap<number, StoreErrorKind> = new Map([
  [SQLITE_BUSY, 'unsuitable'],
  [SQLITE_IOERR, 'unavailable'],
  [SQLITE_CORRUPT, 'unreadable'],
  [SQLITE_FULL, 'exhausted'],
  [SQLITE_CANTOPEN, 'unsuitable'],
  [SQLITE_NOTADB, 'unreadable'],
]);

function open({ path, pagesMax }: WorkerSettings): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 0 });
  // Another process is refused for as long as this one lives; the lock goes with the process, whatever ends it.
  database.exec(`
    PRAGMA page_size = ${PAGE_BYTES};
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 2000;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA cache_size = -65536;
    PRAGMA temp_store = MEMORY;
    BEGIN IMMEDIATE; COMMIT;
  `);
  if (pagesMax > 0) database.exec(`PRAGMA max_page_count = ${pagesMax}`);
  migrate(database);
  return database;
}

function failure(id: number, error: unknown): Reply {
  if (error instanceof StoreError) return { kind: 'failed', id, errorKind: error.kind, message: error.message };
  const code = error instanceof Error ? Number(Reflect.get(error, 'errcode') ?? 0) : 0;
  const message = error instanceof Error ? error.message : String(error);
  return { kind: 'failed', id, errorKind: code === 0 ? null : (KIND_BY_CODE.get(code & 0xff) ?? 'unavailable'), message };
}

class Loop {
  readonly #raw: DatabaseSync;
  readonly #database: SqliteDatabase;
  readonly #port: MessagePort;

  constructor(raw: DatabaseSync, port: MessagePort) {
    this.#raw = raw;
    this.#database = new SqliteDatabase(raw);
    this.#port = port;
    // One process only: whoever was alive before is not any more.
    this.#database.clearReplicas();
  }

  take(first: Request): void {
    const writes: Request[] = [];
    const reads: Request[] = [];
    let request: Request | undefined = first;
    for (let taken = 0; request !== undefined; taken++) {
      (WRITE_METHODS.has(request.method) ? writes : reads).push(request);
      request = taken < TAKEN_MAX ? (receiveMessageOnPort(this.#port)?.message as Request | undefined) : undefined;
    }
    const replies: Reply[] = writes.length === 0 ? [] : this.#write(writes);
    for (const read of reads) replies.push(this.#answer(read));
    this.#port.postMessage(replies);
  }

  #write(writes: readonly Request[]): Reply[] {
    try {
      return this.#transact(writes);
    } catch (error) {
      const [only] = writes;
      if (writes.length === 1 && only !== undefined) return [failure(only.id, error)];
      return writes.flatMap((write) => this.#write([write]));
    }
  }

  #transact(writes: readonly Request[]): Reply[] {
    this.#raw.exec('BEGIN IMMEDIATE');
    try {
      const replies = writes.map((write): Reply => ({ kind: 'done', id: write.id, result: this.#perform(write) }));
      this.#raw.exec('COMMIT');
      return replies;
    } catch (error) {
      if (this.#raw.isTransaction) this.#raw.exec('ROLLBACK');
      this.#database.forgetServers();
      throw error;
    }
  }

  #answer(read: Request): Reply {
    try {
      return { kind: 'done', id: read.id, result: this.#perform(read) };
    } catch (error) {
      return failure(read.id, error);
    }
  }

  #perform({ method, args }: Request): unknown {
    return Reflect.apply(this.#database[method] as (...values: unknown[]) => unknown, this.#database, args);
  }
}

const OPENING = 0;

if (parentPort !== null) {
  const port = parentPort;
  try {
    const database = open(workerData as WorkerSettings);
    const loop = new Loop(database, port);
    port.on('message', (message: Request | 'close') => {
      if (message !== 'close') return loop.take(message);
      database.close();
      port.close();
    });
    port.postMessage([{ kind: 'opened' }]);
  } catch (error) {
    port.postMessage([failure(OPENING, error)]);
    port.close();
  }
}
