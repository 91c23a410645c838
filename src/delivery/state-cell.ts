/**
 * One appservice's stored delivery state, as this process knows it, and the changes made to it, one after the other.
 *
 *   certain     `state` was durable when it was last written or read; nobody is known to have changed it
 *   uncertain   a write ended without an answer, or met a newer state: it is read back before anything else is decided
 *   lost        somebody else holds the lease: nothing is changed any more
 *
 * Promises. `state` has always been read from the store or accepted by it: nothing exists in memory only. A change
 * that was tried and not answered is tried again on the state read back, where it finds out by itself whether it took
 * effect. A state of another holder or epoch is never changed by a holder (I5).
 */
import { StoreError } from '../store/errors.ts';
import type { AppserviceState } from '../store/port.ts';
import type { StateWriter } from './state-writer.ts';
import { untilStored } from './store-retry.ts';
import type { StoreRetryOptions } from './store-retry.ts';
import type { StateChange } from './transitions.ts';

export interface StateCellOptions {
  readonly writer: StateWriter;
  /** True: changes are made in the name of the lease that `state` says. False: an operator's word, which needs no lease. */
  readonly isHolder: boolean;
  readonly retry: StoreRetryOptions;
}

/** Newer states that one change may meet before it counts as the store's trouble. */
const CONFLICTS_MAX = 20;

export class StateCell {
  readonly #options: StateCellOptions;
  readonly #appserviceId: string;
  #state: AppserviceState;
  #isCertain = true;
  #isLost = false;
  #changes: Promise<unknown> = Promise.resolve();
  #changeCount = 0;

  constructor(state: AppserviceState, options: StateCellOptions) {
    this.#state = state;
    this.#appserviceId = state.appserviceId;
    this.#options = options;
  }

  get state(): AppserviceState {
    return this.#state;
  }

  get isCertain(): boolean {
    return this.#isCertain;
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  /**
   * Makes the change durable and returns the state after it, which may be that of others. Tries until the store
   * answers; null once the lease is lost or `signal` aborts, when the change may or may not have been made.
   */
  change(change: StateChange, signal: AbortSignal): Promise<AppserviceState | null> {
    return untilStored(() => this.changeOnce(change, signal), this.#appserviceId, this.#options.retry, signal);
  }

  /** As {@link change}, but rejects with a StoreError when the store does not answer. */
  changeOnce(change: StateChange, signal?: AbortSignal): Promise<AppserviceState | null> {
    this.#changeCount++;
    const changing = this.#changes.then(async () => {
      try {
        return signal?.aborted === true ? null : await this.#make(change);
      } finally {
        this.#changeCount--;
      }
    });
    this.#changes = changing.catch(() => undefined);
    return changing;
  }

  /** Takes over what was read from the store for other reasons. A change in progress finds out by itself. */
  adopt(state: AppserviceState): void {
    if (this.#changeCount === 0 && state.revision > this.#state.revision) this.#take(state);
  }

  async #make(change: StateChange): Promise<AppserviceState | null> {
    for (let conflicts = 0; conflicts <= CONFLICTS_MAX; conflicts++) {
      if (!this.#isCertain) await this.#readBack();
      if (this.#isLost) return null;
      const changed = change(this.#state);
      if (changed === null) return this.#state;
      const next = { ...changed, revision: this.#state.revision + 1 };
      this.#isCertain = false;
      if ((await this.#options.writer.write(next)) === 'written') {
        this.#isLost = this.#options.isHolder && !hasSameLease(next, this.#state);
        this.#isCertain = true;
        this.#state = next;
        return next;
      }
    }
    throw new StoreError('unavailable', 'the state of an appservice is changed by others again and again');
  }

  async #readBack(): Promise<void> {
    const state = (await this.#options.writer.load()).get(this.#appserviceId);
    if (state === undefined && this.#state.revision === 0) {
      this.#isCertain = true;
      return;
    }
    if (state === undefined) throw new StoreError('unreadable', 'the stored state of an appservice is gone');
    this.#take(state);
  }

  #take(state: AppserviceState): void {
    this.#isCertain = true;
    if (this.#options.isHolder && !hasSameLease(state, this.#state)) this.#isLost = true;
    else this.#state = state;
  }
}

function hasSameLease(one: AppserviceState, other: AppserviceState): boolean {
  return one.leaseHolder === other.leaseHolder && one.leaseEpoch === other.leaseEpoch;
}
