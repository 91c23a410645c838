/**
 * A real MongoDB for the tests, as a replica set.
 *
 * Whoever wants one calls {@link startMongod}. Under `npm test` a server is already running and its URI stands in
 * `ROUTER_TEST_MONGODB_URI`, so the call returns at once and `stop` leaves the server alone; a test file that is run by
 * itself starts a server of its own and stops it. The value `none` means that there is no MongoDB to be had: the tests
 * that need one are skipped. A shared server is shared: each test file keeps to a database of its own
 * ({@link testDatabaseName}) and drops it at the end.
 *
 * A server that is started here leaves neither process nor directory. If this process is killed, a watcher ends the
 * server, and the next start removes the directory.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MongoMemoryReplSet } from 'mongodb-memory-server-core';
import { cacheFolder, findMongod } from './mongod-binary.ts';

export interface MongodOptions {
  /** Members of the replica set; 1 if left out. With more than one the set is never the shared one. */
  readonly count?: number;
  /** A server of one's own, to stop or to kill, even where a shared one is running. */
  readonly own?: boolean;
}

export interface RunningMongod extends AsyncDisposable {
  readonly uri: string;
  /** Process ids of the members, for a test that stops or kills one; empty for a shared server. */
  readonly processIds: readonly number[];
  /** Ends the server if it was started by this call. */
  stop(): Promise<void>;
}

/** Small, and with the fail points that tests of lost answers set. */
const ARGUMENTS = ['--nounixsocket', '--wiredTigerCacheSizeGB', '0.25', '--oplogSize', '64', '--setParameter', 'enableTestCommands=1'];
const LAUNCH_TIMEOUT_MS = 60_000;
const SHARED_URI_NAME = 'ROUTER_TEST_MONGODB_URI';

/** What a skipped test says; also looked for by `npm test` at its end. */
export const MONGODB_MISSING = 'no MongoDB could be had';

/** A server to talk to, or null where none can be had. */
export async function startMongod(options: MongodOptions = {}): Promise<RunningMongod | null> {
  const count = options.count ?? 1;
  const shared = process.env[SHARED_URI_NAME] ?? '';
  if (shared === 'none') return null;
  if (shared !== '' && count === 1 && options.own !== true) return handle(shared, [], () => Promise.resolve());
  const binary = await findMongod();
  if (binary === null) return null;
  return startReplicaSet(binary.path, binary.version, count);
}

/** A database name that no other test file, run or machine uses. */
export function testDatabaseName(): string {
  return `router_test_${process.pid}_${randomBytes(6).toString('hex')}`;
}

async function startReplicaSet(systemBinary: string, version: string, count: number): Promise<RunningMongod> {
  await removeAbandonedData();
  const folder = join(cacheFolder, `data-${process.pid}-${randomBytes(4).toString('hex')}`);
  const dbPaths = Array.from({ length: count }, (_, index) => join(folder, String(index)));
  for (const dbPath of dbPaths) await mkdir(dbPath, { recursive: true });
  const set = new MongoMemoryReplSet({
    binary: { systemBinary, version },
    instanceOpts: dbPaths.map((dbPath) => ({ dbPath, storageEngine: 'wiredTiger', launchTimeout: LAUNCH_TIMEOUT_MS })),
    replSet: { count, storageEngine: 'wiredTiger', args: ARGUMENTS, configSettings: { electionTimeoutMillis: 1000 } },
  });
  const stop = async (): Promise<void> => {
    await set.stop({ doCleanup: false });
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await set.start();
  } catch (error) {
    await stop();
    throw error;
  }
  const processIds = set.servers.flatMap((server) => server.instanceInfo?.instance.mongodProcess?.pid ?? []);
  return handle(set.getUri(), processIds, stop);
}

function handle(uri: string, processIds: readonly number[], end: () => Promise<void>): RunningMongod {
  let ended: Promise<void> | undefined;
  const stop = (): Promise<void> => (ended ??= end());
  return { uri, processIds, stop, [Symbol.asyncDispose]: stop };
}

/** Removes the data of test processes that were killed before they could. */
async function removeAbandonedData(): Promise<void> {
  await mkdir(cacheFolder, { recursive: true });
  for (const name of await readdir(cacheFolder)) {
    const owner = /^data-(\d+)-/.exec(name)?.[1];
    if (owner !== undefined && !isRunning(Number(owner))) await rm(join(cacheFolder, name), { recursive: true, force: true });
  }
}

function isRunning(processId: number): boolean {
  try {
    return process.kill(processId, 0);
  } catch {
    return false;
  }
}
