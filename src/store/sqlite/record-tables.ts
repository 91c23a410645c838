/** The quarantine and the audit entries on an open SQLite file, synchronous. Writes expect an open transaction. */
import type { AuditEntry, QuarantinedTransaction, RecordQueries } from '../port.ts';
import type { Statements } from './statements.ts';
import { bytesOf, parsed, textOf } from './statements.ts';

/** What is kept of a transaction beside its entries. */
export type QuarantineFacts = Omit<QuarantinedTransaction, 'entries'>;

/** A change as it crosses to the worker. */
export type PostedChange =
  | { readonly kind: 'quarantine'; readonly facts: QuarantineFacts; readonly body: Uint8Array }
  | { readonly kind: 'unquarantine'; readonly serverName: string; readonly appserviceId: string; readonly txnId: string }
  | { readonly kind: 'audit'; readonly entry: AuditEntry; readonly entriesMax: number }
  | { readonly kind: 'unaudit'; readonly serverName: string; readonly auditId: string };

export interface PostedQuarantined {
  readonly facts: QuarantineFacts;
  /** segment-codec.ts; null if it was not asked for. */
  readonly body: Uint8Array<ArrayBuffer> | null;
}

export class RecordTables {
  readonly #sql: Statements;

  constructor(sql: Statements) {
    this.#sql = sql;
  }

  changeRecord(change: PostedChange): boolean {
    switch (change.kind) {
      case 'quarantine': {
        const { serverName, appserviceId, txnId } = change.facts;
        return this.#changed(
          'INSERT INTO quarantined_transactions (server_id, appservice_id, digits, txn_id, facts, body) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING',
          this.#sql.makeServer(serverName), appserviceId, txnId.length, txnId, JSON.stringify(change.facts), change.body,
        );
      }
      case 'unquarantine': {
        const { serverName, appserviceId, txnId } = change;
        const key = 'server_id = ? AND appservice_id = ? AND digits = ? AND txn_id = ?';
        return this.#changed(`DELETE FROM quarantined_transactions WHERE ${key}`, this.#sql.server(serverName), appserviceId, txnId.length, txnId);
      }
      case 'audit':
        return this.#audit(change.entry, change.entriesMax);
      case 'unaudit':
        return this.#changed('DELETE FROM audit_entries WHERE server_id = ? AND audit_id = ?', this.#sql.server(change.serverName), change.auditId);
    }
  }

  readQuarantined({ serverName, appserviceId, afterTxnId, countMax, withEntries }: RecordQueries['quarantine']): PostedQuarantined[] {
    const after = afterTxnId ?? '';
    const rows = this.#sql.all(
      `SELECT facts${withEntries ? ', body' : ''} FROM quarantined_transactions
       WHERE server_id = ? AND appservice_id = ? AND (digits, txn_id) > (?, ?) ORDER BY digits, txn_id LIMIT ?`,
      this.#sql.server(serverName), appserviceId, after.length, after, countMax,
    );
    return rows.map((row) => ({ facts: parsed(row['facts']) as QuarantineFacts, body: withEntries ? bytesOf(row['body']) : null }));
  }

  readAudit({ serverName, appserviceId, beforeId, countMax }: RecordQueries['audit']): AuditEntry[] {
    const conditions = ['server_id = ?', ...(beforeId === null ? [] : ['audit_id < ?']), ...(appserviceId === null ? [] : ['appservice_id = ?'])];
    const values = [...(beforeId === null ? [] : [beforeId]), ...(appserviceId === null ? [] : [appserviceId])];
    const rows = this.#sql.all(
      `SELECT entry FROM audit_entries WHERE ${conditions.join(' AND ')} ORDER BY audit_id DESC LIMIT ?`,
      this.#sql.server(serverName), ...values, countMax,
    );
    return rows.map((row) => parsed(row['entry']) as AuditEntry);
  }

  #audit(entry: AuditEntry, entriesMax: number): boolean {
    const server = this.#sql.makeServer(entry.serverName);
    const isNew = this.#changed('INSERT INTO audit_entries VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING', server, entry.auditId, entry.appserviceId, JSON.stringify(entry));
    const excess = this.#sql.get('SELECT audit_id FROM audit_entries WHERE server_id = ? ORDER BY audit_id DESC LIMIT 1 OFFSET ?', server, entriesMax);
    if (excess !== undefined) this.#sql.run('DELETE FROM audit_entries WHERE server_id = ? AND audit_id <= ?', server, textOf(excess['audit_id']));
    return isNew;
  }

  #changed(sql: string, ...values: (string | number | Uint8Array)[]): boolean {
    return this.#sql.run(sql, ...values) > 0;
  }
}
