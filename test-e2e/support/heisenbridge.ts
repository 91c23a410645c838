/** heisenbridge, the IRC bridge, as its users run it; with what a person says to it to come into a channel. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { unusedPort } from '../../test/support/receiver.ts';
import type { Json, MatrixClient } from './matrix-client.ts';
import { Program } from './program.ts';
import type { PythonHome } from './software.ts';
import { SERVER_NAME } from './synapse.ts';

const START_TIMEOUT_MS = 60_000;

export class Heisenbridge implements AsyncDisposable {
  readonly userId = `@heisenbridge:${SERVER_NAME}`;
  /** As heisenbridge made it, with its real URL. */
  readonly registration: string;
  readonly #python: PythonHome;
  readonly #folder: string;
  readonly #port: number;
  #program: Program | null = null;

  private constructor(python: PythonHome, folder: string, registration: string, port: number) {
    this.#python = python;
    this.#folder = folder;
    this.registration = registration;
    this.#port = port;
  }

  /** Makes its registration in `folder`; nothing runs before {@link start}. */
  static async configure(python: PythonHome, folder: string): Promise<Heisenbridge> {
    mkdirSync(folder, { recursive: true });
    const file = join(folder, 'heisenbridge.yaml');
    execFileSync(python.command('heisenbridge'), ['-c', file, '--generate'], { cwd: folder, stdio: 'pipe' });
    const port = await unusedPort();
    writeFileSync(file, stringify({ ...(parse(readFileSync(file, 'utf8')) as Json), url: `http://127.0.0.1:${port}` }));
    return new Heisenbridge(python, folder, file, port);
  }

  /** Resolves when it takes transactions. */
  async start(homeserverUrl: string, owner: string): Promise<void> {
    const address = `http://127.0.0.1:${this.#port}`;
    this.#program = Program.start({
      name: 'heisenbridge',
      command: this.#python.command('heisenbridge'),
      args: ['-v', '-c', this.registration, '-l', '127.0.0.1', '-p', String(this.#port), '-o', owner, homeserverUrl],
      cwd: this.#folder,
      logFile: join(this.#folder, 'heisenbridge.log'),
    });
    await this.#program.until('listens', START_TIMEOUT_MS, async () => fetch(address).then(() => true as const, () => null));
  }

  /** It keeps its connections and does nothing, until {@link thaw}. */
  freeze(): void {
    this.#program?.signal('SIGSTOP');
  }

  thaw(): void {
    this.#program?.signal('SIGCONT');
  }

  async kill(): Promise<void> {
    await this.#program?.kill();
  }

  output(): string {
    return this.#program?.output() ?? '';
  }

  /** The owner comes into the control room that the bridge made, has it open a network, and comes into its room. */
  async openNetwork(owner: MatrixClient, ircPort: number): Promise<{ controlRoom: string; networkRoom: string }> {
    const controlRoom = await owner.acceptInvite();
    await owner.ask(controlRoom, 'ADDNETWORK irctest', /added/);
    await owner.ask(controlRoom, `ADDSERVER irctest 127.0.0.1 ${ircPort}`, /added/);
    await owner.say(controlRoom, 'OPEN irctest');
    const networkRoom = await owner.acceptInvite();
    await owner.ask(networkRoom, 'NICK alice', /alice/);
    await owner.ask(networkRoom, 'CONNECT', /Welcome to the Internet Relay Network/);
    return { controlRoom, networkRoom };
  }

  /** The channel's room, with the owner in it. */
  async joinChannel(owner: MatrixClient, networkRoom: string, channel: string): Promise<string> {
    await owner.say(networkRoom, `JOIN ${channel}`);
    return owner.acceptInvite();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program?.stop();
  }
}
