/**
 * A clock that a test moves. `advance` wakes the sleepers that are due, in order, and lets their continuations run.
 */
import type { Clock, Random } from '../../src/clock.ts';

interface Sleeper {
  readonly dueMs: number;
  wake(): void;
}

export class VirtualClock implements Clock {
  #nowMs: number;
  #sleepers: Sleeper[] = [];

  constructor(startMs = 1_700_000_000_000) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return Promise.resolve();
    return new Promise((resolve) => {
      const sleeper: Sleeper = {
        dueMs: this.#nowMs + Math.max(0, delayMs),
        wake: () => {
          this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
          signal?.removeEventListener('abort', sleeper.wake);
          resolve();
        },
      };
      this.#sleepers.push(sleeper);
      signal?.addEventListener('abort', sleeper.wake, { once: true });
    });
  }

  pause(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  get sleeperCount(): number {
    return this.#sleepers.length;
  }

  /** Moves time on, sleeper by sleeper; after each, everything that can run has run. */
  async advance(byMs: number): Promise<void> {
    const untilMs = this.#nowMs + byMs;
    await settle();
    for (;;) {
      const next = this.#sleepers.reduce<Sleeper | null>((first, sleeper) => (first === null || sleeper.dueMs < first.dueMs ? sleeper : first), null);
      if (next === null || next.dueMs > untilMs) break;
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      next.wake();
      await settle();
    }
    this.#nowMs = untilMs;
  }
}

/** Lets everything run that needs no time to pass. */
export async function settle(turns = 10): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Chance from a seed; the same seed gives the same sequence. */
export function seededRandom(seed: number): Random {
  let state = (seed >>> 0) + 1;
  let names = 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, hex: (count) => `${seed}-${++names}-${Math.floor(next() * 2 ** 32).toString(16)}`.padEnd(count * 2, '0') };
}
