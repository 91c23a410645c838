/** A temporary folder with the programs that run in it, for one test. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pythonHome } from './software.ts';
import type { PythonHome } from './software.ts';

const LOG_CHARS_SHOWN = 3_000;

export interface World {
  readonly folder: string;
  readonly python: PythonHome;
  /** Ends with the world: what came last first. */
  use<T extends AsyncDisposable>(resource: T): T;
}

/** Ends everything and removes the folder, whatever comes of `work`, a signal included. A failure tells the end of each program's log. */
export async function inWorld(work: (world: World) => Promise<void>): Promise<void> {
  const python = await pythonHome();
  const folder = await mkdtemp(join(tmpdir(), 'world-'));
  const resources = new AsyncDisposableStack();
  const tidyUp = async (): Promise<void> => {
    await resources.disposeAsync();
    await rm(folder, { recursive: true, force: true });
  };
  const endAfterTidyingUp = (signal: NodeJS.Signals): void => void tidyUp().finally(() => process.kill(process.pid, signal));
  process.once('SIGINT', endAfterTidyingUp).once('SIGTERM', endAfterTidyingUp);
  try {
    await work({ folder, python, use: (resource) => resources.use(resource) });
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n\n${await logsIn(folder)}`, { cause: error });
  } finally {
    process.off('SIGINT', endAfterTidyingUp).off('SIGTERM', endAfterTidyingUp);
    await tidyUp();
  }
}

async function logsIn(folder: string): Promise<string> {
  const names = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.log'));
  const ends = await Promise.all(names.map(async (name) => `── ${name}\n${(await readFile(join(folder, name), 'utf8')).slice(-LOG_CHARS_SHOWN)}`));
  return ends.join('\n');
}
