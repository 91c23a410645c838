/** Reads a small file that holds secrets, as safely as its mode allows. No message quotes what is in it. */
import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';

export type SecretFile =
  | { readonly kind: 'missing' }
  /** A sentence that says what to do. */
  | { readonly kind: 'unusable'; readonly message: string }
  | { readonly kind: 'file'; readonly text: string; readonly warnings: readonly string[] };

const READABLE_BY_OTHERS = 0o044;
const WRITABLE_BY_OTHERS = 0o022;

/** Never rejects. `what` names the file in sentences, such as "encryption key file". */
export async function readSecretFile(path: string, what: string, bytesMax: number): Promise<SecretFile> {
  let file: FileHandle | null = null;
  try {
    file = await open(path, 'r');
    const { mode, size } = await file.stat();
    if (size > bytesMax) return unreadable(path, what, 'too large');
    const text = await file.readFile('utf8');
    if ((mode & WRITABLE_BY_OTHERS) !== 0) return { kind: 'unusable', message: `Others than its owner may write the ${what} ${path}. Run: chmod 600 ${path}` };
    const warnings = (mode & READABLE_BY_OTHERS) === 0 ? [] : [`Others than its owner may read the ${what} ${path}. Run: chmod 600 ${path}`];
    return { kind: 'file', text, warnings };
  } catch (error) {
    const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown reason';
    return code === 'ENOENT' ? { kind: 'missing' } : unreadable(path, what, code);
  } finally {
    await file?.close();
  }
}

function unreadable(path: string, what: string, code: string): SecretFile {
  return { kind: 'unusable', message: `The ${what} ${path} cannot be read (${code}). Let this process read it.` };
}
