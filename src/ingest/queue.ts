/**
 * What waits for the append loop, first come first served, bounded in count and bytes. Taking joins all submissions
 * that wait, up to the limits of a group; so do releases of holds, which are bounded together (holds.ts); a registration
 * change, a redelivery or a pause stands alone, in its place.
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock } from '../clock.ts';
import type { RedeliveredKey, RegistrationChange } from '../store/segment.ts';
import type { FoldedRegistration } from './fold.ts';
import type { Hold } from './holds.ts';
import type { RedeliveryOutcome, Shelf } from './redelivery.ts';
import type { ParsedSubmission, SubmissionResult } from './submission.ts';

export interface GroupLimits {
  /** One group: at least one submission, then no more than this many items and bytes. */
  readonly groupEventsMax: number;
  readonly groupBytesMax: number;
  readonly queueItemsMax: number;
  readonly queueBytesMax: number;
  /** What a refused caller is asked to wait. */
  readonly retryDelayMs: number;
}

/** Makes changes of the registrations in force; none = there is nothing to do. May throw a RefusalError. */
export type PlannedChange = (registrations: ReadonlyMap<string, FoldedRegistration>) => readonly RegistrationChange[];

interface Waiting<Result> {
  settle(result: Result): void;
  refuse(error: unknown): void;
}

export interface SubmissionItem extends Waiting<SubmissionResult> {
  readonly kind: 'submission';
  readonly submission: ParsedSubmission;
}

interface ChangeItem extends Waiting<number> {
  readonly kind: 'change';
  readonly plan: PlannedChange;
}

interface RedeliveryItem extends Waiting<RedeliveryOutcome> {
  readonly kind: 'redelivery';
  readonly key: RedeliveredKey;
  readonly shelf: Shelf;
}

/** A hold to release, if that is due in its turn. */
export interface Release {
  readonly hold: Hold;
  readonly isDue: () => boolean;
}

interface ReleaseItem extends Waiting<void> {
  readonly kind: 'release';
  readonly release: Release;
}

interface FlushItem extends Waiting<void> {
  readonly kind: 'flush';
}

interface LookItem extends Waiting<boolean> {
  readonly kind: 'look';
}

interface PauseItem {
  readonly kind: 'pause';
  use(): void;
  refuse(error: unknown): void;
}

type Item = SubmissionItem | ReleaseItem | ChangeItem | RedeliveryItem | FlushItem | LookItem | PauseItem;

export type Work =
  | { readonly kind: 'submissions'; readonly items: readonly SubmissionItem[]; refuse(error: unknown): void }
  | { readonly kind: 'releases'; readonly releases: readonly Release[]; settle(): void; refuse(error: unknown): void }
  | { readonly kind: 'hint'; readonly position: number; refuse(error: unknown): void }
  | ChangeItem
  | RedeliveryItem
  | FlushItem
  | LookItem
  | PauseItem;

export class IngestQueue {
  readonly #limits: GroupLimits;
  readonly #clock: Clock;
  #items: Item[] = [];
  #head = 0;
  #bytes = 0;
  #closed = false;
  #wake: (() => void) | null = null;
  /** Asked for and not taken; shared. */
  #lookToCome: Promise<boolean> | null = null;
  /** Log position of the newest hint that is not taken; 0 = none. */
  #hinted = 0;

  constructor(limits: GroupLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** True if what is taken next is a group, and that without a wait. */
  get hasSubmission(): boolean {
    return this.#items[this.#head]?.kind === 'submission';
  }

  /** `refusal`: what keeps the submission from being queued, known beforehand. Every refusal is told to its place in the call at once. */
  offer(submission: ParsedSubmission, refusal: Error | null = null): Promise<SubmissionResult> {
    const { place } = submission;
    const { promise, resolve, reject } = Promise.withResolvers<SubmissionResult>();
    const refuse = (error: unknown): void => {
      place?.refuse(error);
      reject(error);
    };
    const reason = place?.refusal() ?? refusal ?? this.#fullFor(submission);
    if (reason === null) this.#put({ kind: 'submission', submission, settle: resolve, refuse });
    else refuse(reason);
    return promise;
  }

  #fullFor(submission: ParsedSubmission): RefusalError | null {
    const full = this.#items.length - this.#head >= this.#limits.queueItemsMax || (this.#bytes > 0 && this.#bytes + submission.bytes > this.#limits.queueBytesMax);
    if (!full || this.#closed) return null;
    const message = 'Too much is waiting to be written for this homeserver. Send the request again after the given delay.';
    return new RefusalError('QUEUE_FULL', message, { retryDelayMs: this.#limits.retryDelayMs });
  }

  offerChange(plan: PlannedChange): Promise<number> {
    return new Promise((settle, refuse) => this.#put({ kind: 'change', plan, settle, refuse }));
  }

  offerRedelivery(key: RedeliveredKey, shelf: Shelf): Promise<RedeliveryOutcome> {
    return new Promise((settle, refuse) => this.#put({ kind: 'redelivery', key, shelf, settle, refuse }));
  }

  offerRelease(release: Release): Promise<void> {
    return new Promise((settle, refuse) => this.#put({ kind: 'release', release, settle, refuse }));
  }

  offerFlush(): Promise<void> {
    return new Promise((settle, refuse) => this.#put({ kind: 'flush', settle, refuse }));
  }

  offerLook(): Promise<boolean> {
    return (this.#lookToCome ??= new Promise((settle, refuse) => this.#put({ kind: 'look', settle, refuse })));
  }

  /** Others appended through at least this log position; to be looked at when nothing else is to be done. */
  hint(position: number): void {
    this.#hinted = Math.max(this.#hinted, position);
    this.#wake?.();
  }

  offerPause<Result>(use: () => Result): Promise<Result> {
    return new Promise((settle, refuse) => this.#put({ kind: 'pause', use: () => settle(use()), refuse }));
  }

  /** From here on everything offered is refused; what waits is still taken. */
  close(): void {
    this.#closed = true;
  }

  wake(): void {
    this.#wake?.();
  }

  refuseAll(error: unknown): void {
    const items = this.#items.slice(this.#head);
    this.#items = [];
    this.#head = 0;
    this.#bytes = 0;
    this.#lookToCome = null;
    for (const item of items) item.refuse(error);
  }

  /** What is next, as soon as there is something; null once `signal` aborts. */
  async take(signal: AbortSignal): Promise<Work | null> {
    if (this.#head === this.#items.length) {
      if (this.#hinted === 0) await this.#arrival(signal);
      // Calls that arrive in the same turn of the event loop share the group.
      await this.#clock.pause();
    }
    const next = this.#items[this.#head];
    if (next === undefined) return this.#takeHint();
    if (next.kind === 'submission') return this.#takeGroup();
    return next.kind === 'release' ? this.#takeReleases() : this.#shift(next);
  }

  #takeHint(): Work | null {
    if (this.#hinted === 0) return null;
    const position = this.#hinted;
    this.#hinted = 0;
    return { kind: 'hint', position, refuse: () => undefined };
  }

  #takeReleases(): Work {
    const items: ReleaseItem[] = [];
    for (let next = this.#items[this.#head]; next?.kind === 'release'; next = this.#items[this.#head]) items.push(this.#shift(next));
    return {
      kind: 'releases',
      releases: items.map(({ release }) => release),
      settle: () => {
        for (const item of items) item.settle();
      },
      refuse: (error) => {
        for (const item of items) item.refuse(error);
      },
    };
  }

  #takeGroup(): Work {
    const items: SubmissionItem[] = [];
    let events = 0;
    let bytes = 0;
    for (let next = this.#items[this.#head]; next?.kind === 'submission'; next = this.#items[this.#head]) {
      const { submission } = next;
      events += submission.events.length + (submission.others?.count ?? 0);
      bytes += submission.bytes;
      if (items.length > 0 && (events > this.#limits.groupEventsMax || bytes > this.#limits.groupBytesMax)) break;
      items.push(this.#shift(next));
    }
    return {
      kind: 'submissions',
      items,
      refuse: (error) => {
        for (const item of items) item.refuse(error);
      },
    };
  }

  #shift<Kind extends Item>(item: Kind): Kind {
    this.#head++;
    if (item.kind === 'submission') this.#bytes -= item.submission.bytes;
    if (item.kind === 'look') this.#lookToCome = null;
    if (this.#head === this.#items.length || this.#head >= 1024) {
      this.#items.splice(0, this.#head);
      this.#head = 0;
    }
    return item;
  }

  #put(item: Item): void {
    if (this.#closed) {
      this.#lookToCome = null;
      item.refuse(new RefusalError('DRAINING', 'The router is shutting down. Send the request again in a second.', { retryDelayMs: 1000 }));
      return;
    }
    this.#items.push(item);
    if (item.kind === 'submission') this.#bytes += item.submission.bytes;
    this.#wake?.();
  }

  #arrival(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        resolve();
      };
    });
  }
}

/** What the plan makes of the registrations, or why it cannot. */
export function planned(plan: PlannedChange, registrations: ReadonlyMap<string, FoldedRegistration>): readonly RegistrationChange[] | RefusalError {
  try {
    return plan(registrations);
  } catch (error) {
    if (error instanceof RefusalError) return error;
    throw error;
  }
}
