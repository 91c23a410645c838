/**
 * A replica set of real mongod processes whose members can be killed and started again. Members know each other, and
 * routers know them, by the addresses of fault proxies; what a proxy does to routers leaves the talk of members alone,
 * unless it is shut.
 */
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { MongoClient } from 'mongodb';
import { cacheFolder, findMongod } from '../support/mongod-binary.ts';
import { lastingPort } from './lasting-port.ts';
import { end, hasEnded, pause, spawnBound } from './child.ts';
import { FaultProxy } from './fault-proxy.ts';

/** In the greeting of every connection of a router. */
const ROUTER_MARK = 'appservice-router';
const SET_NAME = 'crash';
const LOOK_INTERVAL_MS = 100;
const PRIMARY_TIMEOUT_MS = 60_000;

interface Member {
  readonly port: number;
  readonly proxy: FaultProxy;
  readonly dbPath: string;
  child: ChildProcess | null;
}

export class MongodSet implements AsyncDisposable {
  readonly #binary: string;
  readonly #members: Member[] = [];
  readonly #folder = join(cacheFolder, `data-${process.pid}-${randomBytes(4).toString('hex')}`);

  private constructor(binary: string) {
    this.#binary = binary;
  }

  /** Null where no mongod can be had. */
  static async start(count: number): Promise<MongodSet | null> {
    const binary = await findMongod();
    if (binary === null) return null;
    const set = new MongodSet(binary.path);
    try {
      await set.#begin(count);
    } catch (error) {
      await set[Symbol.asyncDispose]();
      throw error;
    }
    return set;
  }

  get count(): number {
    return this.#members.length;
  }

  proxy(at: number): FaultProxy {
    return this.#member(at).proxy;
  }

  uri(database: string): string {
    return `mongodb://${this.#members.map(({ proxy }) => `127.0.0.1:${proxy.port}`).join(',')}/${database}?replicaSet=${SET_NAME}`;
  }

  isRunning(at: number): boolean {
    const { child } = this.#member(at);
    return child !== null && !hasEnded(child);
  }

  async kill(at: number): Promise<void> {
    const { child } = this.#member(at);
    if (child !== null) await end(child, 'SIGKILL');
  }

  restart(at: number): void {
    const member = this.#member(at);
    if (this.isRunning(at)) return;
    const args = ['--replSet', SET_NAME, '--port', String(member.port), '--bind_ip', '127.0.0.1', '--dbpath', member.dbPath, '--nounixsocket', '--wiredTigerCacheSizeGB', '0.25', '--oplogSize', '256', '--quiet'];
    member.child = spawnBound(this.#binary, args, { stdio: 'ignore' });
  }

  /** The member that is primary now; null if none says so. */
  async primary(): Promise<number | null> {
    for (const [at] of this.#members.entries()) {
      const hello = await this.#ask(at, { hello: 1 }).catch(() => null);
      if (hello?.['isWritablePrimary'] === true) return at;
    }
    return null;
  }

  async untilPrimary(): Promise<number> {
    for (const untilMs = performance.now() + PRIMARY_TIMEOUT_MS; performance.now() < untilMs; ) {
      const at = await this.primary();
      if (at !== null) return at;
      await pause(LOOK_INTERVAL_MS);
    }
    throw new Error('the replica set has no primary');
  }

  async stepDown(at: number): Promise<void> {
    await this.#ask(at, { replSetStepDown: 2, secondaryCatchUpPeriodSecs: 1, force: true }).catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { child, proxy } of this.#members) {
      if (child !== null) await end(child, 'SIGKILL');
      await proxy[Symbol.asyncDispose]();
    }
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #begin(count: number): Promise<void> {
    for (let at = 0; at < count; at++) {
      const dbPath = join(this.#folder, String(at));
      await mkdir(dbPath, { recursive: true });
      const port = await lastingPort();
      this.#members.push({ port, proxy: await FaultProxy.start(port, ROUTER_MARK), dbPath, child: null });
      this.restart(at);
    }
    const members = this.#members.map(({ proxy }, _id) => ({ _id, host: `127.0.0.1:${proxy.port}` }));
    const config = { _id: SET_NAME, members, settings: { electionTimeoutMillis: 1_000, heartbeatIntervalMillis: 500 } };
    for (let tries = 0; ; tries++) {
      const problem = await this.#ask(0, { replSetInitiate: config }).then(
        () => null,
        (error: unknown) => error,
      );
      if (problem === null) break;
      const { child } = this.#member(0);
      if (tries > 100 || (child !== null && hasEnded(child))) throw new Error('the replica set cannot be set up', { cause: problem });
      await pause(LOOK_INTERVAL_MS);
    }
    await this.untilPrimary();
  }

  async #ask(at: number, command: Record<string, unknown>): Promise<Record<string, unknown>> {
    const { port, child } = this.#member(at);
    if (child === null || hasEnded(child)) throw new Error('the member does not run');
    const client = new MongoClient(`mongodb://127.0.0.1:${port}/?directConnection=true`, { serverSelectionTimeoutMS: 1_000, connectTimeoutMS: 1_000, socketTimeoutMS: 5_000, maxPoolSize: 1 });
    try {
      return await client.db('admin').command(command);
    } finally {
      await client.close();
    }
  }

  #member(at: number): Member {
    const member = this.#members[at];
    if (member === undefined) throw new Error(`there is no member ${at}`);
    return member;
  }
}

