/**
 * What the paths of ROUTER_REGISTRATIONS hold: single files, and the *.yaml and *.yml of directories.
 */
import { createHash } from 'node:crypto';
import { statSync, watch } from 'node:fs';
import type { Dirent } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { YAML_BYTES_MAX } from '../yaml-tree.ts';

export interface DiskFile {
  readonly path: string;
  /** Tells whether the file is the same as before. */
  readonly digest: string;
  readonly content: { readonly kind: 'text'; readonly text: string } | { readonly kind: 'unreadable'; readonly message: string };
}

export interface DiskSnapshot {
  /** Ascending by path. */
  readonly files: readonly DiskFile[];
  /** Paths of the configuration that hold nothing or cannot be read: perhaps a volume that is not mounted. */
  readonly lost: readonly { readonly path: string; readonly message: string }[];
  readonly digest: string;
}

export interface RegistrationDisk {
  /** All files, read now. Never rejects. */
  read(): Promise<DiskSnapshot>;
  /** Changes when a file is written, appears or goes, as far as its directory entry tells. Reads no file. */
  signature(): Promise<string>;
  /** Calls back soon after something changed, as a hint that may be lost or come for nothing. */
  watch(changed: () => void): Disposable;
}

const FILES_MAX = 20_000;
const READS_AT_ONCE = 16;

export function registrationDisk(paths: readonly string[]): RegistrationDisk {
  const sources = [...new Set(paths.map((path) => resolve(path)))];
  return {
    async read() {
      const { files: found, lost } = await findAll(sources);
      const files: DiskFile[] = [];
      for (let at = 0; at < found.length; at += READS_AT_ONCE) {
        files.push(...(await Promise.all(found.slice(at, at + READS_AT_ONCE).map(readOne))));
      }
      return { files, lost, digest: digestOf([...files.map(({ path, digest }) => [path, digest]), ...lost.map(({ path, message }) => [path, message])]) };
    },
    async signature() {
      const { files, lost } = await findAll(sources);
      const entries: unknown[] = [...lost];
      for (const path of files) entries.push([path, await entrySignature(path)]);
      return digestOf(entries);
    },
    watch: (changed) => watchAll(sources, changed),
  };
}

async function findAll(sources: readonly string[]): Promise<{ files: string[]; lost: { path: string; message: string }[] }> {
  const files = new Set<string>();
  const lost: { path: string; message: string }[] = [];
  for (const path of sources) {
    try {
      if (!(await stat(path)).isDirectory()) {
        files.add(path);
        continue;
      }
      const names = (await readdir(path, { withFileTypes: true })).filter(isRegistrationName).map(({ name }) => name);
      if (names.length === 0) lost.push({ path, message: 'This directory holds no *.yaml file. No registration is removed for that; if none is wanted, delete them by DeleteRegistration.' });
      else if (names.length > FILES_MAX) lost.push({ path, message: `This directory holds ${names.length} files; at most ${FILES_MAX} are read, so none is.` });
      else for (const name of names) files.add(join(path, name));
    } catch (error) {
      lost.push({ path, message: `This path of ROUTER_REGISTRATIONS cannot be read (${codeOf(error)}). No registration is removed for that; see whether it is there, mounted and readable.` });
    }
  }
  return { files: [...files].sort(), lost };
}

/** Hidden ones are drafts of editors and the inner entries of mounted volumes. */
function isRegistrationName({ name }: Dirent): boolean {
  return /\.ya?ml$/i.test(name) && !name.startsWith('.');
}

async function readOne(path: string): Promise<DiskFile> {
  const unreadable = (message: string): DiskFile => ({ path, digest: digestOf([message]), content: { kind: 'unreadable', message } });
  try {
    const entry = await stat(path);
    if (!entry.isFile()) return unreadable('This is no regular file.');
    if (entry.size > YAML_BYTES_MAX) return unreadable(`The file has ${entry.size} bytes; at most ${YAML_BYTES_MAX} are read.`);
    const bytes = await readFile(path);
    try {
      return { path, digest: digestOf([bytes.toString('base64')]), content: { kind: 'text', text: new TextDecoder('utf-8', { fatal: true }).decode(bytes) } };
    } catch {
      return unreadable('The file is no UTF-8 text; save it in that encoding.');
    }
  } catch (error) {
    return unreadable(`The file cannot be read (${codeOf(error)}). Let this process read it.`);
  }
}

async function entrySignature(path: string): Promise<string> {
  try {
    const { mtimeNs, ctimeNs, size, ino } = await stat(path, { bigint: true });
    return [mtimeNs, ctimeNs, size, ino].join('.');
  } catch (error) {
    return codeOf(error);
  }
}

/** A directory is watched itself; a file through its directory, since editors put a new file in its place. */
function watchAll(sources: readonly string[], changed: () => void): Disposable {
  const watchers = sources.flatMap((path) => {
    try {
      const isDirectory = statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
      const watcher = watch(isDirectory ? path : dirname(path), { persistent: false }, (_, name) => {
        if (isDirectory || name === null || name === basename(path)) changed();
      });
      // Watching may end at any time, with the directory or for want of watches; the poll goes on.
      watcher.on('error', () => watcher.close());
      return [watcher];
    } catch {
      return [];
    }
  });
  return {
    [Symbol.dispose]() {
      for (const watcher of watchers) watcher.close();
    },
  };
}

function digestOf(values: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(values)).digest('base64url');
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown reason';
}
