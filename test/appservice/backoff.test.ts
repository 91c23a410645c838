import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { backoffMs, remainingMs } from '../../src/appservice/backoff.ts';

const LIMITS = { firstMs: 2_000, maxMs: 512_000 };

test('R66 doubles from the first to the longest wait', () => {
  const nearlyWhole = Array.from({ length: 11 }, (_, at) => backoffMs(at + 1, null, LIMITS, 1 - Number.EPSILON));
  assert.deepEqual(nearlyWhole, [2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512].map((seconds) => seconds * 1000));
});

test('R66 jitter never shortens below half, Retry-After never shortens at all, and nothing exceeds the bound', () => {
  const failures = fc.integer({ min: 1, max: 100_000 });
  const retryAfter = fc.option(fc.integer({ min: 0, max: 10_000_000 }));
  const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const holds = fc.property(failures, retryAfter, chance, (failed, retryAfterMs, drawn) => {
    const waitMs = backoffMs(failed, retryAfterMs, LIMITS, drawn);
    const wholeMs = Math.min(512_000, 2_000 * 2 ** Math.min(failed - 1, 30));
    assert.ok(Number.isSafeInteger(waitMs));
    assert.ok(waitMs >= wholeMs / 2 && waitMs <= 512_000);
    assert.ok(waitMs >= Math.min(retryAfterMs ?? 0, 512_000));
    assert.ok(waitMs <= Math.max(wholeMs, retryAfterMs ?? 0));
  });
  fc.assert(holds);
});

test('a stored time is waited for within the bound, whatever the wall clock was set to', () => {
  assert.equal(remainingMs(5_000, 2_000, LIMITS), 3_000);
  assert.equal(remainingMs(5_000, 9_000, LIMITS), 0);
  assert.equal(remainingMs(10 ** 15, 0, LIMITS), 512_000);
});

test('there is no backoff before the first failure', () => {
  assert.throws(() => backoffMs(0, null, LIMITS, 0));
});
