import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nextTxnId } from '../../src/appservice/txn-id.ts';

test('R57 the first id is the wall clock in microseconds', () => {
  assert.equal(nextTxnId('0', 1_700_000_000_123.9), '1700000000123000');
});

test('R57 ids grow whatever the clock does', () => {
  const holds = fc.property(fc.array(fc.integer({ min: 0, max: 4_102_444_800_000 }), { minLength: 2 }), (times) => {
    let last = '0';
    for (const timeMs of times) {
      const next = nextTxnId(last, timeMs);
      assert.match(next, /^[1-9]\d*$/);
      assert.ok(BigInt(next) > BigInt(last));
      last = next;
    }
  });
  fc.assert(holds);
});

test('ids beyond the safe integers still grow by one', () => {
  assert.equal(nextTxnId('99999999999999999999', 0), '100000000000000000000');
});
