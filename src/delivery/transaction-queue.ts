/**
 * The transactions of one appservice: the one in flight, as it is stored, with its body; and what comes after it.
 *
 * Every method that changes something makes one change of the stored state, and a change that takes a transaction out
 * of the queue cuts the next in the same write if something waits. Each resolves only when the change is durable, or
 * when the lease is lost or the sender is told to stop.
 */
import { entryBytes, isSameChoice } from '../appservice/transaction.ts';
import type { Cut } from '../appservice/transaction.ts';
import { StoreError } from '../store/errors.ts';
import type { AppserviceState, AttemptFailure, TransactionRecord } from '../store/port.ts';
import { deliveryFailed } from './attempt.ts';
import { Backlog } from './backlog.ts';
import type { DeliveryContext } from './context.ts';
import type { RegistrationInForce } from './ports.ts';
import { ReadAhead } from './read-ahead.ts';
import type { StateCell } from './state-cell.ts';
import { untilStored } from './store-retry.ts';
import { readTransactionBody } from './transaction-body.ts';
import { attemptFailed, completed, cutMade, quarantined, reconciled, splitAfter, splitOf, splitUp } from './transitions.ts';
import type { StateChange } from './transitions.ts';

export interface TransactionQueueOptions {
  readonly context: DeliveryContext;
  readonly cell: StateCell;
  /** False while the queue is held: then nothing further is cut. */
  readonly isFree: () => boolean;
  /** Asked once before a cut that follows a delivery of so much; false if it has to wait. */
  readonly mayCut: (settledEntries: number, settledBytes: number) => boolean;
  readonly signal: AbortSignal;
}

export class TransactionQueue {
  readonly backlog = new Backlog();
  readonly #options: TransactionQueueOptions;
  readonly #context: DeliveryContext;
  readonly #appserviceId: string;
  readonly #ahead: ReadAhead;
  /** A body and the choice it was made of. */
  #prepared: { readonly ranges: readonly number[]; readonly body: Uint8Array } | null = null;

  constructor(options: TransactionQueueOptions) {
    const { context, cell } = options;
    this.#options = options;
    this.#context = context;
    this.#appserviceId = cell.state.appserviceId;
    this.#ahead = new ReadAhead(context.serverName, this.#appserviceId, context.routes, context.limits);
  }

  /** The body of the transaction, if it is in memory. */
  bodyOf(transaction: TransactionRecord): Uint8Array | null {
    return this.#prepared !== null && isSameChoice(this.#prepared, transaction) ? this.#prepared.body : null;
  }

  /** Reads the body of the transaction from the log. Rejects with a StoreError. */
  async rebuild(transaction: TransactionRecord): Promise<void> {
    const { routes, serverName } = this.#context;
    const body = await readTransactionBody(routes, serverName, this.#appserviceId, transaction);
    this.#prepared = { ranges: transaction.ranges, body };
  }

  /** Reads what comes after the transaction while that is on its way. */
  readAhead(transaction: TransactionRecord): void {
    this.#ahead.begin(transaction.through, this.backlog.routedThrough);
  }

  /** Keeps nothing in memory that can be read again. */
  drop(): void {
    this.#prepared = null;
    this.#ahead.drop();
  }

  async reload(): Promise<void> {
    await this.#change(() => null, null);
  }

  async reconcile(inForce: RegistrationInForce): Promise<void> {
    this.drop();
    const before = this.#state.deliveredPosition;
    const state = await this.#change(reconciled(inForce), null);
    if (state === null || state.deliveredPosition === before) return;
    this.backlog.forget();
    this.#context.measureSoon();
  }

  /** Cuts the first transaction of a queue that has none in flight. Rejects with a StoreError if the entries cannot be read. */
  async cut(): Promise<void> {
    const { deliveredPosition, split } = this.#state;
    const { routedThrough } = this.backlog;
    const next = await this.#next(deliveredPosition, split);
    if (next !== null) await this.#change(cutMade(next, this.#context.clock.nowMs()), next);
    else if (split === null) this.backlog.foundEmpty(routedThrough);
    else await this.#change((state) => (state.transaction === null && state.split !== null ? { ...state, split: null } : null), null);
  }

  async delivered(transaction: TransactionRecord, bodyBytes: number, timeMs: number): Promise<void> {
    const { events, meter, serverName } = this.#context;
    const { txnId, entryCount, through } = transaction;
    const split = splitAfter(this.#state, through);
    const next = split !== null || (this.backlog.hasWaiting(through) && this.#options.mayCut(entryCount, entryBytes(bodyBytes, entryCount))) ? await this.#nextIfFree(through, split) : null;
    const state = await this.#change(completed(txnId, next, timeMs), next);
    if (state === null || state.deliveredPosition < through) return;
    this.backlog.dealtWith(entryCount, entryBytes(bodyBytes, entryCount), next?.oldestTimeMs ?? null);
    meter.delivered(serverName, this.#appserviceId, entryCount);
    events.emit({ serverName, timeMs, event: { kind: 'events_delivered', service_id: this.#appserviceId, transaction_id: txnId, event_count: entryCount } });
  }

  async failed(transaction: TransactionRecord, failure: AttemptFailure, nextAttemptTimeMs: number): Promise<void> {
    this.#ahead.drop();
    await this.#changeAfterFailure(transaction, attemptFailed(transaction.txnId, transaction.attemptCount, failure, nextAttemptTimeMs), null);
  }

  /** Cuts the same entries smaller; puts a single one into quarantine before the queue moves on. */
  async tooLarge(transaction: TransactionRecord, body: Uint8Array, failure: AttemptFailure): Promise<void> {
    const { txnId, through } = transaction;
    if (transaction.entryCount > 1) {
      const next = await this.#nextIfFree(this.#state.deliveredPosition, splitOf(this.#state, transaction));
      return this.#changeAfterFailure(transaction, splitUp(txnId, failure, next, failure.timeMs), next);
    }
    const { store, serverName, logger } = this.#context;
    const appserviceId = this.#appserviceId;
    const { message: reason, timeMs } = failure;
    const firstPosition = transaction.ranges[0] ?? through;
    const shelved = { serverName, appserviceId, txnId, reason, timeMs, firstPosition, lastPosition: through, body };
    // After a crash in between it is pushed once more and put there again.
    const put = async (): Promise<true> => store.putQuarantined(shelved).then(() => true);
    if ((await untilStored(put, appserviceId, this.#context.storeRetry, this.#options.signal)) === null) return;
    const next = await this.#nextIfFree(through, splitAfter(this.#state, through));
    await this.#changeAfterFailure(transaction, quarantined(txnId, failure, next, timeMs), next);
    if (this.#state.deliveredPosition < through) return;
    this.backlog.dealtWith(1, entryBytes(body.byteLength, 1), next?.oldestTimeMs ?? null);
    const fields = { server_name: serverName, appservice_id: appserviceId, txn_id: txnId, log_position: through };
    logger.error(fields, 'an event that the appservice refuses as too large is in quarantine; the queue goes on');
  }

  get #state(): AppserviceState {
    return this.#options.cell.state;
  }

  async #changeAfterFailure(transaction: TransactionRecord, change: StateChange, next: Cut | null): Promise<void> {
    const { events, serverName, clock } = this.#context;
    const state = await this.#change(change, next);
    if (state !== null) events.emit({ serverName, timeMs: clock.nowMs(), event: deliveryFailed(this.#appserviceId, transaction) });
  }

  /** The next transaction, if nothing keeps it from being sent. A read that fails is made good by the next turn. */
  async #nextIfFree(after: number, split: AppserviceState['split']): Promise<Cut | null> {
    if (!this.#options.isFree() || (split === null && !this.backlog.hasWaiting(after))) return null;
    try {
      return await this.#next(after, split);
    } catch (error) {
      if (error instanceof StoreError) return null;
      throw error;
    }
  }

  #next(after: number, split: AppserviceState['split']): Promise<Cut | null> {
    const { entriesMax, bytesMax } = this.#context.limits;
    const through = split?.through ?? this.backlog.routedThrough;
    return this.#ahead.cut(after, through, { entriesMax: Math.min(entriesMax, split?.entriesMax ?? entriesMax), bytesMax });
  }

  /** Makes the change durable; `next` is the cut it may contain. Null: the lease is lost or the sender told to stop. */
  async #change(change: StateChange, next: Cut | null): Promise<AppserviceState | null> {
    const { cell, signal } = this.#options;
    const state = await cell.change(change, signal);
    const { transaction } = this.#state;
    if (next !== null && transaction !== null && isSameChoice(next, transaction)) {
      this.#prepared = next;
      this.#ahead.taken(next.through);
    }
    return state;
  }
}
