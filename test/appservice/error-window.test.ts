import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ErrorWindow } from '../../src/appservice/error-window.ts';

const WINDOW_MS = 300_000;
const BUCKET_MS = WINDOW_MS / 30;

/** Adds operations, `x` failed and `.` not, a millisecond apart; the numbers of those with which it was raised, from 1. */
function raisedAt(operations: string, window = new ErrorWindow(WINDOW_MS), fromMs = 0): number[] {
  return operations.split('').flatMap((operation, at) => (window.add(operation === 'x', fromMs + at) ? [at + 1] : []));
}

test('M12 one failure of one is no escalation, nor are two; the third is, and it is told once', () => {
  assert.deepEqual(raisedAt('x'), []);
  assert.deepEqual(raisedAt('xx'), []);
  assert.deepEqual(raisedAt('xxxxxx'), [3]);
  assert.deepEqual(raisedAt('.x.x.x..x'), [6]);
});

test('M12 of ten operations and more the rate alone counts: above 5 %, not at it', () => {
  assert.deepEqual(raisedAt('.........x'), [10]);
  assert.deepEqual(raisedAt('x.........'), [10]);
  assert.deepEqual(raisedAt(`${'.'.repeat(19)}x`), []);
  assert.deepEqual(raisedAt(`${'.'.repeat(38)}xx`), []);
  assert.deepEqual(raisedAt(`${'.'.repeat(36)}xx`), [38]);
});

test('M12 it is over at half the rate, and what crosses again is told again', () => {
  const window = new ErrorWindow(WINDOW_MS);
  assert.deepEqual(raisedAt('xxx', window), [3]);
  // 3 of 119 is more than 2.5 %, 3 of 120 is not.
  assert.deepEqual([raisedAt('.'.repeat(116), window), window.isRaised], [[], true]);
  assert.deepEqual([raisedAt('.', window), window.isRaised], [[], false]);
  assert.deepEqual(raisedAt('xxxxxx', window), [4]);
});

test('M12 an appservice that is down stays raised while the window empties, and is not raised again', () => {
  const window = new ErrorWindow(WINDOW_MS);
  assert.deepEqual(raisedAt('xxx', window), [3]);
  for (let turn = 1; turn <= 5; turn++) {
    const nowMs = turn * 512_000;
    assert.deepEqual([window.rate(nowMs), window.isRaised], [0, true]);
    assert.equal(window.add(true, nowMs), false);
  }
  assert.equal(window.add(false, 6 * 512_000), false);
  assert.equal(window.isRaised, false);
});

test('M12 the rate is that of the newest thirty buckets, as counted from all operations', () => {
  const operations = fc.array(fc.record({ waitMs: fc.oneof(fc.nat(2_000), fc.nat(400_000)), failed: fc.boolean() }), { maxLength: 60 });
  fc.assert(
    fc.property(operations, fc.nat(1_000_000), (steps, startMs) => {
      const window = new ErrorWindow(WINDOW_MS);
      const all: { bucket: number; failed: boolean }[] = [];
      let nowMs = startMs;
      for (const { waitMs, failed } of steps) {
        nowMs += waitMs;
        window.add(failed, nowMs);
        const bucket = Math.floor(nowMs / BUCKET_MS);
        all.push({ bucket, failed });
        const inWindow = all.filter((one) => one.bucket > bucket - 30);
        assert.equal(window.rate(nowMs), inWindow.filter((one) => one.failed).length / inWindow.length);
      }
    }),
    { numRuns: 500, seed: 12 },
  );
});
