/**
 * When the transaction in flight may be tried again, by the monotonic clock. Worked out once for each stored time, so
 * that a wall clock which is set meanwhile neither hurries nor delays it; never further off than the longest backoff.
 */
import { remainingMs } from '../appservice/backoff.ts';
import type { BackoffLimits } from '../appservice/backoff.ts';
import type { Clock } from '../clock.ts';
import type { TransactionRecord } from '../store/port.ts';

export class DueTime {
  readonly #clock: Pick<Clock, 'nowMs' | 'monotonicMs'>;
  readonly #limits: BackoffLimits;
  #txnId = '';
  #storedMs = 0;
  #dueMonotonicMs = 0;

  constructor(clock: Pick<Clock, 'nowMs' | 'monotonicMs'>, limits: BackoffLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Milliseconds until the next attempt; 0 or less when it is due. */
  inMs({ txnId, nextAttemptTimeMs }: TransactionRecord): number {
    const monotonicMs = this.#clock.monotonicMs();
    if (txnId !== this.#txnId || nextAttemptTimeMs !== this.#storedMs) {
      this.#set(txnId, nextAttemptTimeMs, monotonicMs + remainingMs(nextAttemptTimeMs, this.#clock.nowMs(), this.#limits));
    }
    return this.#dueMonotonicMs - monotonicMs;
  }

  /** The wait that is stored for this transaction is over. */
  hurry({ txnId, nextAttemptTimeMs }: TransactionRecord): void {
    this.#set(txnId, nextAttemptTimeMs, this.#clock.monotonicMs());
  }

  #set(txnId: string, storedMs: number, dueMonotonicMs: number): void {
    this.#txnId = txnId;
    this.#storedMs = storedMs;
    this.#dueMonotonicMs = dueMonotonicMs;
  }
}
