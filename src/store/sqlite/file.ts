/** The file before SQLite opens it: its folder, and that only its owner reads it. */
import { chmodSync, closeSync, fsyncSync, openSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { makeFolder } from '../../folder.ts';
import { StoreError } from '../errors.ts';

/** SQLite gives the files beside it the same mode. */
const FILE_MODE = 0o600;
const OTHERS = 0o077;

/** Makes folder and file where they are missing, and returns the absolute path. Throws a StoreError `unsuitable` that says what to do. */
export function prepareFile(path: string): string {
  const absolute = resolve(path);
  try {
    makeFolder(dirname(absolute));
    closeSync(openSync(absolute, 'a', FILE_MODE));
    if (process.platform !== 'win32') {
      if ((statSync(absolute).mode & OTHERS) !== 0) chmodSync(absolute, FILE_MODE);
      syncFolder(dirname(absolute));
    }
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? ` (${String(error.code)})` : '';
    throw new StoreError('unsuitable', `the database ${absolute} cannot be made or written by this user${reason}. Change the permissions, or choose another file in ROUTER_STORE`, { cause: error });
  }
  return absolute;
}

/** A new name in a folder outlives a power cut only once the folder is written. */
function syncFolder(folder: string): void {
  const descriptor = openSync(folder, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
