/**
 * `npm run crash`: real routers on a real store, broken again and again while traffic goes on, and judged.
 * Exit code 0 = nothing was violated; 1 = something was, or the world could not be had; 2 = wrong arguments.
 */
import { parseArgs } from 'node:util';
import { runLoop } from './loop.ts';
import { measure, quantile } from './measure.ts';

const USAGE = `npm run crash [-- --cycles N --store mongodb|sqlite --seed N --only TEXT --routers N]

  --cycles   faults to go through; 100 if left out
  --store    mongodb: several routers on a replica set of three (the default); sqlite: one router
  --seed     chooses the faults and their times; a new one if left out, and printed
  --only     faults whose name contains this
  --routers  routers on MongoDB, 1 to 5; 3 if left out
  --measure  failover | handover: instead of the loop, how long appservices wait when a router is killed or asked to end`;

const CYCLES_MAX = 1_000_000;
const ROUTERS_MAX = 5;

async function main(): Promise<number> {
  const option = { type: 'string' } as const;
  const { values } = parseArgs({ args: process.argv.slice(2), options: { cycles: option, store: option, seed: option, only: option, routers: option, measure: option } });
  const cycles = Number(values.cycles ?? 100);
  const store = values.store ?? 'mongodb';
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  const routerCount = store === 'sqlite' ? 1 : Number(values.routers ?? 3);
  const isWhole = [cycles, seed, routerCount].every((value) => Number.isInteger(value) && value >= 0);
  if (!isWhole || cycles < 1 || cycles > CYCLES_MAX || routerCount < 1 || routerCount > ROUTERS_MAX || (store !== 'mongodb' && store !== 'sqlite')) {
    console.error(USAGE);
    return 2;
  }
  const interrupted = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => interrupted.abort());
  if (values.measure === 'failover' || values.measure === 'handover') return measured(values.measure, cycles, seed, interrupted.signal);
  console.log(`${cycles} cycles on ${store} with ${routerCount} router${routerCount === 1 ? '' : 's'}, seed ${seed}`);
  const result = await runLoop({ cycles, store, seed, only: values.only ?? null, routerCount, signal: interrupted.signal, say: (text) => console.log(text) });
  if (result === null) {
    console.error('No mongod could be had; install one, or run with --store sqlite.');
    return 1;
  }
  console.log(`\nKinds of fault:\n${[...result.byKind].sort(([, one], [, other]) => other - one).map(([name, count]) => `  ${String(count).padStart(5)}  ${name}`).join('\n')}`);
  console.log(`\nCalls by gRPC code: ${[...result.answers].sort(([one], [other]) => one - other).map(([code, count]) => `${code}: ${count}`).join(', ')}`);
  console.log(`${result.cycles} cycles, ${result.eventCount} events acknowledged, ${result.pushCount} pushes, ${result.repeats} transactions repeated (${result.lateRepeats} behind a newer one), ${result.violations.length} violations; seed ${seed}`);
  return result.violations.length === 0 ? 0 : 1;
}

async function measured(kind: 'failover' | 'handover', cycles: number, seed: number, signal: AbortSignal): Promise<number> {
  const result = await measure({ kind, cycles, seed, signal, say: (text) => console.log(text) });
  if (result === null) return 1;
  const { gapsMs, violations, repeats, answers } = result;
  const figures = [0.5, 0.99, 1].map((share) => `${quantile(gapsMs, share).toFixed(0)} ms`);
  console.log(`${kind}: ${gapsMs.length} appservices waited p50 ${figures[0]}, p99 ${figures[1]}, at most ${figures[2]}; ${repeats} transactions repeated, ${violations.length} violations; calls by code ${JSON.stringify(Object.fromEntries(answers))}`);
  for (const text of violations) console.log(`  VIOLATION: ${text}`);
  return violations.length === 0 ? 0 : 1;
}

process.exitCode = await main();
