/** The quarantine and the audit entries in memory, in the plainest way. */
import type { AuditEntry, OperatorRecords, QuarantinedTransaction, RecordChange, RecordKind, RecordQueries } from '../../src/store/port.ts';

export class MemoryRecords {
  readonly quarantined = new Map<string, QuarantinedTransaction>();
  readonly audit = new Map<string, AuditEntry>();

  change(change: RecordChange): boolean {
    switch (change.kind) {
      case 'quarantine': {
        const key = keyOf(change.transaction);
        if (this.quarantined.has(key)) return false;
        this.quarantined.set(key, structuredClone(change.transaction));
        return true;
      }
      case 'unquarantine':
        return this.quarantined.delete(keyOf(change));
      case 'audit': {
        const isNew = !this.audit.has(change.entry.auditId);
        this.audit.set(change.entry.auditId, structuredClone(change.entry));
        for (const id of [...this.audit.keys()].sort().slice(0, -change.entriesMax)) this.audit.delete(id);
        return isNew;
      }
      case 'unaudit':
        return this.audit.delete(change.auditId);
    }
  }

  read<Kind extends RecordKind>(kind: Kind, query: RecordQueries[Kind]): OperatorRecords[Kind][] {
    return this.#readers[kind](query);
  }

  readonly #readers: { readonly [Kind in RecordKind]: (query: RecordQueries[Kind]) => OperatorRecords[Kind][] } = {
    quarantine: ({ appserviceId, afterTxnId, countMax, withEntries }) =>
      [...this.quarantined.values()]
        .filter((one) => one.appserviceId === appserviceId && (afterTxnId === null || BigInt(one.txnId) > BigInt(afterTxnId)))
        .sort((one, other) => (BigInt(one.txnId) < BigInt(other.txnId) ? -1 : 1))
        .slice(0, countMax)
        .map((one) => structuredClone(withEntries ? one : { ...one, entries: [] })),
    audit: ({ appserviceId, beforeId, countMax }) =>
      [...this.audit.values()]
        .filter((entry) => (appserviceId === null || entry.appserviceId === appserviceId) && (beforeId === null || entry.auditId < beforeId))
        .sort((one, other) => (one.auditId > other.auditId ? -1 : 1))
        .slice(0, countMax),
  };
}

function keyOf({ appserviceId, txnId }: { readonly appserviceId: string; readonly txnId: string }): string {
  return `${appserviceId}|${txnId}`;
}
