/**
 * Scenario 8: 80 appservices beside 20 that hang: they take connections and requests and never answer. In turn with the
 * same 80 beside 20 that are well; the traffic is the same, and what is measured is what the 80 get.
 */
import { join } from 'node:path';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { median } from '../scenario.ts';
import type { Bench, BenchStore, Row, Scenario } from '../scenario.ts';
import { leanLoad, UNARY } from '../load.ts';
import type { Load } from '../load.ts';
import type { ReceiverStats } from '../receiver.ts';
import { startReceivers } from '../receivers.ts';
import type { Receivers } from '../receivers.ts';
import { appserviceId, registrationOf, writeMessages } from '../traffic.ts';
import { World } from '../world.ts';

const APPSERVICES = 100;
const HANGING = 20;
const RATE_PER_SECOND = 1_000;
const WARM_UP_SECONDS = 3;
/** Of a machine that is busy with other things some calls are not answered in time. */
const FULL = { ...UNARY, failuresMax: 500 };
const PACED = { ...FULL, ratePerSecond: RATE_PER_SECOND };
const GROWTH_MAX = 1.1;
const SHARE_MIN = 0.95;

export const hangingScenario: Scenario = { number: 8, title: `${HANGING} of ${APPSERVICES} appservices hang`, run };

interface Round {
  readonly load: Load;
  readonly stats: ReceiverStats;
  readonly full: Load;
}

async function run(bench: Bench, store: BenchStore): Promise<Row[]> {
  await using world = await World.open(bench, store, { appserviceCount: APPSERVICES, mode: 'parse' });
  const others = await startReceivers(bench.processes, 0, 'count');
  await using _others = others.process;
  const hanging = await startReceivers(bench.processes, 0, 'hang');
  await using _hanging = hanging.process;
  const messages = writeMessages(join(bench.folder, 'messages'), 1_200, 1, APPSERVICES);
  const rounds: { well: Round[]; hang: Round[] } = { well: [], hang: [] };
  for (let round = -1; round < bench.options.rounds; round++) {
    for (const kind of ['well', 'hang'] as const) {
      await pointTwentyAt(world, kind === 'hang' ? hanging : others);
      const measured = await measure(bench, world, messages, round);
      if (round >= 0) rounds[kind].push(measured);
    }
    const [well, hang] = [rounds.well.at(-1), rounds.hang.at(-1)];
    if (well === undefined || hang === undefined) continue;
    bench.say(`  the 80 at ${RATE_PER_SECOND} events/s: p99 ${well.stats.p99Ms.toFixed(1)} ms beside 20 that are well, ${hang.stats.p99Ms.toFixed(1)} ms beside 20 that hang; at full speed ${well.full.perSecond.toFixed(0)} and ${hang.full.perSecond.toFixed(0)} calls/s`);
  }
  const p99 = (of: readonly Round[]): number => median(of.map(({ stats }) => stats.p99Ms));
  const speed = (of: readonly Round[]): number => median(of.map(({ full }) => full.perSecond));
  const growth = p99(rounds.hang) / p99(rounds.well);
  const share = speed(rounds.hang) / speed(rounds.well);
  const base = { scenario: 8, store: store.kind, load: 'lean' as const, cpu: {} };
  return [
    { ...base, name: 'p99 of the others', baseline: { value: p99(rounds.well), unit: 'ms without' }, router: { value: p99(rounds.hang), unit: 'ms' }, ratio: growth, target: `≤ ${GROWTH_MAX * 100} %`, met: growth <= GROWTH_MAX, details: { well_p99_ms: rounds.well.map(({ stats }) => stats.p99Ms), hang_p99_ms: rounds.hang.map(({ stats }) => stats.p99Ms) } },
    { ...base, name: 'throughput', baseline: { value: speed(rounds.well), unit: 'calls/s without' }, router: { value: speed(rounds.hang), unit: 'calls/s' }, ratio: share, target: `≥ ${SHARE_MIN * 100} %`, met: share >= SHARE_MIN, details: { well_rounds: rounds.well.map(({ full }) => full.perSecond), hang_rounds: rounds.hang.map(({ full }) => full.perSecond) } },
  ];
}

/** The last twenty appservices of the hundred; what waited for them goes with their registration. */
async function pointTwentyAt({ router }: World, receivers: Receivers): Promise<void> {
  for (let at = APPSERVICES - HANGING; at < APPSERVICES; at++) {
    await router.admin.call(AppserviceAdmin.method.deleteRegistration, { appserviceId: appserviceId(at), backlog: 1 });
    await router.admin.call(AppserviceAdmin.method.putRegistration, { source: { case: 'registration', value: registrationOf(at, receivers.url(at)) } });
  }
}

async function measure(bench: Bench, world: World, messages: ReturnType<typeof writeMessages>, round: number): Promise<Round> {
  const seconds = round < 0 ? WARM_UP_SECONDS : bench.options.seconds;
  await world.receivers.stats();
  const load = await leanLoad(bench.processes, { target: world.target, messages, shape: PACED, seconds, parts: {} });
  const stats = await world.settled();
  const full = await leanLoad(bench.processes, { target: world.target, messages, shape: FULL, seconds, parts: {} });
  await world.settled();
  return { load, stats, full };
}
