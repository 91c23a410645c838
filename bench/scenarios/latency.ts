/** Scenario 3: 1,000 events a second, spread over 50 appservices; from the call's start to the appservice's receipt. */
import { join } from 'node:path';
import { median } from '../scenario.ts';
import type { Bench, BenchStore, Row, Scenario } from '../scenario.ts';
import { leanLoad, UNARY } from '../load.ts';
import type { Load } from '../load.ts';
import type { ReceiverStats } from '../receiver.ts';
import { writeMessages } from '../traffic.ts';
import { World } from '../world.ts';

const APPSERVICES = 50;
const RATE_PER_SECOND = 1_000;
const WARM_UP_SECONDS = 2;
const SHAPE = { ...UNARY, ratePerSecond: RATE_PER_SECOND };
const P50_MS_MAX = { sqlite: 8, mongodb: 15 } as const;
/** Asked for on SQLite alone. */
const P99_MS_MAX = { sqlite: 50, mongodb: null } as const;

export const latencyScenario: Scenario = { number: 3, title: `latency at ${RATE_PER_SECOND} events/s over ${APPSERVICES} appservices`, run };

async function run(bench: Bench, store: BenchStore): Promise<Row[]> {
  await using world = await World.open(bench, store, { appserviceCount: APPSERVICES, mode: 'parse' });
  const messages = writeMessages(join(bench.folder, 'messages'), 1_200, 1, APPSERVICES);
  await world.check(messages);
  await world.drained(1);
  const loads: Load[] = [];
  const received: ReceiverStats[] = [];
  for (let round = -1; round < bench.options.rounds; round++) {
    const load = await leanLoad(bench.processes, { target: world.target, messages, shape: SHAPE, seconds: round < 0 ? WARM_UP_SECONDS : bench.options.seconds, parts: world.parts });
    const stats = await world.drained(load.answered);
    if (round < 0) continue;
    loads.push(load);
    received.push(stats);
    bench.say(`  to the receipt p50 ${stats.p50Ms.toFixed(1)}, p99 ${stats.p99Ms.toFixed(1)} ms; to the answer p50 ${load.p50Ms.toFixed(1)}, p99 ${load.p99Ms.toFixed(1)} ms`);
  }
  const answers = { answer_p50_ms: median(loads.map(({ p50Ms }) => p50Ms)), answer_p99_ms: median(loads.map(({ p99Ms }) => p99Ms)) };
  const details = { ...answers, max_ms: Math.max(...received.map(({ maxMs }) => maxMs)), calls_per_second: median(loads.map(({ perSecond }) => perSecond)) };
  const row = (name: string, value: number, maxMs: number | null): Row => ({
    scenario: 3,
    name,
    store: store.kind,
    load: 'lean',
    baseline: null,
    router: { value, unit: 'ms' },
    ratio: null,
    target: maxMs === null ? '' : `≤ ${maxMs} ms`,
    met: maxMs === null ? null : value <= maxMs,
    cpu: loads.at(-1)?.cpu ?? {},
    details,
  });
  return [
    row('latency, p50', median(received.map(({ p50Ms }) => p50Ms)), P50_MS_MAX[store.kind]),
    row('latency, p99', median(received.map(({ p99Ms }) => p99Ms)), P99_MS_MAX[store.kind]),
  ];
}
