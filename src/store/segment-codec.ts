/**
 * A segment as the adapters keep it: one opaque run of bytes beside the fields they index.
 *
 *   u8 version | u32 bytes of facts | facts (JSON) | u32 entry count | per entry: u8 kind, u32 bytes | JSON of all entries
 *
 * Decoding gives views of the given bytes. Anything that does not decode is a StoreError of kind `unreadable`.
 */
import { StoreError } from './errors.ts';
import type { RoutedEntry, RouteLimits } from './port.ts';
import type { Entry, EntryKind, Segment } from './segment.ts';

const VERSION = 1;
const ENTRY_HEAD_BYTES = 5;
/** The order is part of the format; append only. */
const KINDS: readonly EntryKind[] = ['event', 'ephemeral', 'to_device', 'device_list', 'mark'];

type SegmentFacts = Pick<Segment, 'routes' | 'roomDeltas' | 'streamPositions' | 'registrationChanges' | 'registrationsVersion' | 'nonce' | 'timeMs'>;

/** The bytes stand in a buffer of their own, which may be handed over whole. */
export function encodeSegment(segment: Segment): Uint8Array<ArrayBuffer> {
  const { routes, roomDeltas, streamPositions, registrationChanges, registrationsVersion, nonce, timeMs, entries } = segment;
  const facts: SegmentFacts = { routes, roomDeltas, streamPositions, registrationChanges, registrationsVersion, nonce, timeMs };
  const text = Buffer.from(JSON.stringify(facts));
  const jsonBytes = entries.reduce((sum, { json }) => sum + json.byteLength, 0);
  const bytes = new Uint8Array(9 + text.byteLength + entries.length * ENTRY_HEAD_BYTES + jsonBytes);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setUint32(1, text.byteLength);
  bytes.set(text, 5);
  let head = 5 + text.byteLength;
  view.setUint32(head, entries.length);
  head += 4;
  let at = head + entries.length * ENTRY_HEAD_BYTES;
  for (const { kind, json } of entries) {
    view.setUint8(head, KINDS.indexOf(kind));
    view.setUint32(head + 1, json.byteLength);
    head += ENTRY_HEAD_BYTES;
    bytes.set(json, at);
    at += json.byteLength;
  }
  return bytes;
}

export function decodeSegment(serverName: string, firstPosition: number, bytes: Uint8Array): Segment {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (view.getUint8(0) !== VERSION) throw new Error(`version ${view.getUint8(0)} is not known`);
    const factsBytes = view.getUint32(1);
    const facts = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset + 5, factsBytes).toString()) as SegmentFacts;
    return { serverName, firstPosition, entries: decodeEntries(view, bytes, 5 + factsBytes), ...facts };
  } catch (error) {
    throw new StoreError('unreadable', `the segment at log position ${firstPosition} cannot be read`, { cause: error });
  }
}

function decodeEntries(view: DataView, bytes: Uint8Array, start: number): Entry[] {
  const count = view.getUint32(start);
  let head = start + 4;
  let at = head + count * ENTRY_HEAD_BYTES;
  const entries: Entry[] = [];
  for (let index = 0; index < count; index++, head += ENTRY_HEAD_BYTES) {
    const kind = KINDS[view.getUint8(head)];
    const end = at + view.getUint32(head + 1);
    if (kind === undefined || end > bytes.byteLength) throw new Error('an entry is damaged');
    entries.push({ kind, json: bytes.subarray(at, end) });
    at = end;
  }
  return entries;
}

/**
 * Adds to `found` what is routed to the appservice above `after` and at or below `through`, within the limits.
 * Returns the JSON bytes that `found` then holds, or -1 once a limit was met.
 */
export function collectRouted(segment: Segment, appserviceId: string, after: number, through: number, limits: RouteLimits, found: RoutedEntry[], foundBytes: number): number {
  const ranges = segment.routes.find((route) => route.appserviceId === appserviceId)?.ranges ?? [];
  let bytes = foundBytes;
  for (let range = 0; range + 1 < ranges.length; range += 2) {
    const first = Math.max(ranges[range] ?? 0, after + 1 - segment.firstPosition);
    const last = Math.min(ranges[range + 1] ?? -1, through - segment.firstPosition);
    for (let index = first; index <= last; index++) {
      const entry = segment.entries[index];
      if (entry === undefined) throw new StoreError('unreadable', `the segment at log position ${segment.firstPosition} has a route beyond its entries`);
      bytes += entry.json.byteLength;
      if (found.length >= limits.entriesMax || (found.length > 0 && bytes > limits.bytesMax)) return -1;
      found.push({ position: segment.firstPosition + index, kind: entry.kind, json: entry.json, timeMs: segment.timeMs });
    }
  }
  return bytes;
}

/** Entries, bytes of what is routed to the appservice above `after` in this one segment. */
export function measureRoute(segment: Segment, appserviceId: string, after: number): { entryCount: number; bytes: number } {
  const found: RoutedEntry[] = [];
  const limits = { entriesMax: Number.MAX_SAFE_INTEGER, bytesMax: Number.MAX_SAFE_INTEGER };
  const bytes = collectRouted(segment, appserviceId, after, Number.MAX_SAFE_INTEGER, limits, found, 0);
  return { entryCount: found.length, bytes };
}
