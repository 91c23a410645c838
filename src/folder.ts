/** Folders for what the router writes. */
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/** Its owner's alone. */
const FOLDER_MODE = 0o700;

/**
 * Makes the folder and those above it where they are missing. Throws the error of the file system.
 *
 * Node's own recursive mkdir never ends where a folder cannot be made and the system says ENOENT of it, as in /proc.
 */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: FOLDER_MODE });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    const parent = dirname(path);
    if (code === 'ENOENT' && statSync(parent, { throwIfNoEntry: false }) === undefined) {
      makeFolder(parent);
      return makeFolder(path);
    }
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return;
    // Something else has the name: this throws what is wrong with it.
    if (code === 'EEXIST') statSync(`${path}/.`);
    throw error;
  }
}
