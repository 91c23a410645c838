/**
 * How far each appservice is in one stream of the homeserver: the stream position up to which everything that concerns
 * it has been dealt with (R92). Nothing is kept for it. The log has it all, for a segment stays as long as an appservice
 * is not past it:
 *
 *   delivered position │ nothing for it … │ F: the oldest segment with something for it │ … tail
 *
 *   nothing waits for it                       where the stream stands at the tail
 *   F has items of the stream for it           just below the first of them that is above its delivered position
 *   F has none, and moves the stream on        where F leaves the stream
 *   F does not touch the stream                where the stream stood before F
 *
 * Nothing that concerns it lies between its delivered position and F, so each is right, whatever was trimmed; and as
 * delivered positions only grow, but by a replay, so do these. A segment of an older release does not tell, and counts as 0.
 */
import { StoreError } from '../store/errors.ts';
import type { SegmentLog } from '../store/port.ts';
import type { Segment } from '../store/segment.ts';

export interface StreamDelivery {
  readonly appserviceId: string;
  readonly streamPosition: number;
}

/** One stream as of one moment: everything of it up to `streamPosition` is at or below `tail`, or concerns nobody. */
export interface StreamAtTail {
  readonly stream: string;
  readonly streamPosition: number;
  readonly tail: number;
}

/** Segments read at once. */
const READS_MAX = 16;

/** `delivered`: log position by appservice, read before. Rejects with a StoreError. */
export async function deliveredStreamPositions(
  log: Pick<SegmentLog, 'measureRoutes' | 'readSegments'>,
  serverName: string,
  at: StreamAtTail,
  delivered: ReadonlyMap<string, number>,
): Promise<StreamDelivery[]> {
  const waiting = new Map<string, number>();
  for (const { appserviceId, firstSegment } of await log.measureRoutes(serverName, delivered, at.tail)) {
    if (firstSegment !== null) waiting.set(appserviceId, firstSegment);
  }
  const segments = await readOldest(log, serverName, new Set(waiting.values()));
  return [...delivered].map(([appserviceId, position]) => {
    const oldest = waiting.get(appserviceId);
    if (oldest === undefined) return { appserviceId, streamPosition: at.streamPosition };
    const segment = segments.get(oldest);
    if (segment === undefined) throw new Error('a segment was asked for and is not there');
    return { appserviceId, streamPosition: Math.min(at.streamPosition, positionIn(segment, appserviceId, position, at.stream)) };
  });
}

async function readOldest(log: Pick<SegmentLog, 'readSegments'>, serverName: string, firstPositions: ReadonlySet<number>): Promise<Map<number, Segment>> {
  const segments = new Map<number, Segment>();
  const wanted = firstPositions.values();
  // One iterator for all: each takes the next when it is done with one.
  const read = async (): Promise<void> => {
    for (const firstPosition of wanted) {
      const [segment] = await log.readSegments(serverName, firstPosition, { segmentsMax: 1, bytesMax: 1 });
      // It was delivered and trimmed since it was found.
      if (segment?.firstPosition !== firstPosition) throw new StoreError('unavailable', 'the log moved on while it was read');
      segments.set(firstPosition, segment);
    }
  };
  await Promise.all(Array.from({ length: READS_MAX }, read));
  return segments;
}

/** `segment` is the oldest with something for the appservice above `delivered`. */
function positionIn(segment: Segment, appserviceId: string, delivered: number, stream: string): number {
  const ranges = segment.routes.find((route) => route.appserviceId === appserviceId)?.ranges ?? [];
  const firstEntry = delivered + 1 - segment.firstPosition;
  let first = Infinity;
  const runs = valueOf(segment.streamRuns, stream) ?? [];
  for (let at = 0; at + 2 < runs.length; at += 3) {
    const [runEntry = 0, runPosition = 0, entryCount = 0] = runs.slice(at, at + 3);
    const entry = firstIn(ranges, Math.max(firstEntry, runEntry), runEntry + entryCount - 1);
    if (entry !== null) first = Math.min(first, runPosition + entry - runEntry);
  }
  if (first !== Infinity) return first - 1;
  return valueOf(segment.streamPositions, stream) ?? valueOf(segment.streamsBefore, stream) ?? 0;
}

/** The name of a stream is anybody's choice. */
function valueOf<Value>(byStream: Readonly<Record<string, Value>> | undefined, stream: string): Value | undefined {
  return byStream !== undefined && Object.hasOwn(byStream, stream) ? byStream[stream] : undefined;
}

/** The first index within the ranges that is from `from` to `to`; null if there is none. */
function firstIn(ranges: readonly number[], from: number, to: number): number | null {
  for (let at = 0; at + 1 < ranges.length; at += 2) {
    const first = Math.max(ranges[at] ?? Infinity, from);
    if (first <= Math.min(ranges[at + 1] ?? -1, to)) return first;
  }
  return null;
}
