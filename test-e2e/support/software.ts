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

export interface Ngircd {
  readonly path: string;
  readonly env: Readonly<Record<string, string>>;
}

/** null where neither the machine nor an apt archive has one. */
export async function findNgircd(): Promise<Ngircd | null> {
  for (const folder of [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin']) {
    const path = join(folder, 'ngircd');
    if (await works(path, {})) return { path, env: {} };
  }
  const folder = join(cacheFolder, 'e2e-ngircd');
  const path = join(folder, 'usr', 'sbin', 'ngircd');
  const libraries = await readdir(join(folder, 'usr', 'lib')).catch(() => []);
  const fetched = (found: readonly string[]): Ngircd => ({ path, env: { LD_LIBRARY_PATH: found.map((name) => join(folder, 'usr', 'lib', name)).join(delimiter) } });
  if (await works(path, fetched(libraries).env)) return fetched(libraries);
  return withLock(async () => {
    say('fetching ngircd from the package archive …');
    try {
      await mkdir(folder, { recursive: true });
      await run('apt-get', ['download', 'ngircd', 'libident'], { cwd: folder, timeout: INSTALL_TIMEOUT_MS });
      for (const name of await readdir(folder)) if (name.endsWith('.deb')) await run('dpkg-deb', ['-x', name, '.'], { cwd: folder });
      const found = fetched(await readdir(join(folder, 'usr', 'lib')));
      if (await works(path, found.env)) return found;
    } catch (error) {
      say(`that did not work: ${error instanceof Error ? error.message : String(error)}`);
    }
    await rm(folder, { recursive: true, force: true });
    return null;
  });
}

async function works(path: string, env: Readonly<Record<string, string>>): Promise<boolean> {
  try {
    await access(path);
    await run(path, ['--version'], { env: { ...env } });
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
