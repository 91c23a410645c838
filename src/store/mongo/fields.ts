/**
 * Reads fields of stored documents, each under its check. A document that is not what this adapter writes is a StoreError
 * of kind `unreadable`. Numbers that the server or a person turned into 64-bit integers are read as long as they are safe.
 */
import { StoreError } from '../errors.ts';

export type StoredDocument = Readonly<Record<string, unknown>>;

function unreadable(name: string): StoreError {
  return new StoreError('unreadable', `a stored document has no valid ${name}`);
}

function isDocument(value: unknown): value is StoredDocument {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

export function documentField(document: StoredDocument, name: string): StoredDocument {
  const value = document[name];
  if (!isDocument(value)) throw unreadable(name);
  return value;
}

/** Null stays null. */
export function optionalField<Value>(document: StoredDocument, name: string, read: (document: StoredDocument, name: string) => Value): Value | null {
  return document[name] === null ? null : read(document, name);
}

/** A safe integer ≥ 0: a position, a count, a time. */
export function integerField(document: StoredDocument, name: string): number {
  const value = document[name];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw unreadable(name);
  return value;
}

export function textField(document: StoredDocument, name: string): string {
  const value = document[name];
  if (typeof value !== 'string') throw unreadable(name);
  return value;
}

export function booleanField(document: StoredDocument, name: string): boolean {
  const value = document[name];
  if (typeof value !== 'boolean') throw unreadable(name);
  return value;
}

/** A view of the answer's bytes. */
export function bytesField(document: StoredDocument, name: string): Uint8Array {
  const value = document[name];
  if (!(value instanceof Uint8Array)) throw unreadable(name);
  return value;
}

export function oneOfField<Value extends string>(document: StoredDocument, name: string, values: readonly Value[]): Value {
  const found = values.find((value) => value === document[name]);
  if (found === undefined) throw unreadable(name);
  return found;
}

export function listField<Item>(document: StoredDocument, name: string, readItem: (item: StoredDocument, name: 'item') => Item): Item[] {
  const value = document[name];
  if (!Array.isArray(value)) throw unreadable(name);
  return value.map((item: unknown) => readItem({ item }, 'item'));
}
