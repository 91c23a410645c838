/** What the tests of the MongoDB store share: databases of their own, fail points, and a way between that loses answers. */
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { BSON, MongoClient } from 'mongodb';
import type { Document } from 'mongodb';
import { systemClock, systemRandom } from '../../src/clock.ts';
import type { Clock } from '../../src/clock.ts';
import type { LogFields, Logger } from '../../src/logger.ts';
import { MONGO_LIMITS } from '../../src/store/mongo/limits.ts';
import type { MongoLimits } from '../../src/store/mongo/limits.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import type { Store } from '../../src/store/port.ts';
import { testDatabaseName } from '../support/mongod.ts';

/** Keeps the lines, to look for what must or must not stand in them. */
export class KeptLog implements Logger {
  readonly lines: string[] = [];
  debug = (fields: LogFields, message: string): void => this.#keep(fields, message);
  info = (fields: LogFields, message: string): void => this.#keep(fields, message);
  warn = (fields: LogFields, message: string): void => this.#keep(fields, message);
  error = (fields: LogFields, message: string): void => this.#keep(fields, message);

  #keep(fields: LogFields, message: string): void {
    this.lines.push(JSON.stringify({ ...fields, message }));
  }
}

export interface OpenOptions {
  readonly uri: string;
  readonly limits?: Partial<MongoLimits>;
  readonly clock?: Clock;
  readonly logger?: Logger;
}

export function openStore({ uri, limits = {}, clock = systemClock, logger = new KeptLog() }: OpenOptions): Promise<Store> {
  return openMongoStore(uri, { clock, random: systemRandom, logger, limits });
}

/** The given URI with another user, host, database or options. */
export function uriWith(
  uri: string,
  change: { readonly user?: string; readonly host?: string; readonly database?: string; readonly options?: Readonly<Record<string, string>> },
): string {
  const [, scheme = '', user = '', host = '', database = '', options = ''] = /^(mongodb(?:\+srv)?:\/\/)(?:([^@/]*)@)?([^/?]+)\/?([^?]*)\??(.*)$/.exec(uri) ?? [];
  const changed = new URLSearchParams(options);
  for (const [name, value] of Object.entries(change.options ?? {})) changed.set(name, value);
  const asUser = change.user ?? user;
  return `${scheme}${asUser === '' ? '' : `${asUser}@`}${change.host ?? host}/${change.database ?? database}?${changed.toString()}`;
}

/** A database of a test's own on a server, with an administrator's client; dropped at the end. */
export class MongoTestDatabase implements AsyncDisposable {
  readonly uri: string;
  readonly name = testDatabaseName();
  readonly #client: MongoClient;

  constructor(serverUri: string) {
    this.uri = uriWith(serverUri, { database: this.name });
    this.#client = new MongoClient(serverUri);
  }

  collection(name: string): ReturnType<ReturnType<MongoClient['db']>['collection']> {
    return this.#client.db(this.name).collection(name);
  }

  command(command: Document): Promise<Document> {
    return this.#client.db(this.name).command(command);
  }

  admin(command: Document): Promise<Document> {
    return this.#client.db('admin').command(command);
  }

  /** The next `times` commands of that name by a store fail as `fault` says; the tests' own client is spared. */
  async failNext(commandName: string, times: number, fault: Document): Promise<void> {
    await this.admin({ configureFailPoint: 'failCommand', mode: { times }, data: { failCommands: [commandName], appName: 'appservice-router', ...fault } });
  }

  /** Without dropping the database. */
  close(): Promise<void> {
    return this.#client.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.admin({ configureFailPoint: 'failCommand', mode: 'off' }).catch(() => undefined);
    await this.#client.db(this.name).dropDatabase();
    await this.#client.close();
  }
}

/** Where OP_MSG has its document: header 16 bytes, flags 4, kind of the first section 1. */
const BODY_OFFSET = 21;

/** A way to the server that can lose the answer to one command, after the server has carried it out, or be down altogether. */
export class LossyWay implements AsyncDisposable {
  /** First documents of the commands sent, without the sections after them. */
  readonly commands: Document[] = [];
  /** Names of the commands whose answer was lost. */
  readonly lost: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #target: { readonly host: string; readonly port: number };
  #toLose: string[] = [];
  #port = 0;

  private constructor(target: { readonly host: string; readonly port: number }) {
    this.#target = target;
    this.#server = createServer((socket) => this.#carry(socket));
  }

  /** A way to the primary that the database's set has now. */
  static async to(database: MongoTestDatabase): Promise<LossyWay> {
    const { primary } = await database.admin({ hello: 1 });
    const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(String(primary)) ?? [];
    const way = new LossyWay({ host, port: Number(port) });
    await way.up();
    return way;
  }

  get host(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** The answers to the next commands of these names, in this order, are lost with their connections. */
  loseAnswers(...commandNames: string[]): void {
    this.#toLose = commandNames;
  }

  async up(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(this.#port, '127.0.0.1', resolve));
    const address: string | AddressInfo | null = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    this.#port = address.port;
  }

  async down(): Promise<void> {
    const closed = new Promise<void>((resolve) => void this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.down();
  }

  #carry(near: Socket): void {
    const far = connect(this.#target);
    let losing: string | null = null;
    const end = (): void => {
      near.destroy();
      far.destroy();
      this.#sockets.delete(near);
    };
    this.#sockets.add(near);
    near.on('data', (bytes) => {
      const name = this.#note(bytes);
      if (name !== null && this.#toLose[0] === name) losing = this.#toLose.shift() ?? null;
      far.write(bytes);
    });
    far.on('data', (bytes) => {
      if (losing === null) return void near.write(bytes);
      this.lost.push(losing);
      end();
    });
    for (const socket of [near, far]) socket.on('error', end).on('close', end);
  }

  /** The name of the command that begins here; null for the rest of a long one. */
  #note(bytes: Buffer): string | null {
    try {
      const command = BSON.deserialize(bytes.subarray(BODY_OFFSET), { allowObjectSmallerThanBufferSize: true });
      const name = Object.keys(command)[0] ?? null;
      if (name !== null && name !== 'hello' && name !== 'ismaster') this.commands.push(command);
      return name;
    } catch {
      return null;
    }
  }
}

/** The system's clock, with something to happen when the store pauses before it tries again. */
export function clockWithPauses(onPause: () => Promise<void>): Clock {
  return {
    ...systemClock,
    async sleep(delayMs, signal) {
      // The bound of a call is far longer than a pause.
      if (delayMs < MONGO_LIMITS.callTimeoutMs / 10) return onPause();
      await systemClock.sleep(delayMs, signal);
    },
  };
}
