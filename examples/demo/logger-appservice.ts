/**
 * An appservice that logs rooms, written with the published library matrix-appservice as one would write it for any
 * homeserver. It knows nothing of the router but a token.
 */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { AppService } from 'matrix-appservice';

export interface LoggedTransaction {
  readonly txnId: string;
  readonly eventCount: number;
}

export class LoggerAppservice {
  /** Ids of the events, as they came. */
  readonly eventIds: string[] = [];
  readonly transactions: LoggedTransaction[] = [];
  readonly port: number;
  /** What it writes in its log. */
  log: (line: string) => void = () => undefined;
  readonly #appservice: AppService;
  #changed = Promise.withResolvers<undefined>();
  #eventsOfTransaction = 0;

  private constructor(appservice: AppService, port: number) {
    this.#appservice = appservice;
    this.port = port;
    appservice.on('event', (event) => this.#event(event));
    appservice.on('http-log', (line) => this.#answered(line));
  }

  static async start(hsToken: string): Promise<LoggerAppservice> {
    const appservice = new LoggerAppservice(new AppService({ homeserverToken: hsToken }), await freePort());
    await appservice.open();
    return appservice;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async open(): Promise<void> {
    await this.#appservice.listen(this.port, '127.0.0.1', 10);
  }

  /** Nothing listens on its port from now on. */
  async close(): Promise<void> {
    await this.#appservice.close();
  }

  /** Resolves when so many events have come and their transactions are answered. */
  async received(count: number): Promise<void> {
    while (this.eventIds.length < count || this.#eventsOfTransaction > 0) await this.#changed.promise;
  }

  #event(event: Record<string, unknown>): void {
    this.eventIds.push(String(event['event_id']));
    this.#eventsOfTransaction += 1;
    this.log(`${String(event['sender'])} in ${String(event['room_id'])}: ${textOf(event)}`);
  }

  /** The library's access log has a line for each request that it has answered. */
  #answered(line: string): void {
    const [, txnId, status] = /"PUT \/_matrix\/app\/v1\/transactions\/([^/? ]+) HTTP\/1\.1" (\d{3})/.exec(line) ?? [];
    if (txnId === undefined || status !== '200') return;
    this.transactions.push({ txnId, eventCount: this.#eventsOfTransaction });
    this.#eventsOfTransaction = 0;
    this.#changed.resolve(undefined);
    this.#changed = Promise.withResolvers();
  }
}

function textOf({ type, content }: Record<string, unknown>): string {
  const body: unknown = typeof content === 'object' && content !== null ? Reflect.get(content, 'body') : undefined;
  return typeof body === 'string' ? body : `(${String(type)})`;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}
