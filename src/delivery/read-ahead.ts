/**
 * The next entries of one appservice, read while the transaction before them is on its way, so that no read stands
 * between two pushes. Always a run of the log without a hole: what it holds begins right after `#after`, and every
 * further read begins right after the last entry it holds.
 *
 * Holds no more than two transactions' worth of events. Where many entries are left out, or of other kinds, a transaction
 * may take more reads to fill; they end at the bounds below, and then it goes as it is. Where ephemeral entries alone fill
 * it, more of what is behind them is read, since that may overtake them.
 */
import { Overtaking } from '../appservice/overtaking.ts';
import { cutTransaction } from '../appservice/transaction.ts';
import type { Cut, CutTerms, TransactionEntry, TransactionLimits } from '../appservice/transaction.ts';
import type { RouteReader } from './ports.ts';

/** Held for one transaction at most; the last read may go beyond by what it brings. */
const HELD_ENTRIES_MAX = 10_000;
const HELD_BYTES_MAX = 8 * 1024 * 1024;
/** Entries of one read beyond the number of events of a transaction. */
const FURTHER_ENTRIES = 1_000;
/** So far is looked for what overtakes the ephemeral entries that fill a transaction. */
const OVERTAKING_ENTRIES_MAX = 1_000;

const NONE: ReadonlySet<TransactionEntry> = new Set();

export class ReadAhead {
  readonly #serverName: string;
  readonly #appserviceId: string;
  readonly #routes: RouteReader;
  readonly #limits: TransactionLimits;
  #after = -1;
  #entries: TransactionEntry[] = [];
  #reading: Promise<void> | null = null;
  readonly #overtaking = new Overtaking();

  constructor(serverName: string, appserviceId: string, routes: RouteReader, limits: TransactionLimits) {
    this.#serverName = serverName;
    this.#appserviceId = appserviceId;
    this.#routes = routes;
    this.#limits = limits;
  }

  /** Begins to read what comes after `after`, up to `through`. Its failure shows when the entries are asked for. */
  begin(after: number, through: number): void {
    if (this.#reading !== null) return;
    this.#startAt(after);
    if (this.#entries.length >= this.#limits.eventsMax || this.#last() >= through) return;
    const reading = this.#read(through)
      .catch(() => undefined)
      .finally(() => {
        if (this.#reading === reading) this.#reading = null;
      });
    this.#reading = reading;
  }

  /** The next transaction after `after`, as full as `terms` allow; null if nothing is routed up to `through`. Rejects with a StoreError. */
  async cut(after: number, through: number, terms: Omit<CutTerms, 'overtaken'>): Promise<Cut | null> {
    if (this.#reading !== null) await this.#reading;
    this.#startAt(after);
    for (;;) {
      const cut = cutTransaction(this.#entries, after, through, { ...terms, overtaken: this.#overtaken(through, terms.ephemeralFromMs) });
      if (this.#last() >= through || this.#holdsEnough()) return cut;
      if (cut?.isFull === true && (cut.ephemeralCount < this.#limits.ephemeralMax || this.#entries.length >= OVERTAKING_ENTRIES_MAX)) return cut;
      const held = this.#last();
      await this.#read(through);
      if (this.#after !== after) throw new Error('a read ahead was moved while it was in use');
      if (this.#last() === held) return cut;
    }
  }

  /** What the durable cut took is no longer held. */
  taken(through: number): void {
    const left = this.#entries.findIndex(({ position }) => position > through);
    this.#entries.splice(0, left === -1 ? this.#entries.length : left);
    this.#after = through;
  }

  drop(): void {
    this.#after = -1;
    this.#entries = [];
  }

  #startAt(after: number): void {
    if (this.#after === after) return;
    this.#after = after;
    this.#entries = [];
  }

  #last(): number {
    return this.#entries.at(-1)?.position ?? this.#after;
  }

  #holdsEnough(): boolean {
    if (this.#entries.length <= this.#limits.eventsMax) return false;
    return this.#entries.length >= HELD_ENTRIES_MAX || this.#entries.reduce((sum, { json }) => sum + json.byteLength, 0) >= HELD_BYTES_MAX;
  }

  #overtaken(through: number, ephemeralFromMs: number): ReadonlySet<TransactionEntry> {
    const ephemeral = this.#entries.filter(({ kind, position, timeMs }) => kind === 'ephemeral' && position <= through && timeMs >= ephemeralFromMs);
    return ephemeral.length < 2 ? NONE : this.#overtaking.of(ephemeral);
  }

  /** Reads on from the last entry held. */
  async #read(through: number): Promise<void> {
    const start = this.#after;
    const last = this.#last();
    const room = this.#limits.eventsMax - this.#entries.length;
    const limits = { entriesMax: room > 0 ? room : FURTHER_ENTRIES, bytesMax: this.#limits.bytesMax };
    const read = await this.#routes.readRoute(this.#serverName, this.#appserviceId, last, through, limits);
    // It was dropped or set elsewhere meanwhile.
    if (this.#after !== start || this.#last() !== last) return;
    for (const entry of read) {
      if (entry.position <= this.#last()) throw new Error('a route was read out of order');
      this.#entries.push(entry);
    }
  }
}
