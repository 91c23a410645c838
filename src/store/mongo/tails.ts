/**
 * What this process knows of the tails of the logs, so that an append costs one insert and nothing else.
 *
 * Uniqueness of the first position decides between writers with the same tail. Two things it does not decide: that the
 * position follows the tail (no hole), and that a position long trimmed is still taken (no writer from the past). Both are
 * settled by having seen, not long ago, the log end just before that position: whatever was appended there since is younger
 * than that, and a trimmed segment's key outlives it as a tombstone by far more (`tombstoneKeptMs` ≫ `tailTrustMs`).
 */
import type { Clock } from '../../clock.ts';

export class Tails {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  readonly #trustMs: number;
  readonly #seen = new Map<string, { readonly position: number; readonly atMs: number }>();

  constructor(clock: Pick<Clock, 'monotonicMs'>, trustMs: number) {
    this.#clock = clock;
    this.#trustMs = trustMs;
  }

  /** Before a read or write that may show the tail: pass the result to {@link saw}. */
  now(): number {
    return this.#clock.monotonicMs();
  }

  /** The log ended at `position`, at some moment after `atMs`. */
  saw(serverName: string, position: number, atMs: number): void {
    this.#seen.set(serverName, { position, atMs });
  }

  /** Nothing stood above `position` at some moment after `atMs`; whether the log ends there or before is not said. */
  sawNothingAfter(serverName: string, position: number, atMs: number): void {
    if (this.#seen.get(serverName)?.position === position) this.saw(serverName, position, atMs);
  }

  isFresh(serverName: string, position: number): boolean {
    const seen = this.#seen.get(serverName);
    return seen !== undefined && seen.position === position && this.now() - seen.atMs < this.#trustMs;
  }
}
