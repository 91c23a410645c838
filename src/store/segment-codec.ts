/**
 * A segment as the adapters keep it: one opaque run of bytes beside the fields they index.
 *
 *   u8 version | u32 bytes of facts | u32 number of route numbers | u32 number of entries
 *   facts: JSON, with the ids of the appservices in the order of the routes
 *   route numbers, u32: per route, number of ends of its ranges, entry count, bytes, the ends of its ranges
 *   per entry: u8 kind, u32 bytes
 *   the JSON of all entries, one after the other
 *
 * Numbers are big-endian. Decoding gives views of the given bytes. Anything that does not decode, to the last byte, is a
 * StoreError of kind `unreadable`.
 */
import { StoreError } from './errors.ts';
import type { QuarantinedTransaction, RoutedEntry, RouteLimits } from './port.ts';
import type { Entry, EntryKind, Route, Segment } from './segment.ts';

const VERSION = 1;
const HEAD_BYTES = 13;
const NUMBER_BYTES = 4;
const ENTRY_HEAD_BYTES = 5;
const ROUTE_NUMBERS = 3;
const LIST_HEAD_BYTES = 5;
/** The order is part of the format; append only. */
const KINDS: readonly EntryKind[] = ['event', 'ephemeral', 'to_device', 'device_list', 'mark', 'device_keys'];

interface Facts extends Pick<Segment, 'roomDeltas' | 'streamPositions' | 'streamsBefore' | 'streamRuns' | 'deviceKeys' | 'holds' | 'redelivery' | 'registrationChanges' | 'registrationsVersion' | 'nonce' | 'timeMs'> {
  readonly appserviceIds: readonly string[];
}

/** The bytes stand in a buffer of their own, which may be handed over whole. */
export function encodeSegment(segment: Segment): Uint8Array<ArrayBuffer> {
  const { routes, roomDeltas, streamPositions, streamsBefore, streamRuns, deviceKeys, holds, redelivery, registrationChanges, registrationsVersion, nonce, timeMs, entries } = segment;
  const facts: Facts = {
    appserviceIds: routes.map(({ appserviceId }) => appserviceId),
    roomDeltas,
    streamPositions,
    ...(streamsBefore === undefined ? {} : { streamsBefore }),
    ...(streamRuns === undefined ? {} : { streamRuns }),
    ...(deviceKeys === undefined ? {} : { deviceKeys }),
    ...(redelivery === undefined ? {} : { redelivery }),
    ...(holds === undefined ? {} : { holds }),
    registrationChanges,
    registrationsVersion,
    nonce,
    timeMs,
  };
  const text = Buffer.from(JSON.stringify(facts));
  const numberCount = routes.reduce((sum, { ranges }) => sum + ROUTE_NUMBERS + ranges.length, 0);
  const jsonBytes = entries.reduce((sum, { json }) => sum + json.byteLength, 0);
  const bytes = new Uint8Array(HEAD_BYTES + text.byteLength + numberCount * NUMBER_BYTES + entries.length * ENTRY_HEAD_BYTES + jsonBytes);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setUint32(1, text.byteLength);
  view.setUint32(5, numberCount);
  view.setUint32(9, entries.length);
  bytes.set(text, HEAD_BYTES);
  encodeEntries(entries, bytes, view, encodeRoutes(routes, view, HEAD_BYTES + text.byteLength));
  return bytes;
}

/** `bytes` is not copied: the entries are views of it. */
export function decodeSegment(serverName: string, firstPosition: number, bytes: Uint8Array): Segment {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (view.getUint8(0) !== VERSION) throw new Error(`version ${view.getUint8(0)} is not known`);
    const entriesAt = HEAD_BYTES + view.getUint32(1) + view.getUint32(5) * NUMBER_BYTES;
    if (entriesAt > bytes.byteLength) throw new Error('it is cut short');
    const text = Buffer.from(bytes.buffer, bytes.byteOffset + HEAD_BYTES, view.getUint32(1)).toString();
    const { appserviceIds, ...facts } = JSON.parse(text) as Facts;
    const routes = decodeRoutes(appserviceIds, view, HEAD_BYTES + view.getUint32(1), entriesAt);
    return { serverName, firstPosition, entries: decodeEntries(view, bytes, entriesAt, view.getUint32(9)), routes, ...facts };
  } catch (error) {
    throw new StoreError('unreadable', `the segment at log position ${firstPosition} cannot be read`, { cause: error });
  }
}

/** Returns where they end. */
function encodeRoutes(routes: readonly Route[], view: DataView, start: number): number {
  let at = start;
  const put = (value: number): void => {
    view.setUint32(at, value);
    at += NUMBER_BYTES;
  };
  for (const { ranges, entryCount, bytes } of routes) {
    put(ranges.length);
    put(entryCount);
    put(bytes);
    for (const end of ranges) put(end);
  }
  return at;
}

function decodeRoutes(appserviceIds: readonly string[], view: DataView, start: number, end: number): Route[] {
  let at = start;
  const routes = appserviceIds.map((appserviceId) => {
    const rangesEnd = at + (ROUTE_NUMBERS + view.getUint32(at)) * NUMBER_BYTES;
    if (rangesEnd > end) throw new Error('a route is damaged');
    const ranges: number[] = [];
    for (let from = at + ROUTE_NUMBERS * NUMBER_BYTES; from < rangesEnd; from += NUMBER_BYTES) ranges.push(view.getUint32(from));
    const route = { appserviceId, ranges, entryCount: view.getUint32(at + NUMBER_BYTES), bytes: view.getUint32(at + 2 * NUMBER_BYTES) };
    at = rangesEnd;
    return route;
  });
  if (at !== end) throw new Error('the routes are damaged');
  return routes;
}

function encodeEntries(entries: readonly Entry[], bytes: Uint8Array, view: DataView, start: number): void {
  let head = start;
  let at = start + entries.length * ENTRY_HEAD_BYTES;
  for (const { kind, json } of entries) {
    view.setUint8(head, KINDS.indexOf(kind));
    view.setUint32(head + 1, json.byteLength);
    head += ENTRY_HEAD_BYTES;
    bytes.set(json, at);
    at += json.byteLength;
  }
}

function decodeEntries(view: DataView, bytes: Uint8Array, start: number, count: number): Entry[] {
  let head = start;
  let at = start + count * ENTRY_HEAD_BYTES;
  const entries: Entry[] = [];
  for (let index = 0; index < count; index++, head += ENTRY_HEAD_BYTES) {
    const kind = KINDS[view.getUint8(head)];
    const end = at + view.getUint32(head + 1);
    if (kind === undefined || end > bytes.byteLength) throw new Error('an entry is damaged');
    entries.push({ kind, json: bytes.subarray(at, end) });
    at = end;
  }
  if (at !== bytes.byteLength) throw new Error('there is something behind the entries');
  return entries;
}

/** Entries alone, as the quarantine keeps them: u8 version | u32 number of entries | then as in a segment. */
export function encodeEntryList(entries: readonly Entry[]): Uint8Array<ArrayBuffer> {
  const jsonBytes = entries.reduce((sum, { json }) => sum + json.byteLength, 0);
  const bytes = new Uint8Array(LIST_HEAD_BYTES + entries.length * ENTRY_HEAD_BYTES + jsonBytes);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setUint32(1, entries.length);
  encodeEntries(entries, bytes, view, LIST_HEAD_BYTES);
  return bytes;
}

/** `bytes` is not copied: the entries are views of it. */
export function decodeEntryList(bytes: Uint8Array): QuarantinedTransaction['entries'] {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (view.getUint8(0) !== VERSION) throw new Error(`version ${view.getUint8(0)} is not known`);
    return decodeEntries(view, bytes, LIST_HEAD_BYTES, view.getUint32(1)).map(({ kind, json }) => {
      if (kind === 'mark') throw new Error('a mark is in quarantine');
      return { kind, json };
    });
  } catch (error) {
    throw new StoreError('unreadable', 'the entries of a transaction in quarantine cannot be read', { cause: error });
  }
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
      if (entry === undefined || entry.kind === 'mark') throw new StoreError('unreadable', `the segment at log position ${segment.firstPosition} has a route to what it does not hold`);
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
