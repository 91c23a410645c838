/** Scenario 6: 1,000 appservices and nothing to do, by a router started on a store that has them. */
import { join } from 'node:path';
import { pause } from '../scenario.ts';
import type { Bench, BenchStore, Row, Scenario } from '../scenario.ts';
import { CpuWatch, memoryOf, processorCount } from '../cpu.ts';
import { profiled } from '../profiled.ts';
import { Router } from '../router.ts';
import { putRegistrations } from '../traffic.ts';

const APPSERVICES = 1_000;
/** What a start leaves behind is over by then. */
const SETTLE_MS = 3_000;
/** So little is done in a second that a profile takes some. */
const PROFILE_MS = 15_000;
const RSS_MB_MAX = 250;
const CPU_PERCENT_MAX = 2;
const READY_MS_MAX = 2_000;

export const idleScenario: Scenario = { number: 6, title: `${APPSERVICES.toLocaleString('en-US')} idle appservices`, run };

async function run(bench: Bench, store: BenchStore): Promise<Row[]> {
  const { processes, folder, options } = bench;
  const at = { processes, folder: join(folder, 'router'), mongodbUri: store.newUri() };
  {
    await using first = await Router.start(at);
    await putRegistrations(first.admin, 0, APPSERVICES, (appservice) => `http://127.0.0.1:9/${appservice}`);
  }
  const readyMs: number[] = [];
  for (let round = 1; round < options.rounds; round++) {
    await using started = await Router.start(at);
    readyMs.push(started.readyMs);
  }
  await using router = await Router.start(at);
  readyMs.push(router.readyMs);
  const { processId } = router.process;
  await pause(SETTLE_MS, processes.signal);
  const watch = new CpuWatch({ router: [processId] });
  await pause(options.seconds * 1_000, processes.signal);
  // Of one processor, as top shows it.
  const cpuPercent = (watch.shares()['router'] ?? Number.NaN) * processorCount * 100;
  const rssMb = (memoryOf(processId) ?? Number.NaN) / 1e6;
  await profiled(bench, router, `6-idle-${store.kind}`, () => pause(PROFILE_MS, processes.signal));
  bench.say(`  ready after ${readyMs.map((ms) => ms.toFixed(0)).join(', ')} ms`);
  const row = (name: string, value: number, unit: string, max: number): Row => ({
    scenario: 6,
    name,
    store: store.kind,
    load: '',
    baseline: null,
    router: { value, unit },
    ratio: null,
    target: `≤ ${max.toLocaleString('en-US')} ${unit}`,
    met: Number.isNaN(value) ? null : value <= max,
    cpu: {},
    details: { ready_ms: readyMs },
  });
  return [row('memory, RSS', rssMb, 'MB', RSS_MB_MAX), row('CPU', cpuPercent, '%', CPU_PERCENT_MAX), row('ready, slowest', Math.max(...readyMs), 'ms', READY_MS_MAX)];
}
