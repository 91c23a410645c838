/**
 * `npm run bench -- --against FOLDER`: the router of this checkout beside that of another one, such as a work tree of an
 * earlier commit, with the traffic of scenarios 1 and 2. Both run all the time and get the load in turn, a short while
 * each, and what counts is the median of the ratios of neighbours: a machine that slows down slows down both.
 */
import { join } from 'node:path';
import { processorCount } from '../cpu.ts';
import { leanLoad, UNARY } from '../load.ts';
import type { LoadShape } from '../load.ts';
import type { Processes } from '../processes.ts';
import { median } from '../scenario.ts';
import type { Bench, BenchStore, Row, Scenario } from '../scenario.ts';
import { writeMessages } from '../traffic.ts';
import { World } from '../world.ts';

const APPSERVICES = 100;
const WARM_UP_PAIRS = 2;

interface Traffic {
  /** The scenario that has this traffic. */
  readonly scenario: number;
  readonly name: string;
  readonly shape: LoadShape;
  readonly eventsPerMessage: number;
  readonly messageCount: number;
}

const TRAFFIC: readonly Traffic[] = [
  { scenario: 1, name: 'unary, 1 event', shape: UNARY, eventsPerMessage: 1, messageCount: 6_000 },
  { scenario: 2, name: 'unary, 100 events', shape: { ...UNARY, inFlight: 16 }, eventsPerMessage: 100, messageCount: 120 },
  { scenario: 2, name: 'stream, 10 events', shape: { mode: 'stream', connections: 8, inFlight: 8, window: 8, ratePerSecond: 0 }, eventsPerMessage: 10, messageCount: 1_200 },
];

interface Measured {
  readonly perSecond: number;
  readonly mainUs: number;
  readonly cpuUs: number;
}

interface Pair {
  readonly here: Measured;
  readonly there: Measured;
}

/** `folder` is the other checkout; its dependencies and generated code are its own. */
export function againstScenario(folder: string): Scenario {
  const program = join(folder, 'src', 'main.ts');
  return { number: 0, title: `this checkout beside ${folder}`, run: (bench, store) => compare(bench, store, program) };
}

async function compare(bench: Bench, store: BenchStore, program: string): Promise<Row[]> {
  await using here = await World.open(bench, store, { appserviceCount: APPSERVICES });
  await using there = await World.open(bench, store, { appserviceCount: APPSERVICES, program });
  const rows: Row[] = [];
  for (const traffic of TRAFFIC.filter(({ scenario }) => bench.options.scenarios.includes(scenario))) {
    const { name, eventsPerMessage, messageCount } = traffic;
    const messages = writeMessages(join(bench.folder, `messages-${eventsPerMessage}`), messageCount, eventsPerMessage, APPSERVICES);
    const pairs: Pair[] = [];
    for (let pair = -WARM_UP_PAIRS; pair < bench.options.rounds; pair++) {
      const measured = new Map<World, Measured>();
      for (const world of pair % 2 === 0 ? [here, there] : [there, here]) measured.set(world, await measure(bench.processes, world, traffic, messages, bench.options.seconds));
      const [mine, other] = [measured.get(here), measured.get(there)];
      if (pair >= 0 && mine !== undefined && other !== undefined) pairs.push({ here: mine, there: other });
    }
    rows.push(rowOf(name, store, pairs));
  }
  return rows;
}

function rowOf(name: string, store: BenchStore, pairs: readonly Pair[]): Row {
  const of = (side: keyof Pair, what: keyof Measured): number => median(pairs.map((pair) => pair[side][what]));
  const ratio = (what: keyof Measured): number => median(pairs.map(({ here, there }) => here[what] / there[what]));
  return {
    scenario: 0,
    name,
    store: store.kind,
    load: 'lean',
    baseline: { value: of('there', 'perSecond'), unit: 'messages/s there' },
    router: { value: of('here', 'perSecond'), unit: 'messages/s' },
    ratio: ratio('perSecond'),
    target: '',
    met: null,
    cpu: {},
    details: {
      pairs: pairs.length,
      main_us_per_message: of('here', 'mainUs'),
      main_us_per_message_there: of('there', 'mainUs'),
      main_us_ratio: ratio('mainUs'),
      cpu_us_per_message: of('here', 'cpuUs'),
      cpu_us_per_message_there: of('there', 'cpuUs'),
      cpu_us_ratio: ratio('cpuUs'),
    },
  };
}

async function measure(processes: Processes, world: World, { shape, eventsPerMessage }: Traffic, messages: Parameters<World['check']>[0], seconds: number): Promise<Measured> {
  const { perSecond, answered, cpu } = await leanLoad(processes, { target: world.target, messages, shape, seconds, parts: world.parts });
  await world.drained(answered * eventsPerMessage);
  return { perSecond, mainUs: ((cpu['router main thread'] ?? Number.NaN) / perSecond) * 1e6, cpuUs: ((cpu['router'] ?? Number.NaN) * processorCount * 1e6) / perSecond };
}
