/** The loop: faults by a seeded chance while traffic goes on, quiet moments in between at which everything is judged. */
import { seededRandom } from '../support/clock.ts';
import { pause } from './child.ts';
import { FAULTS, LONG_OUTAGE } from './faults.ts';
import type { Fault, Scene } from './faults.ts';
import { World } from './world.ts';
import type { StoreKind } from './world.ts';

export interface LoopOptions {
  readonly cycles: number;
  readonly store: StoreKind;
  readonly seed: number;
  /** Only faults whose name contains this. */
  readonly only: string | null;
  readonly routerCount: number;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

export interface LoopResult {
  readonly cycles: number;
  readonly byKind: ReadonlyMap<string, number>;
  readonly eventCount: number;
  readonly pushCount: number;
  readonly repeats: number;
  readonly lateRepeats: number;
  readonly violations: readonly string[];
  /** Calls of the homeserver by the gRPC code of their answer. */
  readonly answers: ReadonlyMap<number, number>;
}

const CYCLES_PER_VERDICT = 25;
const LONG_OUTAGE_EVERY = 250;
const PAUSE_MS_MIN = 200;
const PAUSE_MS_MAX = 1_800;
const VIOLATIONS_TOLD = 30;
const STREAMS = 4;

/** Null where the store cannot be had. */
export async function runLoop({ cycles, store, seed, only, routerCount, signal, say }: LoopOptions): Promise<LoopResult | null> {
  await using world = await World.open({ store, seed, routerCount, streamCount: STREAMS, pauseMs: 90, eventsPerCallMax: 12 });
  if (world === null) return null;
  const { next } = seededRandom(seed);
  const total = { cycles: 0, byKind: new Map<string, number>(), eventCount: 0, pushCount: 0, repeats: 0, lateRepeats: 0, violations: [] as string[] };
  const scene: Scene = { world, chance: next, busyRouters: new Set(), isStoreBusy: false, fault: (text) => void world.findings.push(text) };
  const startedMs = performance.now();
  let healing: Promise<void>[] = [];
  const settle = async (): Promise<void> => {
    await Promise.all(healing);
    healing = [];
    const verdict = await world.settle();
    total.eventCount += verdict.eventCount;
    total.pushCount += verdict.pushCount;
    total.repeats += verdict.repeats;
    total.lateRepeats += verdict.lateRepeats;
    for (const text of verdict.violations.slice(0, VIOLATIONS_TOLD)) {
      total.violations.push(text);
      say(`  VIOLATION before cycle ${total.cycles} of seed ${seed}: ${text}`);
    }
    const seconds = (performance.now() - startedMs) / 1000;
    say(`  ${total.cycles} cycles in ${seconds.toFixed(0)} s: ${total.eventCount} events, ${total.pushCount} pushes, ${total.repeats} transactions repeated, ${total.violations.length} violations`);
  };
  while (total.cycles < cycles && !signal.aborted) {
    const fault = store === 'mongodb' && only === null && total.cycles % LONG_OUTAGE_EVERY === LONG_OUTAGE_EVERY - 1 ? LONG_OUTAGE : chosen(store, only, next);
    const heal = await fault.begin(scene);
    if (heal === null) {
      await pause(PAUSE_MS_MIN);
      continue;
    }
    total.cycles++;
    total.byKind.set(fault.name, (total.byKind.get(fault.name) ?? 0) + 1);
    healing.push(heal().catch((error: unknown) => scene.fault(`${fault.name} did not heal: ${error instanceof Error ? error.message : String(error)}`)));
    await pause(PAUSE_MS_MIN + next() * (PAUSE_MS_MAX - PAUSE_MS_MIN));
    if (total.cycles % CYCLES_PER_VERDICT === 0) await settle();
  }
  if (total.cycles % CYCLES_PER_VERDICT !== 0 || signal.aborted) await settle();
  const answers = new Map<number, number>();
  for (const stream of world.streams) for (const [code, count] of stream.answers) answers.set(code, (answers.get(code) ?? 0) + count);
  return { ...total, answers };
}

function chosen(store: StoreKind, only: string | null, chance: () => number): Fault {
  const faults = FAULTS.filter(({ name, stores }) => stores.includes(store) && (only === null || name.includes(only)));
  let dice = chance() * faults.reduce((sum, { weight }) => sum + weight, 0);
  for (const fault of faults) {
    dice -= fault.weight;
    if (dice < 0) return fault;
  }
  throw new Error(`there is no fault ${only ?? ''} for ${store}`);
}
