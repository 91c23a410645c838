/**
 * `npm test`: every test file, with one MongoDB for all of them.
 *
 * Arguments: files or folders to run instead of all; what begins with `-` goes to Node's test runner. The exit code is
 * that of the runner, and its closing summary is the last that is printed.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { availableParallelism, constants } from 'node:os';
import { join } from 'node:path';
import { MONGODB_MISSING, startMongod } from './mongod.ts';

const TEST_TIMEOUT_MS = 120_000;
/** Two at least: most tests wait for sockets and disks, not for the processor. */
const CONCURRENCY = Math.max(2, availableParallelism());
/** What the tests create beside the repository must not depend on who runs them. */
const UMASK = 0o022;

const args = process.argv.slice(2);
const flags = args.filter((arg) => arg.startsWith('-'));
const paths = args.filter((arg) => !arg.startsWith('-'));

process.umask(UMASK);
process.exitCode = await main();

async function main(): Promise<number> {
  const mongod = await startMongod();
  if (mongod === null) process.stderr.write(`${MONGODB_MISSING}: the tests that need one are skipped.\n`);
  try {
    return await runTests(mongod?.uri ?? 'none');
  } finally {
    await mongod?.stop();
  }
}

async function runTests(mongodbUri: string): Promise<number> {
  const runner = spawn(
    process.execPath,
    [
      '--test',
      '--disable-warning=ExperimentalWarning',
      `--test-concurrency=${CONCURRENCY}`,
      `--test-timeout=${TEST_TIMEOUT_MS}`,
      `--test-reporter=${join(import.meta.dirname, 'reporter.ts')}`,
      ...flags,
      ...patternsOf(paths),
    ],
    { stdio: 'inherit', env: { ...process.env, ROUTER_TEST_MONGODB_URI: mongodbUri } },
  );
  const forward = (signal: NodeJS.Signals): void => void runner.kill(signal);
  process.on('SIGINT', forward).on('SIGTERM', forward);
  await once(runner, 'exit');
  if (runner.exitCode !== null) return runner.exitCode;
  return 128 + (runner.signalCode === null ? 0 : constants.signals[runner.signalCode]);
}

function patternsOf(chosen: readonly string[]): string[] {
  if (chosen.length === 0) return ['test/**/*.test.ts'];
  return chosen.map((path) => (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true ? join(path, '**/*.test.ts') : path));
}
