/**
 * What the starters of appservices written with published libraries have in common: the library's own Express
 * application on a free loopback port, and what it emitted.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { RequestListener, Server } from 'node:http';
import { portOf } from './receiver.ts';

/** What an appservice written with a generation of matrix-bot-sdk is started with. */
export interface BotSdkOptions {
  readonly hsToken: string;
  readonly asToken: string;
  readonly homeserverUrl: string;
  readonly serverName?: string;
  readonly senderLocalpart?: string;
  readonly port?: number;
  /** Told of what the library emits beside room events, by the name of the emission. */
  readonly onOther?: (name: string, value: unknown) => void;
}

export class LibraryReceiver implements AsyncDisposable {
  /** What the library emitted to its program, in order. */
  readonly events: unknown[] = [];
  readonly #server: Server;
  readonly #waiting = new Set<() => void>();

  private constructor(application: RequestListener) {
    this.#server = createServer(application);
  }

  static async listen(application: RequestListener, port = 0): Promise<LibraryReceiver> {
    const receiver = new LibraryReceiver(application);
    receiver.#server.listen(port, '127.0.0.1');
    await once(receiver.#server, 'listening');
    return receiver;
  }

  get port(): number {
    return portOf(this.#server);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  emitted(event: unknown): void {
    this.events.push(event);
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resolve of waiting) resolve();
  }

  /** Resolves when so many events have been emitted. */
  async received(count: number): Promise<void> {
    await this.until(() => this.events.length >= count);
  }

  /** Resolves when it holds, looked at whenever something is emitted. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, 'close');
  }
}

/** Takes the access log out of an Express 4 application and keeps errors of its program off the test's output. */
export function silence(application: { set(name: 'env', value: 'test'): unknown }): void {
  application.set('env', 'test');
  const router: unknown = Reflect.get(application, '_router');
  const stack: unknown = typeof router === 'function' ? Reflect.get(router, 'stack') : null;
  if (!Array.isArray(stack)) return;
  const at = stack.findIndex((layer: unknown) => typeof layer === 'object' && layer !== null && 'name' in layer && layer.name === 'logger');
  if (at !== -1) stack.splice(at, 1);
}
