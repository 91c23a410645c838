/**
 * Transactions that go from the quarantine into the log again, each once.
 *
 *   read from the shelf ──▶ append as a segment of its own ──▶ remove from the shelf
 *                             the segment names it, so the        │ crash before: the fold still names it, so it is
 *                             fold knows it is in the log         ▼ not appended again, and is removed later
 *                                                         the next redelivery says that it need not be named any more
 *
 * The read and the append stand in one step of the ledger: between them the fold does not move here, and a segment of
 * anybody else makes the append fail. So a transaction that is found on the shelf and is not named by the fold is in the
 * log nowhere. A transaction ceases to be named only by a segment, after it has left the shelf for good: whoever has folded
 * that segment does not find it there any more.
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { RegistrationInForce } from '../delivery/ports.ts';
import type { QuarantinedTransaction } from '../store/port.ts';
import type { RedeliveredKey, Redelivery, Segment } from '../store/segment.ts';

/** The redelivered transactions that may still be on the shelf; few, as each redelivery settles those before. */
export class RedeliveredFold {
  readonly #keys = new Map<string, RedeliveredKey>();

  has(key: RedeliveredKey): boolean {
    return this.#keys.has(textOf(key));
  }

  all(): RedeliveredKey[] {
    return [...this.#keys.values()];
  }

  load(keys: readonly RedeliveredKey[]): void {
    for (const key of keys) this.#keys.set(textOf(key), key);
  }

  apply({ appserviceId, txnId, settled }: Redelivery): void {
    for (const key of settled) this.#keys.delete(textOf(key));
    this.load([{ appserviceId, txnId }]);
  }
}

/** The quarantine, as far as a redelivery needs it. Both reject with a StoreError. */
export interface Shelf {
  /** Null if it is not there. */
  find(key: RedeliveredKey): Promise<QuarantinedTransaction | null>;
  /** Removing what is not there is done. */
  remove(key: RedeliveredKey): Promise<void>;
}

/** `known`: it is in the log already. `absent`: it is not on the shelf. */
export type RedeliveryOutcome = 'appended' | 'known' | 'absent';

/** The fold, as far as a redelivery needs it. */
export interface FoldOfRedeliveries {
  readonly redelivered: RedeliveredFold;
  readonly registrations: ReadonlyMap<string, RegistrationInForce>;
}

export type RedeliveredParts = Pick<Segment, 'entries' | 'routes' | 'redelivery'>;

/**
 * What is to be appended after the fold's tail; it settles what was redelivered before. Rejects with a RefusalError or
 * StoreError.
 */
export async function redeliveredParts(fold: FoldOfRedeliveries, { appserviceId, txnId }: RedeliveredKey, shelf: Shelf): Promise<RedeliveredParts | 'known' | 'absent'> {
  if (fold.redelivered.has({ appserviceId, txnId })) return 'known';
  const transaction = await shelf.find({ appserviceId, txnId });
  if (transaction === null) return 'absent';
  const inForce = fold.registrations.get(appserviceId);
  if (inForce === undefined || inForce.registration === null || transaction.lastPosition <= inForce.since) {
    const message = `"${appserviceId}" was registered anew after this transaction, which is not its own. Discard it.`;
    throw new RefusalError('DELIVERY_STATE_FORBIDS', message, { metadata: { appservice_id: appserviceId, txn_id: txnId } });
  }
  const { entries } = transaction;
  if (entries.length === 0) {
    throw new RefusalError('DELIVERY_STATE_FORBIDS', 'The log had lost the entries of this transaction, so there is nothing to deliver. Discard it.', { metadata: { appservice_id: appserviceId, txn_id: txnId } });
  }
  const settled = fold.redelivered.all();
  for (const key of settled) await shelf.remove(key);
  const bytes = entries.reduce((sum, { json }) => sum + json.byteLength, 0);
  return {
    entries,
    routes: [{ appserviceId, ranges: [0, entries.length - 1], entryCount: entries.length, bytes }],
    redelivery: { appserviceId, txnId, settled },
  };
}

function textOf({ appserviceId, txnId }: RedeliveredKey): string {
  return `${txnId}|${appserviceId}`;
}
