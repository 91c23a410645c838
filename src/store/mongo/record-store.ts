/**
 * The quarantine and the audit entries: documents that are put once and never changed, under keys that are in the order
 * in which they are read.
 */
import { Binary } from 'mongodb';
import { BODY_KEYS } from '../../appservice/body-keys.ts';
import type { AuditEntry, OperatorRecords, QuarantinedTransaction, RecordChange, RecordKind, RecordQueries } from '../port.ts';
import { decodeEntryList, encodeEntryList } from '../segment-codec.ts';
import type { MongoCalls } from './calls.ts';
import type { StoredDocument } from './fields.ts';
import { bytesField, documentField, integerField, listField, oneOfField, optionalField, textField } from './fields.ts';
import type { AuditDocument, Collections, Key, QuarantinedDocument } from './schema.ts';
import { appserviceKey, auditKey, keysOfServer, quarantineKey } from './schema.ts';

export interface MongoRecordStoreOptions {
  readonly collections: Pick<Collections, 'quarantinedTransactions' | 'auditEntries'>;
  readonly calls: MongoCalls;
}

export class MongoRecordStore {
  readonly #options: MongoRecordStoreOptions;

  constructor(options: MongoRecordStoreOptions) {
    this.#options = options;
  }

  changeRecord(change: RecordChange): Promise<boolean> {
    const { calls, collections } = this.#options;
    switch (change.kind) {
      case 'quarantine': {
        const { _id, ...fields } = quarantinedDocument(change.transaction);
        return calls.run('changeRecord', async (options) => {
          const { upsertedCount } = await collections.quarantinedTransactions.updateOne({ _id }, { $setOnInsert: fields }, { upsert: true, ...options });
          return upsertedCount > 0;
        });
      }
      case 'unquarantine': {
        const _id = quarantineKey(change.serverName, change.appserviceId, change.txnId);
        return calls.run('changeRecord', async (options) => (await collections.quarantinedTransactions.deleteOne({ _id }, options)).deletedCount > 0);
      }
      case 'audit':
        return this.#audit(change.entry, change.entriesMax);
      case 'unaudit': {
        const _id = auditKey(change.serverName, change.auditId);
        return calls.run('changeRecord', async (options) => (await collections.auditEntries.deleteOne({ _id }, options)).deletedCount > 0);
      }
    }
  }

  readRecords<Kind extends RecordKind>(kind: Kind, query: RecordQueries[Kind]): Promise<OperatorRecords[Kind][]> {
    return this.#readers[kind](query);
  }

  readonly #readers: { readonly [Kind in RecordKind]: (query: RecordQueries[Kind]) => Promise<OperatorRecords[Kind][]> } = {
    quarantine: async ({ serverName, appserviceId, afterTxnId, countMax, withEntries }) => {
      const { calls, collections } = this.#options;
      const after = afterTxnId === null ? appserviceKey(serverName, appserviceId) : quarantineKey(serverName, appserviceId, afterTxnId);
      const keys = { $gt: after, $lt: appserviceKey(serverName, `${appserviceId}\0`) };
      const documents = await calls.runNewest('readRecords', (options) =>
        collections.quarantinedTransactions
          .find({ _id: keys }, options)
          .sort({ _id: 1 })
          .limit(countMax)
          .project<StoredDocument>(withEntries ? {} : { entries: 0 })
          .toArray(),
      );
      return documents.map((document) => quarantinedFrom(document, withEntries));
    },
    audit: async ({ serverName, appserviceId, beforeId, countMax }) => {
      const { calls, collections } = this.#options;
      const keys = { ...keysOfServer(serverName), ...(beforeId === null ? {} : { $lt: auditKey(serverName, beforeId) }) };
      const filter = appserviceId === null ? { _id: keys } : { _id: keys, appservice_id: appserviceId };
      const documents = await calls.runNewest('readRecords', (options) =>
        collections.auditEntries.find(filter, options).sort({ _id: -1 }).limit(countMax).project<StoredDocument>({}).toArray(),
      );
      return documents.map(auditEntryFrom);
    },
  };

  #audit(entry: AuditEntry, entriesMax: number): Promise<boolean> {
    const { auditEntries } = this.#options.collections;
    const { _id, ...fields } = auditDocument(entry);
    return this.#options.calls.run('changeRecord', async (options) => {
      const { upsertedCount } = await auditEntries.updateOne({ _id }, { $setOnInsert: fields }, { upsert: true, ...options });
      const keys = keysOfServer(entry.serverName);
      const [excess] = await auditEntries.find({ _id: keys }, options).sort({ _id: -1 }).skip(entriesMax).limit(1).project<{ readonly _id: Key }>({ _id: 1 }).toArray();
      if (excess !== undefined) await auditEntries.deleteMany({ _id: { $gte: keys.$gte, $lte: excess._id } }, options);
      return upsertedCount > 0;
    });
  }
}

function quarantinedDocument({ entries, ...facts }: QuarantinedTransaction): QuarantinedDocument {
  return {
    _id: quarantineKey(facts.serverName, facts.appserviceId, facts.txnId),
    txn_id: facts.txnId,
    reason: facts.reason,
    time_ms: facts.timeMs,
    first_position: facts.firstPosition,
    last_position: facts.lastPosition,
    body_keys: facts.bodyKeys,
    entry_count: facts.entryCount,
    bytes: facts.bytes,
    entries: new Binary(encodeEntryList(entries)),
  };
}

/** Throws a StoreError of kind `unreadable`. */
function quarantinedFrom(document: StoredDocument, withEntries: boolean): QuarantinedTransaction {
  const key = documentField(document, '_id');
  return {
    serverName: textField(key, 'server_name'),
    appserviceId: textField(key, 'appservice_id'),
    txnId: textField(document, 'txn_id'),
    reason: textField(document, 'reason'),
    timeMs: integerField(document, 'time_ms'),
    firstPosition: integerField(document, 'first_position'),
    lastPosition: integerField(document, 'last_position'),
    bodyKeys: listField(document, 'body_keys', (item, name) => oneOfField(item, name, BODY_KEYS)),
    entryCount: integerField(document, 'entry_count'),
    bytes: integerField(document, 'bytes'),
    entries: withEntries ? decodeEntryList(bytesField(document, 'entries')) : [],
  };
}

function auditDocument(entry: AuditEntry): AuditDocument {
  return {
    _id: auditKey(entry.serverName, entry.auditId),
    time_ms: entry.timeMs,
    actor: entry.actor,
    action: entry.action,
    appservice_id: entry.appserviceId,
    txn_id: entry.txnId,
    reason: entry.reason,
  };
}

/** Throws a StoreError of kind `unreadable`. */
function auditEntryFrom(document: StoredDocument): AuditEntry {
  const key = documentField(document, '_id');
  return {
    serverName: textField(key, 'server_name'),
    auditId: textField(key, 'audit_id'),
    timeMs: integerField(document, 'time_ms'),
    actor: textField(document, 'actor'),
    action: textField(document, 'action'),
    appserviceId: textField(document, 'appservice_id'),
    txnId: optionalField(document, 'txn_id', textField),
    reason: textField(document, 'reason'),
  };
}
