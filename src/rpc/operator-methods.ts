/**
 * What each method of AppserviceAdmin does by which operators step in, for both doors. Each says who called and why, for
 * the audit entries.
 */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt';
import type {
  DiscardTransactionResponseSchema,
  ListAuditEntriesRequestSchema,
  ListAuditEntriesResponseSchema,
  ListQuarantinedTransactionsRequestSchema,
  ListQuarantinedTransactionsResponseSchema,
  RedeliverTransactionResponseSchema,
  ReplayEventsRequestSchema,
  ReplayEventsResponseSchema,
  SkipTransactionResponseSchema,
  StopAppserviceResponseSchema,
} from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { AuditEntrySchema, QuarantinedTransactionSchema } from '../../gen/matrix/appservice/v1/operation_pb.ts';
import type { Caller } from './authentication.ts';
import { appserviceIdFrom, appserviceTo, invalid } from './conversion.ts';
import { pageSize, pageToken } from './page.ts';
import type { AdminPort, AppserviceStatus, AuditRecord, Order, ReplayOrder, ShelvedTransaction, TransactionOrder } from './ports.ts';
import { Code, RpcStatus } from './status.ts';

const REASON_BYTES_MAX = 1024;
const TXN_ID_LENGTH_MAX = 40;

interface OrderRequest {
  readonly serverName?: string | undefined;
  readonly appserviceId: string;
  readonly reason: string;
}

interface TransactionRequest extends OrderRequest {
  readonly txnId: string;
}

type Answer = MessageInitShape<typeof StopAppserviceResponseSchema> &
  MessageInitShape<typeof SkipTransactionResponseSchema> &
  MessageInitShape<typeof RedeliverTransactionResponseSchema> &
  MessageInitShape<typeof DiscardTransactionResponseSchema>;

/** Finds the homeserver that a request is about; throws an RpcStatus if the caller may not. */
export type AdminOf = (request: { readonly serverName?: string | undefined }, caller: Caller) => AdminPort;

export class OperatorMethods {
  readonly #adminOf: AdminOf;

  constructor(adminOf: AdminOf) {
    this.#adminOf = adminOf;
  }

  async stopAppservice(request: OrderRequest, caller: Caller): Promise<Answer> {
    return answerOf(await this.#adminOf(request, caller).stop(orderFrom(request, caller)));
  }

  async skipTransaction(request: TransactionRequest, caller: Caller): Promise<Answer> {
    return answerOf(await this.#adminOf(request, caller).skip(transactionOrderFrom(request, caller)));
  }

  async redeliverTransaction(request: TransactionRequest, caller: Caller): Promise<Answer> {
    return answerOf(await this.#adminOf(request, caller).redeliver(transactionOrderFrom(request, caller)));
  }

  async discardTransaction(request: TransactionRequest, caller: Caller): Promise<Answer> {
    return answerOf(await this.#adminOf(request, caller).discard(transactionOrderFrom(request, caller)));
  }

  async replayEvents(request: MessageShape<typeof ReplayEventsRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof ReplayEventsResponseSchema>> {
    const { status, from } = await this.#adminOf(request, caller).replay({ ...orderFrom(request, caller), start: startFrom(request) });
    return { ...answerOf(status), fromLogPosition: BigInt(from) };
  }

  async listQuarantinedTransactions(
    request: MessageShape<typeof ListQuarantinedTransactionsRequestSchema>,
    caller: Caller,
  ): Promise<MessageInitShape<typeof ListQuarantinedTransactionsResponseSchema>> {
    const { includeBodies } = request;
    if (includeBodies && caller.role !== 'admin') {
      const message = `Bodies hold people's messages, which the role ${caller.role} may not read. Leave include_bodies out, or use a credential of the role admin.`;
      throw new RpcStatus({ code: Code.permissionDenied, reason: 'ROLE_FORBIDDEN', message, field: 'include_bodies', metadata: { role: caller.role } });
    }
    const page = await this.#adminOf(request, caller).listQuarantined(appserviceIdFrom(request.appserviceId), pageSize(request.pageSize), pageToken(request.pageToken), includeBodies);
    return { transactions: page.items.map(shelvedTo), nextPageToken: page.nextPageToken };
  }

  async listAuditEntries(request: MessageShape<typeof ListAuditEntriesRequestSchema>, caller: Caller): Promise<MessageInitShape<typeof ListAuditEntriesResponseSchema>> {
    const appserviceId = request.appserviceId === undefined ? undefined : appserviceIdFrom(request.appserviceId);
    const page = await this.#adminOf(request, caller).listAudit(appserviceId, pageSize(request.pageSize), pageToken(request.pageToken));
    return { entries: page.items.map(auditEntryTo), nextPageToken: page.nextPageToken };
  }
}

function answerOf(status: AppserviceStatus): Answer {
  return { appservice: appserviceTo(status) };
}

/** A reason without the white space around it; may be empty. Throws an RpcStatus if it is too long. */
export function wordsFrom(reason: string): string {
  const words = reason.trim();
  if (Buffer.byteLength(words) > REASON_BYTES_MAX) throw invalid('reason', `A reason has at most ${REASON_BYTES_MAX} bytes.`);
  return words;
}

function orderFrom({ appserviceId, reason }: OrderRequest, { name }: Caller): Order {
  const words = wordsFrom(reason);
  if (words === '') throw invalid('reason', 'Say why, for the audit entries.');
  return { appserviceId: appserviceIdFrom(appserviceId), reason: words, actor: name };
}

function transactionOrderFrom(request: TransactionRequest, caller: Caller): TransactionOrder {
  const { txnId } = request;
  if (txnId === '' || txnId.length > TXN_ID_LENGTH_MAX) throw invalid('txn_id', `Name the transaction by its txn id, in at most ${TXN_ID_LENGTH_MAX} characters. GetAppservice tells which is in flight.`);
  return { ...orderFrom(request, caller), txnId };
}

function startFrom({ start }: MessageShape<typeof ReplayEventsRequestSchema>): ReplayOrder['start'] {
  switch (start.case) {
    case 'fromLogPosition':
      if (start.value < 1n || start.value > BigInt(Number.MAX_SAFE_INTEGER)) throw invalid('from_log_position', 'A log position is an integer from 1 through 9007199254740991.');
      return { kind: 'position', position: Number(start.value) };
    case 'fromTime':
      return { kind: 'time', timeMs: timestampMs(start.value) };
    case undefined:
      throw invalid('start', 'Say from where: from_log_position or from_time.');
  }
}

function shelvedTo(shelved: ShelvedTransaction): MessageInitShape<typeof QuarantinedTransactionSchema> {
  return {
    txnId: shelved.txnId,
    reason: shelved.reason,
    time: timestampFromMs(Math.floor(shelved.timeMs)),
    firstLogPosition: BigInt(shelved.firstPosition),
    lastLogPosition: BigInt(shelved.lastPosition),
    entryCount: shelved.entryCount,
    entryBytes: BigInt(shelved.bytes),
    ...(shelved.body === null ? {} : { body: shelved.body }),
  };
}

function auditEntryTo({ timeMs, actor, action, appserviceId, txnId, reason }: AuditRecord): MessageInitShape<typeof AuditEntrySchema> {
  return { time: timestampFromMs(Math.floor(timeMs)), actor, action, appserviceId, reason, ...(txnId === null ? {} : { txnId }) };
}
