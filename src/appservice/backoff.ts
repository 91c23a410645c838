/**
 * How long to wait after a failed attempt (R66): twice as long after each, up to a bound, with jitter that never
 * shortens below half, so that appservices which went away together do not come back together.
 */
export interface BackoffLimits {
  readonly firstMs: number;
  readonly maxMs: number;
}

/** 2 ** 40 ms is beyond any bound that makes sense; more would only lose precision. */
const DOUBLINGS_MAX = 40;

/**
 * Milliseconds to wait after the `failedAttempts`th failure in a row (1 or more). `chance` is a number in [0, 1).
 * A `retryAfterMs` of the peer lengthens the wait, within the same bound; it never shortens it.
 */
export function backoffMs(failedAttempts: number, retryAfterMs: number | null, limits: BackoffLimits, chance: number): number {
  if (failedAttempts < 1) throw new Error('there is no backoff before the first failure');
  const wholeMs = Math.min(limits.maxMs, limits.firstMs * 2 ** Math.min(failedAttempts - 1, DOUBLINGS_MAX));
  const jitteredMs = Math.round(wholeMs / 2 + (wholeMs / 2) * chance);
  return Math.min(limits.maxMs, Math.max(jitteredMs, retryAfterMs ?? 0));
}

/** What is left of a wait that ends at `timeMs` of the wall clock, however that clock was set meanwhile: never below 0, never above the bound. */
export function remainingMs(timeMs: number, nowMs: number, limits: BackoffLimits): number {
  return Math.min(limits.maxMs, Math.max(0, timeMs - nowMs));
}
