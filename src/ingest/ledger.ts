/**
 * The append loop of one homeserver's log.
 *
 *            offer                     take everything that waits          append
 *   caller ────────▶ queue (bounded) ─────────────────────────────▶ group ────────▶ log
 *      ▲                                                              │ lost: fold the rival's segments, route again
 *      └──────────────────────────── answer ◀─────────────────────────┘ appended: fold, announce, answer
 *
 *   following   the fold is the log's tail as far as this process knows; groups are taken
 *   behind      an append ended without an answer: the log is read on from the tail before anything else is appended;
 *               until that works callers are refused at once
 *   draining    nothing new is taken; what was taken is finished, then the positions that ran ahead are made durable
 *
 * Promises. One append is outstanding at a time; where the next group waits already, its append goes out before the last
 * group's routes are announced and its callers answered, so that the store works meanwhile. A caller is answered only after its group is durable, or, if nothing
 * of it is wanted, at once. A caller that is refused with `unavailable` may find its items durable: stream positions
 * make the repetition a duplicate (I7). No decision outlives a lost append: the group is routed again on the new tail,
 * and "nobody wants it" counts only after the log has been found to end where the fold does.
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock, Random } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { StoreError } from '../store/errors.ts';
import type { SegmentLog } from '../store/port.ts';
import type { RedeliveredKey, RegistrationChange, Segment } from '../store/segment.ts';
import { answerSubmission, tellPlaces } from './answer-submission.ts';
import type { Fold, FoldedRegistration } from './fold.ts';
import type { KnownAnswers } from './group-holds.ts';
import { RoutedGroup } from './group-router.ts';
import { endsLog } from './log-page.ts';
import { markSegment } from './mark-segment.ts';
import type { Hold } from './holds.ts';
import type { GroupLimits, PlannedChange, Release, SubmissionItem, Work } from './queue.ts';
import { IngestQueue, planned } from './queue.ts';
import { missingRooms } from './missing-rooms.ts';
import { redeliveredParts } from './redelivery.ts';
import type { RedeliveryOutcome, Shelf } from './redelivery.ts';
import type { ParsedSubmission, SubmissionResult } from './submission.ts';

export interface LedgerLimits extends GroupLimits {
  /** A group with more event–appservice pairs is divided, so that a segment fits into any store. */
  readonly groupRoutedMax: number;
  /** A caller is told `unavailable` when its append has not been answered for this long. */
  readonly answerTimeoutMs: number;
  /** Pause between two tries to read on while behind. */
  readonly catchUpIntervalMs: number;
  /** Segments read at once while catching up. */
  readonly readSegmentsMax: number;
  readonly readBytesMax: number;
  readonly streamsMax: number;
}

/** Told of every segment that became durable, in log order, after it was folded. Must not throw or block. */
export interface SegmentListener {
  segmentFolded(segment: Segment): void;
}

export interface IngestMeter {
  group(entryCount: number, submissionCount: number): void;
  submitted(accepted: number, duplicates: number, routed: number): void;
  /** Pairs of an event and an appservice that went out without a question, since too much waits already. */
  unasked(count: number): void;
}

export interface LedgerOptions {
  readonly fold: Fold;
  readonly log: SegmentLog;
  readonly answers: KnownAnswers;
  readonly listener: SegmentListener;
  readonly meter: IngestMeter;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly limits: LedgerLimits;
}

/** An overdue append is noticed after the time-out and at most this part of it. */
const WATCHES_PER_TIMEOUT = 4;
type Appended = 'appended' | 'lost';

export class Ledger implements AsyncDisposable {
  readonly #options: LedgerOptions;
  readonly #fold: Fold;
  readonly #queue: IngestQueue;
  readonly #stop = new AbortController();
  #behind = false;
  #running: Promise<unknown> = Promise.resolve();
  /** The append under way, and who waits for its answer. */
  #outstanding: { readonly waiting: readonly SubmissionItem[]; readonly sinceMs: number } | null = null;
  /** What is still to be told of segments that are durable and folded: announcements and answers, in log order. */
  #untold: (() => void)[] = [];

  constructor(options: LedgerOptions) {
    this.#options = options;
    this.#fold = options.fold;
    this.#queue = new IngestQueue(options.limits, options.clock);
  }

  /** Folds the log from the checkpoint to its tail, then begins to take groups. Rejects with a StoreError. */
  async start(): Promise<void> {
    await this.#readOn();
    while (!(await this.#fold.holds.readBack(this.#options.log, this.#fold.serverName))) {
      if (!(await this.#readOn())) throw new StoreError('unreadable', 'the log lacks events that wait for an appservice');
    }
    this.#running = Promise.all([this.#run(), this.#watch()]);
  }

  get queuedBytes(): number {
    return this.#queue.bytes;
  }

  /** False while the log cannot be read or written. */
  get isFollowing(): boolean {
    return !this.#behind;
  }

  /** Resolves when the submission is durable. Rejects with a RefusalError, or a StoreError of kind `unavailable` or `exhausted`. */
  submit(submission: ParsedSubmission): Promise<SubmissionResult> {
    return this.#queue.offer(submission, this.#refusalOf(submission));
  }

  /** What keeps the submission from being queued at all. */
  #refusalOf({ stream }: ParsedSubmission): Error | null {
    if (this.#behind) return new StoreError('unavailable', 'the log cannot be reached');
    const { streams } = this.#fold;
    if (streams.has(stream) || streams.count < this.#options.limits.streamsMax) return null;
    return new RefusalError('INVALID_FIELD', `This homeserver has ${streams.count} streams already, the most there may be. Use one of them.`, { field: 'stream' });
  }

  /**
   * Appends what `plan` makes of the registrations in force (nothing if null) and resolves with the log position after
   * which the change holds. `plan` may be called again on newer registrations; a RefusalError it throws is passed on.
   */
  changeRegistrations(plan: PlannedChange): Promise<number> {
    if (this.#behind) return Promise.reject(new StoreError('unavailable', 'the log cannot be reached'));
    return this.#queue.offerChange(plan);
  }

  /** Appends a transaction on the shelf as what its appservice still has to get, unless it was appended before. Rejects with a RefusalError or StoreError. */
  redeliver(key: RedeliveredKey, shelf: Shelf): Promise<RedeliveryOutcome> {
    if (this.#behind) return Promise.reject(new StoreError('unavailable', 'the log cannot be reached'));
    return this.#queue.offerRedelivery(key, shelf);
  }

  /**
   * In its turn, if the hold is still open and `isDue` says so: routes what waits in it to its appservice, and resolves
   * once that is durable. Rejects like {@link submit}.
   */
  release(hold: Hold, isDue: () => boolean): Promise<void> {
    if (this.#behind) return Promise.reject(new StoreError('unavailable', 'the log cannot be reached'));
    return this.#queue.offerRelease({ hold, isDue });
  }

  /** Between two groups: `use` sees rooms exactly as of the tail and must not wait. */
  betweenGroups<Result>(use: () => Result): Promise<Result> {
    return this.#queue.offerPause(use);
  }

  /** Others may have appended through at least this log position. A hint; never throws. */
  appendedElsewhere(position: number): void {
    if (position > this.#fold.tail) this.#queue.hint(position);
  }

  /** Folds what other writers have appended by now; true if there was anything. */
  look(): Promise<boolean> {
    return this.#queue.offerLook();
  }

  /** Folds what other writers appended, and makes the positions durable that have run ahead of the log. */
  flush(): Promise<void> {
    return this.#queue.offerFlush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const flushed = this.#behind ? Promise.resolve() : this.#queue.offerFlush();
    this.#queue.close();
    await flushed.catch(() => undefined);
    this.#stop.abort();
    this.#queue.wake();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, limits, logger } = this.#options;
    while (!this.#stop.signal.aborted) {
      try {
        if (this.#behind) await this.#readOn();
        else await this.#step();
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        if (!this.#behind) logger.warn({ server_name: this.#fold.serverName, kind: error.kind, error: error.message }, 'the log cannot be written or read; callers are refused until it can');
        this.#behind = true;
        this.#tell();
        this.#queue.refuseAll(new StoreError('unavailable', 'the log cannot be reached'));
        await clock.sleep(limits.catchUpIntervalMs, this.#stop.signal);
      }
    }
    this.#tell();
    this.#queue.refuseAll(new RefusalError('DRAINING', 'The router is shutting down. Send the request again in a second.', { retryDelayMs: 1000 }));
  }

  /** Waits for something to do and does it. */
  async #step(): Promise<void> {
    if (!this.#queue.hasSubmission) this.#tell();
    const work = await this.#queue.take(this.#stop.signal);
    if (work === null) return;
    if (work.kind === 'pause') return work.use();
    if (work.kind === 'hint' && work.position <= this.#fold.tail) return;
    try {
      if (work.kind === 'submissions') await this.#appendSubmissions(work.items);
      else if (work.kind === 'releases') {
        await this.#appendReleases(work.releases);
        work.settle();
      } else if (work.kind === 'change') work.settle(await this.#appendChange(work.plan));
      else if (work.kind === 'redelivery') await this.#appendRedelivery(work);
      else if (work.kind === 'hint') await this.#readOn();
      else if (work.kind === 'look') work.settle(await this.#readOn());
      else work.settle(await this.#appendPositions());
    } catch (error) {
      work.refuse(error);
      if (error instanceof RefusalError) return;
      // No room for this group: nothing of it was written, and another may well fit.
      if (!(error instanceof StoreError) || error.kind !== 'exhausted') throw error;
      this.#options.logger.error({ server_name: this.#fold.serverName, error: error.message }, 'the store has no room for what was submitted; the callers are told to wait');
    }
  }

  #tell(): void {
    const untold = this.#untold;
    this.#untold = [];
    for (const tell of untold) tell();
  }

  async #appendSubmissions(items: readonly SubmissionItem[]): Promise<void> {
    const submissions = items.map(({ submission }) => submission);
    for (;;) {
      await this.#loadRooms(submissions);
      const { random, clock, limits, answers } = this.#options;
      const group = new RoutedGroup(this.#fold, submissions, { releases: [], answers });
      if (group.routedCount > limits.groupRoutedMax && items.length > 1) {
        group.undo();
        const middle = items.length >>> 1;
        await this.#appendSubmissions(items.slice(0, middle));
        return this.#appendSubmissions(items.slice(middle));
      }
      // That nobody wants any of it holds only if no other writer has changed rooms or registrations meanwhile.
      if (group.isEmpty) {
        if (await this.#readOn()) continue;
      } else if ((await this.#append(group.segment(random.hex(12), clock.nowMs()), () => group.undo(), items)) === 'lost') continue;
      this.#answer(group, items);
      this.#fold.rooms.evict();
      return;
    }
  }

  #answer(group: RoutedGroup, items: readonly SubmissionItem[]): void {
    const { meter } = this.#options;
    const { streams, tail: logPosition } = this.#fold;
    for (const [stream, position] of group.passed) streams.pass(stream, position);
    for (const { stream, position, eventId } of group.seen) streams.remember(stream, position, eventId);
    if (group.isEmpty) this.#fold.seen.runAhead(group.newIds);
    tellPlaces(items, group.verdicts);
    meter.group(group.entryCount, items.length);
    if (group.unaskedCount > 0) this.#tellUnasked(group.unaskedCount);
    this.#untold.push(() => {
      for (const [at, item] of items.entries()) answerSubmission(item, group.verdicts[at], logPosition, meter);
    });
  }

  async #loadRooms(submissions: readonly ParsedSubmission[]): Promise<void> {
    const { rooms } = this.#fold;
    const missing = missingRooms(rooms, submissions);
    if (missing.size === 0) return;
    this.#tell();
    await rooms.load(missing);
  }

  #tellUnasked(count: number): void {
    this.#options.meter.unasked(count);
    this.#options.logger.warn({ server_name: this.#fold.serverName, event_count: count }, 'events were routed without asking about unknown users, since too much waits for answers already');
  }

  async #appendReleases(wanted: readonly Release[]): Promise<void> {
    const { random, clock, answers } = this.#options;
    for (;;) {
      const releases = wanted.filter(({ hold, isDue }) => this.#fold.holds.isOpen(hold) && isDue()).map(({ hold }) => hold);
      if (releases.length === 0) return;
      await this.#fold.rooms.load(new Set(releases.map(({ roomId }) => roomId)));
      const group = new RoutedGroup(this.#fold, [], { releases, answers });
      if ((await this.#append(group.segment(random.hex(12), clock.nowMs()), () => group.undo(), [])) === 'appended') return;
    }
  }

  async #appendChange(plan: PlannedChange): Promise<number> {
    for (;;) {
      const changes = planned(plan, this.#fold.registrations);
      // That there is nothing to do, or that it cannot be done, holds only if no other writer has changed registrations meanwhile.
      if (changes instanceof RefusalError || changes.length === 0) {
        if (await this.#readOn()) continue;
        if (changes instanceof RefusalError) throw changes;
        return this.#fold.registrationsVersion;
      }
      const position = this.#fold.tail + 1;
      const registrations = this.#fold.after(changes, position);
      // Nobody is left to be asked: what waits becomes part of the queue, and shares its fate.
      const unasked = [...this.#fold.holds.all()].filter(({ appserviceId }) => (registrations.get(appserviceId)?.registration?.url ?? null) === null);
      if (unasked.length > 0) {
        await this.#appendReleases(unasked.map((hold) => ({ hold, isDue: () => true })));
        continue;
      }
      const index = await this.#fold.compile(registrations);
      if ((await this.#append(this.#markSegment(changes), () => undefined, [], { registrations, index })) === 'appended') return position;
    }
  }

  async #appendRedelivery(work: Extract<Work, { kind: 'redelivery' }>): Promise<void> {
    for (;;) {
      // What is wrong with the shelf is not wrong with the log.
      const parts = await redeliveredParts(this.#fold, work.key, work.shelf).catch((error: unknown) => work.refuse(error));
      if (parts === undefined) return;
      if (typeof parts === 'string') return work.settle(parts);
      const segment = { ...this.#markSegment([]), ...parts, streamsBefore: this.#fold.streams.allPassed() };
      if ((await this.#append(segment, () => undefined, [])) === 'appended') return work.settle('appended');
    }
  }

  async #appendPositions(): Promise<void> {
    await this.#readOn();
    while (this.#fold.seen.isAhead || Object.keys(this.#fold.streams.ahead()).length > 0) {
      if ((await this.#append(this.#markSegment([]), () => undefined, [])) === 'appended') return;
    }
  }

  #markSegment(registrationChanges: readonly RegistrationChange[]): Segment {
    return markSegment(this.#fold, registrationChanges, this.#options.random.hex(12), this.#options.clock.nowMs());
  }

  /** Appends and folds. After `lost` the rival's segments are folded; after a rejection the fold is as before and must be read on. */
  async #append(
    segment: Segment,
    undo: () => void,
    waiting: readonly SubmissionItem[],
    compiled: { registrations: Map<string, FoldedRegistration>; index: Fold['index'] } | null = null,
  ): Promise<Appended> {
    this.#outstanding = { waiting, sinceMs: this.#options.clock.monotonicMs() };
    try {
      const appending = this.#options.log.append(segment);
      this.#tell();
      const outcome = await appending;
      if (outcome.kind === 'appended') {
        this.#fold.settleOwn(segment, compiled);
        this.#untold.push(() => this.#options.listener.segmentFolded(segment));
        // Whoever waits for a change of registrations or positions finds it announced.
        if (waiting.length === 0) this.#tell();
        return 'appended';
      }
    } catch (error) {
      undo();
      throw error;
    } finally {
      this.#outstanding = null;
    }
    undo();
    await this.#readOn(true);
    return 'lost';
  }

  /** Refuses callers whose append is overdue, and those that wait behind it; the append itself goes on. */
  async #watch(): Promise<void> {
    const { clock, limits } = this.#options;
    for (;;) {
      await clock.sleep(limits.answerTimeoutMs / WATCHES_PER_TIMEOUT, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      const outstanding = this.#outstanding;
      if (outstanding === null || clock.monotonicMs() - outstanding.sinceMs < limits.answerTimeoutMs) continue;
      const error = new StoreError('unavailable', 'the log has not answered in time');
      for (const item of outstanding.waiting) item.refuse(error);
      this.#queue.refuseAll(error);
    }
  }

  /** Folds what others appended, up to the tail, or with `mayLag` at least what won over an append here; true if there was anything. */
  async #readOn(mayLag = false): Promise<boolean> {
    const { log, limits, listener } = this.#options;
    this.#tell();
    const before = this.#fold.tail;
    for (let isLagging = mayLag; ; isLagging = false) {
      const page = { segmentsMax: limits.readSegmentsMax, bytesMax: limits.readBytesMax, mayLag: isLagging };
      const segments = await log.readSegments(this.#fold.serverName, this.#fold.tail + 1, page);
      for (const segment of segments) {
        await this.#fold.settleFound(segment);
        listener.segmentFolded(segment);
      }
      if (segments.length === 0 ? !isLagging : endsLog(segments, page)) break;
    }
    await this.#fold.refreshIndex();
    this.#behind = false;
    return this.#fold.tail > before;
  }
}
