/**
 * One process's way to the store, and what becomes of a call on it:
 *
 *   done and told      after two delays, that may be long
 *   refused            nothing was done, and the caller is told `unavailable`
 *   answer lost        done, and the caller is told `unavailable`
 *   done late          the caller is told `unavailable`; it is done after that
 *   no room            an append is told `exhausted`, and nothing was done
 *
 * A call of several steps (a save, a load of many documents) is no snapshot: others come in between, and it may stop half-way.
 * What a killed process has sent is done, or not, as if its connection were cut at any moment.
 */
import { StoreError } from '../../src/store/errors.ts';
import type { AppendOutcome, AppserviceState, Fold, FoldChanges, OperatorRecords, RecordChange, RecordKind, RecordQueries, RoutedEntry, RouteLimits, RouteMeasure, StateWriteOutcome, Store, StoredRoom, TrimOutcome, TrimRequest } from '../../src/store/port.ts';
import type { Segment } from '../../src/store/segment.ts';
import type { Chance } from './chance.ts';
import type { History } from './history.ts';
import type { RouterProcess } from './router-process.ts';
import type { SimStore, Writer } from './sim-store.ts';

/** How the way to the store is now. */
export interface StoreWeather {
  /** Share of calls that go wrong by themselves. */
  faultRate: number;
  /** Share of calls that take seconds. */
  slowRate: number;
  /** No call is done. */
  isDown: boolean;
  /** Names of processes that do not reach it. */
  readonly cutOff: Set<string>;
  /** Longest delay of a slow call, and until a hanging one is given up. */
  readonly callTimeoutMs: number;
}

export interface StoreLinkOptions {
  readonly store: SimStore;
  readonly process: RouterProcess;
  readonly chance: Chance;
  readonly weather: StoreWeather;
  readonly history: History;
  /** The store is this process's alone, and its calls end with it. */
  readonly isExclusive: boolean;
  /** Asked before and after a step takes effect; true if the process dies there. */
  readonly diesAt: (process: RouterProcess, point: string) => boolean;
}

type Fate = 'told' | 'refused' | 'answer lost' | 'late' | 'no room';

export class StoreLink implements Store {
  readonly #options: StoreLinkOptions;
  /** Known once presence has chosen it. */
  replicaId = '';
  /** What was seen at a time is not unseen later. */
  #seenMs = 0;

  constructor(options: StoreLinkOptions) {
    this.#options = options;
  }

  append(segment: Segment): Promise<AppendOutcome> {
    return this.#call('append', [() => this.#store.append(segment, this.#writer)]);
  }

  readSegments(_serverName: string, from: number, { segmentsMax }: { segmentsMax: number; bytesMax: number }): Promise<Segment[]> {
    return this.#call('readSegments', [() => this.#store.readSegments(from, segmentsMax)]);
  }

  readRoute(_serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]> {
    return this.#call('readRoute', [() => this.#store.readRoute(appserviceId, after, through, limits)]);
  }

  measureRoutes(_serverName: string, after: ReadonlyMap<string, number>, through: number): Promise<RouteMeasure[]> {
    return this.#call('measureRoutes', [() => this.#store.measureRoutes(after, through)]);
  }

  trim(_serverName: string, request: TrimRequest): Promise<TrimOutcome> {
    return this.#call('trim', [() => this.#store.trim(request)]);
  }

  wholeFrom(_serverName: string, from: number, through: number, segmentsMax: number): Promise<number> {
    return this.#call('wholeFrom', [() => this.#store.wholeFrom(from, through, segmentsMax)]);
  }

  loadFold(): Promise<Fold> {
    const { store } = this.#options;
    let checkpoint: Fold['checkpoint'] | null = null;
    return this.#call('loadFold', [
      () => (checkpoint = store.checkpoint),
      () => ({ checkpoint: checkpoint ?? store.checkpoint, registrations: store.registrations(), seenPages: store.seenPages() }),
    ] as [() => unknown, () => Fold]);
  }

  loadRooms(_serverName: string, roomIds: readonly string[]): Promise<StoredRoom[]> {
    const { chance, history } = this.#options;
    // A read that is not of the newest state may be of any since this process last saw one.
    return this.#call('loadRooms', [() => this.#store.loadRooms(roomIds, chance.is(0.5) ? history.nowMs : chance.between(this.#seenMs, history.nowMs))], false);
  }

  async saveFold(_serverName: string, changes: FoldChanges): Promise<void> {
    const { store } = this.#options;
    await this.#call('saveFold', [() => store.saveRooms(changes.rooms), () => store.saveRegistrations(changes), () => store.saveCheckpoint(changes.checkpoint)]);
  }

  loadStates(): Promise<AppserviceState[]> {
    const { store } = this.#options;
    const read: AppserviceState[] = [];
    return this.#call('loadStates', [
      () => void read.push(...[...store.states.values()].slice(0, 5)),
      () => [...read, ...[...store.states.values()].slice(read.length)],
    ] as [() => unknown, () => AppserviceState[]]);
  }

  writeStates(states: readonly AppserviceState[]): Promise<StateWriteOutcome[]> {
    const { store, history, process } = this.#options;
    if (new Set(states.map(({ appserviceId }) => appserviceId)).size !== states.length) history.breach('two states of one appservice in one call', [process.name]);
    const outcomes: StateWriteOutcome[] = [];
    const half = states.length >>> 1;
    const write = (some: readonly AppserviceState[]): void => {
      for (const state of some) outcomes.push(store.writeState(state, this.#writer));
    };
    const last = (): StateWriteOutcome[] => {
      write(states.slice(half));
      return outcomes;
    };
    return this.#call('writeStates', half === 0 ? [last] : ([() => write(states.slice(0, half)), last] as [() => unknown, () => StateWriteOutcome[]]));
  }

  heartbeat(replicaId: string, ttlMs: number): Promise<string[]> {
    this.replicaId = replicaId;
    return this.#call('heartbeat', [() => this.#store.heartbeat(replicaId, ttlMs)]);
  }

  changeRecord(change: RecordChange): Promise<boolean> {
    return this.#call('changeRecord', [() => this.#store.changeRecord(change)]);
  }

  readRecords<Kind extends RecordKind>(kind: Kind, query: RecordQueries[Kind]): Promise<OperatorRecords[Kind][]> {
    return this.#call('readRecords', [() => this.#store.records.read(kind, query)]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  get #store(): SimStore {
    return this.#options.store;
  }

  get #writer(): Writer {
    return { process: this.#options.process.name, replicaId: this.replicaId };
  }

  #fate(operation: string): Fate {
    const { chance, weather, process } = this.#options;
    if (weather.isDown || weather.cutOff.has(process.name)) return chance.is(0.8) ? 'refused' : 'answer lost';
    if (!chance.is(weather.faultRate)) return 'told';
    return chance.weighted<Fate>([
      ['refused', 3],
      ['answer lost', 3],
      [this.#options.isExclusive ? 'refused' : 'late', 1],
      [operation === 'append' ? 'no room' : 'refused', 1],
    ]);
  }

  /** The result is that of the last step. */
  #call<Result>(operation: string, steps: readonly [...(() => unknown)[], () => Result], seesNewest = true): Promise<Result> {
    const { process, chance, weather, history } = this.#options;
    if (process.isDead) return new Promise(() => undefined);
    const fate = this.#fate(operation);
    const isUnreached = weather.isDown || weather.cutOff.has(process.name);
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    if (fate !== 'told') {
      history.note('store', process.name, `${operation}: ${fate}`);
      const delayMs = isUnreached && chance.is(0.5) ? weather.callTimeoutMs : this.#delayMs();
      const error = fate === 'no room' ? new StoreError('exhausted', 'there is no room') : new StoreError('unavailable', `${operation}: ${fate}`);
      process.after(delayMs + this.#delayMs(), () => reject(error));
      if (fate === 'refused' || fate === 'no room') {
        if (steps.length > 1 && chance.is(0.5)) this.#take(operation, steps.slice(0, -1), this.#delayMs(), () => undefined);
        return promise;
      }
      const startMs = fate === 'late' ? delayMs + chance.between(0, weather.callTimeoutMs) : this.#delayMs() / 2;
      this.#take(operation, steps, startMs, () => undefined);
      return promise;
    }
    this.#take(operation, steps, this.#delayMs(), (result) => {
      const doneMs = history.nowMs;
      const tell = (): void => {
        if (seesNewest) this.#seenMs = Math.max(this.#seenMs, doneMs);
        resolve(result as Result);
      };
      // Half of the answers take no time: that saves half of the happenings, and the other half comes apart.
      if (chance.is(0.5)) process.arrives(tell);
      else process.after(this.#delayMs(), tell);
    });
    return promise;
  }

  #take(operation: string, steps: readonly (() => unknown)[], delayMs: number, told: (result: unknown) => void): void {
    const { process, chance, diesAt, isExclusive } = this.#options;
    const [step, ...further] = steps;
    if (step === undefined) return;
    const outlives = !isExclusive && chance.is(0.5);
    process.kernel.after(delayMs, () => {
      if (process.isDead && !outlives) return;
      if (diesAt(process, `before ${operation}`) && !outlives) return;
      let result = step();
      const isWhole = further.length > 0 && chance.is(0.5);
      if (isWhole) for (const next of further) result = next();
      if (!diesAt(process, `after ${operation}`) || outlives) {
        if (isWhole || further.length === 0) told(result);
        else this.#take(operation, further, this.#delayMs(), told);
      }
    });
  }

  #delayMs(): number {
    const { chance, weather } = this.#options;
    if (weather.slowRate > 0 && chance.is(weather.slowRate)) return chance.between(100, weather.callTimeoutMs);
    return chance.between(0.2, 3);
  }
}
