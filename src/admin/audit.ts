/**
 * What operators did, kept in the store: the newest 10,000 of each homeserver.
 *
 *   enter ──▶ act ──▶ stays
 *              └── refused ──▶ taken back
 *
 * Nothing is done that is not entered: the entry is durable before the action begins. One whose call was not answered, or
 * was answered with UNAVAILABLE, may tell of an action that did not take effect.
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock, Random } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { Page } from '../rpc/ports.ts';
import type { AuditEntry, OperatorRecordStore } from '../store/port.ts';

export interface AuditOptions {
  readonly serverName: string;
  readonly store: OperatorRecordStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Bounds a call of the store. */
  readonly inTime: <Result>(work: Promise<Result>) => Promise<Result>;
}

/** What is done, by whom and why. */
export interface AuditedAction {
  /** Name of the credential. */
  readonly actor: string;
  /** Name of the method. */
  readonly action: string;
  readonly appserviceId: string;
  readonly txnId?: string;
  readonly reason?: string;
}

const ENTRIES_MAX = 10_000;
const TIME_DIGITS = 15;
const COUNT_DIGITS = 6;
const CHANCE_BYTES = 6;
const AUDIT_ID = /^\d{15,}-\d{6,}-[0-9a-f]{12}$/;

export class Audit {
  readonly #options: AuditOptions;
  #newestMs = 0;
  #countInMs = 0;

  constructor(options: AuditOptions) {
    this.#options = options;
  }

  /** Enters the action and does it. Rejects with what `act` rejects with, or a StoreError if it could not be entered; then it is not done. */
  async around<Result>({ actor, action, appserviceId, txnId, reason = '' }: AuditedAction, act: () => Promise<Result>): Promise<Result> {
    const { serverName, store, inTime, clock } = this.#options;
    const timeMs = clock.nowMs();
    const entry = { serverName, auditId: this.#auditId(timeMs), timeMs: Math.floor(timeMs), actor, action, appserviceId, txnId: txnId ?? null, reason };
    await inTime(store.changeRecord({ kind: 'audit', entry, entriesMax: ENTRIES_MAX }));
    try {
      return await act();
    } catch (error) {
      if (error instanceof RefusalError) await this.#takeBack(entry);
      throw error;
    }
  }

  /** Newest first; of one appservice unless `appserviceId` is undefined. Rejects with a RefusalError or StoreError. */
  async list(appserviceId: string | undefined, countMax: number, pageToken: string): Promise<Page<AuditEntry>> {
    const { serverName, store, inTime } = this.#options;
    if (pageToken !== '' && !AUDIT_ID.test(pageToken)) throw new RefusalError('INVALID_FIELD', 'Send the next_page_token of the answer before, or none for the first page.', { field: 'page_token' });
    const beforeId = pageToken === '' ? null : pageToken;
    const found = await inTime(store.readRecords('audit', { serverName, appserviceId: appserviceId ?? null, beforeId, countMax: countMax + 1 }));
    const items = found.slice(0, countMax);
    return { items, nextPageToken: found.length > countMax ? (items.at(-1)?.auditId ?? '') : '' };
  }

  async #takeBack({ serverName, auditId, action }: AuditEntry): Promise<void> {
    try {
      await this.#options.inTime(this.#options.store.changeRecord({ kind: 'unaudit', serverName, auditId }));
    } catch (error) {
      this.#options.logger.warn({ server_name: serverName, action, error: String(error) }, 'the audit entry of an action that was refused could not be taken back');
    }
  }

  /** In the order of time; of one process, in the order of the calls. */
  #auditId(timeMs: number): string {
    const wholeMs = Math.max(this.#newestMs, Math.floor(timeMs));
    this.#countInMs = wholeMs === this.#newestMs ? this.#countInMs + 1 : 0;
    this.#newestMs = wholeMs;
    return `${String(wholeMs).padStart(TIME_DIGITS, '0')}-${String(this.#countInMs).padStart(COUNT_DIGITS, '0')}-${this.#options.random.hex(CHANCE_BYTES)}`;
  }
}
