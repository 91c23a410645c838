/**
 * Every change of an appservice's delivery state, as pure functions. A change that finds the state moved on returns
 * null: it was made already, or something overtook it. So a change may be tried again on a state that was read back
 * after an answer was lost, and takes effect once.
 *
 * What holds in every stored state:
 *   idle         no transaction
 *   delivering   a transaction, whose newest attempt has not failed
 *   retrying     a transaction, whose newest attempt failed
 *   failed       terminal for this life of the id; nothing is sent. The next life begins in idle
 * A transaction that is marked to be skipped is not sent and changes by `skipped` alone. What operators change:
 * interventions.ts.
 */
import { moveDeliveryState } from '../appservice/delivery-state.ts';
import type { Cut } from '../appservice/transaction.ts';
import { nextTxnId } from '../appservice/txn-id.ts';
import type { AppserviceState, AttemptFailure, TransactionRecord } from '../store/port.ts';
import type { RegistrationInForce } from './ports.ts';

/** Null: there is nothing to change any more. `revision` is the writer's to move. */
export type StateChange = (state: AppserviceState) => AppserviceState | null;

/** The first state of an appservice, held by `holder`. Nothing routed at or below `since` is its own. */
export function firstState(serverName: string, appserviceId: string, since: number, holder: string): AppserviceState {
  return {
    serverName,
    appserviceId,
    revision: 1,
    leaseHolder: holder,
    leaseEpoch: 1,
    deliveryState: 'idle',
    paused: false,
    parked: false,
    sincePosition: since,
    deliveredPosition: since,
    lastTxnId: '0',
    transaction: null,
    split: null,
    lastFailure: null,
    deliveredEntries: 0,
    deliveredTransactions: 0,
    attempts: 0,
    failedAttempts: 0,
    quarantinedEntries: 0,
  };
}

export function taken(state: AppserviceState, holder: string): AppserviceState {
  return { ...state, revision: state.revision + 1, leaseHolder: holder, leaseEpoch: state.leaseEpoch + 1 };
}

/** Given back to whoever should have it, or handed to `successor` in a new epoch, which that takes in one of its own. */
export function released(holder: string, successor: string | undefined): StateChange {
  return (state) => {
    if (state.leaseHolder !== holder) return null;
    return successor === undefined ? { ...state, leaseHolder: null } : { ...state, leaseHolder: successor, leaseEpoch: state.leaseEpoch + 1 };
  };
}

/** A transaction is cut where there is none; what is left out whole is passed without one (R74). */
export function cutMade(cut: Cut, nowMs: number): StateChange {
  return (state) => {
    if (state.transaction !== null || !isNext(state, cut)) return null;
    return isPassedOver(cut) ? passed(state, cut.through) : withCut(state, cut, nowMs);
  };
}

/** The transaction is acknowledged; the next is cut in the same step if there is one. */
export function completed(txnId: string, next: Cut | null, nowMs: number): StateChange {
  return onTransaction(txnId, (state, transaction) => {
    const done = {
      ...passed(state, transaction.through),
      lastFailure: null,
      attempts: state.attempts + 1,
      deliveredEntries: state.deliveredEntries + transaction.entryCount,
      deliveredTransactions: state.deliveredTransactions + 1,
    };
    return goneOn(done, next, nowMs);
  });
}

/** The attempt after `attemptsBefore` failed ones failed too. */
export function attemptFailed(txnId: string, attemptsBefore: number, failure: AttemptFailure, nextAttemptTimeMs: number): StateChange {
  return onTransaction(txnId, (state, transaction) => {
    if (transaction.attemptCount !== attemptsBefore) return null;
    const { deliveryState } = state;
    return {
      ...withFailure(state, failure),
      deliveryState: deliveryState === 'failed' ? 'failed' : moveDeliveryState(moveDeliveryState(deliveryState, 'delivering'), 'retrying'),
      transaction: { ...transaction, attemptCount: attemptsBefore + 1, nextAttemptTimeMs },
    };
  });
}

/** The transaction is too large: its id is given up for ever and the same entries are cut smaller (R71). */
export function splitUp(txnId: string, failure: AttemptFailure, next: Cut | null, nowMs: number): StateChange {
  return onTransaction(txnId, (state, transaction) => {
    const done = { ...withFailure(state, failure), transaction: null, split: splitOf(state, transaction) };
    return goneOn(done, next, nowMs);
  });
}

/** The single entry of the transaction is too large; it is in the quarantine by now (R71). */
export function quarantined(txnId: string, failure: AttemptFailure, next: Cut | null, nowMs: number): StateChange {
  return onTransaction(txnId, (state, transaction) => {
    const done = { ...passed(withFailure(state, failure), transaction.through), quarantinedEntries: state.quarantinedEntries + transaction.entryCount };
    return goneOn(done, next, nowMs);
  });
}

/** The transaction that an operator skips is in quarantine by now. */
export function skipped(txnId: string, next: Cut | null, nowMs: number): StateChange {
  return (state) => {
    const { transaction } = state;
    if (transaction?.txnId !== txnId || transaction.skip === undefined) return null;
    const done = { ...passed(state, transaction.through), quarantinedEntries: state.quarantinedEntries + transaction.entryCount };
    return goneOn(done, next, nowMs);
  };
}

export function pausedAs(paused: boolean): StateChange {
  return (state) => (state.paused === paused ? null : { ...state, paused });
}

/** The wait for the next attempt ends now. */
export function hurried(nowMs: number): StateChange {
  return (state) => {
    const { transaction } = state;
    if (transaction === null || transaction.nextAttemptTimeMs <= nowMs) return null;
    return { ...state, transaction: { ...transaction, nextAttemptTimeMs: nowMs } };
  };
}

/**
 * Brings the state in line with the registration in force: a new life of the id begins after everything before it
 * (R76), a parked queue is frozen as it is, a discarded one is given up. A registration older than the state tells
 * that this process has not read on far enough, and changes nothing.
 */
export function reconciled(inForce: RegistrationInForce): StateChange {
  return (state) => {
    if (inForce.since < state.sincePosition) return null;
    const life = inForce.since > state.sincePosition ? newLife({ ...state, sincePosition: inForce.since }, inForce.since) : state;
    if (inForce.registration !== null || inForce.backlog === 'park') {
      const parked = inForce.registration === null;
      return life === state && state.parked === parked ? null : { ...life, parked };
    }
    const isOver = life === state && !state.parked && state.transaction === null && state.deliveredPosition >= inForce.position;
    return isOver ? null : newLife(life, inForce.position);
  };
}

/** The split that holds once `transaction` was refused as too large. */
export function splitOf(state: AppserviceState, transaction: TransactionRecord): NonNullable<AppserviceState['split']> {
  return { through: Math.max(state.split?.through ?? 0, transaction.through), entriesMax: Math.max(1, Math.floor(transaction.entryCount / 2)) };
}

/** The split that is left once everything up to `through` is dealt with. */
export function splitAfter(state: AppserviceState, through: number): AppserviceState['split'] {
  return state.split !== null && through < state.split.through ? state.split : null;
}

function onTransaction(txnId: string, change: (state: AppserviceState, transaction: TransactionRecord) => AppserviceState | null): StateChange {
  return (state) => (state.transaction?.txnId === txnId && state.transaction.skip === undefined ? change(state, state.transaction) : null);
}

/** All up to its end is left out: there is nothing to send. */
function isPassedOver({ entryCount }: Cut): boolean {
  return entryCount === 0;
}

function isNext(state: AppserviceState, cut: Cut): boolean {
  return cut.after === state.deliveredPosition && !state.paused && !state.parked && state.deliveryState !== 'failed';
}

function passed(state: AppserviceState, through: number): AppserviceState {
  if (through < state.deliveredPosition) throw new Error('a delivered position would go back');
  return { ...state, transaction: null, deliveredPosition: through, split: splitAfter(state, through) };
}

function withFailure(state: AppserviceState, failure: AttemptFailure): AppserviceState {
  return { ...state, attempts: state.attempts + 1, failedAttempts: state.failedAttempts + 1, lastFailure: failure };
}

function goneOn(done: AppserviceState, next: Cut | null, nowMs: number): AppserviceState {
  if (done.deliveryState === 'failed') return done;
  const attempting = { ...done, deliveryState: moveDeliveryState(done.deliveryState, 'delivering') };
  const follows = next !== null && isNext(attempting, next);
  if (follows && !isPassedOver(next)) return withCut(attempting, next, nowMs);
  const rested = { ...attempting, deliveryState: moveDeliveryState(attempting.deliveryState, 'idle') };
  return follows ? passed(rested, next.through) : rested;
}

function withCut(state: AppserviceState, cut: Cut, nowMs: number): AppserviceState {
  const txnId = nextTxnId(state.lastTxnId, nowMs);
  return {
    ...state,
    deliveryState: moveDeliveryState(state.deliveryState, 'delivering'),
    lastTxnId: txnId,
    transaction: {
      txnId,
      ranges: cut.ranges,
      ...(cut.bodyKeys.length === 0 ? {} : { bodyKeys: cut.bodyKeys }),
      entryCount: cut.entryCount,
      through: cut.through,
      cutTimeMs: nowMs,
      attemptCount: 0,
      nextAttemptTimeMs: nowMs,
    },
  };
}

/** A life begins or ends: in the initial delivery state, with nothing left of what was queued at or below `position`. */
function newLife(state: AppserviceState, position: number): AppserviceState {
  return {
    ...state,
    deliveryState: 'idle',
    paused: false,
    parked: false,
    deliveredPosition: Math.max(state.deliveredPosition, position),
    transaction: null,
    split: null,
    lastFailure: null,
    // What the life before had in quarantine is not this one's.
    quarantinedEntries: 0,
  };
}
