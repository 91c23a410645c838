/** Delivery states, to and from their documents. */
import { BODY_KEYS } from '../../appservice/body-keys.ts';
import type { DeliveryState } from '../../appservice/delivery-state.ts';
import type { AppserviceState, AttemptFailure, TransactionRecord } from '../port.ts';
import type { StoredDocument } from './fields.ts';
import { booleanField, documentField, integerField, listField, oneOfField, optionalField, textField } from './fields.ts';
import type { StateFields } from './schema.ts';

const DELIVERY_STATES: readonly DeliveryState[] = ['idle', 'delivering', 'retrying', 'failed'];

export function fieldsFromState(state: AppserviceState): StateFields {
  const { transaction, split, lastFailure } = state;
  return {
    revision: state.revision,
    lease_holder: state.leaseHolder,
    lease_epoch: state.leaseEpoch,
    delivery_state: state.deliveryState,
    paused: state.paused,
    parked: state.parked,
    since_position: state.sincePosition,
    delivered_position: state.deliveredPosition,
    last_txn_id: state.lastTxnId,
    transaction: transaction && {
      txn_id: transaction.txnId,
      ranges: transaction.ranges,
      ...(transaction.bodyKeys === undefined ? {} : { body_keys: transaction.bodyKeys }),
      entry_count: transaction.entryCount,
      through: transaction.through,
      cut_time_ms: transaction.cutTimeMs,
      attempt_count: transaction.attemptCount,
      next_attempt_time_ms: transaction.nextAttemptTimeMs,
      ...(transaction.skip === undefined ? {} : { skip: { reason: transaction.skip.reason, time_ms: transaction.skip.timeMs } }),
    },
    split: split && { through: split.through, entries_max: split.entriesMax },
    last_failure: lastFailure && { kind: lastFailure.kind, http_status: lastFailure.httpStatus, message: lastFailure.message, time_ms: lastFailure.timeMs },
    delivered_entries: state.deliveredEntries,
    delivered_transactions: state.deliveredTransactions,
    attempts: state.attempts,
    failed_attempts: state.failedAttempts,
    quarantined_entries: state.quarantinedEntries,
    replay_count: state.replayCount ?? null,
  };
}

/** Throws a StoreError of kind `unreadable`. */
export function stateFrom(document: StoredDocument): AppserviceState {
  const key = documentField(document, '_id');
  const replayCount = document['replay_count'] === undefined ? null : optionalField(document, 'replay_count', integerField);
  return {
    serverName: textField(key, 'server_name'),
    appserviceId: textField(key, 'appservice_id'),
    revision: integerField(document, 'revision'),
    leaseHolder: optionalField(document, 'lease_holder', textField),
    leaseEpoch: integerField(document, 'lease_epoch'),
    deliveryState: oneOfField(document, 'delivery_state', DELIVERY_STATES),
    paused: booleanField(document, 'paused'),
    parked: booleanField(document, 'parked'),
    sincePosition: integerField(document, 'since_position'),
    deliveredPosition: integerField(document, 'delivered_position'),
    lastTxnId: textField(document, 'last_txn_id'),
    transaction: optionalField(document, 'transaction', transactionField),
    split: optionalField(document, 'split', splitField),
    lastFailure: optionalField(document, 'last_failure', failureField),
    deliveredEntries: integerField(document, 'delivered_entries'),
    deliveredTransactions: integerField(document, 'delivered_transactions'),
    attempts: integerField(document, 'attempts'),
    failedAttempts: integerField(document, 'failed_attempts'),
    quarantinedEntries: integerField(document, 'quarantined_entries'),
    ...(replayCount === null ? {} : { replayCount }),
  };
}

function transactionField(document: StoredDocument, name: string): TransactionRecord {
  const fields = documentField(document, name);
  return {
    txnId: textField(fields, 'txn_id'),
    ranges: listField(fields, 'ranges', integerField),
    ...(fields['body_keys'] === undefined ? {} : { bodyKeys: listField(fields, 'body_keys', (item, key) => oneOfField(item, key, BODY_KEYS)) }),
    entryCount: integerField(fields, 'entry_count'),
    through: integerField(fields, 'through'),
    cutTimeMs: integerField(fields, 'cut_time_ms'),
    attemptCount: integerField(fields, 'attempt_count'),
    nextAttemptTimeMs: integerField(fields, 'next_attempt_time_ms'),
    ...(fields['skip'] === undefined ? {} : { skip: skipField(fields, 'skip') }),
  };
}

function skipField(document: StoredDocument, name: string): NonNullable<TransactionRecord['skip']> {
  const fields = documentField(document, name);
  return { reason: textField(fields, 'reason'), timeMs: integerField(fields, 'time_ms') };
}

function splitField(document: StoredDocument, name: string): { through: number; entriesMax: number } {
  const fields = documentField(document, name);
  return { through: integerField(fields, 'through'), entriesMax: integerField(fields, 'entries_max') };
}

function failureField(document: StoredDocument, name: string): AttemptFailure {
  const fields = documentField(document, name);
  return {
    kind: textField(fields, 'kind'),
    httpStatus: optionalField(fields, 'http_status', integerField),
    message: textField(fields, 'message'),
    timeMs: integerField(fields, 'time_ms'),
  };
}
