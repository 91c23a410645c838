/**
 * One incarnation of a router process as the world sees it: its clocks, and whether anything reaches it.
 *
 *   running ──stop──▶ stopped ──go on──▶ running      what arrives meanwhile waits; what it sent before takes its course
 *      └───────────────┴──kill──▶ dead                nothing arrives any more and nothing leaves
 *
 * Everything that code under test waits for comes through {@link arrives}: sleeps, answers of the store and of appservices,
 * calls of homeservers and operators. So a kill between two happenings is a kill at some await.
 */
import type { Clock } from '../../src/clock.ts';
import type { Happening, Kernel } from './kernel.ts';

export interface ProcessClockOptions {
  readonly startMs: number;
  /** Of the wall clock. */
  readonly skewMs: number;
  /** Of both clocks: 1 is right. */
  readonly rate: number;
}

export class RouterProcess {
  readonly name: string;
  readonly clock: Clock;
  readonly kernel: Kernel;
  isDead = false;
  isStopped = false;
  readonly #waiting: (() => void)[] = [];

  constructor(name: string, kernel: Kernel, options: ProcessClockOptions) {
    this.name = name;
    this.kernel = kernel;
    this.clock = new ProcessClock(this, options);
  }

  /** Lets `run` happen in this process, once it is able to. */
  arrives(run: () => void): void {
    if (this.isDead) return;
    if (this.isStopped) this.#waiting.push(run);
    else run();
  }

  after(delayMs: number, run: () => void): Happening {
    return this.kernel.after(delayMs, () => this.arrives(run));
  }

  kill(): void {
    this.isDead = true;
    this.#waiting.length = 0;
  }

  stop(): void {
    this.isStopped = true;
  }

  goOn(): void {
    this.isStopped = false;
    for (const run of this.#waiting.splice(0)) this.after(0, run);
  }
}

class ProcessClock implements Clock {
  readonly #process: RouterProcess;
  readonly #options: ProcessClockOptions;

  constructor(process: RouterProcess, options: ProcessClockOptions) {
    this.#process = process;
    this.#options = options;
  }

  nowMs(): number {
    const { startMs, skewMs, rate } = this.#options;
    return Math.floor(startMs + skewMs + this.#process.kernel.nowMs * rate);
  }

  monotonicMs(): number {
    return this.#process.kernel.nowMs * this.#options.rate;
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        happening.isDue = false;
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const happening = this.#process.after(delayMs / this.#options.rate, done);
      signal?.addEventListener('abort', done, { once: true });
    });
  }

  pause(): Promise<void> {
    return new Promise((resolve) => this.#process.after(0, resolve));
  }
}
