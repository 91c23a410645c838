/**
 * The body of a transaction cut earlier, built again from the log: after a restart, a hand-over, or a wait during
 * which it was not kept in memory. The log does not change, so it is the same body byte for byte (I3).
 */
import { isChosen, transactionBody } from '../appservice/transaction.ts';
import { StoreError } from '../store/errors.ts';
import type { RoutedEntry, TransactionRecord } from '../store/port.ts';
import type { RouteReader } from './ports.ts';

const READ_BYTES_MAX = 16 * 1024 * 1024;
const READ_ENTRIES_MAX = 10_000;

/** Rejects with a StoreError; of kind `unreadable` if the log no longer has all of the entries. */
export async function readTransactionBody(routes: RouteReader, serverName: string, appserviceId: string, transaction: TransactionRecord): Promise<Uint8Array> {
  const { ranges, entryCount } = transaction;
  const last = ranges.at(-1) ?? 0;
  const chosen: RoutedEntry[] = [];
  let after = (ranges[0] ?? 1) - 1;
  while (after < last) {
    const read = await routes.readRoute(serverName, appserviceId, after, last, { entriesMax: READ_ENTRIES_MAX, bytesMax: READ_BYTES_MAX });
    for (const entry of read) if (isChosen(ranges, entry.position)) chosen.push(entry);
    const end = read.at(-1)?.position;
    if (end === undefined) break;
    after = end;
  }
  if (chosen.length !== entryCount) {
    throw new StoreError('unreadable', `the log has ${chosen.length} of the ${entryCount} entries of transaction ${transaction.txnId}`);
  }
  return transactionBody(chosen);
}
