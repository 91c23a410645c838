/**
 * A real Synapse on SQLite in a folder of its own, on a free loopback port. It has no federation, no key or identity
 * servers and sends no statistics, so it talks to nobody but its appservices; it can be stopped, killed and started again.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { stringify } from 'yaml';
import { unusedPort } from '../../test/support/receiver.ts';
import { MatrixClient } from './matrix-client.ts';
import type { Json } from './matrix-client.ts';
import { Program, until } from './program.ts';
import type { PythonHome } from './software.ts';

export const SERVER_NAME = 'hs.test';
const START_TIMEOUT_MS = 90_000;
const STORE_TIMEOUT_MS = 30_000;
const LOCK_TIMEOUT_MS = 5_000;
const NO_LIMIT = { per_second: 100_000, burst_count: 100_000 };

export interface SynapseOptions {
  /** Files of registrations. */
  readonly registrations: readonly string[];
  /** Further lines of homeserver.yaml. */
  readonly settings?: Json;
}

export class Synapse implements AsyncDisposable {
  readonly url: string;
  readonly #python: PythonHome;
  readonly #folder: string;
  readonly #secret: string;
  readonly #port: number;
  #program: Program | null = null;

  private constructor(python: PythonHome, folder: string, port: number, secret: string) {
    this.#python = python;
    this.#folder = folder;
    this.#secret = secret;
    this.#port = port;
    this.url = `http://127.0.0.1:${port}`;
  }

  /** Writes the configuration into `folder`, which is made; nothing runs before {@link start}. */
  static async configure(python: PythonHome, folder: string, options: SynapseOptions): Promise<Synapse> {
    const port = await unusedPort();
    mkdirSync(folder, { recursive: true });
    const secret = randomBytes(16).toString('hex');
    writeFileSync(join(folder, 'signing.key'), `ed25519 a_test ${randomBytes(32).toString('base64').replaceAll('=', '')}\n`);
    writeFileSync(join(folder, 'log.yaml'), stringify(LOGGING));
    const synapse = new Synapse(python, folder, port, secret);
    synapse.reconfigure(options);
    return synapse;
  }

  /** Writes homeserver.yaml anew, for the next start. */
  reconfigure({ registrations, settings = {} }: SynapseOptions): void {
    const inFolder = (name: string): string => join(this.#folder, name);
    writeFileSync(inFolder('homeserver.yaml'), stringify({ ...isolated(this.#port, this.#secret, inFolder), app_service_config_files: registrations, ...settings }));
  }

  /** Resolves when it answers clients. */
  async start(): Promise<void> {
    this.#program = Program.start({
      name: 'Synapse',
      command: this.#python.command('python'),
      args: ['-m', 'synapse.app.homeserver', '-c', join(this.#folder, 'homeserver.yaml')],
      cwd: this.#folder,
      logFile: join(this.#folder, 'synapse.log'),
    });
    await this.#program.until('answers', START_TIMEOUT_MS, async () => {
      const answered = await fetch(`${this.url}/health`).then(
        (response) => response.ok,
        () => false,
      );
      return answered ? true : null;
    });
  }

  /** Ends in order; the exit code. */
  async stop(): Promise<number | null> {
    return this.#program?.stop() ?? null;
  }

  /** Resolves once it has stored these events in transactions to be sent. What it has in memory alone is gone when it ends. */
  async hasQueued(eventIds: readonly string[]): Promise<void> {
    using database = new DatabaseSync(join(this.#folder, 'homeserver.db'), { readOnly: true, timeout: LOCK_TIMEOUT_MS });
    const select = database.prepare('SELECT event_ids FROM application_services_txns');
    await until('the events are in transactions of Synapse', STORE_TIMEOUT_MS, () => {
      const stored = select.all().map((row) => String(row['event_ids'])).join(' ');
      return eventIds.every((eventId) => stored.includes(eventId)) ? true : null;
    });
  }

  async kill(): Promise<void> {
    await this.#program?.kill();
  }

  get processId(): number {
    return this.#program?.processId ?? 0;
  }

  output(): string {
    return this.#program?.output() ?? '';
  }

  /** A new person, by the shared secret. */
  async register(localpart: string, { admin = false } = {}): Promise<MatrixClient> {
    const path = `${this.url}/_synapse/admin/v1/register`;
    const { nonce } = (await (await fetch(path)).json()) as { nonce: string };
    const password = randomBytes(8).toString('hex');
    const mac = createHmac('sha1', this.#secret).update([nonce, localpart, password, admin ? 'admin' : 'notadmin'].join('\0')).digest('hex');
    const response = await fetch(path, { method: 'POST', body: JSON.stringify({ nonce, username: localpart, password, admin, mac }) });
    const answer = (await response.json()) as { user_id: string; access_token: string };
    if (!response.ok) throw new Error(`Synapse did not register ${localpart}: ${JSON.stringify(answer)}`);
    return new MatrixClient(this.url, answer.user_id, answer.access_token);
  }

  /** A client with this appservice's token, acting as one of its users or as its sender. */
  as(asToken: string, userId: string): MatrixClient {
    return new MatrixClient(this.url, userId, asToken);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

const LOGGING = {
  version: 1,
  formatters: { line: { format: '%(asctime)s %(levelname)s %(name)s %(message)s' } },
  handlers: { console: { class: 'logging.StreamHandler', formatter: 'line' } },
  root: { level: 'WARNING', handlers: ['console'] },
  disable_existing_loggers: false,
};

function isolated(port: number, secret: string, inFolder: (name: string) => string): Json {
  return {
    server_name: SERVER_NAME,
    pid_file: inFolder('homeserver.pid'),
    listeners: [{ port, type: 'http', bind_addresses: ['127.0.0.1'], resources: [{ names: ['client'] }] }],
    database: { name: 'sqlite3', args: { database: inFolder('homeserver.db') } },
    log_config: inFolder('log.yaml'),
    media_store_path: inFolder('media'),
    signing_key_path: inFolder('signing.key'),
    macaroon_secret_key: secret,
    form_secret: secret,
    registration_shared_secret: secret,
    bcrypt_rounds: 4,
    report_stats: false,
    federation_domain_whitelist: [],
    trusted_key_servers: [],
    suppress_key_server_warning: true,
    url_preview_enabled: false,
    rc_message: NO_LIMIT,
    rc_registration: NO_LIMIT,
    rc_joins: { local: NO_LIMIT, remote: NO_LIMIT },
    rc_invites: { per_room: NO_LIMIT, per_user: NO_LIMIT, per_issuer: NO_LIMIT },
    rc_admin_redaction: NO_LIMIT,
    rc_room_creation: NO_LIMIT,
  };
}
