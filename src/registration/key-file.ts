/**
 * The encryption key file while the router runs: a new sealing key is put into it, and what others put into it is learnt.
 *
 *   [ K1 ] ──addSealingKey──▶ [ K2, K1 ] ──addSealingKey──▶ [ K3, K2, K1 ]
 *
 * The new key comes first, so it seals; those before stay and open. Nothing is taken out: an operator does, once nothing is
 * sealed with it and no backup needs it. The lookup key stays the same, since hashes under two keys do not compare.
 *
 * Promises. The file is replaced whole: written beside it with mode 0600, fsynced, renamed, the directory fsynced; whoever
 * reads it finds the old text or the new one. A key is in the file for good before anything is sealed with it. Of several
 * writers one at a time reads and writes, by a lock file. No message quotes a key.
 */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Random } from '../clock.ts';
import { encryptionKeysFrom } from './encryption-key.ts';
import type { EncryptionKeys } from './encryption-key.ts';

export interface KeyFileOptions {
  readonly path: string;
  /** Must be unpredictable. */
  readonly random: Pick<Random, 'hex'>;
  /** The keys in use, as they were read at the start. */
  readonly keys: EncryptionKeys;
}

export type AddedKey =
  | { readonly kind: 'added'; readonly keys: EncryptionKeys }
  /** A sentence that says what to do. Nothing was changed. */
  | { readonly kind: 'refused'; readonly message: string };

const KEY_BYTES = 32;

export class KeyFile {
  readonly #path: string;
  readonly #random: Pick<Random, 'hex'>;
  readonly #lookupId: string;
  /** Tells one text of the file from another. */
  #seen = '';

  constructor({ path, random, keys }: KeyFileOptions) {
    this.#path = path;
    this.#random = random;
    this.#lookupId = keys.lookup.id;
  }

  /** The keys, if the file has changed since the last call; null if it has not, or what it holds cannot be used. Never throws. */
  reread(): EncryptionKeys | null {
    try {
      const { ino, size, mtimeMs } = statSync(this.#path);
      const seen = `${ino} ${size} ${mtimeMs}`;
      if (seen === this.#seen) return null;
      const keys = this.#usable(readFileSync(this.#path, 'utf8'));
      if (keys === null) return null;
      this.#seen = seen;
      return keys;
    } catch {
      return null;
    }
  }

  /** Puts a new key first. */
  async addSealingKey(): Promise<AddedKey> {
    let path: string;
    try {
      path = realpathSync(this.#path);
    } catch (error) {
      return this.#refused(error);
    }
    const lockPath = `${path}.lock`;
    let lock: FileHandle;
    try {
      lock = await open(lockPath, 'wx', 0o600);
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') return this.#refused(error);
      return { kind: 'refused', message: `The encryption key file is being changed by somebody else, as ${lockPath} says. Ask again in a moment; if nobody is at it, remove that file first.` };
    }
    try {
      return await this.#replace(path);
    } catch (error) {
      return this.#refused(error);
    } finally {
      await lock.close();
      await rm(lockPath, { force: true });
    }
  }

  async #replace(path: string): Promise<AddedKey> {
    const text = await readFile(path, 'utf8');
    if (this.#usable(text) === null) return { kind: 'refused', message: `The encryption key file ${this.#path} holds something that cannot be used, or another lookup key than at the start of this router. Put that right first.` };
    const key = Buffer.from(this.#random.hex(KEY_BYTES), 'hex').toString('base64');
    const added = withFirstKey(text, key);
    const keys = this.#usable(added);
    if (keys === null) return { kind: 'refused', message: `The encryption key file ${this.#path} holds as many keys as it may. Take out those with which nothing is sealed.` };
    const draft = `${path}.${this.#random.hex(8)}.new`;
    try {
      const file = await open(draft, 'wx', 0o600);
      try {
        await file.writeFile(added);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(draft, path);
    } finally {
      await rm(draft, { force: true });
    }
    const folder = await open(dirname(path), 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
    return { kind: 'added', keys };
  }

  #usable(text: string): EncryptionKeys | null {
    const keys = encryptionKeysFrom(text);
    return typeof keys === 'string' || keys.lookup.id !== this.#lookupId ? null : keys;
  }

  #refused(error: unknown): AddedKey {
    return { kind: 'refused', message: `The encryption key file ${this.#path} cannot be replaced (${codeOf(error)}). Let this process write its directory, or put a new key first in that file yourself and ask again.` };
  }
}

/** The text with the key before all others; comments stay where they are. */
function withFirstKey(text: string, key: string): string {
  const lines = text.replace(/^\ufeff/, '').split(/\r?\n/);
  const at = lines.findIndex((line) => !/^\s*(?:#|$|lookup\s)/.test(line));
  lines.splice(at === -1 ? lines.length : at, 0, key);
  return lines.join('\n');
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown reason';
}
