/**
 * Scenario 7: what one router takes, beside what two routers on the same MongoDB take together for one homeserver, and
 * what two workers behind one address take. The machine has no more processors for two than for one: the point is that
 * contention for the log's tail does not collapse. What arrives is counted, so an event routed twice or not at all shows.
 */
import { join } from 'node:path';
import { median } from '../scenario.ts';
import type { Bench, BenchStore, Row, Scenario } from '../scenario.ts';
import { leanLoad, UNARY } from '../load.ts';
import type { Load, Target } from '../load.ts';
import { Router } from '../router.ts';
import { writeMessages } from '../traffic.ts';
import type { Messages } from '../traffic.ts';
import { World } from '../world.ts';

const APPSERVICES = 100;
const EVENTS_PER_MESSAGE = 10;
const WARM_UP_SECONDS = 2;
const SHAPE = { ...UNARY, failuresMax: 200 };
const SHARE_MIN = 0.8;

export const severalRoutersScenario: Scenario = { number: 7, title: 'several routers on one MongoDB', run };

async function run(bench: Bench, store: BenchStore): Promise<Row[]> {
  if (store.kind !== 'mongodb') return [];
  const messages = writeMessages(join(bench.folder, 'messages'), 1_200, EVENTS_PER_MESSAGE, APPSERVICES);
  const uri = store.newUri();
  const shared: BenchStore = { ...store, newUri: () => uri };
  const rounds = { one: [] as number[], two: [] as number[], workers: [] as number[] };
  await using world = await World.open(bench, shared, { appserviceCount: APPSERVICES });
  for (let round = -1; round < bench.options.rounds; round++) {
    const one = await rate(bench, world, messages, [world.target], round);
    let two: number;
    {
      await using second = await Router.start({ processes: bench.processes, folder: world.folder, mongodbUri: uri });
      two = await rate(bench, world, messages, [world.target, { address: second.grpcAddress, token: second.tokens.homeserver }], round);
    }
    if (round < 0) continue;
    rounds.one.push(one);
    rounds.two.push(two);
    bench.say(`  one router ${one}, two routers ${two} events/s`);
  }
  rounds.workers.push(...(await workerRates(bench, store, messages)));
  return [row('two routers, one homeserver', rounds.one, rounds.two, SHARE_MIN), row('two workers, one homeserver', rounds.one, rounds.workers, null)];

  function row(name: string, baseline: readonly number[], router: readonly number[], least: number | null): Row {
    const ratio = median(router) / median(baseline);
    return {
      scenario: 7,
      name,
      store: store.kind,
      load: 'lean',
      baseline: { value: median(baseline), unit: 'events/s one router' },
      router: { value: median(router), unit: 'events/s' },
      ratio,
      target: least === null ? '' : `≥ ${least * 100} %`,
      met: least === null ? null : ratio >= least,
      cpu: {},
      details: { baseline_rounds: baseline, router_rounds: router },
    };
  }
}

async function workerRates(bench: Bench, store: BenchStore, messages: Messages): Promise<number[]> {
  await using world = await World.open(bench, store, { appserviceCount: APPSERVICES, routerEnv: { ROUTER_WORKERS: '2' } });
  const rates: number[] = [];
  for (let round = -1; round < bench.options.rounds; round++) {
    const perSecond = await rate(bench, world, messages, [world.target], round);
    if (round < 0) continue;
    rates.push(perSecond);
    bench.say(`  two workers ${perSecond} events/s`);
  }
  return rates;
}

/**
 * Events a second that all targets together took, each from a client of its own. All of them must arrive; of calls that
 * were not answered in time, which count for nothing, it is not known.
 */
async function rate(bench: Bench, world: World, messages: Messages, targets: readonly Target[], round: number): Promise<number> {
  const seconds = round < 0 ? WARM_UP_SECONDS : bench.options.seconds;
  const loads: Load[] = await Promise.all(targets.map((target) => leanLoad(bench.processes, { target, messages, shape: SHAPE, seconds, parts: {} })));
  const sum = (of: (load: Load) => number): number => loads.reduce((total, load) => total + of(load), 0) * EVENTS_PER_MESSAGE;
  const least = sum(({ answered }) => answered);
  const { events } = await world.settled(least);
  if (events < least || events > least + sum(({ failed }) => failed)) throw new Error(`of ${least} events that were acknowledged the appservices received ${events}`);
  return Math.round(sum(({ perSecond }) => perSecond));
}
