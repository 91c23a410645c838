/**
 * Delivers to one appservice, one transaction after the other, on the replica that holds its lease.
 *
 *                    wake: something is routed                 2xx, more waits: complete k and cut k + 1 in one write
 *                 ┌──────────────────────────────┐            ┌──────────┐
 *                 │                              ▼            ▼          │
 *   resting ◀── decide ──▶ cut ──▶ (durable) ──▶ push ───────────────────┘
 *                 ▲  ▲                            │  │ 413: give the id up, cut the same entries smaller, or quarantine one
 *                 │  └── wait ◀── record failure ◀┘  │
 *                 └──────────────────────────────────┘ 2xx, nothing more waits
 *
 * There is no recovery path. After a start, a hand-over, a lost answer, a crash: the sender looks at the stored state
 * and asks one question, "what is my oldest unfinished transaction?". So each turn of the loop decides anew, without
 * waiting for anything between the decision and its first effect.
 *
 *   resting   no timer, no promise, no body in memory. True while nothing waits, or while the queue is held: paused,
 *             parked, without a URL, `failed`, this replica away, or the sender told to stop; or while the pacer has it wait.
 *   cut       there is no transaction and something waits. A choice of entries is made durable under a new txn id.
 *   rebuild   there is a transaction whose body is not in memory: it is read from the log.
 *   push      there is a transaction whose cut is durable, its body is at hand, the lease is valid, nothing holds it.
 *             One PUT. Meanwhile the next entries are read ahead.
 *   wait      there is a transaction whose newest attempt failed. Ends at its time, or at RetryNow, a ping, a change of
 *             the registration; not for new traffic.
 *   reload    a write ended without an answer: the state is read back.
 *   shelve    an operator skips the transaction: it goes to quarantine, and the queue moves on.
 *   reconcile the registration in force has moved on: the state follows before anything is sent.
 *
 * Promises.
 * - Nothing is pushed whose cut is not known to be durable, and nothing counts as delivered before that is durable:
 *   `state` is always what the store has or had (state-cell.ts).
 * - All attempts of a txn id carry the same bytes (I3): the body is a function of the stored choice.
 * - Transaction k + 1 is cut only in or after the change that takes k out of the queue (I2, I4).
 * - Each delivered position follows from the one before by one stored choice, or by a replay: nothing is left out (I1, I11).
 * - Once the lease is lost the attempt in flight is aborted and nothing more is written (I5).
 * - Whatever goes wrong here ends here: it is logged, and tried again after a bounded wait (I8).
 */
import { backoffMs } from '../appservice/backoff.ts';
import type { DeliveryState } from '../appservice/delivery-state.ts';
import { moveDeliveryState } from '../appservice/delivery-state.ts';
import type { Registration } from '../appservice/registration.ts';
import type { Settled } from '../appservice/transaction.ts';
import { StoreError } from '../store/errors.ts';
import type { AppserviceState, AttemptFailure, TransactionRecord } from '../store/port.ts';
import { failureOf, logAttempt } from './attempt.ts';
import type { Backlog } from './backlog.ts';
import type { DeliveryContext } from './context.ts';
import { DueTime } from './due-time.ts';
import type { PushOutcome, RegistrationInForce } from './ports.ts';
import type { StateCell } from './state-cell.ts';
import { storeRetryMs } from './store-retry.ts';
import { TransactionQueue } from './transaction-queue.ts';
import { reconciled } from './transitions.ts';

type Step =
  | { readonly kind: 'rest' | 'reload' | 'cut' }
  | { readonly kind: 'reconcile'; readonly inForce: RegistrationInForce }
  | { readonly kind: 'rebuild'; readonly transaction: TransactionRecord }
  | { readonly kind: 'shelve'; readonly transaction: TransactionRecord; readonly skip: NonNullable<TransactionRecord['skip']> }
  | { readonly kind: 'wait'; readonly delayMs: number }
  | { readonly kind: 'push'; readonly transaction: TransactionRecord; readonly registration: Registration; readonly body: Uint8Array };

const REST: Step = { kind: 'rest' };
const SHELF_FULL = 'The appservice refuses an event as too large, and its quarantine is full. Redeliver or discard what is there.';
const NOTHING_SETTLED: Settled = { entries: 0, bytes: 0 };

export class Sender {
  readonly appserviceId: string;
  readonly cell: StateCell;
  readonly #context: DeliveryContext;
  readonly #queue: TransactionQueue;
  readonly #due: DueTime;
  /** Times this replica had been away when the lease was last read. */
  readonly #lapseCount: number;
  readonly #stop = new AbortController();
  #isRetiring = false;
  #isRunning = false;
  /** The pacer has let the next cut through. */
  #isAdmitted = false;
  #runs: Promise<void> = Promise.resolve();
  #attempt: AbortController | null = null;
  /** Of the newest attempt. */
  #attemptedTxnId = '';
  #wait: AbortController | null = null;
  #troubleCount = 0;
  #trouble: AttemptFailure | null = null;
  #told: { state: DeliveryState; paused: boolean };
  #registrationPosition: number;

  constructor(cell: StateCell, lapseCount: number, context: DeliveryContext) {
    this.cell = cell;
    this.appserviceId = cell.state.appserviceId;
    this.#context = context;
    this.#lapseCount = lapseCount;
    this.#due = new DueTime(context.clock, context.limits.backoff);
    this.#queue = new TransactionQueue({
      context,
      cell,
      registration: () => (this.#isStopping ? null : this.#deliverable(this.state, this.#inForce())),
      mayCut: (settled) => {
        const may = this.#mayCut(settled);
        this.#isAdmitted = false;
        return may;
      },
      signal: this.#stop.signal,
    });
    this.#told = { state: cell.state.deliveryState, paused: cell.state.paused };
    this.#registrationPosition = this.#inForce()?.position ?? 0;
  }

  /** As stored. */
  get state(): AppserviceState {
    return this.cell.state;
  }

  get backlog(): Backlog {
    return this.#queue.backlog;
  }

  /** The delivery state as it is this moment: an attempt after a failed one is `delivering` while it lasts. */
  get visibleState(): DeliveryState {
    const { deliveryState } = this.state;
    return this.#attempt !== null && deliveryState === 'retrying' ? moveDeliveryState(deliveryState, 'delivering') : deliveryState;
  }

  /** What keeps the sender itself from going on, if something does; the appservice is not to blame. */
  get trouble(): AttemptFailure | null {
    return this.#trouble;
  }

  /** Something may have changed. May be called at any time, for nothing, or twice. */
  wake(): void {
    if (this.#isRunning || this.#decide().kind === 'rest') return;
    this.#isRunning = true;
    this.#runs = this.#run();
  }

  /** Ends a wait for the next attempt, if there is one. */
  hurry(): void {
    const { transaction } = this.state;
    if (transaction !== null) this.#due.hurry(transaction);
    this.lookAgain();
  }

  /** The state was changed by others: decides anew, whatever it waits for. An attempt that is not wanted any more is given up. */
  lookAgain(): void {
    const { transaction } = this.state;
    if (transaction?.txnId !== this.#attemptedTxnId || transaction.skip !== undefined) this.#attempt?.abort();
    this.#tell();
    this.#wait?.abort();
    this.wake();
  }

  /** Looks whether the registration in force is another one. An attempt under a life that is over is given up. */
  registrationsChanged(): void {
    const inForce = this.#inForce();
    if (inForce === undefined || inForce.position === this.#registrationPosition) return this.wake();
    this.#registrationPosition = inForce.position;
    if (inForce.registration === null || inForce.since !== this.state.sincePosition) this.#attempt?.abort();
    this.hurry();
  }

  /** A state read from the store for other reasons. */
  adopt(state: AppserviceState): void {
    const { revision } = this.state;
    this.cell.adopt(state);
    if (this.cell.isLost) void this.stop();
    else if (this.state.revision !== revision) this.lookAgain();
  }

  /** Begins nothing more; resolves when what is in progress has ended and is durable. */
  async retire(): Promise<void> {
    this.#isRetiring = true;
    this.#wait?.abort();
    await this.#runs;
  }

  /** Ends at once: an attempt in flight is aborted, no further write is begun. Resolves when nothing runs any more. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#attempt?.abort();
    this.#wait?.abort();
    await this.#runs;
  }

  get #isStopping(): boolean {
    return this.#isRetiring || this.#stop.signal.aborted;
  }

  async #run(): Promise<void> {
    for (;;) {
      const step = this.#decide();
      // Between deciding to rest and resting nothing is waited for, so no wake is missed.
      if (step.kind === 'rest') return this.#rest();
      try {
        await this.#take(step);
        if (this.cell.isLost) void this.stop();
        this.#tell();
        if (step.kind !== 'wait') this.#troubleCount = 0;
        if (this.#troubleCount === 0) this.#trouble = null;
      } catch (error) {
        await this.#bearTrouble(error);
      }
    }
  }

  #rest(): void {
    this.#isRunning = false;
    this.#queue.drop();
    if (this.cell.isLost) this.#context.leaseLost(this.appserviceId);
  }

  #decide(): Step {
    const { cell } = this;
    if (this.#isStopping || cell.isLost || !this.#isPresent()) return REST;
    if (!cell.isCertain) return { kind: 'reload' };
    const { state } = cell;
    const inForce = this.#inForce();
    this.#queue.followOperators();
    if (inForce !== undefined && reconciled(inForce)(state) !== null) return { kind: 'reconcile', inForce };
    const { transaction } = state;
    if (transaction?.skip !== undefined) return { kind: 'shelve', transaction, skip: transaction.skip };
    const registration = this.#deliverable(state, inForce);
    if (registration === null) return REST;
    if (transaction === null) return this.backlog.hasWaiting(state.deliveredPosition) && this.#mayCut() ? { kind: 'cut' } : REST;
    const delayMs = this.#due.inMs(transaction);
    if (delayMs > 0) return { kind: 'wait', delayMs };
    const body = this.#queue.bodyOf(transaction);
    return body === null ? { kind: 'rebuild', transaction } : { kind: 'push', transaction, registration, body };
  }

  /** A full transaction leaves at once, a smaller one when there is time for it. What is settled does not wait any more. */
  #mayCut(settled: Settled = NOTHING_SETTLED): boolean {
    const { limits, pacer } = this.#context;
    const { entries, bytes } = this.backlog;
    this.#isAdmitted ||= entries - settled.entries >= limits.eventsMax || bytes - settled.bytes >= limits.bytesMax || pacer.admits(this);
    return this.#isAdmitted;
  }

  #take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'rest':
        return Promise.resolve();
      case 'reload':
        return this.#queue.reload();
      case 'reconcile':
        return this.#queue.reconcile(step.inForce);
      case 'cut':
        this.#isAdmitted = false;
        return this.#queue.cut();
      case 'rebuild':
        return this.#queue.rebuild(step.transaction);
      case 'shelve':
        return this.#queue.skipped(step.transaction, step.skip);
      case 'wait':
        return this.#sleep(step.delayMs);
      case 'push':
        return this.#push(step.transaction, step.registration, step.body);
    }
  }

  async #push(transaction: TransactionRecord, registration: Registration, body: Uint8Array): Promise<void> {
    const { push, clock, meter, serverName } = this.#context;
    const { appserviceId } = this;
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#attemptedTxnId = transaction.txnId;
    this.#tell();
    const startedMs = clock.monotonicMs();
    let outcome: PushOutcome;
    try {
      const pushing = push.push({ serverName, appserviceId, registration, txnId: transaction.txnId, body }, attempt.signal);
      // An appservice that is away gets no second body's worth of memory.
      if (transaction.attemptCount === 0) this.#queue.readAhead(transaction);
      outcome = await pushing;
    } finally {
      this.#attempt = null;
    }
    const durationMs = clock.monotonicMs() - startedMs;
    meter.attempt(serverName, appserviceId, outcome.kind, durationMs, transaction.attemptCount + 1);
    if (outcome.kind === 'aborted' && !attempt.signal.aborted) throw new Error('a push was aborted by nobody');
    await this.#settle(transaction, body, outcome, durationMs);
  }

  async #settle(transaction: TransactionRecord, body: Uint8Array, outcome: PushOutcome, durationMs: number): Promise<void> {
    const { clock, random, limits, logger, serverName } = this.#context;
    const { appserviceId } = this;
    const timeMs = clock.nowMs();
    const retryAfterMs = outcome.kind === 'rejected' ? outcome.retryAfterMs : null;
    const isStuck = outcome.kind === 'too_large' && this.#queue.isShelfFull(transaction);
    const willRetry = isStuck || outcome.kind === 'rejected' || outcome.kind === 'unreachable';
    const nextAttemptTimeMs = willRetry ? timeMs + backoffMs(transaction.attemptCount + 1, retryAfterMs, limits.backoff, random.next()) : null;
    logAttempt(logger, { serverName, appserviceId, transaction, bodyBytes: body.byteLength, outcome, durationMs, nextAttemptTimeMs });
    switch (outcome.kind) {
      case 'delivered':
        return this.#queue.delivered(transaction, timeMs);
      case 'too_large':
        if (isStuck) return this.#queue.failed(transaction, { ...failureOf(outcome, timeMs), message: SHELF_FULL }, nextAttemptTimeMs ?? timeMs);
        return this.#queue.tooLarge(transaction, failureOf(outcome, timeMs));
      case 'rejected':
      case 'unreachable':
        return this.#queue.failed(transaction, failureOf(outcome, timeMs), nextAttemptTimeMs ?? timeMs);
      case 'aborted':
        // Nothing is known of the appservice: the transaction stays as it is stored.
        return;
    }
  }

  /** What the queue may be sent with now; null while it is held. */
  #deliverable(state: AppserviceState, inForce: RegistrationInForce | undefined): Registration | null {
    if (state.paused || state.parked || state.deliveryState === 'failed') return null;
    // An older life than the state's: this process has yet to read the newer registration.
    if (inForce === undefined || inForce.since !== state.sincePosition) return null;
    const { registration } = inForce;
    return registration === null || registration.url === null || registration.url === '' ? null : registration;
  }

  /** The lease is valid: this replica has not been away since the lease was read. */
  #isPresent(): boolean {
    const { presence } = this.#context;
    return presence.isPresent() && presence.lapseCount === this.#lapseCount;
  }

  #inForce(): RegistrationInForce | undefined {
    return this.#context.registrations.find(this.#context.serverName, this.appserviceId);
  }

  async #sleep(delayMs: number): Promise<void> {
    this.#queue.drop();
    if (this.#isStopping) return;
    const wait = new AbortController();
    this.#wait = wait;
    await this.#context.clock.sleep(delayMs, wait.signal);
    this.#wait = null;
  }

  /** A store that fails, or a bug: neither may end the sender, nor touch another. */
  async #bearTrouble(error: unknown): Promise<void> {
    const { logger, serverName, clock, storeRetry } = this.#context;
    const kind = error instanceof StoreError ? `store_${error.kind}` : 'internal';
    const delayMs = storeRetryMs(this.#troubleCount++, storeRetry.limits);
    this.#trouble = { kind, httpStatus: null, message: 'Delivery cannot go on for a reason of the router. Its log has the details.', timeMs: clock.nowMs() };
    const fields = { server_name: serverName, appservice_id: this.appserviceId, kind, error: error instanceof Error ? error.message : String(error), retry_ms: delayMs };
    if (kind === 'store_unavailable') logger.warn(fields, 'delivery waits for the store');
    else logger.error(fields, 'delivery cannot go on; it is tried again');
    await this.#sleep(delayMs);
  }

  /** Tells whoever watches of a state that changed. */
  #tell(): void {
    const { events, serverName, clock } = this.#context;
    const now = { state: this.visibleState, paused: this.state.paused };
    if (now.state === this.#told.state && now.paused === this.#told.paused) return;
    this.#told = now;
    events.emit({ serverName, timeMs: clock.nowMs(), event: { kind: 'state_changed', service_id: this.appserviceId, state: now.state, paused: now.paused } });
  }
}
