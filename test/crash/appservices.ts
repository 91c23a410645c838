/**
 * Appservices that write down every transaction they are sent and fail in the common ways: an error, a lost answer, a
 * connection that breaks before anything was taken, a slow answer. Each is behind a fault proxy of its own.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { portOf } from '../support/receiver.ts';
import type { PushRecord } from '../support/delivery-world.ts';
import { FaultProxy } from './fault-proxy.ts';

type Behaviour = 'ok' | 'error' | 'lost_answer' | 'reset' | 'slow';

const SLOW_MS = 250;
const PATH = /^\/([^/]+)\/_matrix\/app\/v1\/transactions\/(\d+)$/;

export class Appservices implements AsyncDisposable {
  /** What came since it was last taken, in the order of arrival. */
  pushes: PushRecord[] = [];
  /** Share of the answers that are none or an error. */
  faultShare = 0;
  /** Answers that were not heard, by appservice: the same transaction may come again. */
  readonly unheard = new Map<string, number>();
  readonly #server: Server;
  readonly #proxies = new Map<string, FaultProxy>();
  readonly #chance: () => number;
  #order = 0;

  private constructor(chance: () => number) {
    this.#chance = chance;
    this.#server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => this.#serve(request, response));
  }

  static async start(ids: readonly string[], chance: () => number): Promise<Appservices> {
    const appservices = new Appservices(chance);
    appservices.#server.listen(0, '127.0.0.1');
    await once(appservices.#server, 'listening');
    for (const id of ids) appservices.#proxies.set(id, await FaultProxy.start(portOf(appservices.#server)));
    return appservices;
  }

  url(id: string): string {
    return `http://127.0.0.1:${this.proxy(id).port}/${id}`;
  }

  proxy(id: string): FaultProxy {
    const proxy = this.#proxies.get(id);
    if (proxy === undefined) throw new Error(`there is no appservice ${id}`);
    return proxy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const proxy of this.#proxies.values()) await proxy[Symbol.asyncDispose]();
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #behaviour(): Behaviour {
    const dice = this.#chance();
    if (dice >= this.faultShare) return 'ok';
    const kinds: readonly Behaviour[] = ['error', 'lost_answer', 'reset', 'slow'];
    return kinds[Math.floor((dice / this.faultShare) * kinds.length)] ?? 'ok';
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const [, appserviceId = '', txnId = ''] = PATH.exec(request.url ?? '') ?? [];
    const behaviour = this.#behaviour();
    if (behaviour === 'reset') return void request.socket.destroy();
    const parts: Buffer[] = [];
    request.on('error', () => undefined);
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const answered = behaviour === 'error' ? 'rejected' : 'delivered';
      const record: PushRecord = { process: '', appserviceId, url: null, txnId, text: Buffer.concat(parts).toString(), timeMs: performance.now(), beganAt: ++this.#order, answeredAt: null, answered, heard: null };
      this.pushes.push(record);
      const finish = (): void => {
        record.answeredAt = ++this.#order;
        if (behaviour === 'lost_answer') request.socket.destroy();
        else response.writeHead(answered === 'delivered' ? 200 : 500, { 'content-type': 'application/json' }).end('{}');
      };
      response.on('close', () => {
        if (answered === 'delivered' && !response.writableFinished) this.#isUnheard(appserviceId);
      });
      if (behaviour === 'slow') setTimeout(finish, SLOW_MS * this.#chance());
      else finish();
    });
  }

  #isUnheard(appserviceId: string): void {
    this.unheard.set(appserviceId, (this.unheard.get(appserviceId) ?? 0) + 1);
  }
}
