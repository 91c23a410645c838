/** The router as anybody runs it: a process, told by environment what to do, on a data directory of its own. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Interceptor, Transport } from '@connectrpc/connect';
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';

const MAIN = join(import.meta.dirname, '..', '..', 'src', 'main.ts');
/** Lines of its log that are shown if it does not start. */
const SHOWN_LINES = 5;

export class RouterProcess implements AsyncDisposable {
  readonly dataDir: string;
  /** Where it serves gRPC, `host:port`. */
  readonly grpcAddress: string;
  readonly #child: ChildProcess;
  readonly #sessions: Http2SessionManager[] = [];

  private constructor(child: ChildProcess, dataDir: string, grpcAddress: string) {
    this.#child = child;
    this.dataDir = dataDir;
    this.grpcAddress = grpcAddress;
  }

  /** Resolves when the router is ready. Rejects with the last lines of its log if it ends before. */
  static async start(settings: Readonly<Record<string, string>>): Promise<RouterProcess> {
    const dataDir = await mkdtemp(join(tmpdir(), 'appservice-router-demo-'));
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, 'serve'], {
      env: { PATH: process.env['PATH'], ROUTER_DATA_DIR: dataDir, ROUTER_GRPC_LISTEN: '127.0.0.1:0', ROUTER_HTTP_LISTEN: '127.0.0.1:0', ROUTER_LOG_FORMAT: 'json', ...settings },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A Ctrl-C is for the demo, which then ends the router.
      detached: true,
    });
    try {
      return new RouterProcess(child, dataDir, await grpcAddressOf(child));
    } catch (error) {
      child.kill('SIGKILL');
      await rm(dataDir, { recursive: true, force: true });
      throw error;
    }
  }

  /** A way to the router with the credential that its first start created for this role. */
  async transport(role: 'homeserver' | 'admin'): Promise<Transport> {
    const credentials: unknown = JSON.parse(await readFile(join(this.dataDir, 'credentials.json'), 'utf8'));
    const token: unknown = typeof credentials === 'object' && credentials !== null ? Reflect.get(credentials, role) : undefined;
    if (typeof token !== 'string') throw new Error(`credentials.json has no token for the role ${role}`);
    const authorize: Interceptor = (next) => (request) => {
      request.header.set('authorization', `Bearer ${token}`);
      return next(request);
    };
    const baseUrl = `http://${this.grpcAddress}`;
    const sessionManager = new Http2SessionManager(baseUrl);
    this.#sessions.push(sessionManager);
    return createGrpcTransport({ baseUrl, sessionManager, interceptors: [authorize] });
  }

  /** SIGTERM: it drains and ends. Then its data directory goes. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions) session.abort();
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = once(this.#child, 'exit');
      this.#child.kill('SIGTERM');
      await ended;
    }
    await rm(this.dataDir, { recursive: true, force: true });
  }
}

/** The gRPC address of its ready line. */
async function grpcAddressOf(child: ChildProcess): Promise<string> {
  const output: string[] = [];
  return new Promise((resolve, reject) => {
    const read = (line: string): void => {
      const address = readyAddress(line);
      if (address !== null) resolve(address);
      // Read on all the same: a pipe that nobody reads would stop the router.
      output.push(line);
      if (output.length > SHOWN_LINES) output.shift();
    };
    for (const stream of [child.stdout, child.stderr]) if (stream !== null) createInterface({ input: stream }).on('line', read);
    child.once('error', reject);
    child.once('close', () => reject(new Error(`the router ended before it was ready:\n${output.join('\n')}`)));
  });
}

function readyAddress(line: string): string | null {
  try {
    const fields: unknown = JSON.parse(line);
    if (typeof fields !== 'object' || fields === null || Reflect.get(fields, 'msg') !== 'ready') return null;
    const address: unknown = Reflect.get(fields, 'grpc_address');
    return typeof address === 'string' ? address : null;
  } catch {
    return null;
  }
}
