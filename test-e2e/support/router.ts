/** The router as a process of its own on the embedded store, on ports that stay the same when it is started again. */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Appservice } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { unusedPort } from '../../test/support/receiver.ts';
import { RouterClient } from '../../test/support/router-client.ts';
import { Program, until } from './program.ts';
import { SERVER_NAME } from './synapse.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'src', 'main.ts');
const START_TIMEOUT_MS = 30_000;
const WAIT_MS = 60_000;

export class Router implements AsyncDisposable {
  readonly url: string;
  /** Environment beside that of {@link environment}. */
  settings: Readonly<Record<string, string>> = {};
  readonly #folder: string;
  readonly #httpPort: number;
  readonly #grpcPort: number;
  #program: Program | null = null;
  #commandCount = 0;
  #client: RouterClient | null = null;

  private constructor(folder: string, httpPort: number, grpcPort: number) {
    this.#folder = folder;
    this.#httpPort = httpPort;
    this.#grpcPort = grpcPort;
    this.url = `http://127.0.0.1:${httpPort}`;
  }

  /** Its data will be in `folder`, which is made; nothing runs before {@link start}. */
  static async configure(folder: string): Promise<Router> {
    mkdirSync(folder, { recursive: true });
    return new Router(folder, await unusedPort(), await unusedPort());
  }

  get environment(): Record<string, string> {
    return {
      ROUTER_DATA_DIR: this.#folder,
      ROUTER_SERVER_NAME: SERVER_NAME,
      ROUTER_HTTP_LISTEN: `127.0.0.1:${this.#httpPort}`,
      ROUTER_GRPC_LISTEN: `127.0.0.1:${this.#grpcPort}`,
      ROUTER_LOG_FORMAT: 'json',
    };
  }

  /** Resolves when it is ready. */
  async start(): Promise<void> {
    this.#program = Program.start({
      name: 'the router',
      command: process.execPath,
      args: ['--disable-warning=ExperimentalWarning', MAIN, 'serve'],
      cwd: this.#folder,
      env: { ...this.environment, ...this.settings },
      logFile: join(this.#folder, 'router.log'),
    });
    await this.#program.until('is ready', START_TIMEOUT_MS, async () =>
      fetch(`${this.url}/readyz`).then(
        (response) => (response.ok ? (true as const) : null),
        () => null,
      ),
    );
    const { admin } = JSON.parse(readFileSync(join(this.#folder, 'credentials.json'), 'utf8')) as { admin: string };
    this.#client = new RouterClient(`127.0.0.1:${this.#grpcPort}`, admin);
  }

  /** Runs `appservice-router ARGS…` beside it; what it printed. Rejects unless it ends with the exit code. */
  async command(args: readonly string[], exitCode = 0): Promise<string> {
    const logName = `command-${this.#commandCount++}.log`;
    const program = Program.start({ name: `appservice-router ${args.join(' ')}`, command: process.execPath, args: ['--disable-warning=ExperimentalWarning', MAIN, ...args], cwd: this.#folder, env: { ...this.environment, ...this.settings }, logFile: join(this.#folder, logName) });
    const code = await program.exited;
    if (code !== exitCode) throw new Error(`${program.name} ended with ${code}: ${program.output()}`);
    return program.output();
  }

  get admin(): RouterClient {
    if (this.#client === null) throw new Error('the router was not started');
    return this.#client;
  }

  async status(appserviceId: string): Promise<Appservice> {
    const { appservice } = await this.admin.call(AppserviceAdmin.method.getAppservice, { appserviceId });
    if (appservice === undefined) throw new Error(`no status of ${appserviceId}`);
    return appservice;
  }

  /** Waits until the status is as wanted. */
  async statusThat(appserviceId: string, what: string, fits: (status: Appservice) => boolean): Promise<Appservice> {
    return until(`${appserviceId} ${what}`, WAIT_MS, async () => {
      const status = await this.status(appserviceId);
      return fits(status) ? status : null;
    });
  }

  /** SIGTERM; the exit code. */
  async stop(): Promise<number | null> {
    this.#client?.[Symbol.dispose]();
    return this.#program?.stop() ?? null;
  }

  async kill(): Promise<void> {
    this.#client?.[Symbol.dispose]();
    await this.#program?.kill();
  }

  get processId(): number {
    return this.#program?.processId ?? 0;
  }

  output(): string {
    return this.#program?.output() ?? '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
