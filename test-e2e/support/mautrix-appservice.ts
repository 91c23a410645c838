/** An appservice on mautrix, the Python library of many bridges, that creates on query and writes down what it gets. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { unusedPort } from '../../test/support/receiver.ts';
import { Program, until } from './program.ts';
import type { PythonHome } from './software.ts';
import { SERVER_NAME } from './synapse.ts';

const PROGRAM = join(import.meta.dirname, 'mautrix_appservice.py');
const START_TIMEOUT_MS = 60_000;
const ARRIVAL_TIMEOUT_MS = 90_000;

export interface MautrixRecord {
  readonly kind: 'ready' | 'event' | 'user_query' | 'alias_query';
  readonly id: string;
  readonly type?: string;
  readonly body?: string | null;
}

export class MautrixAppservice implements AsyncDisposable {
  readonly registration: string;
  readonly asToken = 'as-mautrix-long-enough';
  readonly #python: PythonHome;
  readonly #folder: string;
  readonly #port: number;
  #program: Program | null = null;

  private constructor(python: PythonHome, folder: string, port: number) {
    this.#python = python;
    this.#folder = folder;
    this.#port = port;
    this.registration = join(folder, 'mautrix.yaml');
  }

  /** Claims the users `@ghost_…` and the aliases `#ghost_…`. Nothing runs before {@link start}. */
  static async configure(python: PythonHome, folder: string): Promise<MautrixAppservice> {
    mkdirSync(folder, { recursive: true });
    const appservice = new MautrixAppservice(python, folder, await unusedPort());
    writeFileSync(
      appservice.registration,
      stringify({
        id: 'mautrix',
        url: `http://127.0.0.1:${appservice.#port}`,
        as_token: appservice.asToken,
        hs_token: 'hs-mautrix-long-enough',
        sender_localpart: 'mautrixbot',
        rate_limited: false,
        namespaces: {
          users: [{ regex: `@ghost_.*:${SERVER_NAME}`, exclusive: true }],
          aliases: [{ regex: `#ghost_.*:${SERVER_NAME}`, exclusive: true }],
        },
      }),
    );
    return appservice;
  }

  /** Resolves when it takes transactions. */
  async start(homeserverUrl: string): Promise<void> {
    const readyBefore = this.records().filter(({ kind }) => kind === 'ready').length;
    this.#program = Program.start({
      name: 'the mautrix appservice',
      command: this.#python.command('python'),
      args: [PROGRAM, homeserverUrl, SERVER_NAME, this.registration, String(this.#port), this.#recordFile],
      cwd: this.#folder,
      logFile: join(this.#folder, 'mautrix.log'),
    });
    await this.#program.until('is ready', START_TIMEOUT_MS, async () => (this.records().filter(({ kind }) => kind === 'ready').length > readyBefore ? true : null));
  }

  async kill(): Promise<void> {
    await this.#program?.kill();
  }

  records(): MautrixRecord[] {
    if (!existsSync(this.#recordFile)) return [];
    const lines = readFileSync(this.#recordFile, 'utf8').split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as MautrixRecord);
  }

  /** Waits until it has had as many messages; the ids of all of them in order, with those that came twice. */
  async messages(count: number): Promise<string[]> {
    const ids = (): string[] => this.records().filter(({ kind, type }) => kind === 'event' && type === 'm.room.message').map(({ id }) => id);
    await until(`${count} messages have arrived`, ARRIVAL_TIMEOUT_MS, () => (new Set(ids()).size >= count ? true : null));
    return ids();
  }

  output(): string {
    return this.#program?.output() ?? '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program?.stop();
  }

  get #recordFile(): string {
    return join(this.#folder, 'record.jsonl');
  }
}
