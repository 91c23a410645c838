/**
 * Stands between Synapse and the router and takes the time of each transaction from its last byte to the answer, which
 * the router gives when it is durable. Its own way through adds to the figure, so it is an upper bound.
 */
import { once } from 'node:events';
import { Agent, createServer, request as startRequest } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { portOf } from '../../test/support/receiver.ts';

export interface TappedTransaction {
  /** As the homeserver numbers them. */
  readonly txnId: string;
  /** When it was answered. */
  readonly atMs: number;
  readonly eventCount: number;
  readonly answerMs: number;
}

export class Tap implements AsyncDisposable {
  /** Those that were answered with 2xx. */
  readonly transactions: TappedTransaction[] = [];
  readonly #target: string;
  readonly #server: Server;
  readonly #agent = new Agent({ keepAlive: true });

  private constructor(target: string) {
    this.#target = target;
    this.#server = createServer((request, response) => this.#forward(request, response));
  }

  static async start(target: string): Promise<Tap> {
    const tap = new Tap(target);
    tap.#server.listen(0, '127.0.0.1');
    await once(tap.#server, 'listening');
    return tap;
  }

  get url(): string {
    return `http://127.0.0.1:${portOf(this.#server)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    this.#agent.destroy();
    await once(this.#server, 'close');
  }

  #forward(request: IncomingMessage, response: ServerResponse): void {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts);
      const startedMs = performance.now();
      const { 'transfer-encoding': _, ...headers } = request.headers;
      const forwarded = startRequest(`${this.#target}${request.url ?? '/'}`, { method: request.method, headers: { ...headers, 'content-length': body.byteLength }, agent: this.#agent }, (answer) => {
        const endedMs = performance.now();
        const status = answer.statusCode ?? 502;
        if (request.method === 'PUT' && status >= 200 && status < 300) this.transactions.push({ txnId: txnIdOf(request), atMs: endedMs, eventCount: eventCountOf(body), answerMs: endedMs - startedMs });
        response.writeHead(status, answer.headers);
        answer.pipe(response);
      });
      forwarded.on('error', () => {
        if (!response.headersSent) response.writeHead(502, { 'content-type': 'application/json' });
        response.end('{"errcode":"M_UNKNOWN"}');
      });
      forwarded.end(body);
    });
  }
}

function txnIdOf({ url = '/' }: IncomingMessage): string {
  return new URL(url, 'http://tap').pathname.split('/').at(-1) ?? '';
}

function eventCountOf(body: Buffer): number {
  return (JSON.parse(body.toString()) as { events: unknown[] }).events.length;
}
