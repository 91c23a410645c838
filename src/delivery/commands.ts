/**
 * What operators command: each command is one change of the stored state, made here where this process delivers to the
 * appservice, and through the store where another does; that one finds it at its next look, within a poll. So a command
 * works on any replica, and the compare-and-set decides between it and whatever delivery does meanwhile.
 *
 * All reject with a RefusalError, or with a StoreError when the store has not answered in time; then the command may or
 * may not take effect, and may be given again.
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock } from '../clock.ts';
import { StoreError } from '../store/errors.ts';
import type { AppserviceState, SegmentLog } from '../store/port.ts';
import { quarantineCounted, replayedFrom, skipAsked, stopped } from './interventions.ts';
import type { RegistrationInForce, RegistrationSource } from './ports.ts';
import { positionAtTime, wholeFrom } from './retained-log.ts';
import type { Roster } from './roster.ts';
import { StateCell } from './state-cell.ts';
import type { StateWriter } from './state-writer.ts';
import type { AppserviceStatus } from './status.ts';
import { heldBy, isKnown } from './status.ts';
import type { StoreRetryOptions } from './store-retry.ts';
import type { StateChange } from './transitions.ts';
import { firstState, hurried, pausedAs, reconciled } from './transitions.ts';

export interface CommandsOptions {
  readonly serverName: string;
  readonly registrations: RegistrationSource;
  readonly roster: Roster;
  readonly writer: StateWriter;
  readonly log: Pick<SegmentLog, 'readSegments' | 'wholeFrom'>;
  readonly clock: Clock;
  readonly storeRetry: StoreRetryOptions;
  /** How old what is replayed may be; what is older may go at any moment, whatever is in the states. */
  readonly replayAgeMaxMs: number;
  /** A command is refused when the store has not answered for this long. */
  readonly answerTimeoutMs: number;
}

/** Where a replay begins: a log position, or the first one written at or after a wall clock. */
export type ReplayStart = { readonly kind: 'position'; readonly position: number } | { readonly kind: 'time'; readonly timeMs: number };

/** Says what forbids a command; null if nothing does. */
type Forbids = (stored: AppserviceState, held: AppserviceStatus['heldBy']) => string | null;

const STOPPED = 'It was stopped for good. Delete its registration and put it again to start anew.';
const PARKED = 'Its registration was removed and its queue is parked. Put the registration with resume_parked to go on.';
const SKIPPING = 'A transaction that is skipped is on its way to the quarantine. Call again in a second.';
/** Looks at a skip under way, until it is done or the time to answer is over. */
const SKIP_LOOK_MS = 50;
const RECOUNTS_MAX = 5;

export class Commands {
  readonly #options: CommandsOptions;

  constructor(options: CommandsOptions) {
    this.#options = options;
  }

  /** An attempt in flight ends and counts. */
  async setPaused(appserviceId: string, paused: boolean): Promise<void> {
    await this.#command(appserviceId, pausedAs(paused), unlessOver);
  }

  async retryNow(appserviceId: string): Promise<void> {
    await this.#command(appserviceId, hurried(this.#options.clock.nowMs()), (stored, held) => {
      if (stored.deliveryState === 'failed') return STOPPED;
      if (held === 'paused') return 'Its delivery is paused. Resume it; that delivers what waits.';
      return held === 'no_url' ? 'Its registration has no url. Put a registration with a url; that delivers what waits.' : unlessOver(stored, held);
    });
    this.#options.roster.sender(appserviceId)?.hurry();
  }

  /** Ends the wait for the next attempt, if there is one; nothing forbids it. */
  async wake(appserviceId: string): Promise<void> {
    const { roster, clock } = this.#options;
    const sender = roster.sender(appserviceId);
    if (sender !== undefined) return sender.hurry();
    const known = roster.state(appserviceId);
    if (known !== undefined) await this.#changeElsewhere(known, hurried(clock.nowMs()));
  }

  /** To `failed`, for this life of the id: what is queued is given up, and what is routed from now on as well. Stopping again changes nothing. */
  async stop(appserviceId: string): Promise<void> {
    await this.#command(appserviceId, stopped(), (_stored, held) =>
      held === 'parked' ? 'Its registration was removed and its queue is parked. DeleteRegistration with DISCARD gives the queue up.' : null,
    );
  }

  /**
   * Takes the transaction in flight out of the queue, to the quarantine. Resolves when it is there, or when the time to
   * answer is over; then it will be. `isShelved` tells whether it is in quarantine already.
   */
  async skip(appserviceId: string, txnId: string, reason: string, isShelved: () => Promise<boolean>): Promise<void> {
    const { clock } = this.#options;
    const stored = await this.state(appserviceId);
    if (stored.transaction?.txnId !== txnId && (await isShelved())) return;
    await this.#command(appserviceId, skipAsked(txnId, reason, clock.nowMs()), (state, held) => {
      const over = unlessOver(state, held);
      if (over !== null || state.transaction?.txnId === txnId) return over;
      if (!isGivenOut(txnId, state.lastTxnId)) throw unknownTransaction(appserviceId, txnId);
      return state.transaction === null ? 'No transaction is in flight. This one was acknowledged or given up.' : `The transaction in flight is ${state.transaction.txnId}. Only that one can be skipped.`;
    });
    const untilMs = clock.monotonicMs() + this.#options.answerTimeoutMs;
    while (clock.monotonicMs() < untilMs && (await this.state(appserviceId)).transaction?.txnId === txnId) await clock.sleep(SKIP_LOOK_MS);
  }

  /**
   * Delivers again what is routed from `start` on, under new txn ids. Resolves with the log position of the first entry
   * that may be among it.
   */
  async replay(appserviceId: string, start: ReplayStart): Promise<number> {
    const { serverName, log } = this.#options;
    const stored = await this.state(appserviceId);
    const { deliveredPosition, sincePosition } = this.#inThisLife(appserviceId, stored);
    const oldest = sincePosition + 1;
    this.#judge(appserviceId, this.#inThisLife(appserviceId, stored), unlessOver);
    const from = start.kind === 'position' ? start.position : await this.inTime(positionAtTime(log, serverName, start.timeMs, oldest, deliveredPosition));
    if (from > deliveredPosition) {
      throw this.#forbidden(appserviceId, `Everything at or above log position ${deliveredPosition + 1} is still to be delivered. Name an earlier position or time.`);
    }
    // Of a time it is known what was written since only if the entry before is still there.
    const lowest = Math.max(oldest, start.kind === 'time' ? from - 1 : from);
    const whole = await this.inTime(wholeFrom(log, serverName, lowest, deliveredPosition));
    const kept = await this.#keptFrom(oldest, deliveredPosition);
    if (from < oldest || whole > lowest || from < kept) throw notRetained(appserviceId, Math.max(whole, kept));
    await this.#command(appserviceId, replayedFrom(from), (state, held) => unlessOver(state, held) ?? (state.transaction?.skip === undefined ? null : SKIPPING));
    // What was removed while the position went back is not delivered again, and is not said to be.
    return Math.max(from, await this.inTime(wholeFrom(log, serverName, from, deliveredPosition)));
  }

  /** Nobody trims from here on, as the clocks of the routers differ by no more than they may. */
  #keptFrom(oldest: number, deliveredPosition: number): Promise<number> {
    const { serverName, log, clock, replayAgeMaxMs } = this.#options;
    if (replayAgeMaxMs === Infinity) return Promise.resolve(oldest);
    return this.inTime(positionAtTime(log, serverName, clock.nowMs() - replayAgeMaxMs, oldest, deliveredPosition));
  }

  /**
   * Enters how many entries are in quarantine: `count` adds up the shelf, without the given transaction. The state is
   * read before the shelf, so whatever changes in between shows as a newer revision, and is counted again.
   */
  async recount(appserviceId: string, count: (besidesTxnId: string | null) => Promise<number>): Promise<void> {
    for (let tries = 0; tries < RECOUNTS_MAX; tries++) {
      const stored = await this.state(appserviceId);
      if (stored.revision === 0) return;
      const entryCount = await count(stored.transaction?.txnId ?? null);
      const { quarantinedEntries } = await this.#command(appserviceId, quarantineCounted(stored.revision, entryCount), () => null);
      if (quarantinedEntries === entryCount) return;
    }
  }

  /** The newest state; one that nobody has stored yet has revision 0. */
  async state(appserviceId: string): Promise<AppserviceState> {
    const { roster, writer, serverName } = this.#options;
    const inForce = this.inForce(appserviceId);
    const sender = roster.sender(appserviceId);
    if (sender?.cell.isCertain === true) return sender.state;
    return (await this.inTime(writer.load())).get(appserviceId) ?? firstStateElsewhere(serverName, inForce);
  }

  /** Throws a RefusalError if there is no such appservice. */
  inForce(appserviceId: string): RegistrationInForce {
    const inForce = this.#options.registrations.find(this.#options.serverName, appserviceId);
    if (inForce !== undefined && isKnown(inForce)) return inForce;
    throw new RefusalError('APPSERVICE_NOT_FOUND', `There is no appservice "${appserviceId}". ListAppservices tells which there are.`, {
      metadata: { appservice_id: appserviceId },
    });
  }

  /** Throws a RefusalError if the appservice was stopped or its queue is parked. */
  async refuseIfOver(appserviceId: string): Promise<AppserviceState> {
    const stored = await this.state(appserviceId);
    const state = this.#inThisLife(appserviceId, stored);
    this.#judge(appserviceId, state, unlessOver);
    return state;
  }

  async inTime<Result>(work: Promise<Result>): Promise<Result> {
    const { clock, answerTimeoutMs } = this.#options;
    const done = new AbortController();
    const overdue = clock.sleep(answerTimeoutMs, done.signal).then(() => {
      if (!done.signal.aborted) throw new StoreError('unavailable', 'the store has not answered in time');
    });
    try {
      await Promise.race([work, overdue]);
      return await work;
    } finally {
      done.abort();
    }
  }

  /** Makes the change, here or through the store, and returns the state after it. */
  async #command(appserviceId: string, change: StateChange, forbids: Forbids): Promise<AppserviceState> {
    const { roster, serverName, writer } = this.#options;
    const inForce = this.inForce(appserviceId);
    // A command right after a registration is about the life that began with it, which the stored state may not know yet.
    const judged: StateChange = (stored) => {
      const state = this.#inThisLife(appserviceId, stored);
      this.#judge(appserviceId, state, forbids);
      return change(state) ?? (state === stored ? null : state);
    };
    const sender = roster.sender(appserviceId);
    if (sender !== undefined) {
      const changed = await this.inTime(sender.cell.changeOnce(judged));
      sender.lookAgain();
      if (changed !== null) return changed;
    }
    // What is known here of a state that others hold may be old, and a command is not refused by what was.
    const stored = (await this.inTime(writer.load())).get(appserviceId);
    return this.#changeElsewhere(stored ?? firstStateElsewhere(serverName, inForce), judged);
  }

  /** Changes a state that another replica may hold; that replica finds it at its next look. */
  async #changeElsewhere(known: AppserviceState, change: StateChange): Promise<AppserviceState> {
    const { roster, writer, storeRetry } = this.#options;
    const cell = new StateCell(known, { writer, isHolder: false, retry: storeRetry });
    const changed = await this.inTime(cell.changeOnce(change));
    roster.nudge();
    return changed ?? cell.state;
  }

  #inThisLife(appserviceId: string, stored: AppserviceState): AppserviceState {
    return reconciled(this.inForce(appserviceId))(stored) ?? stored;
  }

  #judge(appserviceId: string, stored: AppserviceState, forbids: Forbids): void {
    const forbidden = forbids(stored, heldBy(stored, this.inForce(appserviceId)));
    if (forbidden !== null) throw this.#forbidden(appserviceId, forbidden);
  }

  #forbidden(appserviceId: string, why: string): RefusalError {
    return new RefusalError('DELIVERY_STATE_FORBIDS', `The delivery state of "${appserviceId}" does not allow this. ${why}`, { metadata: { appservice_id: appserviceId } });
  }
}

const unlessOver: Forbids = (stored, held) => (stored.deliveryState === 'failed' ? STOPPED : held === 'parked' ? PARKED : null);

/** The state of an appservice for which nobody has made one yet: held by nobody, not stored. */
export function firstStateElsewhere(serverName: string, { appserviceId, since }: RegistrationInForce): AppserviceState {
  return { ...firstState(serverName, appserviceId, since, ''), revision: 0, leaseHolder: null, leaseEpoch: 0 };
}

/** A txn id that may have been given out: what became of it is not kept. */
function isGivenOut(txnId: string, lastTxnId: string): boolean {
  return /^[1-9]\d{0,39}$/.test(txnId) && BigInt(txnId) <= BigInt(lastTxnId);
}

export function unknownTransaction(appserviceId: string, txnId: string): RefusalError {
  return new RefusalError('TRANSACTION_NOT_FOUND', `"${appserviceId}" has no such transaction. GetAppservice tells which is in flight, ListQuarantinedTransactions which are in quarantine.`, {
    metadata: { appservice_id: appserviceId, txn_id: txnId },
  });
}

function notRetained(appserviceId: string, oldest: number): RefusalError {
  return new RefusalError('POSITION_NOT_RETAINED', `The log of "${appserviceId}" is whole from log position ${oldest} on; what is older is removed, or not its own. Name a later position or time, and set log_retention_ms to keep more.`, {
    metadata: { appservice_id: appserviceId, oldest_log_position: String(oldest) },
  });
}
