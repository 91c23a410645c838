/**
 * How long appservices wait when the router that delivers to them goes: killed, or asked to end. One router at a time
 * goes while nothing else is broken; for each appservice that it held, the time from its last push to that router's end
 * and on to the first push of the next holder is taken from what the appservices wrote down.
 */
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { seededRandom } from '../support/clock.ts';
import { pause } from './child.ts';
import { APPSERVICES } from './traffic.ts';
import { World } from './world.ts';

export interface MeasureOptions {
  readonly kind: 'failover' | 'handover';
  readonly cycles: number;
  readonly seed: number;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

export interface Measured {
  /** Of each appservice and cycle, in milliseconds. */
  readonly gapsMs: readonly number[];
  readonly violations: readonly string[];
  readonly repeats: number;
  /** Calls of the homeserver by the gRPC code of their answer. */
  readonly answers: ReadonlyMap<number, number>;
}

const ROUTERS = 2;
const WARM_UP_MS = 2_500;
const SETTLE_TIMEOUT_MS = 15_000;
const LOOK_MS = 20;
/** What a killed process sent may still arrive for this long. */
const ON_ITS_WAY_MS = 50;

export async function measure({ kind, cycles, seed, signal, say }: MeasureOptions): Promise<Measured | null> {
  await using world = await World.open({ store: 'mongodb', seed, routerCount: ROUTERS, streamCount: 4, pauseMs: 20, eventsPerCallMax: 8 });
  if (world === null) return null;
  world.appservices.faultShare = 0;
  const { next } = seededRandom(seed);
  const gapsMs: number[] = [];
  const violations: string[] = [];
  let repeats = 0;
  for (let cycle = 0; cycle < cycles && !signal.aborted; cycle++) {
    world.appservices.faultShare = 0;
    await pause(WARM_UP_MS);
    const slot = Math.floor(next() * ROUTERS);
    const held = await heldBy(world, slot);
    if (kind === 'failover') world.failedOver();
    const beganMs = performance.now();
    if (kind === 'failover') await world.routers.kill(slot);
    else {
      const code = await world.routers.terminate(slot);
      if (code !== 0) violations.push(`a router that was asked to end did so with code ${code}`);
    }
    const endedMs = performance.now();
    await untilAllGoOn(world, held, endedMs);
    const gaps = held.map((id) => gapMs(world, id, kind === 'failover' ? endedMs : beganMs, kind));
    gapsMs.push(...gaps);
    await world.routers.restart(slot);
    const verdict = await world.settle();
    violations.push(...verdict.violations);
    repeats += verdict.repeats;
    say(`  ${kind} ${cycle + 1}: ${held.length} appservices waited up to ${Math.max(0, ...gaps).toFixed(0)} ms; ${verdict.repeats} repeated, ${verdict.violations.length} violations ${verdict.violations[0] ?? ''}`);
  }
  const answers = new Map<number, number>();
  for (const stream of world.streams) for (const [code, count] of stream.answers) answers.set(code, (answers.get(code) ?? 0) + count);
  return { gapsMs, violations, repeats, answers };
}

/** Appservices with steady traffic whose lease this router holds. */
async function heldBy(world: World, slot: number): Promise<string[]> {
  using admin = world.routers.admin(slot);
  const { appservices } = await admin.call(AppserviceAdmin.method.listAppservices, {});
  const steady = new Set(APPSERVICES.filter(({ id }) => !id.startsWith('bot')).map(({ id }) => id));
  const replicaId = world.routers.replicaId(slot);
  return appservices.filter(({ appserviceId, leaseHolder }) => steady.has(appserviceId) && leaseHolder === replicaId).map(({ appserviceId }) => appserviceId);
}

async function untilAllGoOn(world: World, ids: readonly string[], sinceMs: number): Promise<void> {
  const waiting = new Set(ids);
  for (const untilMs = performance.now() + SETTLE_TIMEOUT_MS; waiting.size > 0 && performance.now() < untilMs; ) {
    for (const { appserviceId, timeMs } of world.pushes.slice(-500)) if (timeMs > sinceMs + ON_ITS_WAY_MS) waiting.delete(appserviceId);
    await pause(LOOK_MS);
  }
}

/** After a kill: from the end of the process to the next push. Around a hand-over: the longest time without one. */
function gapMs(world: World, id: string, sinceMs: number, kind: MeasureOptions['kind']): number {
  const times = world.pushes.filter(({ appserviceId }) => appserviceId === id).map(({ timeMs }) => timeMs);
  if (kind === 'failover') return (times.find((timeMs) => timeMs > sinceMs + ON_ITS_WAY_MS) ?? Infinity) - sinceMs;
  const around = times.filter((timeMs) => timeMs > sinceMs - ON_ITS_WAY_MS);
  return around.slice(1).reduce((longest, timeMs, at) => Math.max(longest, timeMs - (around[at] ?? timeMs)), around.length < 2 ? Infinity : 0);
}

export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}
