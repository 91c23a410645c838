/**
 * Domain events from the house to whoever watches (contract section 2, WatchEvents; M8).
 *
 *   emit ──▶ log line, metrics ──▶ each watcher's ring ──▶ its reader, at its own pace
 *
 * emit never waits: a ring that is full loses its oldest record, and the reader learns with the next one how many.
 */
import type { DomainEventRecord, DomainEventSink } from './appservice/domain-event.ts';
import { RefusalError } from './appservice/refusal.ts';
import type { Logger } from './logger.ts';

export interface WatchedEvent {
  readonly record: DomainEventRecord;
  /** Records that were lost just before this one. */
  readonly droppedCount: number;
}

/** Counts domain events. Never throws. */
export interface DomainEventMeter {
  domainEvent(record: DomainEventRecord): void;
}

export interface EventFeedOptions {
  readonly logger: Logger;
  readonly meter: DomainEventMeter;
  readonly watchersMax?: number;
  /** Records held for one watcher. */
  readonly ringMax?: number;
}

const WATCHERS_MAX = 100;
const RING_MAX = 1_024;
const RETRY_DELAY_MS = 5_000;

export class EventFeed implements DomainEventSink {
  readonly #logger: Logger;
  readonly #meter: DomainEventMeter;
  readonly #watchersMax: number;
  readonly #ringMax: number;
  readonly #watchers = new Set<Watcher>();

  constructor({ logger, meter, watchersMax = WATCHERS_MAX, ringMax = RING_MAX }: EventFeedOptions) {
    this.#logger = logger;
    this.#meter = meter;
    this.#watchersMax = watchersMax;
    this.#ringMax = ringMax;
  }

  get watcherCount(): number {
    return this.#watchers.size;
  }

  emit(record: DomainEventRecord): void {
    const { kind, ...fields } = record.event;
    this.#logger[levelOf(record.event)]({ event: `appservice.${kind}`, server_name: record.serverName, ...fields }, `appservice.${kind}`);
    this.#meter.domainEvent(record);
    for (const watcher of this.#watchers) watcher.offer(record);
  }

  /**
   * Domain events of a homeserver from this call on, until `signal` aborts or the reader stops; of these appservices
   * only, unless there are none. To be read by one reader. Throws a RefusalError when too many watch already.
   */
  watch(serverName: string, appserviceIds: readonly string[], signal: AbortSignal): AsyncIterable<WatchedEvent> {
    if (this.#watchers.size >= this.#watchersMax) {
      const message = 'Too many callers are watching events. End another watch, or try again later.';
      throw new RefusalError('QUEUE_FULL', message, { retryDelayMs: RETRY_DELAY_MS });
    }
    const watcher = new Watcher(serverName, appserviceIds, this.#ringMax, () => {
      this.#watchers.delete(watcher);
      signal.removeEventListener('abort', watcher.end);
    });
    this.#watchers.add(watcher);
    if (signal.aborted) watcher.end();
    else signal.addEventListener('abort', watcher.end, { once: true });
    return watcher;
  }
}

/** Going back and forth between resting and delivering is no news; every attempt has a line of its own anyway. */
function levelOf(event: DomainEventRecord['event']): 'debug' | 'info' | 'warn' {
  if (event.kind === 'delivery_failed' || event.kind === 'escalation') return 'warn';
  if (event.kind !== 'state_changed') return 'info';
  if (event.state === 'failed') return 'warn';
  return event.state === 'retrying' || event.paused ? 'info' : 'debug';
}

/** One watcher's ring and its reader. What is in the ring when the watch ends is not read any more. */
class Watcher implements AsyncIterable<WatchedEvent>, AsyncIterator<WatchedEvent> {
  readonly #serverName: string;
  readonly #appserviceIds: ReadonlySet<string>;
  readonly #ring: (DomainEventRecord | undefined)[];
  readonly #onEnd: () => void;
  #first = 0;
  #count = 0;
  #droppedCount = 0;
  #ended = false;
  #wake: (() => void) | null = null;

  constructor(serverName: string, appserviceIds: readonly string[], ringMax: number, onEnd: () => void) {
    this.#serverName = serverName;
    this.#appserviceIds = new Set(appserviceIds);
    this.#ring = new Array<DomainEventRecord | undefined>(ringMax).fill(undefined);
    this.#onEnd = onEnd;
  }

  offer(record: DomainEventRecord): void {
    if (record.serverName !== this.#serverName) return;
    if (this.#appserviceIds.size > 0 && !this.#appserviceIds.has(record.event.service_id)) return;
    if (this.#count === this.#ring.length) {
      this.#take();
      this.#droppedCount += 1;
    }
    this.#ring[(this.#first + this.#count) % this.#ring.length] = record;
    this.#count += 1;
    this.#wake?.();
  }

  end = (): void => {
    if (this.#ended) return;
    this.#ended = true;
    this.#ring.fill(undefined);
    this.#count = 0;
    this.#onEnd();
    this.#wake?.();
  };

  [Symbol.asyncIterator](): AsyncIterator<WatchedEvent> {
    return this;
  }

  async next(): Promise<IteratorResult<WatchedEvent>> {
    for (;;) {
      if (this.#ended) return { done: true, value: undefined };
      const record = this.#take();
      if (record !== undefined) {
        const droppedCount = this.#droppedCount;
        this.#droppedCount = 0;
        return { done: false, value: { record, droppedCount } };
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = null;
    }
  }

  return(): Promise<IteratorResult<WatchedEvent>> {
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  #take(): DomainEventRecord | undefined {
    if (this.#count === 0) return undefined;
    const record = this.#ring[this.#first];
    this.#ring[this.#first] = undefined;
    this.#first = (this.#first + 1) % this.#ring.length;
    this.#count -= 1;
    return record;
  }
}
