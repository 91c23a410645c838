/**
 * The log and the fold of the store port in memory, in the plainest way, with faults that a test scripts. It shares
 * nothing with the adapters, so it is also a reference to compare them with.
 */
import { StoreError } from '../../src/store/errors.ts';
import type {
  AppendOutcome,
  Checkpoint,
  Fold,
  FoldChanges,
  FoldStore,
  PositionedRegistration,
  RoutedEntry,
  RouteLimits,
  RouteMeasure,
  SegmentLog,
  StoredRoom,
  TrimOutcome,
  TrimRequest,
} from '../../src/store/port.ts';
import type { Segment } from '../../src/store/segment.ts';
import { lastPosition } from '../../src/store/segment.ts';

/** What happens to one append: done, done with the answer lost, not done at all, or refused for want of room. */
export type AppendFault = 'none' | 'answer_lost' | 'not_done' | 'no_room';

export class MemoryLog implements SegmentLog, FoldStore {
  readonly segments: Segment[] = [];
  appends = 0;
  roomLoads = 0;
  /** Asked before each append; may wait. */
  beforeAppend: (segment: Segment) => Promise<AppendFault> | AppendFault = () => 'none';
  isDown = false;
  readonly #rooms = new Map<string, StoredRoom>();
  readonly #registrations = new Map<string, PositionedRegistration>();
  #checkpoint: Checkpoint = { position: 0, streamPositions: {}, registrationsVersion: 0 };

  get tail(): number {
    const last = this.segments.at(-1);
    return last === undefined ? this.#checkpoint.position : lastPosition(last);
  }

  async append(segment: Segment): Promise<AppendOutcome> {
    this.appends++;
    this.#reach();
    const fault = await this.beforeAppend(segment);
    this.#reach();
    if (fault === 'not_done') throw new StoreError('unavailable', 'the append was not done');
    if (fault === 'no_room') throw new StoreError('exhausted', 'there is no room');
    const known = this.segments.find(({ firstPosition }) => firstPosition === segment.firstPosition);
    if (known !== undefined) return { kind: known.nonce === segment.nonce ? 'appended' : 'lost' };
    if (segment.firstPosition <= this.tail) return { kind: 'lost' };
    if (segment.firstPosition !== this.tail + 1) throw new Error('the append leaves a hole');
    this.segments.push(structuredClone(segment));
    if (fault === 'answer_lost') throw new StoreError('unavailable', 'the answer was lost');
    return { kind: 'appended' };
  }

  readSegments(serverName: string, from: number, limits: { segmentsMax: number; bytesMax: number }): Promise<Segment[]> {
    this.#reach();
    return Promise.resolve(this.segments.filter((segment) => segment.serverName === serverName && segment.firstPosition >= from).slice(0, limits.segmentsMax));
  }

  readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]> {
    this.#reach();
    const all = this.#routed(serverName, appserviceId).filter(({ position }) => position > after && position <= through);
    const entries: RoutedEntry[] = [];
    let bytes = 0;
    for (const entry of all) {
      bytes += entry.json.byteLength;
      if (entries.length >= limits.entriesMax || (entries.length > 0 && bytes > limits.bytesMax)) break;
      entries.push(entry);
    }
    return Promise.resolve(entries);
  }

  measureRoutes(serverName: string, after: ReadonlyMap<string, number>, through: number): Promise<RouteMeasure[]> {
    this.#reach();
    const measures = [...after].map(([appserviceId, position]) => {
      const waiting = this.#routed(serverName, appserviceId).filter((entry) => entry.position > position && entry.position <= through);
      const bytes = waiting.reduce((sum, { json }) => sum + json.byteLength, 0);
      return { appserviceId, entryCount: waiting.length, bytes, firstSegment: this.#segmentOf(serverName, waiting[0]?.position), oldestTimeMs: waiting[0]?.timeMs ?? null };
    });
    return Promise.resolve(measures);
  }

  trim(serverName: string, request: TrimRequest): Promise<TrimOutcome> {
    this.#reach();
    const looked = this.segments.filter((segment) => segment.serverName === serverName && segment.firstPosition > request.after).slice(0, request.segmentsMax);
    let removedSegments = 0;
    const expired = new Map<string, number>();
    for (const segment of looked) {
      const held = segment.routes.some(({ appserviceId, ranges }) => {
        const delivered = request.deliveredPositions.get(appserviceId);
        return delivered !== undefined && segment.firstPosition + (ranges.at(-1) ?? 0) > delivered && !isExpired(segment, appserviceId, request);
      });
      if (held || lastPosition(segment) > request.through || segment.timeMs >= request.beforeMs || segment === this.segments.at(-1)) continue;
      this.segments.splice(this.segments.indexOf(segment), 1);
      removedSegments++;
      for (const { appserviceId, ranges, entryCount } of segment.routes) {
        if (segment.firstPosition + (ranges.at(-1) ?? 0) > (request.deliveredPositions.get(appserviceId) ?? Infinity)) expired.set(appserviceId, entryCount + (expired.get(appserviceId) ?? 0));
      }
    }
    return Promise.resolve({ removedSegments, expired: [...expired].map(([appserviceId, entryCount]) => ({ appserviceId, entryCount })), nextAfter: looked.length === request.segmentsMax ? (looked.at(-1)?.firstPosition ?? null) : null });
  }

  wholeFrom(serverName: string, from: number, through: number, segmentsMax: number): Promise<number> {
    this.#reach();
    let whole = through + 1;
    const below = this.segments.filter((segment) => segment.serverName === serverName && segment.firstPosition <= through);
    for (const segment of below.reverse().slice(0, segmentsMax)) {
      if (lastPosition(segment) < whole - 1 || whole <= from) break;
      whole = segment.firstPosition;
    }
    return Promise.resolve(whole);
  }

  loadFold(): Promise<Fold> {
    this.#reach();
    return Promise.resolve({ checkpoint: this.#checkpoint, registrations: [...this.#registrations.values()] });
  }

  loadRooms(_serverName: string, roomIds: readonly string[]): Promise<StoredRoom[]> {
    this.#reach();
    this.roomLoads++;
    return Promise.resolve(roomIds.flatMap((roomId) => this.#rooms.get(roomId) ?? []));
  }

  saveFold(_serverName: string, changes: FoldChanges): Promise<void> {
    this.#reach();
    for (const room of changes.rooms) if ((this.#rooms.get(room.roomId)?.position ?? -1) < room.position) this.#rooms.set(room.roomId, structuredClone(room));
    for (const change of changes.registrations) this.#registrations.set(change.appserviceId, change);
    if (changes.checkpoint.position > this.#checkpoint.position) this.#checkpoint = structuredClone(changes.checkpoint);
    return Promise.resolve();
  }

  #segmentOf(serverName: string, position: number | undefined): number | null {
    if (position === undefined) return null;
    return this.segments.findLast((segment) => segment.serverName === serverName && segment.firstPosition <= position)?.firstPosition ?? null;
  }

  #routed(serverName: string, appserviceId: string): RoutedEntry[] {
    return this.segments
      .filter((segment) => segment.serverName === serverName)
      .flatMap((segment) => {
        const ranges = segment.routes.find((route) => route.appserviceId === appserviceId)?.ranges ?? [];
        return segment.entries.flatMap((entry, index) => {
          const routed = ranges.some((first, at) => at % 2 === 0 && index >= first && index <= (ranges[at + 1] ?? -1));
          return routed && entry.kind !== 'mark' ? [{ position: segment.firstPosition + index, kind: entry.kind, json: entry.json, timeMs: segment.timeMs }] : [];
        });
      });
  }

  #reach(): void {
    if (this.isDown) throw new StoreError('unavailable', 'the store is down');
  }
}

function isExpired(segment: Segment, appserviceId: string, { expired }: TrimRequest): boolean {
  const ranges = segment.routes.find((route) => route.appserviceId === appserviceId)?.ranges ?? [];
  const kinds = segment.entries.flatMap(({ kind }, index) => (ranges.some((first, at) => at % 2 === 0 && index >= first && index <= (ranges[at + 1] ?? -1)) ? [kind] : []));
  return expired !== undefined && segment.timeMs < expired.beforeMs && kinds.every((kind) => kind === 'ephemeral') && segment.firstPosition > (expired.cutThrough.get(appserviceId) ?? Infinity);
}
