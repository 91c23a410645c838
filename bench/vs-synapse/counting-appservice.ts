/**
 * The appservice of the comparison: on one loopback port that it can leave, as a program that is down does, and come
 * back to. It takes every transaction and writes down when it came and which messages were in it.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { unusedPort } from '../../test/support/receiver.ts';

export interface SeenRequest {
  readonly atMs: number;
  readonly eventCount: number;
  /** Bodies of the room messages in it, in order. */
  readonly messages: readonly string[];
}

export class CountingAppservice implements AsyncDisposable {
  readonly port: number;
  readonly requests: SeenRequest[] = [];
  #server: Server | null = null;

  private constructor(port: number) {
    this.port = port;
  }

  static async make(): Promise<CountingAppservice> {
    return new CountingAppservice(await unusedPort());
  }

  async up(): Promise<void> {
    this.#server = createServer((request, response) => this.#serve(request, response));
    this.#server.listen(this.port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  /** Connections are refused from here on. */
  async down(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down();
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const { pathname } = new URL(request.url ?? '/', 'http://appservice');
      response.setHeader('content-type', 'application/json');
      if (request.method === 'GET') response.writeHead(404).end('{"errcode":"M_NOT_FOUND"}');
      else response.end('{}');
      if (request.method !== 'PUT' || !pathname.includes('/transactions/')) return;
      const { events } = JSON.parse(Buffer.concat(parts).toString()) as { events: { type: string; content: { body?: string } }[] };
      const messages = events.filter(({ type }) => type === 'm.room.message').map(({ content }) => content.body ?? '');
      this.requests.push({ atMs: performance.now(), eventCount: events.length, messages });
    });
  }
}
