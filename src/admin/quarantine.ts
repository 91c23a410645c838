/**
 * The quarantine's shelf, as operators see and clear it. Who puts transactions there: delivery/transaction-queue.ts.
 *
 *   on the shelf ──discard──▶ gone
 *        └──redeliver──▶ in the log again, at the end of the queue ──▶ gone      ingest/redelivery.ts says why only once
 *
 * A transaction that is still in flight by its appservice's state is on its way to the shelf, whatever is there already:
 * it is left alone until it has left the queue.
 */
import { RefusalError } from '../appservice/refusal.ts';
import { transactionBody } from '../appservice/transaction-body.ts';
import type { Commands } from '../delivery/commands.ts';
import { unknownTransaction } from '../delivery/commands.ts';
import type { RedeliveryOutcome, Shelf } from '../ingest/redelivery.ts';
import type { OperatorRecordStore, QuarantinedTransaction } from '../store/port.ts';
import type { RedeliveredKey } from '../store/segment.ts';
import type { Page, ShelvedTransaction } from '../rpc/ports.ts';

export interface QuarantineOptions {
  readonly serverName: string;
  readonly store: OperatorRecordStore;
  readonly commands: Commands;
  readonly log: { redeliver(key: RedeliveredKey, shelf: Shelf): Promise<RedeliveryOutcome> };
  /** In the log again, though it may still be on the shelf. */
  readonly isRedelivered: (key: RedeliveredKey) => boolean;
}

/** Transactions read at once while counting. */
const COUNT_PAGE = 1_000;
/** Bodies of one page; at least one is there. */
const BODY_BYTES_MAX = 2 * 1024 * 1024;

export class Quarantine {
  readonly #options: QuarantineOptions;
  readonly #shelf: Shelf;

  constructor(options: QuarantineOptions) {
    const { serverName, store, commands } = options;
    this.#options = options;
    this.#shelf = {
      find: (key) => commands.inTime(this.#find(key)),
      remove: async ({ appserviceId, txnId }) => {
        await commands.inTime(store.changeRecord({ kind: 'unquarantine', serverName, appserviceId, txnId }));
      },
    };
  }

  /**
   * In the order of the txn ids, those after the page token, which is a txn id ('' = from the start). A page may have
   * fewer than asked for, with bodies above all. Rejects with a RefusalError or StoreError.
   */
  async list(appserviceId: string, countMax: number, pageToken: string, withBodies: boolean): Promise<Page<ShelvedTransaction>> {
    const { commands, isRedelivered } = this.#options;
    commands.inForce(appserviceId);
    if (pageToken !== '' && !isTxnId(pageToken)) throw new RefusalError('INVALID_FIELD', 'Send the next_page_token of the answer before, or none for the first page.', { field: 'page_token' });
    const found = await commands.inTime(this.#read(appserviceId, pageToken === '' ? null : pageToken, countMax + 1, false));
    const items: ShelvedTransaction[] = [];
    let bodyBytes = 0;
    let examined = pageToken;
    for (const facts of found.slice(0, countMax)) {
      const { txnId } = facts;
      bodyBytes += withBodies ? facts.bytes : 0;
      if (items.length > 0 && bodyBytes > BODY_BYTES_MAX) return { items, nextPageToken: examined };
      examined = txnId;
      if (isRedelivered({ appserviceId, txnId })) continue;
      const whole = withBodies ? await this.#shelf.find({ appserviceId, txnId }) : null;
      items.push({ ...facts, body: whole === null ? null : transactionBody(whole.entries, whole.bodyKeys) });
    }
    return { items, nextPageToken: found.length > countMax ? examined : '' };
  }

  async has(appserviceId: string, txnId: string): Promise<boolean> {
    if (!isTxnId(txnId)) return false;
    const [found] = await this.#options.commands.inTime(this.#read(appserviceId, before(txnId), 1, false));
    return found?.txnId === txnId;
  }

  /** Puts its entries at the end of the queue again, once. Rejects with a RefusalError or StoreError. */
  async redeliver(appserviceId: string, txnId: string): Promise<void> {
    await this.#refuseIfInFlight(appserviceId, txnId, (await this.#options.commands.refuseIfOver(appserviceId)).transaction?.txnId);
    const outcome = await this.#options.log.redeliver({ appserviceId, txnId }, this.#shelf);
    if (outcome === 'absent') throw unknownTransaction(appserviceId, txnId);
    await this.#shelf.remove({ appserviceId, txnId });
    await this.#recount(appserviceId);
  }

  /** Gives it up. Rejects with a RefusalError or StoreError. */
  async discard(appserviceId: string, txnId: string): Promise<void> {
    const { commands, store, serverName, isRedelivered } = this.#options;
    await this.#refuseIfInFlight(appserviceId, txnId, (await commands.state(appserviceId)).transaction?.txnId);
    const isInLog = isRedelivered({ appserviceId, txnId });
    const isRemoved = isTxnId(txnId) && (await commands.inTime(store.changeRecord({ kind: 'unquarantine', serverName, appserviceId, txnId })));
    if (isRemoved) await this.#recount(appserviceId);
    if (!isRemoved || isInLog) throw unknownTransaction(appserviceId, txnId);
  }

  /** Gives up all that an appservice had, whose registration is removed with its backlog. Rejects with a StoreError. */
  async clear(appserviceId: string): Promise<void> {
    for (;;) {
      const found = await this.#options.commands.inTime(this.#read(appserviceId, null, COUNT_PAGE, false));
      for (const { txnId } of found) await this.#shelf.remove({ appserviceId, txnId });
      if (found.length < COUNT_PAGE) return;
    }
  }

  #recount(appserviceId: string): Promise<void> {
    const { commands, isRedelivered } = this.#options;
    return commands.recount(appserviceId, async (besidesTxnId) => {
      let entryCount = 0;
      for (let after: string | null = null; ; ) {
        const found: readonly QuarantinedTransaction[] = await commands.inTime(this.#read(appserviceId, after, COUNT_PAGE, false));
        for (const one of found) if (one.txnId !== besidesTxnId && !isRedelivered({ appserviceId, txnId: one.txnId })) entryCount += one.entryCount;
        after = found.at(-1)?.txnId ?? null;
        if (found.length < COUNT_PAGE || after === null) return entryCount;
      }
    });
  }

  async #refuseIfInFlight(appserviceId: string, txnId: string, inFlightTxnId: string | undefined): Promise<void> {
    if (inFlightTxnId !== txnId) return;
    const message = (await this.has(appserviceId, txnId))
      ? 'This transaction is on its way to the quarantine. Call again in a second.'
      : 'This transaction is in flight and not in quarantine. SkipTransaction puts it there.';
    throw new RefusalError('DELIVERY_STATE_FORBIDS', message, { metadata: { appservice_id: appserviceId, txn_id: txnId } });
  }

  async #find({ appserviceId, txnId }: RedeliveredKey): Promise<QuarantinedTransaction | null> {
    if (!isTxnId(txnId)) return null;
    const [found] = await this.#read(appserviceId, before(txnId), 1, true);
    return found?.txnId === txnId ? found : null;
  }

  #read(appserviceId: string, afterTxnId: string | null, countMax: number, withEntries: boolean): Promise<QuarantinedTransaction[]> {
    const { store, serverName } = this.#options;
    return store.readRecords('quarantine', { serverName, appserviceId, afterTxnId, countMax, withEntries });
  }
}

function isTxnId(txnId: string): boolean {
  return /^[1-9]\d{0,39}$/.test(txnId);
}

/** The txn id just below. */
function before(txnId: string): string {
  return (BigInt(txnId) - 1n).toString();
}
