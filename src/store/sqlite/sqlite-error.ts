/** What SQLite's failures mean to the store. */
import { StoreError } from '../errors.ts';
import type { StoreErrorKind } from '../errors.ts';

/** Primary result codes (https://www.sqlite.org/rescode.html): what it means, and what to do. */
const MEANINGS: Readonly<Record<number, { readonly kind: StoreErrorKind; readonly message: string }>> = {
  3: { kind: 'unsuitable', message: 'it may not be read and written by this user. Change its permissions, or choose another file in ROUTER_STORE' },
  5: { kind: 'unsuitable', message: 'another process has it open. End that process, or choose another file in ROUTER_STORE' },
  6: { kind: 'unsuitable', message: 'another process has it open. End that process, or choose another file in ROUTER_STORE' },
  7: { kind: 'exhausted', message: 'there is not enough memory. Give the router more' },
  8: { kind: 'unsuitable', message: 'it may be read but not written by this user. Change its permissions, or choose another file in ROUTER_STORE' },
  10: { kind: 'unavailable', message: 'the disk failed to read or write. Look at the system log' },
  11: { kind: 'unreadable', message: 'it is damaged. Restore a backup' },
  13: { kind: 'exhausted', message: 'the disk is full. Make room' },
  14: { kind: 'unsuitable', message: 'it cannot be opened by this user. Change its permissions, or choose another file in ROUTER_STORE' },
  18: { kind: 'exhausted', message: 'a value is larger than SQLite can hold' },
  26: { kind: 'unreadable', message: 'it is not a database. Choose another file in ROUTER_STORE, or restore a backup' },
};

/** Undefined for what is no failure of SQLite's: a bug. */
export function storeErrorFrom(error: unknown): StoreError | undefined {
  if (error instanceof StoreError) return error;
  const code: unknown = error instanceof Error ? Reflect.get(error, 'errcode') : undefined;
  if (typeof code !== 'number') return undefined;
  const meaning = MEANINGS[code & 0xff];
  return meaning === undefined ? undefined : new StoreError(meaning.kind, meaning.message, { cause: error });
}
