/**
 * What an operator's word changes in the state of an appservice, as pure functions; as in transitions.ts, null tells that
 * there is nothing to change any more. None of them needs the lease: the compare-and-set decides between an operator and
 * the sender, and the sender finds what was decided at its next look.
 *
 *   stop     any state ──▶ failed          what was queued is given up, an attempt on its way with it
 *   skip     the transaction in flight is marked, in this change, and never attempted again; whoever sends puts it into
 *            quarantine and takes it out of the queue (transaction-queue.ts). An acknowledgement that comes after the
 *            mark changes nothing; one that was stored before it leaves nothing to skip
 *   replay   any state but failed ──▶ idle   the delivered position goes back; the id in flight is given up
 */
import { moveDeliveryState } from '../appservice/delivery-state.ts';
import type { DeliveryState } from '../appservice/delivery-state.ts';
import type { StateChange } from './transitions.ts';

/** Entries in quarantine of one appservice, beyond which nothing more is put there. */
export const QUARANTINED_ENTRIES_MAX = 10_000;

export function stopped(): StateChange {
  return (state) => {
    const { deliveryState } = state;
    if (deliveryState === 'failed') return null;
    return { ...state, deliveryState: moveDeliveryState(deliveryState, 'failed'), transaction: null, split: null };
  };
}

export function skipAsked(txnId: string, reason: string, timeMs: number): StateChange {
  return (state) => {
    const { transaction } = state;
    if (transaction?.txnId !== txnId || transaction.skip !== undefined) return null;
    return { ...state, transaction: { ...transaction, skip: { reason, timeMs } } };
  };
}

/** Delivers again what is routed at or above log position `from`, under new txn ids. */
export function replayedFrom(from: number): StateChange {
  return (state) => {
    if (from > state.deliveredPosition || from <= state.sincePosition) return null;
    return {
      ...state,
      deliveryState: restedFrom(state.deliveryState),
      transaction: null,
      split: null,
      deliveredPosition: from - 1,
      replayCount: (state.replayCount ?? 0) + 1,
    };
  };
}

/** The shelf was counted while the state was at `revision`; `entryCount` leaves out the transaction in flight. */
export function quarantineCounted(revision: number, entryCount: number): StateChange {
  return (state) => (state.revision !== revision || state.quarantinedEntries === entryCount ? null : { ...state, quarantinedEntries: entryCount });
}

function restedFrom(state: DeliveryState): DeliveryState {
  return state === 'idle' ? state : moveDeliveryState(moveDeliveryState(state, 'delivering'), 'idle');
}
