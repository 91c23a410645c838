/**
 * The one way to the stored delivery states of a homeserver. At most one write call and one load are outstanding.
 * A write goes out at once, with all others that are asked for in one go; what comes while a call is outstanding waits
 * for it and shares the next, up to `statesMax`.
 */
import { StoreError } from '../store/errors.ts';
import type { AppserviceState, AppserviceStateStore, StateWriteOutcome } from '../store/port.ts';

interface WaitingWrite {
  readonly state: AppserviceState;
  settle(outcome: StateWriteOutcome): void;
  refuse(error: unknown): void;
}

export interface StateWriterOptions {
  readonly serverName: string;
  readonly store: Pick<AppserviceStateStore, 'writeStates' | 'loadStates'>;
  /** States in one call of the store. */
  readonly statesMax: number;
}

export class StateWriter {
  readonly #options: StateWriterOptions;
  #waiting: WaitingWrite[] = [];
  #isWriting = false;
  #loading: Promise<ReadonlyMap<string, AppserviceState>> | null = null;
  #nextLoad: Promise<ReadonlyMap<string, AppserviceState>> | null = null;

  constructor(options: StateWriterOptions) {
    this.#options = options;
  }

  /** A compare-and-set of one state. Rejects with a StoreError, after which the write may or may not have happened. */
  write(state: AppserviceState): Promise<StateWriteOutcome> {
    return new Promise((settle, refuse) => {
      this.#waiting.push({ state, settle, refuse });
      if (this.#isWriting) return;
      this.#isWriting = true;
      void this.#run();
    });
  }

  /** All states of the homeserver by appservice, as of a moment after this call. Calls share loads. Rejects with a StoreError. */
  load(): Promise<ReadonlyMap<string, AppserviceState>> {
    if (this.#loading === null) return this.#beginLoad();
    this.#nextLoad ??= this.#loading.then(
      () => this.#beginLoad(),
      () => this.#beginLoad(),
    );
    return this.#nextLoad;
  }

  #beginLoad(): Promise<ReadonlyMap<string, AppserviceState>> {
    this.#nextLoad = null;
    const loading = this.#load().finally(() => {
      if (this.#loading === loading) this.#loading = null;
    });
    this.#loading = loading;
    return loading;
  }

  async #load(): Promise<ReadonlyMap<string, AppserviceState>> {
    const states = await this.#options.store.loadStates(this.#options.serverName);
    return new Map(states.map((state) => [state.appserviceId, state]));
  }

  async #run(): Promise<void> {
    // Writes asked for in one go share the call; anything later would keep a transaction waiting.
    await Promise.resolve();
    for (let group = this.#takeGroup(); group.length > 0; group = this.#takeGroup()) await this.#writeGroup(group);
    this.#isWriting = false;
  }

  async #writeGroup(group: readonly WaitingWrite[]): Promise<void> {
    try {
      const outcomes = await this.#options.store.writeStates(group.map(({ state }) => state));
      for (const [at, write] of group.entries()) {
        const outcome = outcomes[at];
        if (outcome === undefined) write.refuse(new StoreError('unavailable', 'the store did not tell what came of a write'));
        else write.settle(outcome);
      }
    } catch (error) {
      for (const write of group) write.refuse(error);
    }
  }

  /** The oldest waiting writes, one per appservice. */
  #takeGroup(): WaitingWrite[] {
    const group: WaitingWrite[] = [];
    const left: WaitingWrite[] = [];
    const taken = new Set<string>();
    for (const write of this.#waiting) {
      const { appserviceId } = write.state;
      if (group.length >= this.#options.statesMax || taken.has(appserviceId)) left.push(write);
      else {
        group.push(write);
        taken.add(appserviceId);
      }
    }
    this.#waiting = left;
    return group;
  }
}
