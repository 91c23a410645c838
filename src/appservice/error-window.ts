/**
 * The error rate of one appservice over a sliding window, in so many buckets of counts whatever the traffic; and when it
 * is an escalation (M12).
 *
 *   calm ──rate over 5 %, of at least 10 operations or with at least 3 failures──▶ raised
 *   raised ──rate at or below 2.5 %, of an operation that succeeded at least──▶ calm
 *
 * One failure of one operation is no escalation: at a rate of 100 % it would raise one for every appservice that is
 * asked seldom and answers late once. The 3 failures let one that is down be raised though backoff leaves it few attempts.
 * An empty window says nothing, so what was raised stays so until something succeeds. Between the two rates nothing
 * changes, so that a rate that hovers is told once.
 */

export const ERROR_RATE_MAX = 0.05;
const CALM_RATE_MAX = 0.025;
const OPERATIONS_MIN = 10;
const FAILURES_MIN = 3;
const BUCKETS = 30;

export class ErrorWindow {
  readonly #bucketMs: number;
  readonly #failed = new Uint32Array(BUCKETS);
  readonly #all = new Uint32Array(BUCKETS);
  #failedCount = 0;
  #count = 0;
  /** Number of the newest bucket. */
  #newest: number | null = null;
  #isRaised = false;

  /** `windowMs`: the newest bucket is in progress, so what is counted is up to a thirtieth shorter. */
  constructor(windowMs: number) {
    this.#bucketMs = windowMs / BUCKETS;
  }

  /** Counts one operation. Times do not go back. True if the rate crosses into an escalation with it. */
  add(failed: boolean, monotonicMs: number): boolean {
    this.#moveTo(monotonicMs);
    const at = (this.#newest ?? 0) % BUCKETS;
    this.#all[at] = (this.#all[at] ?? 0) + 1;
    this.#count += 1;
    if (failed) {
      this.#failed[at] = (this.#failed[at] ?? 0) + 1;
      this.#failedCount += 1;
    }
    const rate = this.#failedCount / this.#count;
    if (this.#isRaised) {
      if (rate <= CALM_RATE_MAX) this.#isRaised = false;
      return false;
    }
    this.#isRaised = rate > ERROR_RATE_MAX && (this.#count >= OPERATIONS_MIN || this.#failedCount >= FAILURES_MIN);
    return this.#isRaised;
  }

  /** Share of the operations in the window that failed, from 0 to 1; 0 of none. */
  rate(monotonicMs: number): number {
    this.#moveTo(monotonicMs);
    return this.#count === 0 ? 0 : this.#failedCount / this.#count;
  }

  get isRaised(): boolean {
    return this.#isRaised;
  }

  #moveTo(monotonicMs: number): void {
    const bucket = Math.floor(monotonicMs / this.#bucketMs);
    const from = this.#newest ?? bucket;
    for (let passed = Math.max(from, bucket - BUCKETS) + 1; passed <= bucket; passed++) {
      const at = passed % BUCKETS;
      this.#count -= this.#all[at] ?? 0;
      this.#failedCount -= this.#failed[at] ?? 0;
      this.#all[at] = 0;
      this.#failed[at] = 0;
    }
    this.#newest = Math.max(from, bucket);
  }
}
