/**
 * Work that must reach the store before anything else happens: tried again until it does.
 */
import type { BackoffLimits } from '../appservice/backoff.ts';
import type { Clock, Random } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { StoreError } from '../store/errors.ts';

export interface StoreRetryOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly serverName: string;
  readonly limits: BackoffLimits;
}

/** Resolves with what `work` came to; null once `signal` aborts. Every StoreError is waited out, everything else passed on. */
export async function untilStored<Result>(work: () => Promise<Result>, appserviceId: string, options: StoreRetryOptions, signal: AbortSignal): Promise<Result | null> {
  const { clock, random, logger, serverName, limits } = options;
  for (let tries = 0; !signal.aborted; tries++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      if (tries === 0) logger.warn({ server_name: serverName, appservice_id: appserviceId, kind: error.kind, error: error.message }, 'delivery waits for the store');
      await clock.sleep(storeRetryMs(tries, limits) * (0.5 + random.next() / 2), signal);
    }
  }
  return null;
}

/** Longest wait before try `tries` + 1. */
export function storeRetryMs(tries: number, limits: BackoffLimits): number {
  return Math.min(limits.maxMs, limits.firstMs * 2 ** Math.min(tries, 20));
}
