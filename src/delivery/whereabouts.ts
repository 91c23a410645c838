/**
 * Where one event is on its way to one appservice, read off the stored state (contract section 2, ExplainRouting).
 *
 *   earlier life │ … delivered position │ transaction in flight … through │ the queue
 *     given up   │ delivered, quarantined│ in flight, or held              │ queued, or held
 */
import type { DeliveryState } from '../appservice/delivery-state.ts';
import type { AppserviceState, OperatorRecordStore, QuarantinedTransaction } from '../store/port.ts';
import type { DeliveredTransactions } from './delivered-transactions.ts';
import type { RegistrationInForce } from './ports.ts';
import { heldBy } from './status.ts';
import type { AppserviceStatus } from './status.ts';

export interface EventDelivery {
  readonly whereabouts: 'not_routed' | 'queued' | 'in_flight' | 'held' | 'delivered' | 'quarantined' | 'given_up';
  /** Of the transaction it is in or was in; null if there is none or it is no longer known. */
  readonly txnId: string | null;
  readonly attemptCount: number;
  /** Null unless it waits for it. */
  readonly nextAttemptTimeMs: number | null;
  readonly heldBy: AppserviceStatus['heldBy'];
}

export const NOT_ROUTED: EventDelivery = { whereabouts: 'not_routed', txnId: null, attemptCount: 0, nextAttemptTimeMs: null, heldBy: null };

/** Of an appservice that the entry is routed to, as far as this process knows. */
export interface DeliveryOfEvent {
  /** Undefined: nobody has made one yet. */
  readonly stored: AppserviceState | undefined;
  readonly visibleState: DeliveryState;
  readonly inForce: RegistrationInForce | undefined;
  /** Of the transaction that took it, where it is remembered. */
  readonly deliveredTxnId: string | undefined;
  /** Where it is in quarantine. */
  readonly quarantinedTxnId: string | undefined;
}

export function whereaboutsOf(position: number, { stored, visibleState, inForce, deliveredTxnId, quarantinedTxnId }: DeliveryOfEvent): EventDelivery {
  if (quarantinedTxnId !== undefined) return { ...NOT_ROUTED, whereabouts: 'quarantined', txnId: quarantinedTxnId };
  const since = Math.max(inForce?.since ?? 0, stored?.sincePosition ?? 0);
  const isThisLife = inForce !== undefined && position > since && !(inForce.registration === null && inForce.backlog !== 'park');
  // After a replay it is on its way again.
  const isAgain = stored !== undefined && position > stored.deliveredPosition;
  if (deliveredTxnId !== undefined && !isAgain) return { ...NOT_ROUTED, whereabouts: 'delivered', txnId: deliveredTxnId };
  if (!isThisLife) return { ...NOT_ROUTED, whereabouts: 'given_up' };
  // The state may still be that of the life before.
  const state = stored !== undefined && stored.sincePosition === inForce.since ? stored : undefined;
  if (state === undefined) return { ...NOT_ROUTED, whereabouts: 'queued' };
  if (position <= state.deliveredPosition) return { ...NOT_ROUTED, whereabouts: 'delivered' };
  if (state.deliveryState === 'failed') return { ...NOT_ROUTED, whereabouts: 'given_up' };
  const held = heldBy(state, inForce);
  const { transaction } = state;
  if (transaction === null || !isWithin(transaction.ranges, position)) return { ...NOT_ROUTED, whereabouts: held === null ? 'queued' : 'held', heldBy: held };
  return {
    whereabouts: held === null ? 'in_flight' : 'held',
    txnId: transaction.txnId,
    attemptCount: transaction.attemptCount,
    nextAttemptTimeMs: visibleState === 'retrying' && held === null ? transaction.nextAttemptTimeMs : null,
    heldBy: held,
  };
}

/** Quarantined transactions looked through for one event, and at once. */
const QUARANTINED_MAX = 10_000;
const QUARANTINED_PAGE = 200;

/** The txn id under which the entry at `position` is in quarantine. Rejects with a StoreError. */
export async function quarantinedTxnId(store: Pick<OperatorRecordStore, 'readRecords'>, serverName: string, appserviceId: string, position: number): Promise<string | undefined> {
  let after: string | null = null;
  for (let looked = 0; looked < QUARANTINED_MAX; looked += QUARANTINED_PAGE) {
    const page: readonly QuarantinedTransaction[] = await store.readRecords('quarantine', { serverName, appserviceId, afterTxnId: after, countMax: QUARANTINED_PAGE, withEntries: false });
    const found = page.find(({ firstPosition, lastPosition }) => firstPosition <= position && position <= lastPosition);
    if (found !== undefined) return found.txnId;
    after = page.at(-1)?.txnId ?? null;
    if (page.length < QUARANTINED_PAGE || after === null) return undefined;
  }
  return undefined;
}

export interface DeliveriesOfEventOptions {
  readonly serverName: string;
  readonly store: Pick<OperatorRecordStore, 'readRecords'>;
  readonly delivered: DeliveredTransactions;
  inForce(appserviceId: string): RegistrationInForce | undefined;
  /** The state as it is known, with the delivery state of this moment. */
  state(appserviceId: string): { readonly stored: AppserviceState; readonly visibleState: DeliveryState } | undefined;
}

/** Where the entry at `position` is on its way to each of those it is routed to. Rejects with a StoreError. */
export async function deliveriesOfEvent(position: number, appserviceIds: readonly string[], options: DeliveriesOfEventOptions): Promise<Map<string, EventDelivery>> {
  const { serverName, store, delivered } = options;
  const deliveries = new Map<string, EventDelivery>();
  for (const appserviceId of appserviceIds) {
    const known = options.state(appserviceId);
    const mayBeThere = known !== undefined && known.stored.quarantinedEntries > 0 && position <= known.stored.deliveredPosition;
    const of: DeliveryOfEvent = {
      stored: known?.stored,
      visibleState: known?.visibleState ?? 'idle',
      inForce: options.inForce(appserviceId),
      deliveredTxnId: delivered.find(appserviceId, position)?.txnId,
      quarantinedTxnId: mayBeThere ? await quarantinedTxnId(store, serverName, appserviceId, position) : undefined,
    };
    deliveries.set(appserviceId, whereaboutsOf(position, of));
  }
  return deliveries;
}

function isWithin(ranges: readonly number[], position: number): boolean {
  for (let at = 0; at + 1 < ranges.length; at += 2) if ((ranges[at] ?? Infinity) <= position && position <= (ranges[at + 1] ?? -1)) return true;
  return false;
}
