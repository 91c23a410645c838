import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { DeliveryState } from '../../src/appservice/delivery-state.ts';
import type { Cut } from '../../src/appservice/transaction.ts';
import { quarantineCounted, replayedFrom, skipAsked, stopped } from '../../src/delivery/interventions.ts';
import { attemptFailed, completed, cutMade, firstState, hurried, pausedAs, quarantined, reconciled, skipped, splitUp } from '../../src/delivery/transitions.ts';
import type { StateChange } from '../../src/delivery/transitions.ts';
import type { AppserviceState } from '../../src/store/port.ts';

const FAILURE = { kind: 'timeout', httpStatus: null, message: 'No answer.', timeMs: 5 };
const fresh = firstState('hs.example', 'a', 10, 'r1');

function cut(after: number, through: number): Cut {
  return { after, through, ranges: [after + 1, through], bodyKeys: [], entryCount: through - after, ephemeralCount: 0, leftOut: [], settled: { entries: through - after, bytes: 0 }, oldestTimeMs: 1, isFull: false, body: new Uint8Array(0) };
}

function must(change: StateChange, state: AppserviceState): AppserviceState {
  const next = change(state);
  assert.ok(next !== null);
  return next;
}

const cutOnce = must(cutMade(cut(10, 14), 1_000), fresh);
const txnId = cutOnce.lastTxnId;

test('M1 M4 completing and cutting the next is one change', () => {
  const state = must(completed(txnId, cut(14, 16), 2_000), cutOnce);
  assert.deepEqual(
    [state.deliveryState, state.deliveredPosition, state.transaction?.ranges, state.deliveredEntries, state.attempts],
    ['delivering', 14, [15, 16], 4, 1],
  );
});

test('each change takes effect once, however often it is tried', () => {
  const changes: StateChange[] = [
    completed(txnId, cut(14, 16), 2_000),
    completed(txnId, null, 2_000),
    attemptFailed(txnId, 0, FAILURE, 9_000),
    splitUp(txnId, FAILURE, cut(10, 12), 2_000),
    quarantined(txnId, FAILURE, null, 2_000),
    pausedAs(true),
  ];
  for (const change of changes) assert.equal(change(must(change, cutOnce)), null);
  assert.equal(cutMade(cut(10, 14), 1_000)(cutOnce), null);
});

test('R71 a split keeps to the refused entries, halves again, and ends with them', () => {
  const split = must(splitUp(txnId, FAILURE, cut(10, 12), 2_000), cutOnce);
  assert.deepEqual(split.split, { through: 14, entriesMax: 2 });
  const again = must(splitUp(split.lastTxnId, FAILURE, cut(10, 11), 3_000), split);
  assert.deepEqual(again.split, { through: 14, entriesMax: 1 });
  const half = must(completed(again.lastTxnId, cut(11, 14), 4_000), again);
  assert.deepEqual(half.split, { through: 14, entriesMax: 1 });
  assert.equal(must(completed(half.lastTxnId, null, 5_000), half).split, null);
});

test('a cut that does not follow the delivered position, or meets a pause, is not made', () => {
  assert.equal(cutMade(cut(11, 14), 1_000)(fresh), null);
  assert.equal(cutMade(cut(10, 14), 1_000)({ ...fresh, paused: true }), null);
  const paused = must(completed(txnId, cut(14, 16), 2_000), { ...cutOnce, paused: true });
  assert.deepEqual([paused.deliveryState, paused.transaction], ['idle', null]);
});

test('M1 in failed nothing moves the state', () => {
  const failed: AppserviceState = { ...cutOnce, deliveryState: 'failed' };
  for (const change of [completed(txnId, cut(14, 16), 1), attemptFailed(txnId, 0, FAILURE, 1), splitUp(txnId, FAILURE, cut(10, 12), 1)]) {
    assert.equal(must(change, failed).deliveryState, 'failed');
  }
});

test('R76 reconciling follows the registration and is then at rest', () => {
  const registration = null;
  const inForce = fc.record({ position: fc.integer({ min: 10, max: 40 }), since: fc.integer({ min: 5, max: 30 }), backlog: fc.constantFrom('park' as const, 'discard' as const) });
  const holds = fc.property(inForce, fc.boolean(), ({ position, since, backlog }, parked) => {
    const change = reconciled({ appserviceId: 'a', position: Math.max(position, since), since, registration, backlog });
    const state = { ...cutOnce, parked };
    const next = change(state);
    if (next === null) return assert.ok(since < state.sincePosition || (backlog === 'park' && parked && since === state.sincePosition));
    assert.ok(next.deliveredPosition >= state.deliveredPosition);
    assert.equal(next.transaction === null, backlog === 'discard' || since > state.sincePosition);
    assert.equal(change(next), null);
  });
  fc.assert(holds);
});

test('hurrying brings the next attempt to now and never later', () => {
  const waiting = must(attemptFailed(txnId, 0, FAILURE, 9_000), cutOnce);
  assert.equal(must(hurried(5_000), waiting).transaction?.nextAttemptTimeMs, 5_000);
  assert.equal(hurried(9_000)(waiting), null);
});

/** States that a stored state may go to in one change, which may make several moves: through `delivering`. */
const REACHABLE: Readonly<Record<DeliveryState, readonly DeliveryState[]>> = {
  idle: ['idle', 'delivering', 'failed'],
  delivering: ['delivering', 'idle', 'retrying', 'failed'],
  retrying: ['retrying', 'delivering', 'idle', 'failed'],
  failed: ['failed'],
};

test('M1 M2 no change of any state makes an illegal move, and `failed` is reached by the word to stop alone', () => {
  const marked = must(skipAsked(txnId, 'poison', 7), cutOnce);
  const waiting = must(attemptFailed(txnId, 0, FAILURE, 9_000), cutOnce);
  const stopping = must(stopped(), cutOnce);
  const replayable: AppserviceState = { ...waiting, deliveredPosition: 12 };
  const states = [fresh, cutOnce, waiting, marked, stopping, replayable, { ...fresh, paused: true }, { ...waiting, parked: true }, { ...cutOnce, deliveryState: 'failed' as const }];
  const changes: Readonly<Record<string, StateChange>> = {
    cut: cutMade(cut(10, 14), 1_000),
    completed: completed(txnId, cut(14, 16), 2_000),
    last: completed(txnId, null, 2_000),
    failed: attemptFailed(txnId, 0, FAILURE, 9_000),
    split: splitUp(txnId, FAILURE, cut(10, 12), 2_000),
    quarantined: quarantined(txnId, FAILURE, null, 2_000),
    skipAsked: skipAsked(txnId, 'poison', 7),
    skipped: skipped(txnId, cut(14, 16), 2_000),
    paused: pausedAs(true),
    hurried: hurried(5_000),
    replayed: replayedFrom(11),
    counted: quarantineCounted(1, 5),
    stopped: stopped(),
  };
  for (const state of states) {
    for (const [name, change] of Object.entries(changes)) {
      const next = change(state);
      if (next === null) continue;
      assert.ok(REACHABLE[state.deliveryState].includes(next.deliveryState), `${name}: ${state.deliveryState} to ${next.deliveryState}`);
      assert.equal(next.deliveryState === 'failed', state.deliveryState === 'failed' || name === 'stopped', name);
      if (next.deliveryState !== 'failed') assert.equal(next.transaction === null, next.deliveryState === 'idle', `${name} of ${state.deliveryState}`);
      assert.equal(change(next), null, `${name} takes effect once`);
    }
  }
});

test('a mark to skip and an acknowledgement decide by who is first', () => {
  const marked = must(skipAsked(txnId, 'poison', 7), cutOnce);
  for (const late of [completed(txnId, null, 9), attemptFailed(txnId, 0, FAILURE, 9), splitUp(txnId, FAILURE, null, 9), quarantined(txnId, FAILURE, null, 9)]) assert.equal(late(marked), null);
  const acknowledged = must(completed(txnId, null, 9), cutOnce);
  assert.equal(skipAsked(txnId, 'poison', 10)(acknowledged), null);
  assert.equal(skipped(txnId, null, 10)(cutOnce), null, 'what nobody skips is not taken out');
  const gone = must(skipped(txnId, cut(14, 16), 10), marked);
  assert.deepEqual([gone.deliveredPosition, gone.quarantinedEntries, gone.transaction?.ranges, gone.deliveredEntries], [14, 4, [15, 16], 0]);
});

test('I11 a replay moves the position back to just before what it names, within this life of the id, and never on', () => {
  const done: AppserviceState = { ...must(completed(txnId, null, 9), cutOnce), split: { through: 20, entriesMax: 1 } };
  assert.equal(replayedFrom(15)(done), null);
  assert.equal(replayedFrom(10)(done), null, 'what lies before this life is not its own');
  const replayed = must(replayedFrom(11), done);
  assert.deepEqual([replayed.deliveredPosition, replayed.replayCount, replayed.split, replayed.lastTxnId], [10, 1, null, done.lastTxnId]);
  assert.ok(BigInt(must(cutMade(cut(10, 14), 0), replayed).lastTxnId) > BigInt(txnId), 'under a new txn id');
});
