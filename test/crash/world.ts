/** Everything that is under test at once: the store, the routers, the homeserver's streams, the appservices, the judge. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { seededRandom } from '../support/clock.ts';
import type { PushRecord } from '../support/delivery-world.ts';
import { Appservices } from './appservices.ts';
import { pause } from './child.ts';
import { Homeserver } from './homeserver.ts';
import { Judge } from './judge.ts';
import type { Verdict } from './judge.ts';
import { MongodSet } from './mongod-set.ts';
import { Routers } from './routers.ts';
import { SmallDisk } from './small-disk.ts';
import { APPSERVICES, EventSource, registrationOf } from './traffic.ts';

export type StoreKind = 'mongodb' | 'sqlite';

export interface WorldOptions {
  readonly store: StoreKind;
  readonly seed: number;
  readonly routerCount: number;
  readonly streamCount: number;
  /** Average pause of a stream between two submissions. */
  readonly pauseMs: number;
  readonly eventsPerCallMax: number;
}

const MEMBERS = 3;
const DEADLINE_MS = 4_000;
/** Faults of appservices themselves, beside those of the loop. */
const FAULT_SHARE = 0.03;
const DRAIN_TIMEOUT_MS = 90_000;
const LOOK_INTERVAL_MS = 50;

export class World implements AsyncDisposable {
  readonly routers: Routers;
  readonly mongod: MongodSet | null;
  readonly disk: SmallDisk | null;
  readonly appservices: Appservices;
  readonly streams: readonly Homeserver[];
  /** Log lines of level error and broken answers since the last verdict. */
  readonly findings: string[];
  readonly #judge: Judge;
  readonly #opened: AsyncDisposableStack;
  /** Since the last verdict: fail-overs of routers, and lost answers on the way to an appservice. */
  #failovers = 0;
  readonly #lost = new Map<string, number>();
  #looked = 0;

  private constructor(parts: Pick<World, 'routers' | 'mongod' | 'disk' | 'appservices' | 'streams' | 'findings'>, judge: Judge, opened: AsyncDisposableStack) {
    this.routers = parts.routers;
    this.mongod = parts.mongod;
    this.disk = parts.disk;
    this.appservices = parts.appservices;
    this.streams = parts.streams;
    this.findings = parts.findings;
    this.#judge = judge;
    this.#opened = opened;
  }

  /** Null where no mongod can be had. */
  static async open({ store, seed, routerCount, streamCount, pauseMs, eventsPerCallMax }: WorldOptions): Promise<World | null> {
    await using opened = new AsyncDisposableStack();
    const findings: string[] = [];
    const { next } = seededRandom(seed + 1_000_000);
    const dataDir = await mkdtemp(join(tmpdir(), `router-crash-${process.pid}-`));
    opened.defer(() => rm(dataDir, { recursive: true, force: true }));
    const mongod = store === 'mongodb' ? await MongodSet.start(MEMBERS) : null;
    if (store === 'mongodb' && mongod === null) return null;
    if (mongod !== null) opened.use(mongod);
    const disk = store === 'sqlite' ? opened.use(await SmallDisk.mount()) : null;
    const keyFile = join(dataDir, 'shared.key');
    await writeFile(keyFile, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
    const appservices = opened.use(await Appservices.start(APPSERVICES.map(({ id }) => id), next));
    const env = mongod === null ? { ROUTER_STORE: `sqlite:${disk?.path('router.db') ?? ''}` } : { ROUTER_STORE: mongod.uri('router_crash') };
    const routers = opened.use(await Routers.start(routerCount, dataDir, { ...env, ROUTER_ENCRYPTION_KEY_FILE: keyFile }, (text) => void findings.push(text)));
    using admin = routers.admin(0);
    for (const appservice of APPSERVICES) {
      await admin.call(AppserviceAdmin.method.putRegistration, { source: { case: 'yaml', value: registrationOf(appservice, appservices.url(appservice.id)) } });
    }
    const judge = new Judge();
    const streams = Array.from({ length: streamCount }, (_, at) => {
      const source = new EventSource(`s${at}`, next);
      const fault = (text: string): void => void findings.push(text);
      return new Homeserver({ source, clients: () => routers.clients(), chance: next, submitting: (event) => judge.submitting(event), fault, eventsPerCallMax, pauseMs, deadlineMs: DEADLINE_MS });
    });
    opened.defer(() => Promise.all(streams.map((stream) => stream.stop())).then(() => undefined));
    for (const stream of streams) stream.start();
    appservices.faultShare = FAULT_SHARE;
    return new World({ routers, mongod, disk, appservices, streams, findings }, judge, opened.move());
  }

  /** Something happened after which the transaction in flight may come again, of every appservice. */
  failedOver(count = 1): void {
    this.#failovers += count;
  }

  /** An answer of this appservice may not have been heard. */
  lost(appserviceId: string, count: number): void {
    this.#lost.set(appserviceId, (this.#lost.get(appserviceId) ?? 0) + count);
  }

  /** What came since the last verdict. */
  get pushes(): readonly PushRecord[] {
    return this.appservices.pushes;
  }

  /** No new events; waits until everything has arrived, and judges. Faults must have been healed. */
  async settle(): Promise<Verdict> {
    this.appservices.faultShare = 0;
    for (const stream of this.streams) stream.pause();
    const untilMs = performance.now() + DRAIN_TIMEOUT_MS;
    while (!this.#isDrained() && performance.now() < untilMs) await pause(LOOK_INTERVAL_MS);
    const isDrained = this.streams.every(({ isDone }) => isDone);
    const { pushes, unheard } = this.appservices;
    this.appservices.pushes = [];
    this.#looked = 0;
    const failovers = (id: string): number => this.#failovers + (this.#lost.get(id) ?? 0) + (unheard.get(id) ?? 0);
    const verdict = this.#judge.verdict(pushes, failovers, isDrained);
    const violations = [...verdict.violations, ...this.findings, ...(isDrained ? [] : ['I10 Liveness: submissions are not taken although all faults are healed'])];
    this.#failovers = 0;
    this.#lost.clear();
    unheard.clear();
    this.findings.length = 0;
    this.appservices.faultShare = FAULT_SHARE;
    for (const stream of this.streams) stream.resume();
    return { ...verdict, violations };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#opened.disposeAsync();
  }

  #isDrained(): boolean {
    const { pushes } = this.appservices;
    const missing = this.#judge.missing(pushes.slice(this.#looked));
    this.#looked = pushes.length;
    return missing === 0 && this.streams.every(({ isDone }) => isDone);
  }
}
