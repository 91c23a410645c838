/**
 * The newest segments in memory, so that live delivery reads nothing back from the store, and the store behind them.
 *
 *   log     ──────────────────────────────┬───────────────────▶ tail
 *           read from the store           │ kept here, oldest forgotten first
 *
 * For each appservice it is known through which position its routes may lie outside (`outsideThrough`): a read that
 * starts at or above it is served from memory alone, whole and in order, unless it goes on beyond the newest segment
 * here: a transaction that another replica cut may lie there.
 */
import type { RouteReader } from '../delivery/ports.ts';
import type { RoutedEntry, RouteLimits, SegmentLog } from '../store/port.ts';
import type { Route, Segment } from '../store/segment.ts';
import { lastPosition } from '../store/segment.ts';

interface KeptRoute {
  readonly segment: Segment;
  readonly route: Route;
  /** Log position of the last entry routed. */
  readonly through: number;
}

/** Routes of one appservice, ascending; those before `head` are forgotten. */
interface KeptRoutes {
  readonly routes: KeptRoute[];
  head: number;
}

/** Forgotten routes stay in the array until this many have gathered. */
const HEAD_MAX = 1024;
/** What a segment costs beside its JSON, estimated. */
const SEGMENT_OVERHEAD_BYTES = 512;
const ENTRY_OVERHEAD_BYTES = 160;

export class RecentSegments implements RouteReader {
  readonly #store: Pick<SegmentLog, 'readRoute'>;
  readonly #serverName: string;
  readonly #bytesMax: number;
  #kept: { segment: Segment; bytes: number }[] = [];
  #head = 0;
  #bytes = 0;
  /** Nothing at or below this was ever kept here. */
  readonly #startedAfter: number;
  /** Log position of the last entry kept here. */
  #addedThrough: number;
  readonly #byAppservice = new Map<string, KeptRoutes>();
  readonly #outsideThrough = new Map<string, number>();

  constructor(serverName: string, store: Pick<SegmentLog, 'readRoute'>, startedAfter: number, bytesMax: number) {
    this.#serverName = serverName;
    this.#store = store;
    this.#startedAfter = startedAfter;
    this.#addedThrough = startedAfter;
    this.#bytesMax = bytesMax;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Those kept now, newest first. Everything from the first position of the last on is among them. */
  newestFirst(): Segment[] {
    return this.#kept.slice(this.#head).map(({ segment }) => segment).reverse();
  }

  /** The next segment of the log, durable. */
  add(segment: Segment): void {
    let bytes = SEGMENT_OVERHEAD_BYTES + segment.entries.length * ENTRY_OVERHEAD_BYTES;
    for (const entry of segment.entries) bytes += entry.json.byteLength;
    this.#kept.push({ segment, bytes });
    this.#addedThrough = lastPosition(segment);
    this.#bytes += bytes;
    for (const route of segment.routes) {
      let kept = this.#byAppservice.get(route.appserviceId);
      if (kept === undefined) this.#byAppservice.set(route.appserviceId, (kept = { routes: [], head: 0 }));
      kept.routes.push({ segment, route, through: segment.firstPosition + (route.ranges.at(-1) ?? 0) });
    }
    while (this.#bytes > this.#bytesMax && this.#kept.length - this.#head > 1) this.#forgetOldest();
  }

  async readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]> {
    if (serverName !== this.#serverName) throw new Error('a route is read through another homeserver');
    if (through > this.#addedThrough || after < (this.#outsideThrough.get(appserviceId) ?? this.#startedAfter)) {
      return this.#store.readRoute(serverName, appserviceId, after, through, limits);
    }
    const kept = this.#byAppservice.get(appserviceId);
    return kept === undefined ? [] : readKept(kept, after, through, limits);
  }

  #forgetOldest(): void {
    const oldest = this.#kept[this.#head];
    if (oldest === undefined) return;
    this.#head++;
    this.#bytes -= oldest.bytes;
    for (const route of oldest.segment.routes) {
      const kept = this.#byAppservice.get(route.appserviceId);
      if (kept === undefined) continue;
      kept.head++;
      this.#outsideThrough.set(route.appserviceId, lastPosition(oldest.segment));
      if (kept.head === kept.routes.length) this.#byAppservice.delete(route.appserviceId);
      else if (kept.head >= HEAD_MAX) {
        kept.routes.splice(0, kept.head);
        kept.head = 0;
      }
    }
    if (this.#head >= HEAD_MAX) {
      this.#kept.splice(0, this.#head);
      this.#head = 0;
    }
  }
}

function readKept(kept: KeptRoutes, after: number, through: number, limits: RouteLimits): RoutedEntry[] {
  const entries: RoutedEntry[] = [];
  let bytes = 0;
  for (let at = firstAbove(kept, after); at < kept.routes.length; at++) {
    const item = kept.routes[at];
    if (item === undefined || item.segment.firstPosition > through) break;
    const { segment, route } = item;
    for (let range = 0; range + 1 < route.ranges.length; range += 2) {
      const last = route.ranges[range + 1] ?? -1;
      const first = Math.max(route.ranges[range] ?? 0, after + 1 - segment.firstPosition);
      for (let index = first; index <= last; index++) {
        const entry = segment.entries[index];
        const position = segment.firstPosition + index;
        if (entry === undefined || entry.kind === 'mark' || position > through) return entries;
        bytes += entry.json.byteLength;
        if (entries.length >= limits.entriesMax || (entries.length > 0 && bytes > limits.bytesMax)) return entries;
        entries.push({ position, kind: entry.kind, json: entry.json, timeMs: segment.timeMs });
      }
    }
  }
  return entries;
}

/** Index of the first kept route that ends above `after`. */
function firstAbove(kept: KeptRoutes, after: number): number {
  let low = kept.head;
  let high = kept.routes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((kept.routes[middle]?.through ?? 0) > after) high = middle;
    else low = middle + 1;
  }
  return low;
}
