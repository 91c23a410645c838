/**
 * Scenario 5: what many registrations cost. The same traffic for ten appservices with 10 and with 1,000 registrations in
 * force, in turn; and a change of one registration with 5,000 namespaces in force: when it holds, and for how long the
 * event loop ran nothing else meanwhile.
 */
import { join } from 'node:path';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { median } from '../scenario.ts';
import type { Bench, BenchStore, Row, Scenario } from '../scenario.ts';
import { leanLoad, UNARY } from '../load.ts';
import type { Load } from '../load.ts';
import { putRegistrations, registrationOf, writeMessages } from '../traffic.ts';
import { World } from '../world.ts';

const FEW = 10;
const MANY = 1_000;
const EVENTS_PER_MESSAGE = 100;
const RATE_SHARE_MIN = 0.8;
const WARM_UP_SECONDS = 1;
const NAMESPACES = 5_000;
/** They are in force over so many registrations. */
const NAMESPACE_OWNERS = 50;
const CHANGES = 7;
const APPLY_MS_MAX = 200;
const BLOCK_MS_MAX = 50;
const SHAPE = { ...UNARY, inFlight: 16 };

export const registrationsScenario: Scenario = { number: 5, title: 'many registrations', run: async (bench, store) => [await ingest(bench, store), ...(await change(bench, store))] };

async function ingest(bench: Bench, store: BenchStore): Promise<Row> {
  const messages = writeMessages(join(bench.folder, 'messages'), 60, EVENTS_PER_MESSAGE, FEW);
  await using few = await World.open(bench, store, { appserviceCount: FEW });
  await using many = await World.open(bench, store, { appserviceCount: MANY, busyCount: FEW });
  const rounds: { few: Load; many: Load }[] = [];
  for (let round = -1; round < bench.options.rounds; round++) {
    const load = async (world: World): Promise<Load> => {
      const result = await leanLoad(bench.processes, { target: world.target, messages, shape: SHAPE, seconds: round < 0 ? WARM_UP_SECONDS : bench.options.seconds, parts: world.parts });
      await world.drained(result.answered * EVENTS_PER_MESSAGE);
      return result;
    };
    const measured = { few: await load(few), many: await load(many) };
    if (round < 0) continue;
    rounds.push(measured);
    bench.say(`  with ${FEW}: ${perSecond(measured.few)}, with ${MANY}: ${perSecond(measured.many)} events/s`);
  }
  function perSecond(of: Load): number {
    return Math.round(of.perSecond * EVENTS_PER_MESSAGE);
  }
  const fewRate = median(rounds.map((round) => perSecond(round.few)));
  const manyRate = median(rounds.map((round) => perSecond(round.many)));
  return {
    scenario: 5,
    name: `ingest, ${MANY.toLocaleString('en-US')} registrations`,
    store: store.kind,
    load: 'lean',
    baseline: { value: fewRate, unit: `events/s with ${FEW}` },
    router: { value: manyRate, unit: 'events/s' },
    ratio: manyRate / fewRate,
    target: `≥ ${RATE_SHARE_MIN * 100} %`,
    met: manyRate / fewRate >= RATE_SHARE_MIN,
    cpu: rounds.at(-1)?.many.cpu ?? {},
    details: { few_rounds: rounds.map((round) => perSecond(round.few)), many_rounds: rounds.map((round) => perSecond(round.many)) },
  };
}

async function change(bench: Bench, store: BenchStore): Promise<Row[]> {
  await using world = await World.open(bench, store, { appserviceCount: 0 });
  const { router } = world;
  const owned = NAMESPACES / NAMESPACE_OWNERS;
  await putRegistrations(router.admin, 0, NAMESPACE_OWNERS, (at) => world.receivers.url(at), owned);
  const appliedMs: number[] = [];
  const blockedMs: number[] = [];
  for (let turn = 0; turn < CHANGES; turn++) {
    // A few namespaces more or less than before.
    const registration = registrationOf(turn, world.receivers.url(turn), owned + (turn % 2 === 0 ? 3 : -3));
    await router.probe({ probe: 'loop', on: true });
    const startedMs = performance.now();
    await router.admin.call(AppserviceAdmin.method.putRegistration, { source: { case: 'registration', value: registration } }, 60_000);
    appliedMs.push(performance.now() - startedMs);
    const { longestBlockMs } = await router.probe({ probe: 'loop', on: false });
    blockedMs.push(longestBlockMs ?? Number.NaN);
  }
  bench.say(`  a change holds after ${appliedMs.map((ms) => ms.toFixed(0)).join(', ')} ms; the loop was blocked for ${blockedMs.map((ms) => ms.toFixed(0)).join(', ')} ms`);
  const row = (name: string, value: number, maxMs: number): Row => ({
    scenario: 5,
    name,
    store: store.kind,
    load: '',
    baseline: null,
    router: { value, unit: 'ms' },
    ratio: null,
    target: `≤ ${maxMs} ms`,
    met: value <= maxMs,
    cpu: {},
    details: { applied_ms: appliedMs, blocked_ms: blockedMs, namespaces: NAMESPACES },
  });
  return [row('change applied, median', median(appliedMs), APPLY_MS_MAX), row('loop blocked, longest', Math.max(...blockedMs), BLOCK_MS_MAX)];
}
