/**
 * What a transaction carries and how its body is put together (Application Service API, "Pushing events").
 *
 * A cut is a closed choice of log entries. The body is a function of the choice alone, by joining the texts that
 * arrived, so every attempt sends the same bytes (I3). Nothing here re-serialises an event.
 */

/** One log entry, as far as a body needs it. */
export interface TransactionEntry {
  /** Log position. */
  readonly position: number;
  readonly json: Uint8Array;
  /** Wall clock at which it was written to the log. */
  readonly timeMs: number;
}

export interface TransactionLimits {
  readonly entriesMax: number;
  /** Bytes of the whole body, brackets and commas included. */
  readonly bytesMax: number;
}

export interface Cut {
  /** Everything at or below this was dealt with before. */
  readonly after: number;
  /** Log position of the last entry chosen. */
  readonly through: number;
  /** The choice as log position ranges, both ends included, flattened and ascending. */
  readonly ranges: readonly number[];
  readonly entryCount: number;
  readonly oldestTimeMs: number;
  readonly body: Uint8Array;
}

const OPEN = Buffer.from('{"events":[');
const COMMA = 0x2c;
const CLOSE = Buffer.from(']}');

/** JSON bytes of the entries in a body of this size. */
export function entryBytes(bodyBytes: number, entryCount: number): number {
  return bodyBytes - OPEN.byteLength - CLOSE.byteLength - Math.max(0, entryCount - 1);
}

/**
 * The transaction made of the first of `entries`: at most `entriesMax` at or below `through`, and no more than keep the
 * body within `bytesMax`; always at least one if there is any. Null if there is none.
 */
export function cutTransaction(entries: readonly TransactionEntry[], after: number, through: number, limits: TransactionLimits): Cut | null {
  const chosen: TransactionEntry[] = [];
  let bytes = OPEN.byteLength + CLOSE.byteLength;
  for (const entry of entries) {
    if (entry.position > through || chosen.length >= limits.entriesMax) break;
    bytes += entry.json.byteLength + (chosen.length > 0 ? 1 : 0);
    if (chosen.length > 0 && bytes > limits.bytesMax) break;
    chosen.push(entry);
  }
  const first = chosen[0];
  const last = chosen.at(-1);
  if (first === undefined || last === undefined) return null;
  // Nothing routed in between is left out, so one range says it all.
  const ranges = [first.position, last.position];
  return { after, through: last.position, ranges, entryCount: chosen.length, oldestTimeMs: first.timeMs, body: transactionBody(chosen) };
}

/** `{"events":[…]}` of these entries in this order. */
export function transactionBody(entries: readonly Pick<TransactionEntry, 'json'>[]): Uint8Array {
  let size = OPEN.byteLength + CLOSE.byteLength + Math.max(0, entries.length - 1);
  for (const { json } of entries) size += json.byteLength;
  const body = Buffer.allocUnsafeSlow(size);
  body.set(OPEN, 0);
  let at = OPEN.byteLength;
  for (const [index, { json }] of entries.entries()) {
    if (index > 0) body[at++] = COMMA;
    body.set(json, at);
    at += json.byteLength;
  }
  body.set(CLOSE, at);
  return body;
}

/** True if `position` is in the choice. */
export function isChosen(ranges: readonly number[], position: number): boolean {
  for (let at = 0; at + 1 < ranges.length; at += 2) {
    if (position >= (ranges[at] ?? Infinity) && position <= (ranges[at + 1] ?? -1)) return true;
  }
  return false;
}

export function isSameChoice(one: { readonly ranges: readonly number[] }, other: { readonly ranges: readonly number[] }): boolean {
  return one.ranges.length === other.ranges.length && one.ranges.every((position, at) => position === other.ranges[at]);
}
