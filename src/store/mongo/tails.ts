/**
 * What this process knows of the tails of the logs, so that an append costs one insert and nothing else.
 *
 * Uniqueness of the first position decides between writers with the same tail. Two things it does not decide: that the
 * position follows the tail (no hole), and that a position long trimmed is still taken (no writer from the past). Both are
 * settled by having seen, not long ago, the log end just before that position: whatever was appended there since is younger
 * than that, and a trimmed segment's key outlives it as a tombstone by far more (`tombstoneKeptMs` ≫ `tailTrustMs`).
 */
import type { Clock } from '../../clock.ts';

/** By both clocks: the monotonic one may stand still while the machine is suspended, the wall clock may be set back. */
export interface Moment {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export class Tails {
  readonly #clock: Pick<Clock, 'monotonicMs' | 'nowMs'>;
  readonly #trustMs: number;
  readonly #seen = new Map<string, { readonly position: number; readonly since: Moment }>();

  constructor(clock: Pick<Clock, 'monotonicMs' | 'nowMs'>, trustMs: number) {
    this.#clock = clock;
    this.#trustMs = trustMs;
  }

  /** Before a read or write that may show the tail: pass the result to {@link saw}. */
  now(): Moment {
    return { monotonicMs: this.#clock.monotonicMs(), wallMs: this.#clock.nowMs() };
  }

  /** The log ended at `position`, at some moment after `since`. */
  saw(serverName: string, position: number, since: Moment): void {
    this.#seen.set(serverName, { position, since });
  }

  /** Nothing stood above `position` at some moment after `since`; whether the log ends there or before is not said. */
  sawNothingAfter(serverName: string, position: number, since: Moment): void {
    if (this.#seen.get(serverName)?.position === position) this.saw(serverName, position, since);
  }

  isFresh(serverName: string, position: number): boolean {
    const seen = this.#seen.get(serverName);
    if (seen === undefined || seen.position !== position) return false;
    const now = this.now();
    return now.monotonicMs - seen.since.monotonicMs < this.#trustMs && now.wallMs - seen.since.wallMs < this.#trustMs;
  }
}
