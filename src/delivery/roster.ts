/**
 * Which appservices this process delivers to: the senders, and the one loop behind them all.
 *
 * A turn of the loop comes every second, and at once when something asks for it: a registration changed, replicas came
 * or went, a lease was lost, a backlog must be counted. It reads the stored states if others may have changed them,
 * makes states for new appservices, takes what is its own and free, gives back what belongs elsewhere, counts
 * backlogs. Every turn starts from what is stored, so one that failed half-way is made good by the next.
 *
 *   elsewhere ──▶ take (a new epoch, by compare-and-set) ──▶ held by a sender ──▶ retire, hand over ──▶ elsewhere
 *                                                              └── lost, or this replica was away ──▶ elsewhere
 *
 * What is given back is handed to the replica that should have it, in its name, so that it need only look. One that
 * gets something so keeps it until the live replicas are others: the giver may still count as alive for a moment.
 */
import { StoreError } from '../store/errors.ts';
import type { AppserviceState, SegmentLog } from '../store/port.ts';
import type { DeliveryContext } from './context.ts';
import { mayTake, wantedHolder } from './lease.ts';
import type { RouteAnnouncement } from './ports.ts';
import type { ReplicaPresence } from './replica-presence.ts';
import { Sender } from './sender.ts';
import { StateCell } from './state-cell.ts';
import type { StateWriter } from './state-writer.ts';
import { firstState, released, taken } from './transitions.ts';

export interface RosterOptions {
  readonly context: Omit<DeliveryContext, 'measureSoon' | 'leaseLost'>;
  readonly presence: ReplicaPresence;
  readonly writer: StateWriter;
  readonly log: Pick<SegmentLog, 'measureRoutes'>;
  readonly pollIntervalMs: number;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

export class Roster {
  readonly #options: RosterOptions;
  readonly #context: DeliveryContext;
  readonly #senders = new Map<string, Sender>();
  readonly #retiring = new Set<Sender>();
  /** As last read, of appservices that no sender here has. */
  readonly #states = new Map<string, AppserviceState>();
  readonly #stop = new AbortController();
  /** Log position of the last entry known to be routed to anybody. */
  #tail = 0;
  /** Wall clock as of which the states were read. */
  #loadedTimeMs = 0;
  /** Epochs in which this process held a lease last. */
  readonly #heldEpochs = new Map<string, number>();
  /** What was handed to this replica, and the live replicas as of then. */
  readonly #given = new Map<string, string>();
  #mustLoad = true;
  #mustTurn = true;
  #sleeping: AbortController | null = null;
  #lapseCount: number;
  #running: Promise<void> = Promise.resolve();
  #unsubscribe: () => void = () => undefined;

  constructor(options: RosterOptions) {
    this.#options = options;
    this.#lapseCount = options.presence.lapseCount;
    this.#context = {
      ...options.context,
      measureSoon: () => this.nudge(),
      leaseLost: (appserviceId) => this.#giveUpLost(appserviceId),
    };
  }

  /** Takes up what is its own, with everything that waits through log position `throughPosition`. Rejects with a StoreError. */
  async start(throughPosition: number): Promise<void> {
    this.#tail = Math.max(this.#tail, throughPosition);
    this.#unsubscribe = this.#options.presence.subscribe(() => this.#presenceChanged());
    this.#mustTurn = false;
    await this.#turn();
    this.#running = this.#run();
  }

  isWantedHere(appserviceId: string): boolean {
    const { replicaId, liveReplicaIds } = this.#options.presence;
    return wantedHolder(this.#context.serverName, appserviceId, liveReplicaIds) === replicaId;
  }

  sender(appserviceId: string): Sender | undefined {
    return this.#senders.get(appserviceId);
  }

  /** The newest known state; as last read, for one that is held elsewhere. */
  state(appserviceId: string): AppserviceState | undefined {
    return this.#senders.get(appserviceId)?.state ?? this.#states.get(appserviceId);
  }

  get tail(): number {
    return this.#tail;
  }

  /** Wall clock: what was stored some seconds before this is known here. While nobody else may write, that is now. */
  get knownAsOfMs(): number {
    const { presence } = this.#options;
    const isAlone = !presence.isShared && presence.isPresent() && presence.lapseCount === this.#lapseCount && !this.#mustLoad;
    return isAlone ? this.#context.clock.nowMs() : this.#loadedTimeMs;
  }

  /** Ids of all known states, in no order. */
  appserviceIds(): Set<string> {
    return new Set([...this.#states.keys(), ...this.#senders.keys()]);
  }

  routed(announcements: readonly RouteAnnouncement[]): void {
    for (const announcement of announcements) {
      this.#tail = Math.max(this.#tail, announcement.lastPosition);
      const sender = this.#senders.get(announcement.appserviceId);
      if (sender === undefined) continue;
      sender.backlog.announced(announcement, sender.state.deliveredPosition);
      sender.wake();
    }
  }

  registrationsChanged(): void {
    for (const sender of this.#senders.values()) sender.registrationsChanged();
    this.nudge();
  }

  /** Asks for a turn of the loop now. */
  nudge(): void {
    this.#mustTurn = true;
    this.#sleeping?.abort();
  }

  /** A lease was given up or handed over; `holder` null: whoever should have it may. A hint. */
  leaseChanged(appserviceId: string, holder: string | null): void {
    if (this.#senders.has(appserviceId)) return;
    if (holder === null ? !this.isWantedHere(appserviceId) : holder !== this.#options.presence.replicaId) return;
    this.#mustLoad = true;
    this.nudge();
  }

  /**
   * Ends the loop. Each sender finishes what is in flight, within `drainTimeoutMs`, and hands its lease over at once,
   * whatever the others do; all leases are given back within `releaseTimeoutMs` more.
   */
  async end(drainTimeoutMs: number, releaseTimeoutMs: number): Promise<void> {
    this.#unsubscribe();
    this.#stop.abort();
    this.#sleeping?.abort();
    const senders = [...new Set([...this.#senders.values(), ...this.#retiring])];
    const overdue = new AbortController();
    const ended = senders.map(async (sender) => {
      await Promise.race([sender.retire(), aborted(overdue.signal)]);
      await this.#release(sender);
    });
    const done = Promise.all([this.#running, ...ended]);
    await this.#within(drainTimeoutMs, done);
    overdue.abort();
    await this.#within(releaseTimeoutMs, done);
    this.#senders.clear();
  }

  /** A lease that cannot be given back in time is taken by others once this replica is gone. */
  async #release(sender: Sender): Promise<void> {
    const { replicaId, liveReplicaIds } = this.#options.presence;
    await sender.stop();
    if (!sender.cell.isCertain) return;
    const successor = wantedHolder(this.#context.serverName, sender.appserviceId, liveReplicaIds.filter((id) => id !== replicaId));
    await sender.cell.changeOnce(released(replicaId, successor)).catch(() => null);
  }

  async #run(): Promise<void> {
    const { clock, logger, serverName } = this.#context;
    const { signal } = this.#stop;
    for (;;) {
      if (!this.#mustTurn) await this.#sleep();
      if (signal.aborted) return;
      // A wake is a hint: whatever became of it, nothing waits longer than this.
      for (const sender of this.#senders.values()) sender.wake();
      const due = this.#mustTurn || this.#mustLoad || this.#options.presence.isShared || this.#unmeasured().length > 0;
      if (!due) continue;
      this.#mustTurn = false;
      try {
        await this.#turn();
      } catch (error) {
        this.#mustLoad = true;
        const kind = error instanceof StoreError ? error.kind : 'internal';
        logger.warn({ server_name: serverName, kind, error: error instanceof Error ? error.message : String(error) }, 'leases and backlogs could not be looked after; tried again');
        await clock.sleep(this.#options.pollIntervalMs, signal);
      }
    }
  }

  /** Until the next look, or until somebody asks for one. */
  async #sleep(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#sleeping = new AbortController();
    await this.#context.clock.sleep(this.#options.pollIntervalMs, this.#sleeping.signal);
    this.#sleeping = null;
  }

  async #turn(): Promise<void> {
    const { presence } = this.#options;
    if (!presence.isPresent()) return;
    this.#dropLapsed();
    const lapseCount = presence.lapseCount;
    if (this.#mustLoad || presence.isShared) await this.#load();
    if (presence.lapseCount !== lapseCount) return this.nudge();
    // A holder that is not among the live may have come since they were told: one that was told before the state was read is no proof.
    if (this.#hasStrangers()) await presence.refresh();
    if (presence.lapseCount !== lapseCount) return this.nudge();
    const failures = await this.#acquire(lapseCount);
    await this.#measure();
    for (const sender of this.#senders.values()) sender.wake();
    if (failures.length > 0) throw failures[0];
  }

  async #load(): Promise<void> {
    const startedMs = this.#context.clock.nowMs();
    const states = await this.#options.writer.load();
    this.#loadedTimeMs = startedMs;
    this.#mustLoad = false;
    for (const [appserviceId, state] of states) {
      const sender = this.#senders.get(appserviceId);
      if (sender === undefined) {
        // What this process wrote may be newer than what was read.
        if ((this.#states.get(appserviceId)?.revision ?? 0) <= state.revision) this.#states.set(appserviceId, state);
        continue;
      }
      sender.adopt(state);
      if (!sender.cell.isLost) continue;
      this.#giveUpLost(appserviceId);
      this.#states.set(appserviceId, state);
    }
  }

  /** True if a lease is held by a replica that is not known to live. */
  #hasStrangers(): boolean {
    const { liveReplicaIds } = this.#options.presence;
    return [...this.#states.values()].some(({ leaseHolder }) => leaseHolder !== null && !liveReplicaIds.includes(leaseHolder));
  }

  /** Makes, takes and gives back leases. Returns the failures of the store; what succeeded is held. */
  async #acquire(lapseCount: number): Promise<unknown[]> {
    const { presence, writer } = this.#options;
    const { registrations, serverName } = this.#context;
    const { replicaId, liveReplicaIds } = presence;
    const wanted: AppserviceState[] = [];
    for (const { appserviceId, since, registration } of registrations.list(serverName)) {
      if (registration === null || this.state(appserviceId) !== undefined) continue;
      if (wantedHolder(serverName, appserviceId, liveReplicaIds) === replicaId) wanted.push(firstState(serverName, appserviceId, since, replicaId));
    }
    for (const state of this.#states.values()) {
      if (!mayTake(state, replicaId, liveReplicaIds)) continue;
      if (state.leaseHolder === replicaId && state.leaseEpoch !== this.#heldEpochs.get(state.appserviceId)) this.#given.set(state.appserviceId, liveReplicaIds.join());
      wanted.push(taken(state, replicaId));
    }
    for (const sender of this.#senders.values()) {
      const { appserviceId } = sender;
      if (this.#given.get(appserviceId) === liveReplicaIds.join()) continue;
      this.#given.delete(appserviceId);
      if (wantedHolder(serverName, appserviceId, liveReplicaIds) !== replicaId) this.#retire(sender);
    }
    const outcomes = await Promise.allSettled(wanted.map((state) => writer.write(state)));
    const failures: unknown[] = [];
    for (const [at, outcome] of outcomes.entries()) {
      const state = wanted[at];
      if (state === undefined) continue;
      if (outcome.status === 'rejected') failures.push(outcome.reason);
      else if (outcome.value === 'conflict') this.#mustLoad = true;
      else this.#hold(state, lapseCount);
    }
    if (this.#mustLoad) this.#mustTurn = true;
    return failures;
  }

  #hold(state: AppserviceState, lapseCount: number): void {
    const { writer, presence } = this.#options;
    if (this.#stop.signal.aborted) return;
    if (presence.lapseCount !== lapseCount) return this.#setAside(state);
    this.#states.delete(state.appserviceId);
    this.#heldEpochs.set(state.appserviceId, state.leaseEpoch);
    const cell = new StateCell(state, { writer, isHolder: true, retry: this.#context.storeRetry });
    this.#senders.set(state.appserviceId, new Sender(cell, lapseCount, this.#context));
  }

  /** Gives an appservice back, once its attempt in flight has ended. */
  #retire(sender: Sender): void {
    if (this.#retiring.has(sender)) return;
    this.#retiring.add(sender);
    const { presence } = this.#options;
    const successor = (): string | undefined => wantedHolder(this.#context.serverName, sender.appserviceId, presence.liveReplicaIds);
    const retired = sender
      .retire()
      .then(() => sender.cell.change(released(presence.replicaId, successor()), this.#stop.signal))
      .catch((error: unknown) => this.#context.logger.error({ appservice_id: sender.appserviceId, error: String(error) }, 'a lease could not be given back'))
      .finally(() => {
        this.#retiring.delete(sender);
        this.#forget(sender);
      });
    void retired;
  }

  /** Counts the backlogs whose figures are not to be trusted, all in one call. */
  async #measure(): Promise<void> {
    const senders = this.#unmeasured();
    if (senders.length === 0) return;
    const through = this.#tail;
    const after = new Map<string, number>();
    for (const { appserviceId, backlog, state } of senders) {
      backlog.measureBegins();
      after.set(appserviceId, state.deliveredPosition);
    }
    try {
      const measures = await this.#options.log.measureRoutes(this.#context.serverName, after, through);
      const byId = new Map(measures.map((measure) => [measure.appserviceId, measure]));
      for (const { appserviceId, backlog } of senders) backlog.measured(byId.get(appserviceId), through);
    } catch (error) {
      for (const { backlog } of senders) backlog.measureFailed();
      throw error;
    }
  }

  #unmeasured(): Sender[] {
    return [...this.#senders.values()].filter(({ backlog }) => !backlog.isMeasured);
  }

  #presenceChanged(): void {
    this.#dropLapsed();
    this.nudge();
  }

  /** After an absence nothing that was held is trusted: senders end, and what is stored is read anew. */
  #dropLapsed(): void {
    const { lapseCount } = this.#options.presence;
    if (lapseCount === this.#lapseCount) return;
    this.#lapseCount = lapseCount;
    this.#mustLoad = true;
    for (const sender of [...this.#senders.values()]) {
      void sender.stop();
      this.#forget(sender);
    }
  }

  #giveUpLost(appserviceId: string): void {
    const sender = this.#senders.get(appserviceId);
    if (sender === undefined || !sender.cell.isLost || this.#retiring.has(sender)) return;
    this.#context.logger.warn({ server_name: this.#context.serverName, appservice_id: appserviceId }, 'another replica delivers to this appservice now');
    this.#forget(sender);
    this.nudge();
  }

  #forget(sender: Sender): void {
    if (this.#senders.get(sender.appserviceId) === sender) this.#senders.delete(sender.appserviceId);
    if (!this.#senders.has(sender.appserviceId)) this.#setAside(sender.state);
  }

  /**
   * The lease is not trusted any more. To deliver again here it is taken in a new epoch, by compare-and-set with what
   * is stored; what the sender before may still have under way is fenced by that.
   */
  #setAside(state: AppserviceState): void {
    const known = this.#states.get(state.appserviceId);
    if (known === undefined || known.revision <= state.revision) this.#states.set(state.appserviceId, { ...state, leaseHolder: null });
    this.#mustLoad = true;
    this.#mustTurn = true;
  }

  async #within(timeoutMs: number, work: Promise<unknown>): Promise<void> {
    const done = new AbortController();
    await Promise.race([work, this.#context.clock.sleep(timeoutMs, done.signal)]);
    done.abort();
  }
}
