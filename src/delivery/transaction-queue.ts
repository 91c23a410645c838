/**
 * The transactions of one appservice: the one in flight, as it is stored, with its body; and what comes after it.
 *
 * Every method that changes something makes one change of the stored state, and a change that takes a transaction out
 * of the queue cuts the next in the same write if something waits. Each resolves only when the change is durable, or
 * when the lease is lost or the sender is told to stop.
 */
import { bodyKeysOf } from '../appservice/body-keys.ts';
import type { Registration } from '../appservice/registration.ts';
import { isSameChoice } from '../appservice/transaction.ts';
import type { Cut, Settled } from '../appservice/transaction.ts';
import { StoreError } from '../store/errors.ts';
import type { AppserviceState, AttemptFailure, QuarantinedTransaction, TransactionRecord } from '../store/port.ts';
import { deliveryFailed } from './attempt.ts';
import { Backlog } from './backlog.ts';
import type { DeliveryContext } from './context.ts';
import { QUARANTINED_ENTRIES_MAX } from './interventions.ts';
import type { RegistrationInForce } from './ports.ts';
import { ReadAhead } from './read-ahead.ts';
import type { StateCell } from './state-cell.ts';
import { untilStored } from './store-retry.ts';
import { readTransactionBody, readTransactionEntries } from './transaction-body.ts';
import { attemptFailed, completed, cutMade, quarantined, reconciled, skipped, splitAfter, splitOf, splitUp } from './transitions.ts';
import type { StateChange } from './transitions.ts';

export interface TransactionQueueOptions {
  readonly context: DeliveryContext;
  readonly cell: StateCell;
  /** As it is in force; what is cut is decided by it. Null while the queue is held: then nothing further is cut. */
  readonly registration: () => Registration | null;
  /** Asked once before a cut that follows a delivery of so much; false if it has to wait. */
  readonly mayCut: (settled: Settled) => boolean;
  readonly signal: AbortSignal;
}

/** Ephemeral entries go from the log two minutes after the age at which none is cut any more. */
const CUT_AGE_MAX_MS = 60_000;

/** What is in memory of a transaction that is cut. */
type Prepared = Pick<Cut, 'ranges' | 'body' | 'settled'> & Pick<TransactionRecord, 'bodyKeys'>;

export class TransactionQueue {
  readonly backlog = new Backlog();
  readonly #options: TransactionQueueOptions;
  readonly #context: DeliveryContext;
  readonly #appserviceId: string;
  readonly #ahead: ReadAhead;
  /** A body and the choice it was made of. */
  #prepared: Prepared | null = null;
  /** Replays that the backlog and what is in memory know of, and the life. */
  #replayCount: number;
  #sincePosition: number;

  constructor(options: TransactionQueueOptions) {
    const { context, cell } = options;
    this.#options = options;
    this.#context = context;
    this.#appserviceId = cell.state.appserviceId;
    this.#replayCount = cell.state.replayCount ?? 0;
    this.#sincePosition = cell.state.sincePosition;
    this.#ahead = new ReadAhead(context.serverName, this.#appserviceId, context.routes, context.limits);
  }

  /** The body of the transaction, if it is in memory. */
  bodyOf(transaction: TransactionRecord): Uint8Array | null {
    return this.#prepared !== null && isSameChoice(this.#prepared, transaction) ? this.#prepared.body : null;
  }

  /** Reads the body of the transaction from the log. Rejects with a StoreError. */
  async rebuild(transaction: TransactionRecord): Promise<void> {
    const { body, settled } = await readTransactionBody(this.#context.routes, this.#state, transaction);
    const { ranges, bodyKeys = [] } = transaction;
    this.#prepared = { ranges, bodyKeys, body, settled };
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
    const registration = this.#options.registration();
    if (registration === null) return;
    const next = await this.#next(deliveredPosition, split, registration);
    if (next !== null) await this.#changeWith(next, (timely) => (timely === null ? () => null : cutMade(timely, this.#context.clock.nowMs())));
    else if (split === null) this.backlog.foundEmpty(routedThrough);
    else await this.#change((state) => (state.transaction === null && state.split !== null ? { ...state, split: null } : null), null);
  }

  async delivered(transaction: TransactionRecord, timeMs: number): Promise<void> {
    const { events, meter, serverName } = this.#context;
    const { txnId, entryCount, through } = transaction;
    const after = this.#state.deliveredPosition;
    const settled = this.#settledBy(transaction);
    const split = splitAfter(this.#state, through);
    const next = split !== null || (this.backlog.hasWaiting(through) && this.#options.mayCut(settled)) ? await this.#nextIfFree(through, split) : null;
    const state = await this.#changeWith(next, (timely) => completed(txnId, timely, timeMs));
    if (state === null || state.deliveredPosition < through) return;
    this.backlog.dealtWith(settled.entries, settled.bytes, next?.oldestTimeMs ?? null);
    this.#context.deliveredTransactions.add({ appserviceId: this.#appserviceId, txnId, after, through });
    meter.delivered(serverName, this.#appserviceId, entryCount);
    events.emit({ serverName, timeMs, event: { kind: 'events_delivered', service_id: this.#appserviceId, transaction_id: txnId, event_count: entryCount } });
  }

  async failed(transaction: TransactionRecord, failure: AttemptFailure, nextAttemptTimeMs: number): Promise<void> {
    this.#ahead.drop();
    await this.#changeAfterFailure(transaction, null, () => attemptFailed(transaction.txnId, transaction.attemptCount, failure, nextAttemptTimeMs));
  }

  /** Cuts the same entries smaller; puts a single one into quarantine before the queue moves on. */
  async tooLarge(transaction: TransactionRecord, failure: AttemptFailure): Promise<void> {
    const { txnId, through } = transaction;
    if (transaction.entryCount > 1) {
      const next = await this.#nextIfFree(this.#state.deliveredPosition, splitOf(this.#state, transaction));
      return this.#changeAfterFailure(transaction, next, (timely) => splitUp(txnId, failure, timely, failure.timeMs));
    }
    // After a crash in between it is pushed once more and put there again.
    const settled = await this.#shelve(transaction, failure.message, failure.timeMs);
    if (settled === null) return;
    const next = await this.#nextIfFree(through, splitAfter(this.#state, through));
    await this.#changeAfterFailure(transaction, next, (timely) => quarantined(txnId, failure, timely, failure.timeMs));
    this.#gone(transaction, settled, next, 'an entry that the appservice refuses as too large is in quarantine; the queue goes on');
  }

  /** Puts a transaction that an operator skips into quarantine and goes on with what comes after it. */
  async skipped(transaction: TransactionRecord, skip: NonNullable<TransactionRecord['skip']>): Promise<void> {
    const { txnId, through } = transaction;
    const settled = await this.#shelve(transaction, skip.reason, skip.timeMs);
    if (settled === null) return;
    const next = await this.#nextIfFree(through, splitAfter(this.#state, through));
    await this.#changeWith(next, (timely) => skipped(txnId, timely, this.#context.clock.nowMs()));
    this.#gone(transaction, settled, next, 'a transaction that an operator skips is in quarantine; the queue goes on');
  }

  /** True if there is no room for the single entry of this transaction. */
  isShelfFull({ entryCount }: TransactionRecord): boolean {
    return entryCount === 1 && this.#state.quarantinedEntries >= QUARANTINED_ENTRIES_MAX;
  }

  /** Begins anew what is in memory if an operator has moved the delivered position, back or to the beginning of a life. */
  followOperators(): void {
    const { replayCount = 0, sincePosition } = this.#state;
    if (replayCount === this.#replayCount && sincePosition === this.#sincePosition) return;
    this.#replayCount = replayCount;
    this.#sincePosition = sincePosition;
    this.drop();
    this.backlog.forget();
    this.#context.measureSoon();
  }

  /** Copies the entries of the transaction to the shelf, as far as the log has them. Null once the sender is told to stop. */
  #shelve(transaction: TransactionRecord, reason: string, timeMs: number): Promise<Settled | null> {
    const { store, routes, serverName, storeRetry } = this.#context;
    const appserviceId = this.#appserviceId;
    const { txnId, bodyKeys = [], ranges, through } = transaction;
    const copy = async (): Promise<Settled> => {
      const { chosen, settled } = await readTransactionEntries(routes, this.#state, transaction);
      const shelved: QuarantinedTransaction = {
        serverName,
        appserviceId,
        txnId,
        reason,
        timeMs,
        firstPosition: ranges[0] ?? through,
        lastPosition: ranges.at(-1) ?? through,
        bodyKeys,
        entryCount: chosen.length,
        bytes: chosen.reduce((sum, { json }) => sum + json.byteLength, 0),
        entries: chosen.map(({ kind, json }) => ({ kind, json })),
      };
      await store.changeRecord({ kind: 'quarantine', transaction: shelved });
      return settled;
    };
    return untilStored(copy, appserviceId, storeRetry, this.#options.signal);
  }

  /** The transaction is on the shelf, and out of the queue if the change was made. */
  #gone({ txnId, through, ranges }: TransactionRecord, settled: Settled, next: Cut | null, message: string): void {
    if (this.#state.deliveredPosition < through) return;
    this.backlog.dealtWith(settled.entries, settled.bytes, next?.oldestTimeMs ?? null);
    const { serverName, logger } = this.#context;
    logger.error({ server_name: serverName, appservice_id: this.#appserviceId, txn_id: txnId, log_position: ranges[0] ?? through }, message);
  }

  get #state(): AppserviceState {
    return this.#options.cell.state;
  }

  async #changeAfterFailure(transaction: TransactionRecord, next: Cut | null, change: (next: Cut | null) => StateChange): Promise<void> {
    const { events, serverName, clock } = this.#context;
    const state = await this.#changeWith(next, change);
    if (state !== null) events.emit({ serverName, timeMs: clock.nowMs(), event: deliveryFailed(this.#appserviceId, transaction) });
  }

  /** The next transaction, if nothing keeps it from being sent. A read that fails is made good by the next turn. */
  async #nextIfFree(after: number, split: AppserviceState['split']): Promise<Cut | null> {
    const registration = this.#options.registration();
    if (registration === null || (split === null && !this.backlog.hasWaiting(after))) return null;
    try {
      return await this.#next(after, split, registration);
    } catch (error) {
      if (error instanceof StoreError) return null;
      throw error;
    }
  }

  #next(after: number, split: AppserviceState['split'], registration: Registration): Promise<Cut | null> {
    const through = split?.through ?? this.backlog.routedThrough;
    const { limits, clock } = this.#context;
    const ephemeralFromMs = clock.nowMs() - limits.ephemeralAgeMaxMs;
    return this.#ahead.cut(after, through, { ...limits, entriesMax: split?.entriesMax ?? Infinity, bodyKeys: bodyKeysOf(registration), ephemeralFromMs });
  }

  /** Of the transaction in flight, whose body is in memory. */
  #settledBy(transaction: TransactionRecord): Settled {
    if (this.#prepared !== null && isSameChoice(this.#prepared, transaction)) return this.#prepared.settled;
    throw new Error('a transaction is settled whose body is not in memory');
  }

  /** A change with a cut in it. While the store is away the cut grows old; then the change is made without it, and the next turn cuts anew. */
  #changeWith(next: Cut | null, change: (next: Cut | null) => StateChange): Promise<AppserviceState | null> {
    const { clock } = this.#context;
    const cutAtMs = clock.monotonicMs();
    return this.#change((state) => change(clock.monotonicMs() - cutAtMs > CUT_AGE_MAX_MS ? null : next)(state), next);
  }

  /** Makes the change durable; `next` is the cut it may contain. Null: the lease is lost or the sender told to stop. */
  async #change(change: StateChange, next: Cut | null): Promise<AppserviceState | null> {
    const { cell, signal } = this.#options;
    const state = await cell.change(change, signal);
    const { transaction, deliveredPosition } = this.#state;
    if (next === null || state === null) return state;
    if (next.entryCount === 0) {
      if (transaction !== null || deliveredPosition !== next.through) return state;
      this.#ahead.taken(next.through);
      this.#tellLeftOut(next);
      this.backlog.dealtWith(next.settled.entries, next.settled.bytes, null);
    } else if (transaction !== null && isSameChoice(next, transaction)) {
      this.#prepared = next;
      this.#ahead.taken(next.through);
      this.#tellLeftOut(next);
    }
    return state;
  }

  #tellLeftOut({ leftOut, through }: Cut): void {
    const { meter, logger, serverName } = this.#context;
    for (const { kind, reason, count } of leftOut) {
      meter.leftOut(serverName, this.#appserviceId, kind, reason, count);
      logger.debug({ server_name: serverName, appservice_id: this.#appserviceId, kind, reason, entry_count: count, log_position: through }, 'entries are left out of what the appservice is sent');
    }
  }
}
