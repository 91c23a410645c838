import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DELIVERY_STATES, moveDeliveryState } from '../../src/appservice/delivery-state.ts';

/** The contract, section 2, written out again. */
const LEGAL = new Set(['idle→delivering', 'delivering→idle', 'delivering→retrying', 'retrying→delivering', 'idle→failed', 'delivering→failed', 'retrying→failed']);

test('M1 of all pairs of states the seven legal moves are made, staying is no move, and every other throws', () => {
  let legal = 0;
  for (const from of DELIVERY_STATES) {
    for (const to of DELIVERY_STATES) {
      if (from === to || LEGAL.has(`${from}→${to}`)) {
        assert.equal(moveDeliveryState(from, to), to);
        if (from !== to) legal++;
      } else assert.throws(() => moveDeliveryState(from, to), /illegal delivery state move/, `${from} to ${to}`);
    }
  }
  assert.equal(legal, LEGAL.size);
});
