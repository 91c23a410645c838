/** A page of the log as it was read: whether there may be more behind it. */
import type { SegmentLimits } from '../store/port.ts';
import type { Segment } from '../store/segment.ts';

/** True if the page was not cut short by its limits, so that nothing was behind it when it was read. */
export function endsLog(segments: readonly Segment[], { segmentsMax, bytesMax }: SegmentLimits): boolean {
  if (segments.length >= segmentsMax) return false;
  let bytes = 0;
  for (const { entries } of segments) for (const { json } of entries) bytes += json.byteLength;
  return bytes < bytesMax;
}
