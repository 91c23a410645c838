/**
 * Scenarios 1 and 2: calls and streams of events, each routed to one of 100 appservices with 300 namespaces, beside a bare
 * server that decodes the same messages and answers.
 */
import { join } from 'node:path';
import { median } from '../scenario.ts';
import type { Bench, BenchStore, Row, Scenario, StoreKind } from '../scenario.ts';
import { processorCount } from '../cpu.ts';
import { findGhz, GHZ_HINT, ghzLoad, leanLoad, UNARY } from '../load.ts';
import type { Load, LoadRequest, LoadShape, Target } from '../load.ts';
import type { RunningProcess } from '../processes.ts';
import { StoreCallWatch } from '../store-calls.ts';
import type { StoreCalls } from '../store-calls.ts';
import { writeMessages } from '../traffic.ts';
import type { Messages } from '../traffic.ts';
import { World } from '../world.ts';

interface Case {
  readonly scenario: number;
  readonly name: string;
  readonly shape: LoadShape;
  readonly eventsPerMessage: number;
  readonly messageCount: number;
  /** Least share of the baseline. */
  readonly shares: Readonly<Record<StoreKind, number>>;
  readonly unit: string;
}

const APPSERVICES = 100;
const WARM_UP_SECONDS = 1;
const ECHO = new URL('../echo-server.ts', import.meta.url).pathname;
const FLOOR = new URL('../floor-server.ts', import.meta.url).pathname;

const ONE: Case = { scenario: 1, name: 'unary, 1 event', shape: UNARY, eventsPerMessage: 1, messageCount: 6_000, shares: { sqlite: 0.5, mongodb: 0.35 }, unit: 'calls/s' };
const HUNDRED: Case = {
  scenario: 2,
  name: 'unary, 100 events',
  shape: { ...UNARY, inFlight: 16 },
  eventsPerMessage: 100,
  messageCount: 120,
  shares: { sqlite: 0.4, mongodb: 0.25 },
  unit: 'events/s',
};
const STREAM: Case = { ...HUNDRED, name: 'stream, 10 events', shape: { mode: 'stream', connections: 8, inFlight: 8, window: 8, ratePerSecond: 0 }, eventsPerMessage: 10, messageCount: 1_200 };

export const unaryScenario: Scenario = { number: 1, title: 'unary calls of one event', run: (bench, store) => measure(bench, store, [ONE]) };
export const bulkScenario: Scenario = { number: 2, title: 'many events in a call, and streams', run: (bench, store) => measure(bench, store, [HUNDRED, STREAM]) };

async function measure(bench: Bench, store: BenchStore, cases: readonly Case[]): Promise<Row[]> {
  await using world = await World.open(bench, store, { appserviceCount: APPSERVICES });
  await using echo = bench.processes.start('echo', ECHO, []);
  const echoTarget = await targetOf(bench, echo);
  const rows: Row[] = [];
  for (const one of cases) {
    const messages = writeMessages(join(bench.folder, `messages-${one.eventsPerMessage}`), one.messageCount, one.eventsPerMessage, APPSERVICES);
    await world.check(messages);
    await world.drained(one.eventsPerMessage);
    const row = await compare(bench, store, world, echo, echoTarget, one, messages, null);
    rows.push(await besideFloor(bench, store, row, one, messages));
    await world.profiled(`${one.scenario}-${one.shape.mode}-${store.kind}`, async () => {
      const { answered } = await leanLoad(bench.processes, { target: world.target, messages, shape: one.shape, seconds: bench.options.seconds, parts: {} });
      await world.drained(answered * one.eventsPerMessage);
    });
    if (one.shape.mode !== 'unary') continue;
    const ghz = findGhz();
    if (ghz === null) bench.say(GHZ_HINT);
    else rows.push(await compare(bench, store, world, echo, echoTarget, one, messages, ghz));
  }
  return rows;
}

async function targetOf(bench: Bench, server: RunningProcess): Promise<Target> {
  const { address } = await bench.processes.line(server, ({ address }) => typeof address === 'string');
  return { address: String(address), token: 'none' };
}

/** The row with what the floor reaches (see floor-server.ts), as events or calls a second and as a share of echo. */
async function besideFloor(bench: Bench, store: BenchStore, row: Row, { eventsPerMessage, shape, unit }: Case, messages: Messages): Promise<Row> {
  const { processes, options, folder } = bench;
  await using floor = processes.start('floor', FLOOR, [store.newUri() ?? join(folder, `floor-${shape.mode}-${eventsPerMessage}.db`)]);
  const target = await targetOf(bench, floor);
  const rounds: number[] = [];
  for (let round = -1; round < options.rounds; round++) {
    const { perSecond } = await leanLoad(processes, { target, messages, shape, seconds: round < 0 ? WARM_UP_SECONDS : options.seconds, parts: {} });
    if (round >= 0) rounds.push(Math.round(perSecond * eventsPerMessage));
  }
  const floorShare = median(rounds) / (row.baseline?.value ?? Number.NaN);
  bench.say(`  ${row.name}: the floor ${rounds.join(', ')} ${unit}, ${(floorShare * 100).toFixed(0)} % of echo`);
  return { ...row, details: { ...row.details, floor_rounds: rounds, floor_share_of_echo: floorShare, share_of_floor: row.router.value / median(rounds) } };
}

/** Baseline and router in turn; the medians. */
async function compare(bench: Bench, store: BenchStore, world: World, echo: RunningProcess, echoTarget: Target, one: Case, messages: Messages, ghz: string | null): Promise<Row> {
  const { processes, options } = bench;
  const { eventsPerMessage, shape, shares, unit } = one;
  const load = (request: Omit<LoadRequest, 'messages' | 'shape'>): Promise<Load> =>
    ghz === null ? leanLoad(processes, { messages, shape, ...request }) : ghzLoad(processes, ghz, { messages, shape, ...request });
  const echoRounds: Load[] = [];
  const routerRounds: (Load & { readonly storeCalls: StoreCalls; readonly eventsPerTransaction: number })[] = [];
  const backlogs: number[] = [];
  for (let round = -1; round < options.rounds; round++) {
    const seconds = round < 0 ? WARM_UP_SECONDS : options.seconds;
    const echoed = await load({ target: echoTarget, seconds, parts: { echo: [echo.processId] } });
    const watch = await StoreCallWatch.begin(world.router.httpAddress);
    const loaded = await load({ target: world.target, seconds, parts: world.parts });
    const atEnd = await world.receivers.stats();
    const routed = { ...loaded, storeCalls: await watch.end(), eventsPerTransaction: atEnd.events / Math.max(1, atEnd.transactions) };
    const left = routed.answered * eventsPerMessage - atEnd.events;
    await world.drained(left);
    if (round < 0) continue;
    echoRounds.push(echoed);
    routerRounds.push(routed);
    backlogs.push(left);
    bench.say(`  ${one.name}${ghz === null ? '' : ' by ghz'}: echo ${perSecond(echoed)}, router ${perSecond(routed)} ${unit}, ${left} events behind at the end`);
  }
  function perSecond(of: Load): number {
    return Math.round(of.perSecond * eventsPerMessage);
  }
  const baseline = median(echoRounds.map(perSecond));
  const router = median(routerRounds.map(perSecond));
  const middle = middleOf(routerRounds);
  const share = shares[store.kind];
  return {
    scenario: one.scenario,
    name: one.name,
    store: store.kind,
    load: ghz === null ? 'lean' : 'ghz',
    baseline: { value: baseline, unit: `${unit} echo` },
    router: { value: router, unit },
    ratio: router / baseline,
    target: `≥ ${share * 100} %`,
    met: router / baseline >= share,
    cpu: middle.cpu,
    details: {
      echo_rounds: echoRounds.map(perSecond),
      router_rounds: routerRounds.map(perSecond),
      router_p50_ms: middle.p50Ms,
      router_p99_ms: middle.p99Ms,
      ...(ghz === null ? { echo_load_share: middleOf(echoRounds).cpu['load'] ?? Number.NaN } : {}),
      events_behind_at_end: backlogs,
      events_per_transaction: middle.eventsPerTransaction,
      ...costs('echo', middleOf(echoRounds)),
      ...costs('router', middle),
      ...middle.storeCalls,
    },
  };
}

/** CPU time that one message cost a server, in microseconds. Unlike rates it hardly depends on what else the machine does. */
function costs(server: 'echo' | 'router', { cpu, perSecond }: Load): Record<string, number> {
  const main = cpu[`${server} main thread`];
  const whole = cpu[server];
  if (main === undefined || whole === undefined) return {};
  return { [`${server}_main_us_per_message`]: (main / perSecond) * 1e6, [`${server}_cpu_us_per_message`]: ((whole * processorCount) / perSecond) * 1e6 };
}

function middleOf<Round extends Load>(rounds: readonly Round[]): Round {
  const sorted = [...rounds].sort((a, b) => a.perSecond - b.perSecond);
  const middle = sorted[sorted.length >> 1];
  if (middle === undefined) throw new Error('nothing was measured');
  return middle;
}
