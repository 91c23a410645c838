/** Prepared statements by their text, and the numbers of names. Both last as long as the connection. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { StoreError } from '../errors.ts';

export type SqlValue = string | number | Uint8Array;
export type Row = Readonly<Record<string, unknown>>;

/** A number that no server and no owner has. */
const UNKNOWN = 0;

export class Statements {
  readonly #database: DatabaseSync;
  readonly #prepared = new Map<string, StatementSync>();
  readonly #servers = new Map<string, number>();
  readonly #owners = new Map<number, Map<string, number>>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** Returns the number of rows changed. */
  run(sql: string, ...values: SqlValue[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  get(sql: string, ...values: SqlValue[]): Row | undefined {
    return this.#statement(sql).get(...values);
  }

  all(sql: string, ...values: SqlValue[]): Row[] {
    return this.#statement(sql).all(...values);
  }

  /** One at a time for each text. */
  iterate(sql: string, ...values: SqlValue[]): Iterable<Row> {
    return this.#statement(sql).iterate(...values);
  }

  /** The homeserver's number; one that none has if it is unknown. */
  server(serverName: string): number {
    const known = this.#servers.get(serverName);
    if (known !== undefined) return known;
    const id = this.get('SELECT id FROM servers WHERE server_name = ?', serverName)?.['id'];
    if (id === undefined) return UNKNOWN;
    this.#servers.set(serverName, integerOf(id));
    return integerOf(id);
  }

  /** The homeserver's number, given now if it has none. Inside a transaction. */
  makeServer(serverName: string): number {
    const known = this.server(serverName);
    if (known !== UNKNOWN) return known;
    this.run('INSERT INTO servers (server_name) VALUES (?)', serverName);
    return this.server(serverName);
  }

  /** The number of the homeserver's appservice as the owner of routes; one that none has if it is unknown. */
  owner(server: number, appserviceId: string): number {
    let owners = this.#owners.get(server);
    if (owners === undefined) this.#owners.set(server, (owners = new Map<string, number>()));
    const known = owners.get(appserviceId);
    if (known !== undefined) return known;
    const id = this.get('SELECT id FROM owners WHERE server_id = ? AND appservice_id = ?', server, appserviceId)?.['id'];
    if (id === undefined) return UNKNOWN;
    owners.set(appserviceId, integerOf(id));
    return integerOf(id);
  }

  /** Inside a transaction. */
  makeOwner(server: number, appserviceId: string): number {
    const known = this.owner(server, appserviceId);
    if (known !== UNKNOWN) return known;
    this.run('INSERT INTO owners (server_id, appservice_id) VALUES (?, ?)', server, appserviceId);
    return this.owner(server, appserviceId);
  }

  /** A transaction that was rolled back may have taken numbers with it. */
  forgetNumbers(): void {
    this.#servers.clear();
    this.#owners.clear();
  }

  #statement(sql: string): StatementSync {
    let statement = this.#prepared.get(sql);
    if (statement === undefined) this.#prepared.set(sql, (statement = this.#database.prepare(sql)));
    return statement;
  }
}

export function integerOf(value: unknown): number {
  if (typeof value !== 'number') throw damaged();
  return value;
}

export function textOf(value: unknown): string {
  if (typeof value !== 'string') throw damaged();
  return value;
}

export function bytesOf(value: unknown): Uint8Array<ArrayBuffer> {
  if (!(value instanceof Uint8Array) || !(value.buffer instanceof ArrayBuffer)) throw damaged();
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

/** What this adapter wrote as JSON itself. */
export function parsed(text: unknown): unknown {
  try {
    return JSON.parse(textOf(text));
  } catch (error) {
    throw error instanceof StoreError ? error : new StoreError('unreadable', 'a stored document is damaged. Restore a backup', { cause: error });
  }
}

function damaged(): StoreError {
  return new StoreError('unreadable', 'a stored value is damaged. Restore a backup');
}
