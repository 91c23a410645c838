/**
 * The real software that the end-to-end tests run against, from the registries into `.cache/`: Synapse, heisenbridge and
 * mautrix from PyPI in a virtual environment of the system's own Python, ngircd from the system or its package archive.
 * Nothing of this is part of the product, and nothing of the machine is changed.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const cacheFolder = join(import.meta.dirname, '..', '..', '.cache');

/** The system's own: others are often built without optimisation, and Synapse is then several times slower. */
const PYTHON = '/usr/bin/python3';
const REQUIREMENTS = ['matrix-synapse==1.163.2', 'heisenbridge==1.15.4', 'mautrix==0.20.8'];
const INSTALL_TIMEOUT_MS = 300_000;

export interface PythonHome {
  /** The path of a command of the environment, such as `python`. */
  command(name: string): string;
}

/** Made or completed if need be, by one process at a time; says on standard error what takes long. */
export async function pythonHome(): Promise<PythonHome> {
  const folder = join(cacheFolder, 'e2e-venv');
  const command = (name: string): string => join(folder, 'bin', name);
  const stamp = join(folder, 'installed');
  const wanted = createHash('sha256').update(REQUIREMENTS.join('\n')).digest('hex');
  await withLock(async () => {
    if ((await readFile(stamp, 'utf8').catch(() => '')) === wanted) return;
    say(`installing ${REQUIREMENTS.join(', ')} from PyPI into ${folder} …`);
    await run(PYTHON, ['-m', 'venv', folder], { timeout: INSTALL_TIMEOUT_MS });
    await run(command('python'), ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...REQUIREMENTS], { timeout: INSTALL_TIMEOUT_MS });
    await writeFile(stamp, wanted);
  });
  return { command };
}

export const NGIRCD_MISSING = 'NO IRC SERVER COULD BE HAD: INSTALL ngircd TO RUN THIS TEST';

/** A program with the libraries that it needs beside the system's. */
export interface SystemProgram {
  readonly path: string;
  readonly env: Readonly<Record<string, string>>;
}

/** null where neither the machine nor an apt archive has it, as with those below. */
export function findNgircd(): Promise<SystemProgram | null> {
  return findProgram({ name: 'ngircd', packages: ['ngircd', 'libident'], versionArgs: ['--version'] });
}

export function findNginx(): Promise<SystemProgram | null> {
  return findProgram({ name: 'nginx', packages: ['nginx'], versionArgs: ['-v'] });
}

export function findCaddy(): Promise<SystemProgram | null> {
  return findProgram({ name: 'caddy', packages: ['caddy'], versionArgs: ['version'] });
}

interface ProgramPackage {
  readonly name: string;
  /** Of Debian: that of the program first. */
  readonly packages: readonly string[];
  readonly versionArgs: readonly string[];
}

/** From the system, or unpacked into the cache. */
async function findProgram({ name, packages, versionArgs }: ProgramPackage): Promise<SystemProgram | null> {
  for (const folder of [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin']) {
    const path = join(folder, name);
    if (await works({ path, env: {} }, versionArgs)) return { path, env: {} };
  }
  const folder = join(cacheFolder, `e2e-${name}`);
  const unpacked = async (): Promise<SystemProgram | null> => {
    const libraries = await readdir(join(folder, 'usr', 'lib')).catch(() => []);
    const env = { LD_LIBRARY_PATH: libraries.map((library) => join(folder, 'usr', 'lib', library)).join(delimiter) };
    for (const place of ['sbin', 'bin']) {
      const program = { path: join(folder, 'usr', place, name), env };
      if (await works(program, versionArgs)) return program;
    }
    return null;
  };
  const known = await unpacked();
  if (known !== null) return known;
  return withLock(async () => {
    say(`fetching ${name} from the package archive …`);
    try {
      await mkdir(folder, { recursive: true });
      await run('apt-get', ['download', ...packages], { cwd: folder, timeout: INSTALL_TIMEOUT_MS });
      for (const file of await readdir(folder)) if (file.endsWith('.deb')) await run('dpkg-deb', ['-x', file, '.'], { cwd: folder });
      const found = await unpacked();
      if (found !== null) return found;
    } catch (error) {
      say(`that did not work: ${error instanceof Error ? error.message : String(error)}`);
    }
    await rm(folder, { recursive: true, force: true });
    return null;
  });
}

async function works({ path, env }: SystemProgram, versionArgs: readonly string[]): Promise<boolean> {
  try {
    await access(path);
    await run(path, [...versionArgs], { env: { ...env } });
    return true;
  } catch {
    return false;
  }
}

interface LockModule {
  takeLock(path: string): Promise<() => void>;
}

async function withLock<T>(work: () => Promise<T>): Promise<T> {
  await mkdir(cacheFolder, { recursive: true });
  // The set-up scripts are plain JavaScript without types.
  const { takeLock } = (await import(join(import.meta.dirname, '..', '..', 'setup', 'lock.mjs'))) as LockModule;
  const release = await takeLock(join(cacheFolder, 'e2e.lock'));
  try {
    return await work();
  } finally {
    release();
  }
}

function say(text: string): void {
  process.stderr.write(`» ${text}\n`);
}
