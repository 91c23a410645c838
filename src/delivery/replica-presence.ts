/**
 * That this process lives, as the other replicas see it, and which others live. One for the whole process.
 *
 *              heartbeat answered                no answer for the time to live, less a margin
 *   away ───────────────────────▶ present ─────────────────────────────────────▶ away
 *                                  (each answer lengthens it)                     (lapse)
 *
 *   present   what this process holds is its own: no other replica takes it. Counted from before the heartbeat was
 *             sent, by the monotonic clock, so it ends here before it ends in the store.
 *   away      others may have taken anything: nothing is sent, and everything held is read back before it is trusted.
 *             A process that was stopped for a while finds itself here when it goes on.
 *
 * With a store that belongs to this process alone there is nobody else: it is always present.
 */
import type { Clock, Random } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { StoreError } from '../store/errors.ts';
import type { AppserviceStateStore } from '../store/port.ts';

export interface ReplicaPresenceOptions {
  readonly store: Pick<AppserviceStateStore, 'heartbeat'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** The store belongs to this process alone; no heartbeats. */
  readonly isExclusive: boolean;
  readonly intervalMs: number;
  readonly ttlMs: number;
  /** Taken off the time to live, for the time a push needs to leave the machine. */
  readonly marginMs: number;
}

export const PRESENCE_DEFAULTS = { intervalMs: 1_000, ttlMs: 5_000, marginMs: 500 } as const;

export class ReplicaPresence implements AsyncDisposable {
  /** New with every start of a process. */
  readonly replicaId: string;
  readonly #options: ReplicaPresenceOptions;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<() => void>();
  #liveReplicaIds: readonly string[];
  #validUntilMs: number;
  #hasLapsed = false;
  #lapseCount = 0;
  /** Heartbeats sent, and the number of the newest that was answered. */
  #sentCount = 0;
  #answeredCount = 0;
  #running: Promise<unknown> = Promise.resolve();
  /** The pause between two heartbeats. */
  #pause = new AbortController();

  constructor(options: ReplicaPresenceOptions) {
    this.#options = options;
    this.replicaId = options.random.hex(12);
    this.#liveReplicaIds = options.isExclusive ? [this.replicaId] : [];
    this.#validUntilMs = options.isExclusive ? Infinity : -Infinity;
  }

  /** Says that this process lives, and goes on saying so. Rejects with a StoreError if the first time fails. */
  async start(): Promise<void> {
    if (this.#options.isExclusive) return;
    await this.#beat();
    this.#running = Promise.all([this.#runHeartbeat(), this.#runWatch()]);
  }

  /** Live replicas, this one included, as of the last heartbeat. Ascending. */
  get liveReplicaIds(): readonly string[] {
    return this.#liveReplicaIds;
  }

  /** Others may share the work: what is stored may be changed by them. */
  get isShared(): boolean {
    return this.#liveReplicaIds.length > 1;
  }

  /** Times that this process was away. What was known before the last of them must not be trusted. */
  get lapseCount(): number {
    return this.#lapseCount;
  }

  /** A heartbeat now: then the live replicas are those of a moment after this call. Rejects with a StoreError. */
  async refresh(): Promise<void> {
    if (!this.#options.isExclusive) await this.#beat();
  }

  isPresent(): boolean {
    return this.#options.clock.monotonicMs() < this.#validUntilMs;
  }

  /** Calls `listener` whenever the live replicas change or this process was away. Returns how to end that. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Replicas may have come or gone: looks at once. */
  look(): void {
    this.#pause.abort();
  }

  /** Takes leave, so that others need not wait. Dispose whatever delivers before. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#pause.abort();
    if (this.#options.isExclusive) return;
    const { store, clock, ttlMs } = this.#options;
    const overdue = new AbortController();
    const leave = Promise.all([this.#running, store.heartbeat(this.replicaId, 0)]).catch(() => undefined);
    await Promise.race([leave, clock.sleep(ttlMs / 2, overdue.signal)]);
    overdue.abort();
  }

  async #runHeartbeat(): Promise<void> {
    const { clock, intervalMs, logger } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#pause = new AbortController();
      await clock.sleep(intervalMs, this.#pause.signal);
      if (this.#stop.signal.aborted) return;
      try {
        await this.#beat();
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        logger.warn({ replica_id: this.replicaId, kind: error.kind, error: error.message }, 'the heartbeat of this replica was not answered');
      }
    }
  }

  /** Notices the end of the time to live even while a heartbeat hangs. */
  async #runWatch(): Promise<void> {
    const { clock, intervalMs } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const leftMs = this.#validUntilMs - clock.monotonicMs();
      if (leftMs <= 0) this.#lapse();
      await clock.sleep(leftMs > 0 ? leftMs : intervalMs, signal);
    }
  }

  async #beat(): Promise<void> {
    const { store, clock, ttlMs, marginMs } = this.#options;
    const sentMs = clock.monotonicMs();
    const number = ++this.#sentCount;
    const live = await store.heartbeat(this.replicaId, ttlMs);
    // One that was sent later was answered before: this answer is older than what is known.
    if (this.#stop.signal.aborted || number < this.#answeredCount) return;
    this.#answeredCount = number;
    const isFirst = this.#validUntilMs === -Infinity;
    if (!isFirst && clock.monotonicMs() >= this.#validUntilMs) this.#lapse();
    this.#validUntilMs = sentMs + ttlMs - marginMs;
    const isBack = this.#hasLapsed && this.isPresent();
    if (isBack) this.#hasLapsed = false;
    const hasChanged = live.length !== this.#liveReplicaIds.length || live.some((id, at) => id !== this.#liveReplicaIds[at]);
    this.#liveReplicaIds = live;
    if (hasChanged || isBack) this.#tell();
  }

  #lapse(): void {
    if (this.#hasLapsed) return;
    this.#hasLapsed = true;
    this.#lapseCount++;
    this.#options.logger.warn({ replica_id: this.replicaId }, 'this replica was not heard of for too long; what it holds is read back before it goes on');
    this.#tell();
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
