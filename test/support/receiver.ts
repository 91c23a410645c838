/**
 * An appservice whose every answer is scripted, down to the bytes: a TCP server on a free loopback port that reads whole
 * requests, keeps them, and hands each to the script. For appservices that behave, and above all for those that do not.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';

export interface ReceivedRequest {
  readonly method: string;
  readonly target: string;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** 1 for the first connection that was opened. */
  readonly connection: number;
}

/** Answers one request on its connection. */
export type Script = (connection: Socket, request: ReceivedRequest) => void;

/** A whole answer; `content-length` is added unless `headers` has a framing of its own. */
export function answer(status: number, body = '{}', headers: Readonly<Record<string, string>> = {}): Script {
  return (connection) => {
    const framing = 'content-length' in headers || 'transfer-encoding' in headers ? {} : { 'content-length': String(Buffer.byteLength(body)) };
    const lines = Object.entries({ ...framing, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
    connection.write(`HTTP/1.1 ${status} X\r\n${lines.join('')}\r\n${body}`);
  };
}

/** Bytes as they are. */
export function raw(bytes: string): Script {
  return (connection) => void connection.write(bytes);
}

/** The head of an answer, then `piece` for as long as the connection lives. */
export function endless(head: string, piece: string): Script {
  return (connection) => {
    connection.write(head);
    const go = (): void => {
      while (!connection.destroyed && connection.write(piece));
      if (!connection.destroyed) connection.once('drain', go);
    };
    go();
  };
}

export const hang: Script = () => undefined;
export const reset: Script = (connection) => void connection.resetAndDestroy();
export const close: Script = (connection) => void connection.end();

export interface ReceiverOptions {
  /** One for each request in turn; the last is for all that follow. */
  readonly scripts: readonly Script[];
  readonly tls?: { readonly key: string; readonly cert: string };
  /** Looks at each connection when it is accepted. */
  readonly onConnection?: (connection: Socket, count: number) => void;
}

export class Receiver implements AsyncDisposable {
  readonly requests: ReceivedRequest[] = [];
  readonly #scripts: readonly Script[];
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  readonly #waiting = new Set<() => void>();
  readonly #isTls: boolean;
  #connectionCount = 0;

  private constructor({ scripts, tls, onConnection }: ReceiverOptions) {
    this.#scripts = scripts;
    this.#isTls = tls !== undefined;
    const accept = (connection: Socket): void => {
      this.#connectionCount += 1;
      this.#serve(connection, this.#connectionCount);
      onConnection?.(connection, this.#connectionCount);
    };
    this.#server = tls === undefined ? createServer(accept) : createTlsServer(tls, accept);
    // A client that does not like the certificate goes away in the middle.
    this.#server.on('tlsClientError', () => undefined);
  }

  static async start(...scripts: readonly Script[]): Promise<Receiver> {
    return Receiver.startWith({ scripts });
  }

  static async startWith(options: ReceiverOptions): Promise<Receiver> {
    const receiver = new Receiver(options);
    receiver.#server.listen(0, '127.0.0.1');
    await once(receiver.#server, 'listening');
    return receiver;
  }

  get port(): number {
    return portOf(this.#server);
  }

  get url(): string {
    return `${this.#isTls ? 'https' : 'http'}://127.0.0.1:${this.port}`;
  }

  get connectionCount(): number {
    return this.#connectionCount;
  }

  get openCount(): number {
    return this.#open.size;
  }

  /** Resolves when `predicate` holds; looks whenever something came or went. */
  async until(predicate: (receiver: Receiver) => boolean): Promise<void> {
    while (!predicate(this)) {
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
      });
    }
  }

  received(count: number): Promise<void> {
    return this.until(({ requests }) => requests.length >= count);
  }

  /** Closes the connections that are open now. */
  dropConnections(): void {
    for (const connection of this.#open) connection.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.dropConnections();
    await once(this.#server, 'close');
  }

  #serve(connection: Socket, count: number): void {
    let held = Buffer.alloc(0);
    this.#open.add(connection);
    connection.on('error', () => undefined);
    connection.on('close', () => {
      this.#open.delete(connection);
      this.#changed();
    });
    connection.on('data', (piece: Buffer) => {
      held = Buffer.concat([held, piece]);
      for (let parsed = parseRequest(held, count); parsed !== null; parsed = parseRequest(held, count)) {
        held = held.subarray(parsed.length);
        const script = this.#scripts[Math.min(this.requests.length, this.#scripts.length - 1)];
        this.requests.push(parsed.request);
        script?.(connection, parsed.request);
        this.#changed();
      }
    });
    this.#changed();
  }

  #changed(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resolve of waiting) resolve();
  }
}

export function portOf(server: { address(): AddressInfo | string | null }): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server does not listen on a port');
  return address.port;
}

/** A loopback port on which nothing listens. */
export async function unusedPort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = portOf(server);
  server.close();
  await once(server, 'close');
  return port;
}

function parseRequest(bytes: Buffer, connection: number): { request: ReceivedRequest; length: number } | null {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd === -1) return null;
  const [requestLine = '', ...lines] = bytes.toString('latin1', 0, headEnd).split('\r\n');
  const [method = '', target = ''] = requestLine.split(' ');
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const at = line.indexOf(':');
    headers[line.slice(0, at).toLowerCase()] = line.slice(at + 1).trim();
  }
  const length = headEnd + 4 + Number(headers['content-length'] ?? 0);
  if (bytes.byteLength < length) return null;
  return { request: { method, target, headers, body: Buffer.from(bytes.subarray(headEnd + 4, length)), connection }, length };
}
