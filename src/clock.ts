/**
 * Time and chance, injected. This file is the only one that touches the date, the timers and the random source.
 * Everything else takes a {@link Clock} and a {@link Random}, so that a test or a simulation can own them.
 */
import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';

/** A source of time. Wall time may jump; monotonic time never goes back and counts while the process is stopped. */
export interface Clock {
  /** Wall clock in milliseconds since the epoch. */
  nowMs(): number;
  /** Monotonic milliseconds from an arbitrary origin, for durations. */
  monotonicMs(): number;
  /**
   * Resolves after `delayMs`, or as soon as `signal` aborts; never rejects. The caller looks at its signal.
   * A pending sleep does not keep the process alive.
   */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
  /** Lets pending input and output run once before going on; for long computations. */
  pause(): Promise<void>;
}

/** A source of chance. */
export interface Random {
  /** A number in [0, 1). */
  next(): number;
  /** `count` unpredictable bytes in lower-case hex. */
  hex(count: number): string;
}

/** `setTimeout` takes at most this many milliseconds; longer sleeps wake early and the caller's loop sleeps again. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (delayMs, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, Math.min(Math.max(delayMs, 0), TIMER_MS_MAX));
      timer.unref();
      signal?.addEventListener('abort', done, { once: true });
    }),
  pause: () => new Promise((resolve) => setImmediate(resolve)),
};

/** The process goes on while this is held; a sleep alone does not keep it. */
export function holdProcess(): Disposable {
  const timer = setInterval(() => undefined, TIMER_MS_MAX);
  return {
    [Symbol.dispose]() {
      clearInterval(timer);
    },
  };
}

/** The share of the time since the last call in which the event loop had work, from 0 to 1. One asker only. */
export function eventLoopLoad(): () => number {
  let before = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, before);
    before = now;
    return utilization;
  };
}

export const systemRandom: Random = {
  next: () => Math.random(),
  hex: (count) => randomBytes(count).toString('hex'),
};
