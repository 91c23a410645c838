/**
 * `npm run test:e2e`: the router between real programs. One file after the other, since each starts several of them.
 *
 * Arguments: files to run instead of all; what begins with `-` goes to Node's test runner. Everything that the tests make
 * is in one temporary folder. If a process of it or a file in it is left at the end, the run has failed: it says what was
 * left, ends it and removes it. The exit code is that of the runner otherwise.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';

const FILE_TIMEOUT_MS = 300_000;
const ROOT = join(import.meta.dirname, '..', '..');

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'router-e2e-'));
  try {
    const code = await runTests(args, folder);
    const left = [...processesOf(folder).map(({ id, command }) => `process ${id}: ${command}`), ...readdirSync(folder).map((name) => `file ${name}`)];
    for (const what of left) process.stderr.write(`LEFT BEHIND: ${what}\n`);
    return left.length > 0 ? 1 : code;
  } finally {
    for (const { id } of processesOf(folder)) process.kill(id, 'SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
}

async function runTests(args: readonly string[], folder: string): Promise<number> {
  const files = args.filter((arg) => !arg.startsWith('-'));
  const flags = args.filter((arg) => arg.startsWith('-'));
  const runner = spawn(
    process.execPath,
    [
      '--test',
      '--disable-warning=ExperimentalWarning',
      '--test-concurrency=1',
      `--test-timeout=${FILE_TIMEOUT_MS}`,
      `--test-reporter=${join(ROOT, 'test', 'support', 'reporter.ts')}`,
      ...flags,
      ...(files.length === 0 ? ['test-e2e/**/*.test.ts'] : files),
    ],
    { stdio: 'inherit', cwd: ROOT, env: { ...process.env, TMPDIR: folder } },
  );
  const forward = (signal: NodeJS.Signals): void => void runner.kill(signal);
  process.on('SIGINT', forward).on('SIGTERM', forward);
  await once(runner, 'exit');
  if (runner.exitCode !== null) return runner.exitCode;
  return 128 + (runner.signalCode === null ? 0 : constants.signals[runner.signalCode]);
}

/** Those that work in the folder or were told of it, if only by their environment. Linux only; elsewhere none are found. */
function processesOf(folder: string): { id: number; command: string }[] {
  let names: string[];
  try {
    names = readdirSync('/proc');
  } catch {
    return [];
  }
  return names.flatMap((name) => {
    const id = Number(name);
    if (!Number.isInteger(id) || id === process.pid) return [];
    try {
      const read = (what: string): string => readFileSync(`/proc/${name}/${what}`, 'utf8').replaceAll('\0', ' ');
      const command = read('cmdline');
      const isOurs = command.includes(folder) || readlinkSync(`/proc/${name}/cwd`).startsWith(folder) || read('environ').includes(folder);
      return isOurs ? [{ id, command }] : [];
    } catch {
      // It has ended, or is not ours.
      return [];
    }
  });
}
