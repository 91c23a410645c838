/**
 * How the process is asked to end: the first SIGTERM or SIGINT drains, a later one ends at once.
 *
 * A signal to the whole process group, such as Ctrl-C or `docker stop` of a shell, reaches the router twice: directly, and
 * again from the launcher (`npm`, setup/run.mjs) that forwards it. So a repetition within a second is the same request.
 */
import type { Clock } from './clock.ts';

export interface SignalSource {
  on(signal: 'SIGTERM' | 'SIGINT', listener: (signal: string) => void): unknown;
}

export interface EndingSignalOptions {
  readonly source: SignalSource;
  readonly clock: Clock;
  /** Called for every later signal; ends the process without draining. */
  readonly endAtOnce: (signal: string) => void;
}

const SAME_REQUEST_MS = 1000;

/** Resolves with the first signal. */
export function endingSignal({ source, clock, endAtOnce }: EndingSignalOptions): Promise<string> {
  return new Promise((resolve) => {
    let firstMs: number | null = null;
    const take = (signal: string): void => {
      const nowMs = clock.monotonicMs();
      if (firstMs === null) {
        firstMs = nowMs;
        resolve(signal);
      } else if (nowMs - firstMs >= SAME_REQUEST_MS) endAtOnce(signal);
    };
    source.on('SIGTERM', take);
    source.on('SIGINT', take);
  });
}
