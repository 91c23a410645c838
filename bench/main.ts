/**
 * `npm run bench`: the router beside its baselines, on this machine, over loopback only. See docs/bench.md.
 *
 * Everything that is started is ended, and everything that is written but the results is removed: at the end, after a
 * failure, and on Ctrl-C. Exit code 0 = everything was measured, whether or not a target was met; 1 = something could not
 * be measured; 2 = wrong arguments; 130 = interrupted.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { MongoClient } from 'mongodb';
import { startMongod } from '../test/support/mongod.ts';
import { optionsFrom, USAGE } from './arguments.ts';
import type { Bench, BenchOptions, BenchStore, Row, Scenario } from './scenario.ts';
import { syncMs } from './disk.ts';
import { Processes } from './processes.ts';
import { detailsOf, machine, tableOf, writeJson } from './report.ts';
import type { Skipped } from './report.ts';
import { againstScenario } from './scenarios/against.ts';
import { catchUpScenario } from './scenarios/catch-up.ts';
import { hangingScenario } from './scenarios/hanging.ts';
import { idleScenario } from './scenarios/idle.ts';
import { bulkScenario, unaryScenario } from './scenarios/ingest.ts';
import { latencyScenario } from './scenarios/latency.ts';
import { registrationsScenario } from './scenarios/registrations.ts';
import { severalRoutersScenario } from './scenarios/several-routers.ts';

const SCENARIOS: readonly Scenario[] = [unaryScenario, bulkScenario, latencyScenario, catchUpScenario, registrationsScenario, idleScenario, severalRoutersScenario, hangingScenario];
const cacheFolder = join(import.meta.dirname, '..', '.cache');
/** Every scenario ends within this, whatever goes wrong in it. */
const SCENARIO_TIMEOUT_MS = 10 * 60_000;
const INTERRUPTED = 130;
const MONGODB_MISSING = 'no mongod could be had; set ROUTER_TEST_MONGODB_URI or install one';

async function main(): Promise<number> {
  const options = optionsFrom(process.argv.slice(2), cacheFolder);
  if (typeof options === 'string') {
    console.error(`${options}\n\n${USAGE}`);
    return 2;
  }
  const interrupted = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => interrupted.abort(new Error('interrupted')));
  const { profileFolder } = options;
  for (const path of [options.folder, dirname(options.jsonFile), ...(profileFolder === null ? [] : [profileFolder])]) mkdirSync(path, { recursive: true });
  removeAbandoned(options.folder);
  const folder = mkdtempSync(join(resolve(options.folder), `bench-${process.pid}-`));
  try {
    return await run(options, folder, interrupted.signal);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What runs that were killed before they could tidy up have left. */
function removeAbandoned(folder: string): void {
  for (const name of readdirSync(folder)) {
    const owner = /^bench-(\d+)-/.exec(name)?.[1];
    if (owner !== undefined && !isRunning(Number(owner))) rmSync(join(folder, name), { recursive: true, force: true });
  }
}

function isRunning(processId: number): boolean {
  try {
    return process.kill(processId, 0);
  } catch {
    return false;
  }
}

async function run(options: BenchOptions, folder: string, interrupted: AbortSignal): Promise<number> {
  const { node, processors, processor } = machine();
  const diskSyncMs = syncMs(folder);
  console.log(`Node ${node} on ${processors} processors (${processor}), the disk syncs in ${diskSyncMs.toFixed(1)} ms; ${options.rounds} rounds of ${options.seconds} s; load and receivers share the machine`);
  const rows: Row[] = [];
  const skipped: Skipped[] = [];
  await using resources = new AsyncDisposableStack();
  for (const kind of options.stores) {
    const store = kind === 'sqlite' ? SQLITE : await openMongodb(resources);
    for (const scenario of scenariosOf(options)) {
      const failure = store === null ? MONGODB_MISSING : await runScenario(scenario, store, options, folder, interrupted, rows);
      if (failure !== null) {
        skipped.push({ scenario: scenario.number, store: kind, reason: failure });
        console.log(`  SCENARIO ${scenario.number} ON ${kind.toUpperCase()} WAS NOT MEASURED: ${failure}`);
      }
      if (interrupted.aborted) break;
    }
    if (interrupted.aborted) break;
  }
  if (rows.length > 0) console.log(`\n${tableOf(rows)}\n\n${detailsOf(rows)}`);
  if (interrupted.aborted) return INTERRUPTED;
  for (const { scenario, store, reason } of skipped) console.log(`NOT MEASURED: scenario ${scenario} on ${store}: ${reason}`);
  writeJson(options.jsonFile, options, diskSyncMs, rows, skipped);
  console.log(`\nDetails are in ${options.jsonFile}; what the figures mean is in docs/bench.md.`);
  return skipped.length === 0 ? 0 : 1;
}

function scenariosOf({ againstFolder, scenarios }: BenchOptions): readonly Scenario[] {
  return againstFolder === null ? SCENARIOS.filter(({ number }) => scenarios.includes(number)) : [againstScenario(againstFolder)];
}

/** Adds to `rows`; why it could not be measured, or null. */
async function runScenario(scenario: Scenario, store: BenchStore, options: BenchOptions, folder: string, interrupted: AbortSignal, rows: Row[]): Promise<string | null> {
  console.log(`\nScenario ${scenario.number} on ${store.kind}: ${scenario.title}`);
  const signal = AbortSignal.any([interrupted, AbortSignal.timeout(SCENARIO_TIMEOUT_MS)]);
  const scratch = mkdtempSync(join(folder, `${scenario.number}-${store.kind}-`));
  await using processes = new Processes(scratch, signal);
  const bench: Bench = { processes, folder: scratch, options, say: (text) => console.log(text) };
  try {
    rows.push(...(await scenario.run(bench, store)));
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    await processes[Symbol.asyncDispose]();
    rmSync(scratch, { recursive: true, force: true });
  }
}

const SQLITE: BenchStore = { kind: 'sqlite', newUri: () => null, processIds: [] };

/** A server of one node, with a database for each world; they are dropped at the end if the server stays. */
async function openMongodb(resources: AsyncDisposableStack): Promise<BenchStore | null> {
  const mongod = await startMongod();
  if (mongod === null) return null;
  resources.use(mongod);
  const names: string[] = [];
  resources.defer(async () => {
    const client = new MongoClient(mongod.uri);
    for (const name of names) await client.db(name).dropDatabase();
    await client.close();
  });
  const newUri = (): string => {
    const name = `router_bench_${process.pid}_${names.length}`;
    names.push(name);
    const uri = new URL(mongod.uri);
    uri.pathname = `/${name}`;
    return uri.href;
  };
  return { kind: 'mongodb', newUri, processIds: mongod.processIds };
}

process.exitCode = await main();
