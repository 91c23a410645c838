/**
 * npm run sim -- --seed N      one seed, looked at; --trace prints all that happens
 * npm run sim -- --seeds K     K seeds from 1, or from --from N; exit code 1 if one fails
 * npm run sim -- --mutants     each deliberate bug against up to 1,000 seeds; writes the table of docs/robustness.md
 *
 * Also: --pace production (the intervals that ship, ten times as many polls), --threads T, --only TEXT (mutants whose name has it).
 */
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { runSeeds } from './campaign.ts';
import { huntMutants } from './mutants-page.ts';
import { reportOf, runSeed, traceOf } from './run-seed.ts';
import type { Pace } from './settings.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    from: { type: 'string', default: '1' },
    pace: { type: 'string', default: 'compressed' },
    threads: { type: 'string', default: String(availableParallelism()) },
    trace: { type: 'boolean', default: false },
    mutants: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
  },
});
const pace: Pace = values.pace === 'production' ? 'production' : 'compressed';
const threads = Number(values.threads);
process.exitCode = values.mutants ? await huntMutants({ pace, threads, only: values.only, print: console.log }) : values.seed !== undefined ? await one(Number(values.seed)) : await many(Number(values.seeds ?? '100'));

async function one(seed: number): Promise<number> {
  if (values.trace) for (const line of await traceOf(seed, { pace })) console.log(line);
  const result = await runSeed(seed, { pace });
  if (result.breaches.length > 0) {
    console.log(await reportOf(result, { pace }));
    return 1;
  }
  console.log(`seed ${seed}: all invariants hold; ${result.happeningCount} happenings, history ${result.hash}`);
  return 0;
}

async function many(count: number): Promise<number> {
  const beganMs = performance.now();
  let done = 0;
  let failed = 0;
  await runSeeds({ from: Number(values.from), count, pace, threads }, ({ report }) => {
    done++;
    if (report !== null) {
      failed++;
      console.log(`${report}\n`);
    }
    if (done % 1_000 === 0) console.log(`${done} seeds, ${failed} failed, ${(done / ((performance.now() - beganMs) / 1000)).toFixed(1)} a second`);
  });
  const seconds = (performance.now() - beganMs) / 1000;
  console.log(`${done} seeds from ${values.from} in ${seconds.toFixed(1)} s, ${(done / seconds).toFixed(1)} a second in ${threads} threads: ${failed} failed`);
  return failed > 0 || done < count ? 1 : 0;
}
