/** A router with appservices and their registrations, ready to be measured. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { AppserviceRouter } from '../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { pause } from './scenario.ts';
import type { Bench, BenchStore } from './scenario.ts';
import type { Target } from './load.ts';
import type { ReceiverStats } from './receiver.ts';
import { startReceivers } from './receivers.ts';
import type { Receivers } from './receivers.ts';
import { profiled } from './profiled.ts';
import { Router } from './router.ts';
import { putRegistrations, submitRooms } from './traffic.ts';
import type { Messages } from './traffic.ts';

export interface WorldOptions {
  readonly appserviceCount: number;
  /** How many of them get traffic, from the first on; all if left out. */
  readonly busyCount?: number;
  readonly delayMs?: number;
  readonly mode?: 'count' | 'parse';
  /** Further settings of the router. */
  readonly routerEnv?: Readonly<Record<string, string>>;
  /** The router's program; that of this checkout if left out. */
  readonly program?: string;
}

const DRAIN_TIMEOUT_MS = 60_000;
const DRAIN_LOOK_MS = 20;
const STILL_LOOKS = 25;

export class World implements AsyncDisposable {
  readonly router: Router;
  readonly receivers: Receivers;
  /** Process ids by the part they play, for the CPU shares. */
  readonly parts: Readonly<Record<string, readonly number[]>>;
  /** The router's data. */
  readonly folder: string;
  readonly #bench: Bench;

  private constructor(bench: Bench, store: BenchStore, router: Router, receivers: Receivers, folder: string) {
    this.folder = folder;
    this.#bench = bench;
    this.router = router;
    this.receivers = receivers;
    this.parts = {
      router: [router.process.processId],
      receivers: [receivers.process.processId],
      ...(store.processIds.length === 0 ? {} : { mongod: store.processIds }),
    };
  }

  static async open(bench: Bench, store: BenchStore, { appserviceCount, busyCount = appserviceCount, delayMs = 0, mode = 'count', program, routerEnv = {} }: WorldOptions): Promise<World> {
    await using opened = new AsyncDisposableStack();
    const receivers = await startReceivers(bench.processes, delayMs, mode);
    opened.use(receivers.process);
    const folder = join(bench.folder, `router-${randomBytes(4).toString('hex')}`);
    const router = opened.use(await Router.start({ processes: bench.processes, folder, mongodbUri: store.newUri(), program, env: routerEnv }));
    await putRegistrations(router.admin, 0, appserviceCount, (at) => receivers.url(at));
    await submitRooms(router.homeserver, busyCount);
    opened.move();
    return new World(bench, store, router, receivers, folder);
  }

  get target(): Target {
    return { address: this.router.grpcAddress, token: this.router.tokens.homeserver };
  }

  /** Sends one message as any caller would. Rejects if it is not taken, or not routed to one appservice an event. */
  async check({ first, eventsPerMessage }: Messages): Promise<void> {
    const { accepted, routed, wantedRoomIds } = await this.router.homeserver.callRaw(AppserviceRouter.method.submitEvents, Buffer.from(first));
    if (accepted === eventsPerMessage && routed === eventsPerMessage && wantedRoomIds.length === 0) return;
    throw new Error(`of ${eventsPerMessage} events ${accepted} were accepted and ${routed} routed; ${wantedRoomIds.length} rooms are wanted`);
  }

  /** Waits until the receivers have had `events` more, and what they had. Rejects if they do not get them, or get more. */
  async drained(events: number): Promise<ReceiverStats> {
    const parts: ReceiverStats[] = [];
    let received = 0;
    for (const untilMs = performance.now() + DRAIN_TIMEOUT_MS; performance.now() < untilMs; ) {
      const stats = await this.receivers.stats();
      if (stats.transactions > 0) parts.push(stats);
      received += stats.events;
      if (received >= events) break;
      await pause(DRAIN_LOOK_MS, this.#bench.processes.signal);
    }
    if (received !== events) throw new Error(`of ${events} events that were acknowledged the appservices received ${received}`);
    return joined(parts);
  }

  /** Waits until the receivers have had `events` more, or the time for that is over, and then nothing more comes for a moment; what they had. */
  async settled(events = 0): Promise<ReceiverStats> {
    const parts: ReceiverStats[] = [];
    const untilMs = performance.now() + DRAIN_TIMEOUT_MS;
    let received = 0;
    for (let still = 0; still < STILL_LOOKS || (received < events && performance.now() < untilMs); ) {
      const stats = await this.receivers.stats();
      received += stats.events;
      still = stats.transactions === 0 ? still + 1 : 0;
      if (stats.transactions > 0) parts.push(stats);
      await pause(DRAIN_LOOK_MS, this.#bench.processes.signal);
    }
    return joined(parts);
  }

  /** See {@link profiled}. */
  profiled(name: string, work: () => Promise<unknown>): Promise<void> {
    return profiled(this.#bench, this.router, name, work);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.router[Symbol.asyncDispose]();
    await this.receivers.process[Symbol.asyncDispose]();
  }
}

function joined(parts: readonly ReceiverStats[]): ReceiverStats {
  const sum = (of: (stats: ReceiverStats) => number): number => parts.reduce((total, stats) => total + of(stats), 0);
  const first = parts[0];
  const last = parts.at(-1);
  const most = parts.reduce<ReceiverStats | undefined>((best, stats) => (best === undefined || stats.measured > best.measured ? stats : best), undefined);
  return {
    transactions: sum(({ transactions }) => transactions),
    events: sum(({ events }) => events),
    fullTransactions: sum(({ fullTransactions }) => fullTransactions),
    bytes: sum(({ bytes }) => bytes),
    answerMs: sum(({ answerMs }) => answerMs),
    firstMs: first?.firstMs ?? 0,
    lastMs: last?.lastMs ?? 0,
    firstEvents: first?.firstEvents ?? 0,
    lastEvents: last?.lastEvents ?? 0,
    measured: most?.measured ?? 0,
    p50Ms: most?.p50Ms ?? 0,
    p99Ms: most?.p99Ms ?? 0,
    maxMs: Math.max(0, ...parts.map(({ maxMs }) => maxMs)),
  };
}
