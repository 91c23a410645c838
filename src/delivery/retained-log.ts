/**
 * How much of the log is left. It is trimmed segment by segment, wherever nobody waits for one any more, so what was
 * delivered long ago may be there with holes in it.
 */
import type { SegmentLog } from '../store/port.ts';

/** Segments looked at in one call of the store. */
const SEGMENTS_MAX = 2_000;
/** Such calls; a log with more segments than this is not looked through. */
const CALLS_MAX = 1_000;

/** The lowest log position, `from` or above, from which on to `through` no segment is missing. Rejects with a StoreError. */
export async function wholeFrom(log: Pick<SegmentLog, 'wholeFrom'>, serverName: string, from: number, through: number): Promise<number> {
  let whole = through + 1;
  for (let calls = 0; calls < CALLS_MAX && whole > from; calls++) {
    const next = await log.wholeFrom(serverName, from, whole - 1, SEGMENTS_MAX);
    if (next === whole) break;
    whole = next;
  }
  return Math.max(from, whole);
}

/**
 * The first position of the oldest segment, from `from` to `through`, that was written at or after `timeMs`; `through` + 1
 * if there is none. By halves: the writers' clocks may differ by what they differ. Rejects with a StoreError.
 */
export async function positionAtTime(log: Pick<SegmentLog, 'readSegments'>, serverName: string, timeMs: number, from: number, through: number): Promise<number> {
  let low = from;
  let high = through + 1;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const [segment] = await log.readSegments(serverName, middle, { segmentsMax: 1, bytesMax: 1 });
    if (segment === undefined || segment.firstPosition > through || segment.timeMs >= timeMs) high = middle;
    else low = segment.firstPosition + Math.max(1, segment.entries.length);
  }
  const [found] = await log.readSegments(serverName, low, { segmentsMax: 1, bytesMax: 1 });
  return found === undefined || found.firstPosition > through ? through + 1 : found.firstPosition;
}
