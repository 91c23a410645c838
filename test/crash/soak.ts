/**
 * `npm run soak -- --minutes N [--store sqlite|mongodb]`: one router under steady traffic, with appservices that fail now
 * and then, and what it takes meanwhile: memory, file descriptors, timers, delay of the event loop. Everything that was
 * submitted must have arrived at the end. Prints a table; exit code 1 if something was violated.
 */
import { parseArgs } from 'node:util';
import { pause } from './child.ts';
import { World } from './world.ts';

const USAGE = 'npm run soak [-- --minutes N --store sqlite|mongodb --seed N]';
const INTERVAL_MS = 10_000;
const ROWS_MAX = 30;
/** In the order of the columns. */
const FIGURES = [
  { name: 'RSS MB', metric: /^process_resident_memory_bytes (\S+)/m, scale: 1e-6 },
  { name: 'heap MB', metric: /^nodejs_heap_size_used_bytes (\S+)/m, scale: 1e-6 },
  { name: 'fds', metric: /^process_open_fds (\S+)/m, scale: 1 },
  // Timers that hold the process, sockets, servers.
  { name: 'resources', metric: /^nodejs_active_resources_total (\S+)/m, scale: 1 },
  { name: 'loop p50 ms', metric: /^nodejs_eventloop_lag_p50_seconds (\S+)/m, scale: 1e3 },
  { name: 'loop p99 ms', metric: /^nodejs_eventloop_lag_p99_seconds (\S+)/m, scale: 1e3 },
] as const;

async function main(): Promise<number> {
  const option = { type: 'string' } as const;
  const { values } = parseArgs({ args: process.argv.slice(2), options: { minutes: option, store: option, seed: option } });
  const minutes = Number(values.minutes ?? 10);
  const store = values.store ?? 'sqlite';
  const seed = Number(values.seed ?? 1);
  if (!(minutes > 0) || !Number.isInteger(seed) || (store !== 'sqlite' && store !== 'mongodb')) {
    console.error(USAGE);
    return 2;
  }
  const interrupted = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => interrupted.abort());
  await using world = await World.open({ store, seed, routerCount: 1, streamCount: 4, pauseMs: 20, eventsPerCallMax: 12 });
  if (world === null) {
    console.error('No mongod could be had; install one, or run with --store sqlite.');
    return 1;
  }
  console.log(`${minutes} minutes on ${store}\n\n| minute | ${FIGURES.map(({ name }) => name).join(' | ')} | events | pushes |\n|${'---|'.repeat(FIGURES.length + 3)}`);
  const startedMs = performance.now();
  const total = { events: 0, pushes: 0, repeats: 0, violations: [] as string[] };
  const every = Math.max(1, Math.round((minutes * 60_000) / INTERVAL_MS / ROWS_MAX));
  for (let look = 1; performance.now() - startedMs < minutes * 60_000 && !interrupted.signal.aborted; look++) {
    await pause(INTERVAL_MS);
    if (look % every !== 0) continue;
    // Before the settling, which is quiet.
    const figures = await figuresOf(world.routers.httpAddress(0));
    const { eventCount, pushCount, repeats, violations } = await world.settle();
    total.events += eventCount;
    total.pushes += pushCount;
    total.repeats += repeats;
    total.violations.push(...violations);
    console.log(`| ${((performance.now() - startedMs) / 60_000).toFixed(1)} | ${figures.map((value) => value.toFixed(1)).join(' | ')} | ${total.events} | ${total.pushes} |`);
  }
  for (const text of total.violations) console.log(`VIOLATION: ${text}`);
  console.log(`\n${total.events} events, ${total.pushes} pushes, ${total.repeats} transactions repeated, ${total.violations.length} violations`);
  return total.violations.length === 0 ? 0 : 1;
}

async function figuresOf(httpAddress: string): Promise<number[]> {
  const text = await (await fetch(`http://${httpAddress}/metrics`)).text();
  return FIGURES.map(({ metric, scale }) => Number(metric.exec(text)?.[1] ?? NaN) * scale);
}

process.exitCode = await main();
