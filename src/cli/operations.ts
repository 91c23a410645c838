/** stop, skip, quarantine, redeliver, discard, replay, audit: what an operator does with a delivery that cannot go on. */
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Appservice } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import type { AuditEntry, QuarantinedTransaction } from '../../gen/matrix/appservice/v1/operation_pb.ts';
import { AuditEntrySchema, QuarantinedTransactionSchema } from '../../gen/matrix/appservice/v1/operation_pb.ts';
import { jsonFrom } from '../rpc/admin-client.ts';
import { allPages, deadlineMs, printJson } from './context.ts';
import type { RouterContext } from './context.ts';
import { bytes, isoTime, NONE, timeMsFrom } from './format.ts';
import { showOne } from './status.ts';
import { table } from './table.ts';
import { EXIT } from './terminal.ts';
import type { ExitCode } from './terminal.ts';

const { stopAppservice, skipTransaction, listQuarantinedTransactions, redeliverTransaction, discardTransaction, replayEvents, listAuditEntries } = AppserviceAdmin.method;
const PAGE_SIZE = 100;
const QUARANTINE_HEADINGS = ['txn id', 'time', 'entries', 'size', 'log positions', 'reason'] as const;
const AUDIT_HEADINGS = ['time', 'actor', 'action', 'appservice', 'txn id', 'reason'] as const;

export async function stop(context: RouterContext, appserviceId: string, reason: string): Promise<ExitCode> {
  const { router, serverName } = context;
  return shown(context, await router.call(stopAppservice, { serverName, appserviceId, reason }, deadlineMs(context)));
}

/** What is done with one transaction, by its txn id. */
export type TransactionOperation = 'skip' | 'redeliver' | 'discard';

export async function operate(context: RouterContext, what: TransactionOperation, appserviceId: string, txnId: string, reason: string): Promise<ExitCode> {
  const { router, serverName } = context;
  const request = { serverName, appserviceId, txnId, reason };
  switch (what) {
    case 'skip':
      return shown(context, await router.call(skipTransaction, request, deadlineMs(context)));
    case 'redeliver':
      return shown(context, await router.call(redeliverTransaction, request, deadlineMs(context)));
    case 'discard':
      return shown(context, await router.call(discardTransaction, request, deadlineMs(context)));
  }
}

export async function replay(context: RouterContext, appserviceId: string, start: ReplayStart, reason: string): Promise<ExitCode> {
  const { router, serverName } = context;
  const answer = await router.call(replayEvents, { serverName, appserviceId, reason, start: startTo(start) }, deadlineMs(context));
  if (!context.json) context.terminal.out(`delivered again from log position ${answer.fromLogPosition}\n\n`);
  return shown(context, answer);
}

export type ReplayStart = { readonly kind: 'position'; readonly position: bigint } | { readonly kind: 'time'; readonly timeMs: number };

function startTo(start: ReplayStart) {
  if (start.kind === 'position') return { case: 'fromLogPosition' as const, value: start.position };
  const seconds = Math.floor(start.timeMs / 1_000);
  return { case: 'fromTime' as const, value: { seconds: BigInt(seconds), nanos: (start.timeMs - seconds * 1_000) * 1_000_000 } };
}

function shown(context: RouterContext, { appservice }: { readonly appservice?: Appservice | undefined }): ExitCode {
  showOne(context, appservice);
  return EXIT.ok;
}

export async function quarantine(context: RouterContext, appserviceId: string): Promise<ExitCode> {
  const { router, serverName, terminal, json } = context;
  const transactions = await allPages<QuarantinedTransaction>(async (pageToken) => {
    const answer = await router.call(listQuarantinedTransactions, { serverName, appserviceId, pageSize: PAGE_SIZE, pageToken }, deadlineMs(context));
    return { items: answer.transactions, nextPageToken: answer.nextPageToken };
  });
  if (json) printJson(context, transactions.map((one) => jsonFrom(QuarantinedTransactionSchema, one)));
  else if (transactions.length === 0) terminal.out(`Nothing of "${appserviceId}" is in quarantine.\n`);
  else terminal.out(table(QUARANTINE_HEADINGS, transactions.map(quarantineRow)));
  return EXIT.ok;
}

function quarantineRow({ txnId, time, entryCount, entryBytes, firstLogPosition, lastLogPosition, reason }: QuarantinedTransaction): string[] {
  const timeMs = timeMsFrom(time);
  const positions = firstLogPosition === lastLogPosition ? String(firstLogPosition) : `${firstLogPosition} to ${lastLogPosition}`;
  return [txnId, timeMs === null ? NONE : isoTime(timeMs), String(entryCount), bytes(Number(entryBytes)), positions, reason];
}

/** The newest first, at most `limit`. */
export async function audit(context: RouterContext, appserviceId: string | undefined, limit: number): Promise<ExitCode> {
  const { router, serverName, terminal, json } = context;
  const entries: AuditEntry[] = [];
  let pageToken = '';
  do {
    const answer = await router.call(listAuditEntries, { serverName, appserviceId, pageSize: Math.min(PAGE_SIZE, limit - entries.length), pageToken }, deadlineMs(context));
    entries.push(...answer.entries);
    pageToken = answer.nextPageToken;
  } while (pageToken !== '' && entries.length < limit);
  if (json) printJson(context, entries.map((entry) => jsonFrom(AuditEntrySchema, entry)));
  else if (entries.length === 0) terminal.out('No operator has done anything yet.\n');
  else terminal.out(table(AUDIT_HEADINGS, entries.map(auditRow)));
  return EXIT.ok;
}

function auditRow({ time, actor, action, appserviceId, txnId, reason }: AuditEntry): string[] {
  const timeMs = timeMsFrom(time);
  return [timeMs === null ? NONE : isoTime(timeMs), actor, action, appserviceId, txnId ?? NONE, reason || NONE];
}
