/**
 * Appservices in this process that write down every transaction they get, and answer as a script says; with a checker
 * of what they got.
 */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';

/** `lost_answer`: taken, but the connection breaks before the answer. */
export type ReceiverAnswer = 'ok' | 'error' | 'lost_answer' | 'reset' | 'too_large';

export interface ReceivedTransaction {
  readonly appservice: string;
  readonly txnId: string;
  readonly bodyHash: string;
  readonly eventIds: readonly string[];
  /** The whole body, parsed. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly answer: ReceiverAnswer;
}

export class RecordingReceiver implements AsyncDisposable {
  readonly received: ReceivedTransaction[] = [];
  answer: (appservice: string, eventCount: number) => ReceiverAnswer = () => 'ok';
  delayMs = 0;
  url = '';
  readonly #server: Server;
  #changed = Promise.withResolvers<void>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<RecordingReceiver> {
    const server = createServer((request, response) => receiver.#serve(request, response));
    const receiver = new RecordingReceiver(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = server.address();
    receiver.url = `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`;
    return receiver;
  }

  /** Resolves as soon as it holds; looks again after every transaction. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await this.#changed.promise;
  }

  /** Event ids in the order in which they were first taken. */
  taken(appservice: string): string[] {
    const seen = new Set<string>();
    for (const { answer, eventIds, ...transaction } of this.received) {
      if (transaction.appservice === appservice && (answer === 'ok' || answer === 'lost_answer')) for (const id of eventIds) seen.add(id);
    }
    return [...seen];
  }

  /** What breaks the invariants, in sentences; nothing if all hold. `mostRepeats`: transactions that may be taken twice. */
  violations(appservice: string, mostRepeats: number): string[] {
    const broken: string[] = [];
    const hashes = new Map<string, string>();
    const ownerOf = new Map<string, string>();
    const takenIds = new Set<string>();
    let newest = 0n;
    let repeats = 0;
    for (const { txnId, bodyHash, eventIds, answer, ...transaction } of this.received) {
      if (transaction.appservice !== appservice) continue;
      if ((hashes.get(txnId) ?? bodyHash) !== bodyHash) broken.push(`I3 Frozen: ${txnId} has two bodies`);
      hashes.set(txnId, bodyHash);
      if (BigInt(txnId) < newest) broken.push(`I4 NoGapSkip: ${txnId} came after ${newest}`);
      newest = BigInt(txnId) > newest ? BigInt(txnId) : newest;
      if (answer !== 'ok' && answer !== 'lost_answer') continue;
      if (takenIds.has(txnId)) repeats++;
      takenIds.add(txnId);
      for (const id of eventIds) {
        if ((ownerOf.get(id) ?? txnId) !== txnId) broken.push(`I6 BoundedDuplicates: ${id} came in ${ownerOf.get(id)} and ${txnId}`);
        ownerOf.set(id, txnId);
      }
    }
    if (repeats > mostRepeats) broken.push(`I6 BoundedDuplicates: ${repeats} transactions were taken twice`);
    return broken;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const body = Buffer.concat(parts);
      const [, appservice = '', txnId = ''] = /^\/([^/]+)\/_matrix\/app\/v1\/transactions\/([^/?]+)$/.exec(request.url ?? '') ?? [];
      const parsed = JSON.parse(body.toString()) as { events: { event_id: string }[] } & Record<string, unknown>;
      const { events } = parsed;
      const answer = this.answer(appservice, events.length);
      this.received.push({ appservice, txnId, bodyHash: createHash('sha256').update(body).digest('hex'), eventIds: events.map((event) => event.event_id), body: parsed, answer });
      const finish = (): void => {
        if (answer === 'ok') response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
        else if (answer === 'error') response.writeHead(500, { 'content-type': 'text/html' }).end('<h1>no</h1>');
        else if (answer === 'too_large') response.writeHead(413).end();
        else request.socket.destroy();
        this.#changed.resolve();
        this.#changed = Promise.withResolvers();
      };
      if (this.delayMs > 0) setTimeout(finish, this.delayMs);
      else finish();
    });
  }
}
