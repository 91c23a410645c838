/** The router as its users run it: a process of its own, told by environment, known by its ready line. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { RouterClient } from './router-client.ts';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;

export interface LogLine {
  readonly level?: string;
  readonly msg?: string;
  readonly [field: string]: unknown;
}

export class RouterProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly lines: LogLine[] = [];
  /** Everything written that is no JSON line. */
  readonly otherOutput: string[] = [];
  readonly exited: Promise<number | null>;
  grpcAddress = '';
  httpAddress = '';
  readonly #dataDir: string;
  readonly #clients: RouterClient[] = [];

  private constructor(child: ChildProcess, dataDir: string) {
    this.child = child;
    this.#dataDir = dataDir;
    this.exited = once(child, 'exit').then(([code]) => (typeof code === 'number' ? code : null));
  }

  /** Begins a process; see {@link start} for one that is ready. */
  static spawn(dataDir: string, env: Readonly<Record<string, string>> = {}, args: readonly string[] = ['serve']): RouterProcess {
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: { PATH: process.env['PATH'], ROUTER_DATA_DIR: dataDir, ROUTER_GRPC_LISTEN: '127.0.0.1:0', ROUTER_HTTP_LISTEN: '127.0.0.1:0', ROUTER_SERVER_NAME: 'hs.test', ROUTER_LOG_FORMAT: 'json', ...env },
      cwd: dataDir,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const router = new RouterProcess(child, dataDir);
    for (const stream of [child.stdout, child.stderr]) {
      if (stream !== null) createInterface({ input: stream }).on('line', (line) => router.#line(line));
    }
    return router;
  }

  /** Rejects with what the process wrote if it ends before it is ready. */
  static async start(dataDir: string, env: Readonly<Record<string, string>> = {}): Promise<RouterProcess> {
    const router = RouterProcess.spawn(dataDir, env);
    const ready = await Promise.race([router.line((line) => line.msg === 'ready'), router.exited.then(() => null)]);
    if (ready === null) throw new Error(`the router ended before it was ready: ${JSON.stringify(router.lines)} ${router.otherOutput.join('\n')}`);
    router.grpcAddress = String(ready['grpc_address']);
    router.httpAddress = String(ready['http_address']);
    return router;
  }

  /** The first line, past or to come, that fits. */
  async line(fits: (line: LogLine) => boolean): Promise<LogLine> {
    for (let at = 0; ; at++) {
      while (at >= this.lines.length) await once(this.child, 'routerline');
      const line = this.lines[at];
      if (line !== undefined && fits(line)) return line;
    }
  }

  tokens(): { homeserver: string; admin: string } {
    return JSON.parse(readFileSync(join(this.#dataDir, 'credentials.json'), 'utf8')) as { homeserver: string; admin: string };
  }

  client(role: 'homeserver' | 'admin'): RouterClient {
    const client = new RouterClient(this.grpcAddress, this.tokens()[role]);
    this.#clients.push(client);
    return client;
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.exited;
    this.#close();
  }

  /** SIGTERM; the exit code. */
  async terminate(): Promise<number | null> {
    this.child.kill('SIGTERM');
    const code = await this.exited;
    this.#close();
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.kill();
    this.#close();
  }

  #close(): void {
    for (const client of this.#clients.splice(0)) client[Symbol.dispose]();
  }

  #line(line: string): void {
    try {
      this.lines.push(JSON.parse(line) as LogLine);
    } catch {
      this.otherOutput.push(line);
    }
    this.child.emit('routerline');
  }
}
