/** Runs seeds in a thread of its own, with a bug built in if it is told one, and says what came of each. */
import { parentPort, workerData } from 'node:worker_threads';
import { buildIn } from './mutant-hook.ts';
import { MUTANTS } from './mutants.ts';
import type { Pace } from './settings.ts';

export interface SeedsWork {
  /** By name; null: none. */
  readonly mutant: string | null;
  readonly from: number;
  readonly step: number;
  /** Not included. */
  readonly until: number;
  readonly pace: Pace;
}

/** `report`: null if the seed holds. */
export interface SeedSaid {
  readonly seed: number;
  readonly hash: string;
  readonly breach: string | null;
  readonly report: string | null;
}

const { mutant, from, step, until, pace } = workerData as SeedsWork;
if (mutant !== null) {
  const found = MUTANTS.find(({ name }) => name === mutant);
  if (found === undefined) throw new Error(`there is no mutant "${mutant}"`);
  buildIn(found);
}
const { runSeed, reportOf } = await import('./run-seed.ts');
for (let seed = from; seed < until; seed += step) {
  const result = await runSeed(seed, { pace });
  const [first] = result.breaches;
  const said: SeedSaid = { seed, hash: result.hash, breach: first?.text ?? null, report: first === undefined || mutant !== null ? null : await reportOf(result, { pace }) };
  parentPort?.postMessage(said);
  if (first !== undefined && mutant !== null) break;
}
