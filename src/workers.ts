/**
 * Several processes for one router: a supervisor that serves nothing itself, and workers that share its listening ports.
 * Each worker is a replica of its own on the one MongoDB; connections are dealt out to them in turn.
 *
 *   starting ──all are ready──▶ serving ──SIGTERM──▶ ending ──all have drained──▶ ended
 *      └── one ends before it was ever ready: all are ended, and the start has failed
 *
 * A worker that ends while the others serve is started again, after a pause that doubles while it keeps ending. The
 * workers end with the supervisor, however that ends: their channel to it breaks.
 */
import cluster from 'node:cluster';
import type { Worker } from 'node:cluster';
import { holdProcess } from './clock.ts';
import type { Clock } from './clock.ts';
import type { Logger } from './logger.ts';

export interface WorkersOptions {
  readonly count: number;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Resolves when everything is to end. */
  readonly ending: Promise<string>;
}

/** What a worker tells when it serves. */
export interface WorkerReady {
  readonly grpcAddress: string;
  readonly httpAddress: string;
}

const EXIT_FAILED = 1;
const PAUSE_FIRST_MS = 500;
const PAUSE_MAX_MS = 30_000;
/** A worker that lasted this long begins with the first pause again. */
const STEADY_MS = 60_000;

/** True in a process that a supervisor has started. */
export function isWorker(): boolean {
  return cluster.isWorker;
}

/** Tells the supervisor, if there is one. */
export function tellReady(ready: WorkerReady): void {
  cluster.worker?.send({ ...ready });
}

/** Lets go of the supervisor: as long as a worker has a channel to it, it does not end by itself. */
export function leaveSupervisor(): void {
  cluster.worker?.disconnect();
}

/** Runs the workers until `ending`; resolves with the exit code. `ready` is called once, when all of them serve. */
export async function superviseWorkers(options: WorkersOptions, ready: (first: WorkerReady) => void): Promise<number> {
  using _held = holdProcess();
  const workers = new Workers(options);
  const first = await workers.start();
  if (first === null) return EXIT_FAILED;
  ready(first);
  const signal = await options.ending;
  options.logger.info({ signal }, 'draining');
  return await workers.end();
}

class Workers {
  readonly #options: WorkersOptions;
  readonly #running = new Set<Worker>();
  readonly #stop = new AbortController();
  #kept: Promise<void>[] = [];
  #exitCode = 0;

  constructor(options: WorkersOptions) {
    this.#options = options;
  }

  /** Where they listen once all are ready; null if one cannot start, when all have ended. */
  async start(): Promise<WorkerReady | null> {
    const starts: Promise<WorkerReady | null>[] = [];
    for (let number = 1; number <= this.#options.count; number++) {
      const { promise, resolve } = Promise.withResolvers<WorkerReady | null>();
      starts.push(promise);
      this.#kept.push(this.#keep(number, resolve));
      // The first makes the indexes of an empty database and takes the ports; the others find both.
      if ((await Promise.race([promise, this.#options.ending.then(() => null)])) === null) break;
    }
    const ready = await Promise.all(starts.map((start) => Promise.race([start, this.#options.ending.then(() => null)])));
    const [first = null] = ready;
    if (!ready.includes(null) && ready.length === this.#options.count) return first;
    await this.end();
    return null;
  }

  /** Asks all to drain; the exit code once they have. */
  async end(): Promise<number> {
    this.#stop.abort();
    for (const worker of this.#running) worker.process.kill('SIGTERM');
    await Promise.all(this.#kept);
    return this.#exitCode;
  }

  /** One worker after the other in one place, until the end. */
  async #keep(number: number, started: (ready: WorkerReady | null) => void): Promise<void> {
    const { clock, logger } = this.#options;
    const { signal } = this.#stop;
    let pauseMs = PAUSE_FIRST_MS;
    let wasReady = false;
    while (!signal.aborted) {
      const beganMs = clock.monotonicMs();
      const { ready, exited } = this.#fork();
      const isReady = await Promise.race([ready, exited.then(() => null)]);
      started(isReady);
      wasReady ||= isReady !== null;
      const code = await exited;
      if (this.#stop.signal.aborted) this.#exitCode = Math.max(this.#exitCode, code);
      if (this.#stop.signal.aborted || !wasReady) return;
      if (clock.monotonicMs() - beganMs >= STEADY_MS) pauseMs = PAUSE_FIRST_MS;
      logger.warn({ worker: number, exit_code: code, restart_ms: pauseMs }, 'a worker ended; it is started again');
      await clock.sleep(pauseMs, signal);
      pauseMs = Math.min(2 * pauseMs, PAUSE_MAX_MS);
    }
  }

  #fork(): { ready: Promise<WorkerReady>; exited: Promise<number> } {
    const ready = Promise.withResolvers<WorkerReady>();
    const exited = Promise.withResolvers<number>();
    const worker = cluster.fork();
    this.#running.add(worker);
    worker.on('message', (message: unknown) => {
      if (isReadyMessage(message)) ready.resolve(message);
    });
    worker.on('error', () => undefined);
    worker.on('exit', (code: number | null) => {
      this.#running.delete(worker);
      exited.resolve(code ?? EXIT_FAILED);
    });
    return { ready: ready.promise, exited: exited.promise };
  }
}

function isReadyMessage(message: unknown): message is WorkerReady {
  return typeof message === 'object' && message !== null && typeof Reflect.get(message, 'grpcAddress') === 'string' && typeof Reflect.get(message, 'httpAddress') === 'string';
}
