/**
 * What keeps one homeserver's log short and its start quick, off the path of events:
 *
 *   flush        what other replicas appended is folded; positions that have passed unwanted items only become durable
 *   checkpoint   the fold is saved, so that a start replays little and the log may be trimmed
 *   trim         segments that everybody is past are removed, in bounded steps
 *
 * Ephemeral entries hold no segment back for longer than their age, however long their appservice is away:
 *
 *   appended ──── within its age: delivered ────▶│ age ──── margin ────▶│ a segment in which they are all that an
 *                                                │ left out at the cut  │ appservice waits for goes, unless they are in
 *                                                                       │ a transaction, which keeps its bytes
 *
 * So an appservice that is down for a week costs the store some minutes of ephemeral data, and all of its events. The
 * margin is for what a replica may not know yet: a transaction that another has cut. It is counted from when the states
 * were last read, not from now, since a process may have been stopped in between.
 *
 * Each is safe to miss and safe to repeat. A failing store is tried again at the next turn.
 */
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { StoreError } from '../store/errors.ts';
import type { Checkpoint, ExpiredEntries, FoldStore, SegmentLog } from '../store/port.ts';
import type { Fold } from './fold.ts';
import type { Ledger } from './ledger.ts';

export interface UpkeepOptions {
  readonly fold: Fold;
  readonly ledger: Ledger;
  readonly store: FoldStore & SegmentLog;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Delivered position by appservice, parked ones included; what it lacks is held at the beginning of its registration. */
  readonly deliveredPositions: () => ReadonlyMap<string, number>;
  /** Log position up to which each appservice has had a transaction cut, as far as was stored by then. */
  readonly cutPositions: () => { readonly asOfMs: number; readonly positions: ReadonlyMap<string, number> };
  /** Told of ephemeral entries that went undelivered. */
  readonly expired: (all: readonly ExpiredEntries[]) => void;
  /** Ephemeral entries that wait longer are not cut any more. */
  readonly ephemeralAgeMaxMs: number;
  /** Turn of the loop; positions that ran ahead are durable after at most this. */
  readonly intervalMs: number;
  readonly checkpointIntervalMs: number;
  /** A checkpoint is made early when this many rooms have changed. */
  readonly dirtyRoomsMax: number;
  readonly trimIntervalMs: number;
  /** Segments stay at least this long, and what a replay meanwhile asks for as long as it needs them. */
  readonly retentionMs: number;
  /**
   * What this process folded less than this long ago stays, by its own count: replicas that have not read it yet must
   * still find it, and the wall clocks of replicas may be hours apart. Nothing if left out.
   */
  readonly unreadMs?: number;
  /** Segments looked at in one call of the store, and calls in one turn. */
  readonly trimSegmentsMax: number;
  readonly trimCallsMax: number;
}

/** From the age at which ephemeral entries are cut no more to when they may go. */
const EXPIRED_MARGIN_MS = 120_000;

/** What a checkpoint has only where there is any. */
function savedParts({ deviceKeys, holds, redelivered, streams }: Fold): Pick<Checkpoint, 'deviceKeys' | 'holds' | 'redelivered' | 'seenEvents'> {
  const keys = redelivered.all();
  const seenEvents = streams.newest();
  return {
    ...(deviceKeys.userCount === 0 ? {} : { deviceKeys: deviceKeys.all() }),
    ...(holds.count === 0 ? {} : { holds: holds.toStored() }),
    ...(keys.length === 0 ? {} : { redelivered: keys }),
    ...(seenEvents.length === 0 ? {} : { seenEvents }),
  };
}

export class Upkeep implements AsyncDisposable {
  readonly #options: UpkeepOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> | null = null;
  #saving: Promise<void> = Promise.resolve();
  #checkpointPosition: number;
  #checkpointTimeMs: number;
  #trimTimeMs: number;
  /** Where the current round of trimming has come to. */
  #trimAfter = 0;
  /** Where the fold was and when, monotonic, oldest first; one for each turn within `unreadMs`, and the one before. */
  #folded: { readonly position: number; readonly atMs: number }[] = [];

  constructor(options: UpkeepOptions, checkpointPosition: number) {
    this.#options = options;
    this.#checkpointPosition = checkpointPosition;
    this.#checkpointTimeMs = options.clock.monotonicMs();
    this.#trimTimeMs = this.#checkpointTimeMs;
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Saves the fold as of the tail, one save after the other. Rejects with a StoreError. */
  checkpoint(): Promise<void> {
    const saving = this.#saving.then(() => this.#save());
    this.#saving = saving.catch(() => undefined);
    return saving;
  }

  async #save(): Promise<void> {
    const { fold, ledger, store, clock } = this.#options;
    const changes = await ledger.betweenGroups(() => ({
      rooms: fold.rooms.beginSave(),
      registrations: fold.takeChangedRegistrations(),
      seenPages: fold.seen.beginSave(fold.tail),
      checkpoint: { position: fold.tail, streamPositions: fold.streams.durable(), registrationsVersion: fold.registrationsVersion, ...savedParts(fold) },
    }));
    this.#checkpointTimeMs = clock.monotonicMs();
    try {
      await store.saveFold(fold.serverName, changes);
    } catch (error) {
      fold.rooms.saved(false);
      fold.seen.saved(false);
      fold.unsaved(changes.registrations);
      throw error;
    }
    fold.rooms.saved(true);
    fold.seen.saved(true);
    this.#checkpointPosition = changes.checkpoint.position;
  }

  /** One step of trimming. Rejects with a StoreError. */
  async trim(): Promise<void> {
    const { fold, store, clock, retentionMs, ephemeralAgeMaxMs, trimSegmentsMax, trimCallsMax } = this.#options;
    this.#trimTimeMs = clock.monotonicMs();
    for (let calls = 0; calls < trimCallsMax; calls++) {
      const nowMs = clock.nowMs();
      const cut = this.#options.cutPositions();
      const outcome = await store.trim(fold.serverName, {
        after: this.#trimAfter,
        // What is held is read from its segments after a start, and so is what was written beside it.
        through: Math.min(this.#checkpointPosition, fold.holds.oldestSegment - 1, this.#readByAll()),
        // An operator may have moved a position back since the states were read: what was in its retention then stays.
        beforeMs: Math.min(nowMs, cut.asOfMs) - retentionMs,
        deliveredPositions: this.#heldPositions(),
        expired: { beforeMs: Math.min(nowMs, cut.asOfMs) - ephemeralAgeMaxMs - EXPIRED_MARGIN_MS, cutThrough: cut.positions },
        segmentsMax: trimSegmentsMax,
      });
      if (outcome.expired.length > 0) this.#options.expired(outcome.expired);
      this.#trimAfter = outcome.nextAfter ?? 0;
      if (outcome.nextAfter === null) return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** Log position through which every replica that keeps up has read. */
  #readByAll(): number {
    const { unreadMs = 0, clock } = this.#options;
    if (unreadMs === 0) return Infinity;
    const untilMs = clock.monotonicMs() - unreadMs;
    while ((this.#folded[1]?.atMs ?? Infinity) <= untilMs) this.#folded.shift();
    const [oldest] = this.#folded;
    return oldest !== undefined && oldest.atMs <= untilMs ? oldest.position : 0;
  }

  /** Every appservice that may still be owed something, with the position below which it is owed nothing. */
  #heldPositions(): Map<string, number> {
    const held = new Map(this.#options.deliveredPositions());
    for (const { appserviceId, since, registration, backlog } of this.#options.fold.registrations.values()) {
      if (registration === null && backlog === 'discard') held.delete(appserviceId);
      else if (!held.has(appserviceId)) held.set(appserviceId, since);
    }
    return held;
  }

  async #run(): Promise<void> {
    const { clock, intervalMs, logger, fold } = this.#options;
    for (;;) {
      await clock.sleep(intervalMs, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      try {
        await this.#turn();
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        logger.warn({ server_name: fold.serverName, kind: error.kind, error: error.message }, 'upkeep of the log failed; it is tried again');
      }
    }
  }

  async #turn(): Promise<void> {
    const { ledger, fold, clock, checkpointIntervalMs, dirtyRoomsMax, trimIntervalMs } = this.#options;
    if (!ledger.isFollowing) return;
    await ledger.flush();
    if (this.#options.unreadMs !== undefined) {
      this.#folded.push({ position: fold.tail, atMs: clock.monotonicMs() });
      this.#readByAll();
    }
    const nowMs = clock.monotonicMs();
    const due = nowMs - this.#checkpointTimeMs >= checkpointIntervalMs || fold.rooms.dirtyCount >= dirtyRoomsMax;
    if (due && fold.tail > this.#checkpointPosition) await this.checkpoint();
    if (nowMs - this.#trimTimeMs >= trimIntervalMs) await this.trim();
  }
}
