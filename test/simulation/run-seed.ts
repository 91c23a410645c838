/** Runs a seed and tells what is wrong with it, in words; a seed that fails is run again to be looked at. */
import type { Breach } from './checker.ts';
import { excerptOf } from './excerpt.ts';
import './shared-work.ts';
import { simulate } from './simulation.ts';
import type { Outcome, SimulationOptions } from './simulation.ts';

export interface SeedResult {
  readonly seed: number;
  readonly hash: string;
  readonly breaches: readonly Breach[];
  readonly happeningCount: number;
}

/** What nobody catches ends a process; here it is a breach of the seed it came from. */
async function judged(seed: number, options: SimulationOptions): Promise<{ readonly outcome: Outcome | null; readonly breaches: readonly Breach[] }> {
  const bugs: Breach[] = [];
  const uncaught = (error: unknown): void => void bugs.push({ text: `no bugs: uncaught: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`, about: [] });
  // Errors are made by the thousand; where they come from is of interest only when somebody looks.
  const { stackTraceLimit } = Error;
  if (options.traced !== true) Error.stackTraceLimit = 0;
  process.on('unhandledRejection', uncaught);
  process.on('uncaughtException', uncaught);
  try {
    const outcome = await simulate(seed, options);
    await new Promise((resolve) => setImmediate(resolve));
    return { outcome, breaches: [...bugs, ...outcome.breaches] };
  } catch (error) {
    uncaught(error);
    return { outcome: null, breaches: bugs };
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
    process.off('unhandledRejection', uncaught);
    process.off('uncaughtException', uncaught);
  }
}

export async function runSeed(seed: number, options: SimulationOptions = {}): Promise<SeedResult> {
  const { outcome, breaches } = await judged(seed, options);
  return { seed, hash: outcome?.hash ?? '', breaches, happeningCount: outcome?.happeningCount ?? 0 };
}

/** The whole history as lines. */
export async function traceOf(seed: number, options: SimulationOptions = {}): Promise<readonly string[]> {
  const { outcome } = await judged(seed, { ...options, traced: true });
  return (outcome?.history.trace ?? []).map(({ timeMs, kind, subject, detail }) => `${(timeMs / 1000).toFixed(3).padStart(9)} ${kind} ${subject} ${detail}`);
}

/** For whoever has to mend it: the seed, what is broken, where to look, and how to see it again. */
export async function reportOf({ seed, breaches, hash }: SeedResult, options: SimulationOptions = {}): Promise<string> {
  const again = await judged(seed, { ...options, traced: true });
  const [first] = breaches;
  const lines = [`seed ${seed} breaks ${breaches.length === 1 ? 'an invariant' : `invariants, ${breaches.length} times`}:`, ...breaches.slice(0, 10).map(({ text }) => `  ${text}`)];
  if (first !== undefined && again.outcome !== null) lines.push('', ...excerptOf(again.outcome.history.trace ?? [], first), '');
  if (again.outcome?.hash !== hash) lines.push('The history is another one when it is run again: the simulation is not deterministic.');
  lines.push(`Again: npm run sim -- --seed ${seed}${options.pace === undefined || options.pace === 'compressed' ? '' : ` --pace ${options.pace}`}`);
  return lines.join('\n');
}
