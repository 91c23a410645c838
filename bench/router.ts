/** The router under measurement: the program that is shipped, in a process and a folder of its own. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { join } from 'node:path';
import { RouterClient } from '../test/support/router-client.ts';
import type { ProbeAnswer, ProbeRequest } from './probe.ts';
import type { Processes, RunningProcess } from './processes.ts';
import { SERVER_NAME } from './traffic.ts';

export interface RouterOptions {
  readonly processes: Processes;
  /** Its data; a router started again on the same folder and store goes on where the last one ended. */
  readonly folder: string;
  /** A MongoDB URI with a database name, or null for SQLite in the folder. */
  readonly mongodbUri: string | null;
  /** Its program; that of this checkout if left out. */
  readonly program?: string | undefined;
  /** Further settings. */
  readonly env?: Readonly<Record<string, string>>;
}

const PROGRAM = new URL('../src/main.ts', import.meta.url).pathname;
const PROBE = new URL('./probe.ts', import.meta.url).href;

export class Router implements AsyncDisposable {
  readonly process: RunningProcess;
  readonly grpcAddress: string;
  readonly httpAddress: string;
  readonly tokens: { readonly homeserver: string; readonly admin: string };
  /** From the start of the process to its ready line. */
  readonly readyMs: number;
  readonly homeserver: RouterClient;
  readonly admin: RouterClient;

  private constructor(process: RunningProcess, folder: string, ready: Record<string, unknown>, readyMs: number) {
    this.process = process;
    this.readyMs = readyMs;
    this.grpcAddress = String(ready['grpc_address']);
    this.httpAddress = String(ready['http_address']);
    this.tokens = JSON.parse(readFileSync(join(folder, 'credentials.json'), 'utf8')) as Router['tokens'];
    this.homeserver = new RouterClient(this.grpcAddress, this.tokens.homeserver);
    this.admin = new RouterClient(this.grpcAddress, this.tokens.admin);
  }

  static async start({ processes, folder, mongodbUri, program = PROGRAM, env: further = {} }: RouterOptions): Promise<Router> {
    mkdirSync(folder, { recursive: true });
    const keyFile = join(folder, 'encryption.key');
    if (!existsSync(keyFile)) writeFileSync(keyFile, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
    const env = {
      ROUTER_SERVER_NAME: SERVER_NAME,
      ROUTER_DATA_DIR: folder,
      ROUTER_ENCRYPTION_KEY_FILE: keyFile,
      ROUTER_GRPC_LISTEN: '127.0.0.1:0',
      ROUTER_HTTP_LISTEN: '127.0.0.1:0',
      ROUTER_LOG_FORMAT: 'json',
      ...(mongodbUri === null ? {} : { ROUTER_STORE: mongodbUri }),
      ...further,
    };
    const startedMs = performance.now();
    const running = processes.start('router', program, ['serve'], { env, cwd: folder, nodeArguments: ['--import', PROBE] });
    const ready = await processes.line(running, ({ msg }) => msg === 'ready');
    return new Router(running, folder, ready, performance.now() - startedMs);
  }

  /** Turns a probe on or off; see probe.ts. */
  async probe(request: ProbeRequest): Promise<ProbeAnswer> {
    const answer = once(this.process.child, 'message');
    this.process.child.send(request);
    const [result] = (await answer) as [ProbeAnswer];
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.homeserver[Symbol.dispose]();
    this.admin[Symbol.dispose]();
    await this.process[Symbol.asyncDispose]();
  }
}
