/**
 * The cut: which of an appservice's log entries make its next transaction.
 *
 *   after │ chosen … left out … chosen … left out │ through │ the next transaction
 *
 * Entries are taken in log order up to the first that would exceed a limit, and there the cut ends: whatever its kind,
 * nothing overtakes it. Entries on the way that the appservice has no use for are left out, and are dealt with as the
 * chosen ones are once the transaction is complete: of a kind that it did not opt in to, and ephemeral ones that are past
 * their age or overtaken by newer ones. What was chosen once is never left out later (R88). So a delivered position never passes an entry that was neither sent
 * nor left out.
 *
 * The choice is closed and the body a function of it (transaction-body.ts), so every attempt sends the same bytes (I3).
 */
import type { BodyKey, RoutedKind } from './body-keys.ts';
import { KIND_OF_KEY } from './body-keys.ts';
import { EMPTY_BODY_BYTES, keyBytes, transactionBody } from './transaction-body.ts';

/** One log entry, as far as a cut needs it. */
export interface TransactionEntry {
  /** Log position. */
  readonly position: number;
  readonly kind: RoutedKind;
  readonly json: Uint8Array;
  /** Wall clock at which it was written to the log. */
  readonly timeMs: number;
}

/** Entries of one transaction. */
export interface TransactionLimits {
  readonly eventsMax: number;
  readonly ephemeralMax: number;
  readonly toDeviceMax: number;
  /** Bytes of the whole body, brackets and commas included; of merged entries, before they are merged. */
  readonly bytesMax: number;
}

/** Why an entry is left out. */
export type LeftOutReason = 'not_wanted' | 'expired' | 'overtaken';

/** What one cut is made by. */
export interface CutTerms extends TransactionLimits {
  /** Entries of whatever kind together. */
  readonly entriesMax: number;
  /** The keys that the appservice reads; see {@link bodyKeysOf}. */
  readonly bodyKeys: readonly BodyKey[];
  /** Wall clock: ephemeral entries written to the log before this are past their age. */
  readonly ephemeralFromMs: number;
  /** Those that newer ones behind them overtake. */
  readonly overtaken: ReadonlySet<TransactionEntry>;
}

export interface LeftOut {
  readonly kind: RoutedKind;
  readonly reason: LeftOutReason;
  readonly count: number;
}

/** How much of an appservice's backlog something settles. */
export interface Settled {
  readonly entries: number;
  /** JSON bytes of those entries together. */
  readonly bytes: number;
}

export interface Cut {
  /** Everything at or below this was dealt with before. */
  readonly after: number;
  /** Log position of the last entry dealt with. */
  readonly through: number;
  /** The choice as log position ranges, both ends included, flattened and ascending. Of the routed entries, those in them. */
  readonly ranges: readonly number[];
  /** The keys in the body beside `events`, in order. */
  readonly bodyKeys: readonly BodyKey[];
  /** Entries chosen. 0: there is nothing to send, and all up to `through` is left out. */
  readonly entryCount: number;
  /** Of these, ephemeral ones. */
  readonly ephemeralCount: number;
  /** By kind and reason. */
  readonly leftOut: readonly LeftOut[];
  /** Entries chosen and left out. */
  readonly settled: Settled;
  readonly oldestTimeMs: number;
  /** A limit ended it: what comes after would not have gone along. */
  readonly isFull: boolean;
  readonly body: Uint8Array;
}

/** Device lists and counts of keys are merged in the body, so many of them make a short one. */
const MERGED_ENTRIES_MAX = 1_000;

/** The transaction made of the first of `entries` above `after` and at or below `through`; at least one is dealt with. Null if there is none. */
export function cutTransaction(entries: readonly TransactionEntry[], after: number, through: number, terms: CutTerms): Cut | null {
  const [oldest] = entries;
  if (oldest === undefined || oldest.position > through) return null;
  const choice = new Choice(terms);
  let isFull = false;
  for (const entry of entries) {
    if (entry.position > through) break;
    const reason = reasonAgainst(entry, terms);
    if (reason !== null) choice.leaveOut(entry, reason);
    else if (!choice.take(entry)) {
      isFull = true;
      break;
    }
  }
  const { chosen, ranges, settled } = choice;
  const bodyKeys = terms.bodyKeys.length === 0 ? terms.bodyKeys : terms.bodyKeys.filter((key) => choice.counts[KIND_OF_KEY[key]] > 0);
  return {
    after,
    through: choice.last,
    ranges,
    bodyKeys,
    entryCount: chosen.length,
    ephemeralCount: choice.counts.ephemeral,
    leftOut: choice.leftOut,
    settled,
    oldestTimeMs: oldest.timeMs,
    isFull: isFull || choice.isFull,
    body: transactionBody(chosen, bodyKeys),
  };
}

/** Null for what the appservice is to be sent. */
function reasonAgainst(entry: TransactionEntry, { bodyKeys, ephemeralFromMs, overtaken }: CutTerms): LeftOutReason | null {
  const { kind, timeMs } = entry;
  if (kind === 'event') return null;
  if (!bodyKeys.some((key) => KIND_OF_KEY[key] === kind)) return 'not_wanted';
  if (kind !== 'ephemeral') return null;
  if (timeMs < ephemeralFromMs) return 'expired';
  return overtaken.has(entry) ? 'overtaken' : null;
}

class Choice {
  readonly chosen: TransactionEntry[] = [];
  readonly ranges: number[] = [];
  readonly #leftOut = new Map<string, LeftOut>();
  readonly counts: Record<RoutedKind, number> = { event: 0, ephemeral: 0, to_device: 0, device_list: 0, device_keys: 0 };
  /** Log position of the last entry dealt with. */
  last = 0;
  readonly #terms: CutTerms;
  readonly #countsMax: Readonly<Record<RoutedKind, number>>;
  #bodyBytes = EMPTY_BODY_BYTES;
  #entries = 0;
  #bytes = 0;
  /** The last range goes on: nothing was left out since. */
  #isRangeOpen = false;

  constructor(terms: CutTerms) {
    this.#terms = terms;
    this.#countsMax = { event: terms.eventsMax, ephemeral: terms.ephemeralMax, to_device: terms.toDeviceMax, device_list: MERGED_ENTRIES_MAX, device_keys: MERGED_ENTRIES_MAX };
  }

  get settled(): Settled {
    return { entries: this.#entries, bytes: this.#bytes };
  }

  /** No further event or to-device message would go along. */
  get isFull(): boolean {
    const { counts } = this;
    return this.chosen.length >= this.#terms.entriesMax || counts.event >= this.#terms.eventsMax || counts.to_device >= this.#terms.toDeviceMax;
  }

  get leftOut(): LeftOut[] {
    return [...this.#leftOut.values()];
  }

  leaveOut(entry: TransactionEntry, reason: LeftOutReason): void {
    const { kind } = entry;
    const key = `${kind} ${reason}`;
    this.#leftOut.set(key, { kind, reason, count: (this.#leftOut.get(key)?.count ?? 0) + 1 });
    this.#deal(entry);
    this.#isRangeOpen = false;
  }

  /** False if a limit forbids it. */
  take(entry: TransactionEntry): boolean {
    const { kind, position } = entry;
    if (this.chosen.length >= this.#terms.entriesMax || this.counts[kind] >= this.#countsMax[kind]) return false;
    const bodyBytes = this.#bodyBytes + this.#bytesOf(entry);
    if (this.chosen.length > 0 && bodyBytes > this.#terms.bytesMax) return false;
    this.#bodyBytes = bodyBytes;
    this.counts[kind]++;
    this.chosen.push(entry);
    this.#deal(entry);
    if (this.#isRangeOpen) this.ranges[this.ranges.length - 1] = position;
    else this.ranges.push(position, position);
    this.#isRangeOpen = true;
    return true;
  }

  #deal({ position, json }: TransactionEntry): void {
    this.last = position;
    this.#entries++;
    this.#bytes += json.byteLength;
  }

  /** What it adds to the body, once for each key that shows it. */
  #bytesOf({ kind, json }: TransactionEntry): number {
    const isFirst = this.counts[kind] === 0;
    if (kind === 'event') return json.byteLength + (isFirst ? 0 : 1);
    let bytes = 0;
    for (const key of this.#terms.bodyKeys) if (KIND_OF_KEY[key] === kind) bytes += json.byteLength + (isFirst ? keyBytes(key) : 1);
    return bytes;
  }
}

/** True if `position` is in the choice. */
export function isChosen(ranges: readonly number[], position: number): boolean {
  for (let at = 0; at + 1 < ranges.length; at += 2) {
    if (position >= (ranges[at] ?? Infinity) && position <= (ranges[at + 1] ?? -1)) return true;
  }
  return false;
}

interface Chosen {
  readonly ranges: readonly number[];
  readonly bodyKeys?: readonly BodyKey[];
}

const NO_KEYS: readonly BodyKey[] = [];

/** True if they come to the same body. */
export function isSameChoice(one: Chosen, other: Chosen): boolean {
  return isSameList(one.ranges, other.ranges) && isSameList(one.bodyKeys ?? NO_KEYS, other.bodyKeys ?? NO_KEYS);
}

function isSameList(one: readonly unknown[], other: readonly unknown[]): boolean {
  return one.length === other.length && one.every((item, at) => item === other[at]);
}
