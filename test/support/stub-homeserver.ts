/**
 * The client-server API as far as appservice libraries call it when they start: everybody is registered, nobody is in
 * a room, nothing is stored. On a free loopback port.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import { portOf } from './receiver.ts';

export class StubHomeserver implements AsyncDisposable {
  /** Method and path of each request, without the query. */
  readonly requests: string[] = [];
  readonly #server: Server;

  private constructor(serverName: string) {
    this.#server = createServer((request, response) => {
      request.resume();
      const { pathname, searchParams } = new URL(request.url ?? '/', 'http://stub');
      this.requests.push(`${request.method} ${pathname}`);
      const [status, body] = answerTo(pathname, searchParams.get('user_id') ?? `@stub:${serverName}`);
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  }

  static async start(serverName = 'example.org'): Promise<StubHomeserver> {
    const stub = new StubHomeserver(serverName);
    stub.#server.listen(0, '127.0.0.1');
    await once(stub.#server, 'listening');
    return stub;
  }

  get url(): string {
    return `http://127.0.0.1:${portOf(this.#server)}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }
}

function answerTo(path: string, userId: string): [status: number, body: unknown] {
  if (path.endsWith('/register')) return [200, { user_id: userId, device_id: 'STUB', access_token: 'stub' }];
  if (path.endsWith('/account/whoami')) return [200, { user_id: userId }];
  if (path.endsWith('/client/versions')) return [200, { versions: ['r0.6.1', 'v1.1', 'v1.11'], unstable_features: {} }];
  if (path.endsWith('/joined_rooms')) return [200, { joined_rooms: [] }];
  if (path.includes('/account_data/')) return [404, { errcode: 'M_NOT_FOUND', error: 'nothing stored' }];
  return [200, {}];
}
