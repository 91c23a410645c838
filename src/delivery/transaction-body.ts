/**
 * The body of a transaction cut earlier, built again from the log: after a restart, a hand-over, or a wait during
 * which it was not kept in memory. The log does not change, so it is the same body byte for byte (I3).
 */
import { transactionBody } from '../appservice/transaction-body.ts';
import { isChosen } from '../appservice/transaction.ts';
import type { Settled } from '../appservice/transaction.ts';
import { StoreError } from '../store/errors.ts';
import type { AppserviceState, RoutedEntry, TransactionRecord } from '../store/port.ts';
import type { RouteReader } from './ports.ts';

const READ_BYTES_MAX = 16 * 1024 * 1024;
const READ_ENTRIES_MAX = 10_000;

/** Of which transaction, above which delivered position. */
type Owner = Pick<AppserviceState, 'serverName' | 'appserviceId' | 'deliveredPosition'>;

/** What the log has of a transaction. */
export interface TransactionEntries {
  readonly chosen: readonly RoutedEntry[];
  /** What the transaction settles of everything routed above the delivered position. */
  readonly settled: Settled;
}

/** Rejects with a StoreError. */
export async function readTransactionEntries(routes: RouteReader, { serverName, appserviceId, deliveredPosition }: Owner, transaction: TransactionRecord): Promise<TransactionEntries> {
  const { ranges, through } = transaction;
  const chosen: RoutedEntry[] = [];
  const settled = { entries: 0, bytes: 0 };
  let after = deliveredPosition;
  while (after < through) {
    const read = await routes.readRoute(serverName, appserviceId, after, through, { entriesMax: READ_ENTRIES_MAX, bytesMax: READ_BYTES_MAX });
    for (const entry of read) {
      settled.entries++;
      settled.bytes += entry.json.byteLength;
      if (isChosen(ranges, entry.position)) chosen.push(entry);
    }
    const end = read.at(-1)?.position;
    if (end === undefined) break;
    after = end;
  }
  return { chosen, settled };
}

/** Rejects with a StoreError; of kind `unreadable` if the log no longer has all of the entries. */
export async function readTransactionBody(routes: RouteReader, owner: Owner, transaction: TransactionRecord): Promise<{ body: Uint8Array; settled: Settled }> {
  const { bodyKeys = [], entryCount, txnId } = transaction;
  const { chosen, settled } = await readTransactionEntries(routes, owner, transaction);
  if (chosen.length !== entryCount) throw new StoreError('unreadable', `the log has ${chosen.length} of the ${entryCount} entries of transaction ${txnId}`);
  return { body: transactionBody(chosen, bodyKeys), settled };
}
