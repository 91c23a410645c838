/** Many seeds in several threads. */
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { SeedSaid, SeedsWork } from './seeds-worker.ts';
import type { Pace } from './settings.ts';

export interface Campaign {
  readonly from: number;
  readonly count: number;
  readonly pace: Pace;
  readonly threads?: number;
}

/** What a seed leaves behind is garbage before it is old. */
const YOUNG_MB = 64;

function workerFor(work: SeedsWork, said: (said: SeedSaid) => void): Promise<unknown> {
  const worker = new Worker(join(import.meta.dirname, 'seeds-worker.ts'), { workerData: work, execArgv: ['--disable-warning=ExperimentalWarning'], resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB } });
  worker.on('message', said);
  return once(worker, 'exit');
}

/** Tells what came of each seed, in no order. */
export async function runSeeds({ from, count, pace, threads = availableParallelism() }: Campaign, said: (said: SeedSaid) => void): Promise<void> {
  const works = Array.from({ length: threads }, (_, at): SeedsWork => ({ mutant: null, from: from + at, step: threads, until: from + count, pace }));
  await Promise.all(works.map((work) => workerFor(work, said)));
}

/** The first seed that finds the bug, and by what; null if none of them does. */
export async function huntMutant(mutant: string, { from, count, pace }: Campaign): Promise<{ readonly seed: number; readonly breach: string } | null> {
  let found: { seed: number; breach: string } | null = null;
  await workerFor({ mutant, from, step: 1, until: from + count, pace }, ({ seed, breach }) => {
    if (breach !== null) found = { seed, breach };
  });
  return found;
}

/** Does `use` for each, so many at a time. */
export async function forEachOf<Item>(items: readonly Item[], atATime: number, use: (item: Item) => Promise<void>): Promise<void> {
  const left = [...items];
  const run = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await use(item);
  };
  await Promise.all(Array.from({ length: atATime }, run));
}
