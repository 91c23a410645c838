/**
 * Finds an event in the log by its id. Nothing is indexed for it: the newest segments are in memory and are looked through
 * newest first, the others are read from the store, oldest first, up to a limit. So what is found soonest is what people
 * ask for: an event that has just come, and one that has been stuck the longest.
 *
 *   oldest kept ──── from the store, ≤ STORE_BYTES_MAX ───▶ …   ◀──── in memory ──── tail
 */
import { isJsonObject } from '../appservice/json.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock } from '../clock.ts';
import type { SegmentLog } from '../store/port.ts';
import type { Entry, Segment } from '../store/segment.ts';
import type { RecentSegments } from './recent-segments.ts';
import type { StreamPositions } from './stream-positions.ts';

export interface FoundEvent {
  readonly position: number;
  readonly json: Uint8Array;
  /** Writer's wall clock of its segment. */
  readonly timeMs: number;
  readonly appserviceIds: readonly string[];
}

export interface EventSearchResult {
  readonly found: FoundEvent | null;
  /** The oldest segment that is kept; null: none is. */
  readonly oldest: { readonly position: number; readonly timeMs: number } | null;
  /** False: a limit ended the search. */
  readonly isComplete: boolean;
  /** Where it was submitted not long ago, if that is remembered. */
  readonly seen: { readonly stream: string; readonly position: number } | undefined;
}

export interface EventSearchOptions {
  readonly serverName: string;
  readonly recent: Pick<RecentSegments, 'newestFirst'>;
  readonly log: Pick<SegmentLog, 'readSegments'>;
  readonly streams: Pick<StreamPositions, 'find'>;
  readonly clock: Pick<Clock, 'pause'>;
  /** STORE_BYTES_MAX if absent. */
  readonly storeBytesMax?: number;
}

/** JSON bytes read from the store for one search, and at once. */
const STORE_BYTES_MAX = 256 * 1024 * 1024;
const PAGE = { segmentsMax: 200, bytesMax: 4 * 1024 * 1024 };
/** Looked through without giving way to others. */
const STRIDE_BYTES = 1024 * 1024;
/** Searches of one homeserver at a time. */
const SEARCHES_MAX = 2;
const RETRY_DELAY_MS = 1_000;

export class EventSearch {
  readonly #options: EventSearchOptions;
  #running = 0;

  constructor(options: EventSearchOptions) {
    this.#options = options;
  }

  /** Rejects with a RefusalError if too many searches run, or with a StoreError. */
  async find(eventId: string): Promise<EventSearchResult> {
    if (this.#running >= SEARCHES_MAX) {
      throw new RefusalError('TOO_MANY_LOOKUPS', 'Events are being looked for in the log already. Ask again in a second.', { retryDelayMs: RETRY_DELAY_MS });
    }
    this.#running++;
    try {
      return await this.#find(eventId.toWellFormed());
    } finally {
      this.#running--;
    }
  }

  async #find(eventId: string): Promise<EventSearchResult> {
    const { serverName, log, recent, streams } = this.#options;
    const looking = new Looking(eventId, this.#options.clock);
    const seen = streams.find(eventId);
    const kept = recent.newestFirst();
    let found = await looking.among(kept);
    const [first] = await log.readSegments(serverName, 1, { segmentsMax: 1, bytesMax: 1 });
    const oldest = first === undefined ? null : { position: first.firstPosition, timeMs: first.timeMs };
    if (found !== null || oldest === null) return { found, oldest, isComplete: true, seen };
    const keptFrom = kept.at(-1)?.firstPosition ?? Infinity;
    let bytes = 0;
    for (let from = oldest.position; from < keptFrom; ) {
      if (bytes >= (this.#options.storeBytesMax ?? STORE_BYTES_MAX)) return { found, oldest, isComplete: false, seen };
      const page = await log.readSegments(serverName, from, PAGE);
      found = await looking.among(page.filter(({ firstPosition }) => firstPosition < keptFrom));
      const last = page.at(-1);
      if (found !== null || last === undefined) break;
      for (const { entries } of page) for (const { json } of entries) bytes += json.byteLength;
      from = last.firstPosition + last.entries.length;
    }
    return { found, oldest, isComplete: true, seen };
  }
}

/** Looks through segments for one event, giving way now and then. */
class Looking {
  readonly #eventId: string;
  readonly #written: Buffer;
  readonly #clock: Pick<Clock, 'pause'>;
  #bytes = 0;

  constructor(eventId: string, clock: Pick<Clock, 'pause'>) {
    this.#eventId = eventId;
    this.#written = Buffer.from(JSON.stringify(eventId).slice(1, -1));
    this.#clock = clock;
  }

  async among(segments: readonly Segment[]): Promise<FoundEvent | null> {
    for (const segment of segments) {
      for (const [at, entry] of segment.entries.entries()) {
        if (this.#isIt(entry)) return foundAt(segment, at, entry);
        this.#bytes += entry.json.byteLength;
        if (this.#bytes < STRIDE_BYTES) continue;
        this.#bytes = 0;
        await this.#clock.pause();
      }
    }
    return null;
  }

  /** Most events are told by their bytes; one that writes characters as escapes has to be parsed. */
  #isIt({ kind, json }: Entry): boolean {
    if (kind !== 'event') return false;
    const bytes = Buffer.from(json.buffer, json.byteOffset, json.byteLength);
    if (!bytes.includes(this.#written) && !bytes.includes('\\u') && !bytes.includes('\\/')) return false;
    const event: unknown = JSON.parse(bytes.toString());
    return isJsonObject(event) && typeof event['event_id'] === 'string' && event['event_id'].toWellFormed() === this.#eventId;
  }
}

function foundAt(segment: Segment, at: number, { json }: Entry): FoundEvent {
  const appserviceIds = segment.routes.filter(({ ranges }) => holds(ranges, at)).map(({ appserviceId }) => appserviceId);
  return { position: segment.firstPosition + at, json, timeMs: segment.timeMs, appserviceIds };
}

function holds(ranges: readonly number[], at: number): boolean {
  for (let range = 0; range + 1 < ranges.length; range += 2) if ((ranges[range] ?? Infinity) <= at && at <= (ranges[range + 1] ?? -1)) return true;
  return false;
}
