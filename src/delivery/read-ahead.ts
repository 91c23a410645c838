/**
 * The next entries of one appservice, read while the transaction before them is on its way, so that no read stands
 * between two pushes. Holds no more than two transactions' worth. Always a run of the log without a hole: what it
 * holds begins right after `#after`, and every further read begins right after the last entry it holds.
 */
import { cutTransaction } from '../appservice/transaction.ts';
import type { Cut, TransactionLimits } from '../appservice/transaction.ts';
import { StoreError } from '../store/errors.ts';
import type { RoutedEntry } from '../store/port.ts';
import type { RouteReader } from './ports.ts';

export class ReadAhead {
  readonly #serverName: string;
  readonly #appserviceId: string;
  readonly #routes: RouteReader;
  readonly #limits: TransactionLimits;
  #after = -1;
  #entries: RoutedEntry[] = [];
  #reading: Promise<void> | null = null;

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
    if (this.#entries.length >= this.#limits.entriesMax || this.#last() >= through) return;
    const reading = this.#read(through)
      .catch(() => undefined)
      .finally(() => {
        if (this.#reading === reading) this.#reading = null;
      });
    this.#reading = reading;
  }

  /** The next transaction after `after`, as full as `limits` allow; null if nothing is routed up to `through`. Rejects with a StoreError. */
  async cut(after: number, through: number, limits: TransactionLimits): Promise<Cut | null> {
    if (this.#reading !== null) await this.#reading;
    this.#startAt(after);
    const cut = cutTransaction(this.#entries, after, through, limits);
    const isShort = cut === null || (cut.entryCount === this.#entries.length && cut.entryCount < limits.entriesMax);
    if (!isShort || this.#last() >= through) return cut;
    await this.#read(through);
    if (this.#after !== after) throw new Error('a read ahead was moved while it was in use');
    return cutTransaction(this.#entries, after, through, limits);
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

  /** Reads on from the last entry held. */
  async #read(through: number): Promise<void> {
    const start = this.#after;
    const last = this.#last();
    const limits = { entriesMax: this.#limits.entriesMax - this.#entries.length, bytesMax: this.#limits.bytesMax };
    if (limits.entriesMax <= 0) return;
    const read = await this.#routes.readRoute(this.#serverName, this.#appserviceId, last, through, limits);
    // It was dropped or set elsewhere meanwhile.
    if (this.#after !== start || this.#last() !== last) return;
    for (const entry of read) {
      if (entry.position <= this.#last()) throw new Error('a route was read out of order');
      // What this release cannot deliver must wait for one that can; it must not be left out.
      if (entry.kind !== 'event') throw new StoreError('unreadable', `a routed entry is of kind ${entry.kind}, which cannot be delivered`);
      this.#entries.push(entry);
    }
  }
}
