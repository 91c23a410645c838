/**
 * Cuts the body of a transaction into its parts while it arrives, each as the bytes it came in: the elements of the lists,
 * and the values of the other keys that are wanted. Judges nothing but the frame around them, so that one part that is no
 * JSON spoils no other.
 *
 *   before ─{─▶ key ─"…"─▶ colon ─:─▶ value ─[─▶ element ─▶ … ─]─▶ key      (of a list)
 *                 │                     └─▶ inside ─▶ key                   (of anything else)
 *                 └─}─▶ after                 any byte that does not fit ─▶ broken, for good
 *
 * Memory is bounded by one part: of one that is larger than its bound only the beginning is kept.
 */
export interface ScannedPart {
  readonly key: string;
  /** False: the value of a key as a whole. */
  readonly isElement: boolean;
  /** A view of the body where it lies in one piece. */
  readonly json: Uint8Array;
  /** False: it is too large, and `json` is only its beginning. */
  readonly isWhole: boolean;
}

export interface ScannerLimits {
  readonly lists: ReadonlySet<string>;
  /** Keys with values that are no lists; others are skipped. */
  readonly values: ReadonlySet<string>;
  readonly elementBytesMax: number;
  readonly valueBytesMax: number;
  /** Kept of a part that is too large. */
  readonly beginningBytes: number;
}

type State = 'before' | 'key' | 'in_key' | 'colon' | 'value' | 'element' | 'inside' | 'after' | 'broken';

const KEY_BYTES_MAX = 256;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

export class TransactionScanner {
  readonly #limits: ScannerLimits;
  #state: State = 'before';
  #key = '';
  #keyBytes: number[] = [];
  #isList = false;
  #depth = 0;
  #isInString = false;
  #isEscaped = false;
  /** Of the part that is being read, from chunks before this one. */
  #kept: Uint8Array[] = [];
  #keptBytes = 0;
  /** All bytes of the part so far, whether kept or not. */
  #partBytes = 0;

  constructor(limits: ScannerLimits) {
    this.#limits = limits;
  }

  /** The frame is no JSON object. What comes after that is ignored. */
  get isBroken(): boolean {
    return this.#state === 'broken';
  }

  /** The whole object was there. */
  get isComplete(): boolean {
    return this.#state === 'after';
  }

  *push(bytes: Uint8Array): Generator<ScannedPart, void, undefined> {
    let at = 0;
    while (at < bytes.byteLength) {
      if (this.#state === 'broken') return;
      if (this.#state !== 'inside') {
        at = this.#step(bytes[at] ?? 0, at);
        continue;
      }
      const start = at;
      const end = this.#endOf(bytes, at);
      this.#keep(bytes.subarray(start, end === -1 ? bytes.byteLength : end));
      if (end === -1) return;
      at = end;
      const part = this.#finish();
      if (part !== null) yield part;
    }
  }

  /** One byte of the frame; the place to go on at. */
  #step(byte: number, at: number): number {
    if (this.#state === 'in_key') return this.#inKey(byte, at);
    if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) return at + 1;
    if (this.#state === 'before' && byte === OPEN_BRACE) this.#state = 'key';
    else if (this.#state === 'key' && byte === QUOTE) this.#state = 'in_key';
    else if (this.#state === 'key' && byte === CLOSE_BRACE) this.#state = 'after';
    else if (this.#state === 'colon' && byte === COLON) this.#state = 'value';
    else if (this.#state === 'value' && byte === OPEN_BRACKET && this.#limits.lists.has(this.#key)) this.#state = 'element';
    else if (this.#state === 'value' && byte !== COMMA && byte !== CLOSE_BRACE && byte !== CLOSE_BRACKET) return this.#begin(at, false);
    else if (this.#state === 'element' && byte === CLOSE_BRACKET) this.#state = 'key';
    else if (this.#state === 'element' && byte !== COMMA && byte !== CLOSE_BRACE) return this.#begin(at, true);
    else if (byte !== COMMA || (this.#state !== 'key' && this.#state !== 'element')) this.#state = 'broken';
    return at + 1;
  }

  #inKey(byte: number, at: number): number {
    if (byte === QUOTE && !this.#isEscaped) {
      this.#key = Buffer.from(this.#keyBytes).toString();
      this.#keyBytes = [];
      this.#state = 'colon';
      return at + 1;
    }
    this.#isEscaped = byte === BACKSLASH && !this.#isEscaped;
    if (this.#keyBytes.length < KEY_BYTES_MAX) this.#keyBytes.push(byte);
    return at + 1;
  }

  #begin(at: number, isElement: boolean): number {
    this.#state = 'inside';
    this.#isList = isElement;
    this.#depth = 0;
    this.#isInString = false;
    this.#isEscaped = false;
    return at;
  }

  /** Where the part ends; -1 if not in these bytes. */
  #endOf(bytes: Uint8Array, start: number): number {
    const { byteLength } = bytes;
    for (let at = start; at < byteLength; at++) {
      const byte = bytes[at];
      if (this.#isInString) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (byte === BACKSLASH) this.#isEscaped = true;
        else if (byte === QUOTE) {
          this.#isInString = false;
          if (this.#depth === 0) return at + 1;
        }
      } else if (byte === QUOTE) this.#isInString = true;
      else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) this.#depth++;
      else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        // Of a number or a word, the bracket is the frame's.
        if (this.#depth === 0) return at;
        this.#depth--;
        if (this.#depth === 0) return at + 1;
      } else if (byte === COMMA && this.#depth === 0) return at;
    }
    return -1;
  }

  #keep(bytes: Uint8Array): void {
    this.#partBytes += bytes.byteLength;
    if (!this.#isWanted) return;
    const room = this.#bytesMax - this.#keptBytes;
    if (room <= 0) return;
    const kept = bytes.byteLength > room ? bytes.subarray(0, room) : bytes;
    this.#kept.push(kept);
    this.#keptBytes += kept.byteLength;
  }

  #finish(): ScannedPart | null {
    const isWhole = this.#keptBytes === this.#partBytes;
    const [only] = this.#kept;
    const json = this.#kept.length === 1 && only !== undefined ? only : Buffer.concat(this.#kept);
    const part = this.#isWanted ? { key: this.#key, isElement: this.#isList, json: isWhole ? json : json.subarray(0, this.#limits.beginningBytes), isWhole } : null;
    this.#kept = [];
    this.#keptBytes = 0;
    this.#partBytes = 0;
    this.#state = this.#isList ? 'element' : 'key';
    return part;
  }

  get #isWanted(): boolean {
    return this.#isList || this.#limits.values.has(this.#key) || this.#limits.lists.has(this.#key);
  }

  get #bytesMax(): number {
    return this.#isList ? this.#limits.elementBytesMax : this.#limits.valueBytesMax;
  }
}
