/**
 * The keys that seal tokens at rest, and the file they live in (`ROUTER_ENCRYPTION_KEY_FILE`).
 *
 * The file is text. A line holds one key: 32 bytes in base64 or hex. The first key seals; it and the others open. The line
 * `lookup KEY` names the key of the keyed hashes by which tokens are found; without it that is the last key of the file.
 * Empty lines and lines that begin with "#" do not count.
 *
 * RotateEncryptionKey puts a new key first (key-file.ts). Where routers on one store have a file each: write the new key second
 * on all of them, with the old one as `lookup`; then first on all of them; then call RotateEncryptionKey, which seals anew.
 *
 * No message of this file quotes a key.
 */
import { hkdfSync } from 'node:crypto';
import { link, open, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Random } from '../clock.ts';
import { makeFolder } from '../folder.ts';
import { readSecretFile } from '../secret-file.ts';

/** One key's parts, each derived for its own use, so that none tells anything of another. */
export interface EncryptionKey {
  /** Names the key in sealed text; 8 hex digits. */
  readonly id: string;
  readonly sealing: Buffer;
  readonly lookup: Buffer;
}

export interface EncryptionKeys {
  /** At least one; the first seals. */
  readonly sealing: readonly EncryptionKey[];
  readonly lookup: EncryptionKey;
}

export type EncryptionKeysLoading =
  | { readonly kind: 'loaded'; readonly keys: EncryptionKeys; readonly created: boolean; readonly warnings: readonly string[] }
  /** A sentence that says what to do. */
  | { readonly kind: 'invalid'; readonly message: string };

export interface EncryptionKeyFile {
  readonly path: string;
  /** True with the embedded store: where no file is, one is created. With several routers they must share one. */
  readonly mayCreate: boolean;
  readonly random: Pick<Random, 'hex'>;
}

const KEY_BYTES = 32;
const FILE_BYTES_MAX = 64 * 1024;
const KEYS_MAX = 100;
const HEADER = [
  '# The key that seals the tokens in the store of this router. Keep a copy in a safe place:',
  '# without it the stored registrations cannot be read, with it and the store all tokens can.',
];

/** Never rejects for what an operator can mend. */
export async function loadEncryptionKeys(file: EncryptionKeyFile): Promise<EncryptionKeysLoading> {
  const found = await readSecretFile(file.path, 'encryption key file', FILE_BYTES_MAX);
  if (found.kind === 'missing') {
    if (!file.mayCreate) return { kind: 'invalid', message: `There is no encryption key file ${file.path}. Write 32 random bytes in base64 into it (openssl rand -base64 32), the same on every router.` };
    const problem = await createKeyFile(file);
    if (problem !== null) return { kind: 'invalid', message: problem };
    const loading = await loadEncryptionKeys({ ...file, mayCreate: false });
    return loading.kind === 'loaded' ? { ...loading, created: true } : loading;
  }
  if (found.kind === 'unusable') return { kind: 'invalid', message: found.message };
  const { warnings } = found;
  const keys = encryptionKeysFrom(found.text);
  return typeof keys === 'string' ? { kind: 'invalid', message: `The encryption key file ${file.path} cannot be used: ${keys}` } : { kind: 'loaded', keys, created: false, warnings };
}

/** Keys from the text of a key file, or what is wrong with it. */
export function encryptionKeysFrom(text: string): EncryptionKeys | string {
  const sealing: EncryptionKey[] = [];
  let lookup: EncryptionKey | null = null;
  for (const [at, line] of text.replace(/^\ufeff/, '').split(/\r?\n/).entries()) {
    const words = line.trim();
    if (words === '' || words.startsWith('#')) continue;
    const named = /^lookup\s+(\S+)$/.exec(words)?.[1];
    const key = decodeKey(named ?? words);
    if (key === null) return `line ${at + 1} is no key of ${KEY_BYTES} bytes in base64 or hex. openssl rand -base64 32 prints one.`;
    if (named !== undefined && lookup !== null) return `line ${at + 1} names a second lookup key; keep one.`;
    if (named !== undefined) lookup = key;
    else if (!sealing.some(({ id }) => id === key.id)) sealing.push(key);
    if (sealing.length > KEYS_MAX) return `it holds more than ${KEYS_MAX} keys.`;
  }
  const last = sealing.at(-1);
  if (last === undefined) return 'it holds no key. openssl rand -base64 32 prints one.';
  return { sealing, lookup: lookup ?? last };
}

export function encryptionKeyFrom(secret: Uint8Array): EncryptionKey {
  if (secret.byteLength !== KEY_BYTES) throw new Error(`an encryption key has ${KEY_BYTES} bytes`);
  const derive = (use: string, bytes: number): Buffer => Buffer.from(hkdfSync('sha256', secret, '', `appservice-router v1 ${use}`, bytes));
  return { id: derive('key id', 4).toString('hex'), sealing: derive('seal', 32), lookup: derive('lookup', 32) };
}

function decodeKey(text: string): EncryptionKey | null {
  if (/^[0-9a-fA-F]{64}$/.test(text)) return encryptionKeyFrom(Buffer.from(text, 'hex'));
  return /^[A-Za-z0-9+/_-]{43}=?$/.test(text) ? encryptionKeyFrom(Buffer.from(text, 'base64')) : null;
}

/** Of several processes that create the file at once, one wins and all read its key. Null, or what went wrong. */
async function createKeyFile({ path, random }: EncryptionKeyFile): Promise<string | null> {
  const draft = `${path}.${random.hex(8)}.new`;
  try {
    makeFolder(dirname(path));
    const file = await open(draft, 'wx', 0o600);
    try {
      await file.writeFile(`${[...HEADER, Buffer.from(random.hex(KEY_BYTES), 'hex').toString('base64')].join('\n')}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await link(draft, path);
    return null;
  } catch (error) {
    const code = codeOf(error);
    return code === 'EEXIST' ? null : `The encryption key file ${path} cannot be created (${code}). Let this process write its directory, or create the file.`;
  } finally {
    await rm(draft, { force: true });
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown reason';
}
