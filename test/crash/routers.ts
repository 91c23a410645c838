/**
 * The routers of the crash loop: `src/main.ts serve`, each in a slot with a port of its own, so that clients find the
 * next process where the last one was. What they log at level `error` is kept.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { RouterClient } from '../support/router-client.ts';
import { lastingPort } from './lasting-port.ts';
import { end, hasEnded, pause, spawnBound } from './child.ts';
import { SERVER_NAME } from './traffic.ts';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const SKEWED_CLOCK = new URL('./skewed-clock.ts', import.meta.url).href;
/** By slot: the wall clocks of routers on one store are an hour apart. */
const SKEWS_MS = [0, 3_600_000, -3_600_000];
/** Longer than any outage of the store. */
const READY_TIMEOUT_MS = 150_000;
const START_AGAIN_MS = 200;
const KEPT_LINES = 40;
/** What a full disk makes a router say at level error, and one that starts while the store is away: it ends then and is started again. */
const EXPECTED = /the disk is full|the database cannot be reached|no primary of the MongoDB/;

interface Slot {
  readonly grpcPort: number;
  child: ChildProcess | null;
  client: RouterClient | null;
  replicaId: string;
  httpAddress: string;
  /** The newest lines, for the report of a violation. */
  lines: string[];
}

export class Routers implements AsyncDisposable {
  readonly #slots: Slot[];
  readonly #dataDir: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #tellError: (text: string) => void;

  private constructor(slots: Slot[], dataDir: string, env: Readonly<Record<string, string>>, tellError: (text: string) => void) {
    this.#slots = slots;
    this.#dataDir = dataDir;
    this.#env = env;
    this.#tellError = tellError;
  }

  static async start(count: number, dataDir: string, env: Readonly<Record<string, string>>, tellError: (text: string) => void): Promise<Routers> {
    const slots: Slot[] = [];
    for (let at = 0; at < count; at++) slots.push({ grpcPort: await lastingPort(), child: null, client: null, replicaId: '', httpAddress: '', lines: [] });
    const routers = new Routers(slots, dataDir, env, tellError);
    // The first makes the credentials that the others use.
    for (let at = 0; at < count; at++) await routers.restart(at);
    return routers;
  }

  get count(): number {
    return this.#slots.length;
  }

  /** Of all slots, whatever is in them now. */
  clients(): RouterClient[] {
    return this.#slots.flatMap(({ client }) => client ?? []);
  }

  admin(at: number): RouterClient {
    return new RouterClient(`127.0.0.1:${this.#slot(at).grpcPort}`, this.#tokens().admin);
  }

  replicaId(at: number): string {
    return this.#slot(at).replicaId;
  }

  httpAddress(at: number): string {
    return this.#slot(at).httpAddress;
  }

  lines(at: number): readonly string[] {
    return this.#slot(at).lines;
  }

  /** Starts a router in the slot and waits until it is ready; tries again while it cannot start, as a supervisor would. */
  async restart(at: number): Promise<void> {
    for (const untilMs = performance.now() + READY_TIMEOUT_MS; performance.now() < untilMs; ) {
      if (await this.#begin(at)) return;
      await pause(START_AGAIN_MS);
    }
    throw new Error(`a router does not become ready: ${this.#slot(at).lines.join('\n')}`);
  }

  signal(at: number, signal: NodeJS.Signals): void {
    this.#slot(at).child?.kill(signal);
  }

  async kill(at: number): Promise<void> {
    const { child } = this.#slot(at);
    if (child !== null) await end(child, 'SIGKILL');
  }

  /** SIGTERM; the exit code. */
  async terminate(at: number): Promise<number | null> {
    const { child } = this.#slot(at);
    return child === null ? null : end(child, 'SIGTERM');
  }

  processId(at: number): number {
    return this.#slot(at).child?.pid ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const [at, { client }] of this.#slots.entries()) {
      await this.kill(at);
      client?.[Symbol.dispose]();
    }
  }

  /** False if the process ended before it was ready. */
  async #begin(at: number): Promise<boolean> {
    const slot = this.#slot(at);
    const env = {
      PATH: process.env['PATH'],
      NODE_COMPILE_CACHE: join(this.#dataDir, 'compiled'),
      ROUTER_SERVER_NAME: SERVER_NAME,
      ROUTER_DATA_DIR: this.#dataDir,
      ROUTER_GRPC_LISTEN: `127.0.0.1:${slot.grpcPort}`,
      ROUTER_HTTP_LISTEN: '127.0.0.1:0',
      ROUTER_LOG_FORMAT: 'json',
      ROUTER_BACKOFF_FIRST_MS: '20',
      ROUTER_BACKOFF_MAX_MS: '200',
      ROUTER_PUSH_TIMEOUT_MS: '2000',
      CRASH_CLOCK_SKEW_MS: String(SKEWS_MS[at % SKEWS_MS.length]),
      ...this.#env,
    };
    const child = spawnBound(process.execPath, ['--disable-warning=ExperimentalWarning', '--import', SKEWED_CLOCK, MAIN, 'serve'], { env, cwd: this.#dataDir, stdio: ['ignore', 'pipe', 'pipe'] });
    slot.child = child;
    slot.lines = [];
    const ready = Promise.withResolvers<boolean>();
    for (const stream of [child.stdout, child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on('line', (line) => this.#line(slot, at, line, ready));
    }
    void once(child, 'exit').then(() => ready.resolve(false));
    const isReady = await ready.promise;
    if (isReady) slot.client ??= new RouterClient(`127.0.0.1:${slot.grpcPort}`, this.#tokens().homeserver);
    return isReady && !hasEnded(child);
  }

  #line(slot: Slot, at: number, line: string, ready: PromiseWithResolvers<boolean>): void {
    slot.lines = [...slot.lines, line].slice(-KEPT_LINES);
    if (line.includes('"msg":"ready"')) {
      slot.httpAddress = /"http_address":"([^"]+)"/.exec(line)?.[1] ?? '';
      slot.replicaId = /"replica_id":"([^"]+)"/.exec(line)?.[1] ?? '';
      ready.resolve(true);
    }
    if ((line.includes('"level":"error"') || !line.startsWith('{')) && !EXPECTED.test(line)) this.#tellError(`router ${at}: ${line}`);
  }

  #tokens(): { homeserver: string; admin: string } {
    return JSON.parse(readFileSync(join(this.#dataDir, 'credentials.json'), 'utf8')) as { homeserver: string; admin: string };
  }

  #slot(at: number): Slot {
    const slot = this.#slots[at];
    if (slot === undefined) throw new Error(`there is no router ${at}`);
    return slot;
  }
}
