/**
 * Scenario 4: an appservice that answers in 5 ms has been down while 100,000 events came for it. The ceiling is arithmetic:
 * a transaction holds 100 events and the next may leave only when it is answered.
 */
import { join } from 'node:path';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Bench, BenchStore, Row, Scenario } from '../scenario.ts';
import { CpuWatch } from '../cpu.ts';
import { leanLoad, UNARY } from '../load.ts';
import { StoreCallWatch } from '../store-calls.ts';
import { appserviceId, writeMessages } from '../traffic.ts';
import type { Messages } from '../traffic.ts';
import { World } from '../world.ts';

const EVENTS = 100_000;
const EVENTS_PER_MESSAGE = 200;
const ANSWER_MS = 5;
const TRANSACTION_EVENTS = 100;
const CEILING_PER_SECOND = (TRANSACTION_EVENTS / ANSWER_MS) * 1_000;
const SHARES = { sqlite: 0.8, mongodb: 0.6 } as const;

export const catchUpScenario: Scenario = { number: 4, title: `catching up ${EVENTS.toLocaleString('en-US')} events`, run };

async function run(bench: Bench, store: BenchStore): Promise<Row[]> {
  await using world = await World.open(bench, store, { appserviceCount: 1, delayMs: ANSWER_MS });
  const messages = writeMessages(join(bench.folder, 'messages'), 100, EVENTS_PER_MESSAGE, 1);
  const filledPerSecond = await fill(bench, world, messages);
  const row = await catchUp(bench, store, world, filledPerSecond);
  if (bench.options.profileFolder !== null) {
    await fill(bench, world, messages);
    await world.profiled(`4-catch-up-${store.kind}`, () => catchUp(bench, store, world, filledPerSecond));
  }
  return [row];
}

/** Submits the events while the appservice refuses everything; events a second. */
async function fill(bench: Bench, world: World, messages: Messages): Promise<number> {
  await world.receivers.setDown(true);
  await world.check(messages);
  const count = EVENTS / EVENTS_PER_MESSAGE - 1;
  const filled = await leanLoad(bench.processes, { target: world.target, messages, shape: { ...UNARY, inFlight: 8 }, seconds: 0, count, parts: {} });
  await world.receivers.setDown(false);
  return filled.perSecond * EVENTS_PER_MESSAGE;
}

async function catchUp(bench: Bench, store: BenchStore, world: World, filledPerSecond: number): Promise<Row> {
  const { router } = world;
  const storeCalls = await StoreCallWatch.begin(router.httpAddress);
  const watch = new CpuWatch(world.parts);
  const startedMs = performance.timeOrigin + performance.now();
  await router.admin.call(AppserviceAdmin.method.retryNow, { appserviceId: appserviceId(0) });
  const stats = await world.drained(EVENTS);
  const cpu = watch.shares();
  const { state_write_ms } = await storeCalls.end();
  // The last answer is still to come when the last transaction has arrived.
  const elapsedMs = stats.lastMs + ANSWER_MS - startedMs;
  const perSecond = (EVENTS / elapsedMs) * 1_000;
  // The transaction that was in flight when the appservice went down was cut from what there was then.
  const fullShare = stats.fullTransactions / Math.max(1, stats.transactions - (stats.firstEvents < TRANSACTION_EVENTS ? 1 : 0));
  bench.say(`  ${stats.transactions} transactions, ${stats.fullTransactions} of them full, in ${(elapsedMs / 1000).toFixed(2)} s`);
  const ratio = perSecond / CEILING_PER_SECOND;
  return {
    scenario: 4,
    name: 'catching up',
    store: store.kind,
    load: '',
    baseline: { value: CEILING_PER_SECOND, unit: 'events/s ceiling' },
    router: { value: perSecond, unit: 'events/s' },
    ratio,
    target: `≥ ${SHARES[store.kind] * 100} %, all full`,
    met: ratio >= SHARES[store.kind] && fullShare > 0.99,
    cpu,
    details: {
      transactions: stats.transactions,
      full_share: fullShare,
      first_transaction_events: stats.firstEvents,
      last_transaction_events: stats.lastEvents,
      ms_per_transaction: elapsedMs / stats.transactions,
      answer_ms: stats.answerMs / stats.transactions,
      state_write_ms,
      filled_events_per_second: filledPerSecond,
    },
  };
}
