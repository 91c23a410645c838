/**
 * What one attempt came to, told three ways: to the log, to the stored state, and to whoever watches.
 */
import type { DomainEvent } from '../appservice/domain-event.ts';
import type { Logger } from '../logger.ts';
import type { AttemptFailure, TransactionRecord } from '../store/port.ts';
import type { PushOutcome } from './ports.ts';

/** An attempt that ended without success. */
export type FailedOutcome = Extract<PushOutcome, { kind: 'too_large' | 'rejected' | 'unreachable' }>;

export interface AttemptReport {
  readonly serverName: string;
  readonly appserviceId: string;
  readonly transaction: TransactionRecord;
  readonly bodyBytes: number;
  readonly outcome: PushOutcome;
  readonly durationMs: number;
  /** Wall clock of the next attempt under the same txn id; null if there is none. */
  readonly nextAttemptTimeMs: number | null;
}

/** How a failed attempt is kept. `kind` is `too_large`, `rejected`, or what kept the appservice from answering. */
export function failureOf(outcome: FailedOutcome, timeMs: number): AttemptFailure {
  const { message } = outcome;
  if (outcome.kind === 'unreachable') return { kind: outcome.failure, httpStatus: null, message, timeMs };
  return { kind: outcome.kind, httpStatus: outcome.httpStatus, message, timeMs };
}

/** `retry_count`: attempts under this txn id that have failed, this one included. */
export function deliveryFailed(appserviceId: string, transaction: TransactionRecord): DomainEvent {
  return { kind: 'delivery_failed', service_id: appserviceId, transaction_id: transaction.txnId, retry_count: transaction.attemptCount + 1 };
}

/** One line per attempt, with everything in it. */
export function logAttempt(logger: Logger, report: AttemptReport): void {
  const { serverName, appserviceId, transaction, bodyBytes, outcome, durationMs, nextAttemptTimeMs } = report;
  const fields = {
    server_name: serverName,
    appservice_id: appserviceId,
    txn_id: transaction.txnId,
    attempt: transaction.attemptCount + 1,
    event_count: transaction.entryCount,
    body_bytes: bodyBytes,
    path: outcome.path ?? 'v1',
    outcome: outcome.kind,
    http_status: 'httpStatus' in outcome ? outcome.httpStatus : null,
    failure: outcome.kind === 'unreachable' ? outcome.failure : null,
    misconfiguration: outcome.kind === 'rejected' && outcome.misconfiguration,
    error: 'message' in outcome ? outcome.message : null,
    duration_ms: Math.round(durationMs),
    next_attempt_time_ms: nextAttemptTimeMs,
  };
  if (outcome.kind === 'delivered' || outcome.kind === 'aborted') logger.info(fields, 'delivery attempt');
  else logger.warn(fields, 'delivery attempt');
}
