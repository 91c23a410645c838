/**
 * The thread that owns the SQLite file.
 *
 *   ┌─▶ take all that waits ──▶ writes: one transaction, one fsync, answers ──▶ a few reads, answers ─┐
 *   └──────────────────────────────── until nothing waits ◀──────────────────────────────────────────┘
 *
 * No answer tells of a write that is not durable, and a read sees committed data only. Reads stand back behind writes, but
 * some are served in every turn. If a transaction fails, it is rolled back whole and each of its writes is tried alone:
 * one that cannot be done (no room for its bytes) fails without the others.
 */
import { DatabaseSync } from 'node:sqlite';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { DocumentTables } from './document-tables.ts';
import type { Message, Reply, Request, WorkerSettings } from './protocol.ts';
import { OPENING, WRITE_METHODS } from './protocol.ts';
import { migrate } from './schema.ts';
import { RecordTables } from './record-tables.ts';
import { SegmentTables } from './segment-tables.ts';
import { storeErrorFrom } from './sqlite-error.ts';
import { Statements } from './statements.ts';

/** Writes taken into one transaction. */
const GROUP_MAX = 512;
/** Reads served before writes are looked for again. */
const READS_A_TURN = 8;

const PAGE_BYTES = 4_096;
/** The write-ahead log is copied into the file whenever it has this many pages (8 MiB), and cut back to the limit below if it was longer. */
const CHECKPOINT_PAGES = 2_048;
const WAL_BYTES_MAX = 32 * 1024 * 1024;
const CACHE_KIB = 32 * 1024;

function open({ path, pagesMax }: WorkerSettings): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 0 });
  try {
    // The lock is the operating system's: another process is refused for as long as this one lives, and no longer.
    database.exec(`
      PRAGMA page_size = ${PAGE_BYTES};
      PRAGMA locking_mode = EXCLUSIVE;
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = FULL;
      PRAGMA fullfsync = 1;
      PRAGMA checkpoint_fullfsync = 1;
      PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES};
      PRAGMA journal_size_limit = ${WAL_BYTES_MAX};
      PRAGMA cache_size = -${CACHE_KIB};
      PRAGMA temp_store = MEMORY;
      BEGIN IMMEDIATE; COMMIT;
    `);
    migrate(database);
    if (pagesMax > 0) database.exec(`PRAGMA max_page_count = ${pagesMax}`);
  } catch (error) {
    database.close();
    throw error;
  }
  return database;
}

function failure(id: number, error: unknown): Reply {
  const known = storeErrorFrom(error);
  if (known !== undefined) return { kind: 'failed', id, errorKind: known.kind, message: known.message };
  return { kind: 'failed', id, errorKind: null, message: error instanceof Error ? error.message : String(error) };
}

class Loop {
  readonly #database: DatabaseSync;
  readonly #port: MessagePort;
  readonly #statements: Statements;
  readonly #segments: SegmentTables;
  readonly #documents: DocumentTables;
  readonly #records: RecordTables;
  readonly #writes: Request[] = [];
  readonly #reads: Request[] = [];
  #isClosing = false;

  constructor(database: DatabaseSync, port: MessagePort) {
    this.#database = database;
    this.#port = port;
    this.#statements = new Statements(database);
    this.#segments = new SegmentTables(this.#statements);
    this.#documents = new DocumentTables(this.#statements);
    this.#records = new RecordTables(this.#statements);
  }

  /** Works until nothing waits. */
  run(first: Message): void {
    this.#take(first);
    for (;;) {
      while (this.#writes.length < GROUP_MAX) {
        const next: { message: Message } | undefined = receiveMessageOnPort(this.#port);
        if (next === undefined) break;
        this.#take(next.message);
      }
      if (this.#writes.length > 0) this.#port.postMessage(this.#write(this.#writes.splice(0, GROUP_MAX)));
      else if (this.#reads.length === 0) break;
      if (this.#reads.length > 0) this.#answer(this.#reads.splice(0, READS_A_TURN));
    }
    if (!this.#isClosing) return;
    this.#database.close();
    this.#port.close();
  }

  #take(message: Message): void {
    if (message === 'close') this.#isClosing = true;
    else (WRITE_METHODS.has(message.method) ? this.#writes : this.#reads).push(message);
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
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      const replies = writes.map((write): Reply => ({ kind: 'done', id: write.id, result: this.#perform(write) }));
      this.#database.exec('COMMIT');
      return replies;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      this.#statements.forgetNumbers();
      this.#segments.forget();
      throw error;
    }
  }

  #answer(reads: readonly Request[]): void {
    const replies = reads.map((read): Reply => {
      try {
        return { kind: 'done', id: read.id, result: this.#perform(read) };
      } catch (error) {
        return failure(read.id, error);
      }
    });
    this.#port.postMessage(replies, buffersOf(replies));
  }

  #perform({ method, args }: Request): unknown {
    const tables = [this.#segments, this.#documents, this.#records].find((candidate) => method in candidate);
    if (tables === undefined) throw new Error(`the worker has no operation ${method}`);
    const operation: unknown = Reflect.get(tables, method);
    if (typeof operation !== 'function') throw new Error(`the worker has no operation ${method}`);
    return Reflect.apply(operation, tables, args);
  }
}

/** The buffers that hold the bytes of lists of segments, entries and transactions: they are handed over, not copied. */
function buffersOf(replies: readonly Reply[]): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>();
  for (const reply of replies) {
    if (reply.kind !== 'done' || !Array.isArray(reply.result)) continue;
    for (const item of reply.result as readonly unknown[]) {
      if (typeof item !== 'object' || item === null) break;
      const bytes: unknown = Reflect.get(item, 'body') ?? Reflect.get(item, 'json');
      if (bytes instanceof Uint8Array && bytes.buffer instanceof ArrayBuffer) buffers.add(bytes.buffer);
    }
  }
  return [...buffers];
}

if (parentPort !== null) {
  const port = parentPort;
  try {
    const loop = new Loop(open(workerData as WorkerSettings), port);
    port.on('message', (message: Message) => {
      loop.run(message);
    });
    port.postMessage([{ kind: 'opened' } satisfies Reply]);
  } catch (error) {
    port.postMessage([failure(OPENING, error)]);
    port.close();
  }
}
