/**
 * What came in a homeserver's transaction and can be given to nobody: kept in the store's quarantine, logged and counted.
 * A homeserver would send it again for ever, and with it all that stands beside it.
 *
 * The same item is kept once, however often it comes. Only so many are kept, and of each only the beginning; beyond that
 * they are logged and counted. The log tells of a few in each transaction, and of how many there were.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { OperatorRecordStore, QuarantinedTransaction } from '../store/port.ts';
import type { IngressMeter } from './ports.ts';
import type { ShelvedItem } from './transaction-reader.ts';

/** No appservice has an id with `|` in it. */
export const SHELF_ID = '|ingress';

export interface ShelfOptions {
  readonly serverName: string;
  readonly store: OperatorRecordStore;
  readonly meter: Pick<IngressMeter, 'shelved'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Kept in the store. */
const ITEMS_MAX = 200;
const LOGGED_MAX = 10;
const REASON_LENGTH_MAX = 500;

export class Shelf {
  readonly #options: ShelfOptions;
  /** In the store; null until that was looked up. */
  #keptIds: Set<string> | null = null;
  #count = 0;

  constructor(options: ShelfOptions) {
    this.#options = options;
  }

  /** Items shelved since the start. */
  get count(): number {
    return this.#count;
  }

  /** A shelf for one transaction. */
  of(txnId: string): TransactionShelf {
    return new TransactionShelf(this, this.#options, txnId);
  }

  /** Returns its number on the shelf, or null if it is not kept. Rejects with a StoreError. */
  async keep({ kind, reason, json }: ShelvedItem): Promise<string | null> {
    const { serverName, store, clock, meter } = this.#options;
    this.#count++;
    meter.shelved(kind, 1);
    const id = numberOf(json);
    this.#keptIds ??= new Set((await store.readRecords('quarantine', { serverName, appserviceId: SHELF_ID, afterTxnId: null, countMax: ITEMS_MAX, withEntries: false })).map(({ txnId }) => txnId));
    if (this.#keptIds.has(id)) return id;
    if (this.#keptIds.size >= ITEMS_MAX) return null;
    const transaction: QuarantinedTransaction = {
      serverName,
      appserviceId: SHELF_ID,
      txnId: id,
      reason: `${kind}: ${reason}`.slice(0, REASON_LENGTH_MAX),
      timeMs: clock.nowMs(),
      firstPosition: 0,
      lastPosition: 0,
      bodyKeys: [],
      entryCount: 1,
      bytes: json.byteLength,
      entries: [{ kind: kind === 'body' ? 'event' : kind, json }],
    };
    await store.changeRecord({ kind: 'quarantine', transaction });
    this.#keptIds.add(id);
    return id;
  }
}

export class TransactionShelf {
  readonly #shelf: Shelf;
  readonly #options: ShelfOptions;
  readonly #txnId: string;
  #count = 0;

  constructor(shelf: Shelf, options: ShelfOptions, txnId: string) {
    this.#shelf = shelf;
    this.#options = options;
    this.#txnId = txnId;
  }

  /** Rejects with a StoreError. */
  async shelve(item: ShelvedItem): Promise<void> {
    const shelfId = await this.#shelf.keep(item);
    this.#count++;
    if (this.#count > LOGGED_MAX) return;
    const { kind, reason, json } = item;
    const fields = { server_name: this.#options.serverName, txn_id: this.#txnId, kind, event_id: eventIdOf(json), bytes: json.byteLength, shelf_id: shelfId, reason };
    this.#options.logger.warn(fields, 'an item of a transaction can be given to nobody and was shelved; the rest of the transaction was taken');
  }

  end(): void {
    if (this.#count <= LOGGED_MAX) return;
    this.#options.logger.warn({ server_name: this.#options.serverName, txn_id: this.#txnId, count: this.#count }, 'more items of a transaction were shelved than the log tells one by one');
  }
}

/** The same for the same event, or, of what has no event id, for the same bytes. */
function numberOf(json: Uint8Array): string {
  return createHash('sha256').update(eventIdOf(json) ?? json).digest().readBigUInt64BE().toString();
}

/** Of what is no JSON too, as far as it can be told. */
function eventIdOf(json: Uint8Array): string | null {
  return /"event_id"\s*:\s*"([^"\\]{1,255})"/.exec(Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString())?.[1] ?? null;
}
