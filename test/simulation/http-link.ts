/**
 * One process's way to the appservices, in the place of the HTTP client: what it is asked for is what would be on the
 * wire. A request leaves at once and arrives soon, or never; one that is given up before it arrived may arrive all the
 * same, and nobody can call back one that did.
 */
import type { OutboundRequest, OutboundResult, OutboundTarget } from '../../src/query/http-client.ts';
import type { Appservices, Reply } from './appservices.ts';
import type { Chance } from './chance.ts';
import type { History, PushRecord } from './history.ts';
import type { RouterProcess } from './router-process.ts';
import type { SimStore } from './sim-store.ts';
import type { StoreLink } from './store-link.ts';

export interface HttpLinkOptions {
  readonly process: RouterProcess;
  readonly appservices: Appservices;
  readonly history: History;
  readonly chance: Chance;
  readonly store: SimStore;
  readonly link: StoreLink;
  readonly diesAt: (process: RouterProcess, point: string) => boolean;
}

const TRANSACTION_PATH = '/_matrix/app/v1/transactions/';
const USER_PATH = '/_matrix/app/v1/users/';

interface Exchange {
  /** Happens at the appservice. */
  arrive(reply: (reply: Reply) => void): void;
  /** What the process is told. */
  heard(what: string): void;
}

export class HttpLink {
  readonly #options: HttpLinkOptions;

  constructor(options: HttpLinkOptions) {
    this.#options = options;
  }

  request(target: OutboundTarget, request: OutboundRequest, signal: AbortSignal): Promise<OutboundResult> {
    if (signal.aborted) return Promise.resolve({ kind: 'aborted' });
    const [, appserviceId = ''] = target.owner.split('|');
    return this.#send(this.#exchange(appserviceId, request), request.timeoutMs, signal);
  }

  #exchange(appserviceId: string, { path, body }: OutboundRequest): Exchange {
    const { appservices, history } = this.#options;
    if (path.startsWith(USER_PATH)) {
      const userId = decodeURIComponent(path.slice(USER_PATH.length));
      history.queries.push({ appserviceId, userId, sentOrder: history.next() });
      history.note('asked', appserviceId, userId);
      return { arrive: (reply) => appservices.asked(appserviceId, reply), heard: (what) => this.#answered(appserviceId, userId, what) };
    }
    if (!path.startsWith(TRANSACTION_PATH) || body === null) throw new Error(`nobody knows ${path}`);
    const push = this.#pushed(appserviceId, path.slice(TRANSACTION_PATH.length), body);
    return {
      arrive: (reply) => appservices.arrived(push, reply),
      heard(what) {
        push.heard = what;
        push.heardOrder = history.next();
        history.note('heard', appserviceId, `${push.txnId} ${what}`);
      },
    };
  }

  #answered(appserviceId: string, userId: string, what: string): void {
    const { history } = this.#options;
    if (!/^\d+$/.test(what)) history.silent.add(appserviceId);
    history.note('answer', appserviceId, `${userId} ${what}`);
  }

  #pushed(appserviceId: string, txnId: string, body: Uint8Array): PushRecord {
    const { process, history, store, link, appservices } = this.#options;
    const appservice = appservices.get(appserviceId);
    const other = appservice.underWay.find(({ sender, push: { heard } }) => sender !== process && heard === null && !sender.isDead && !sender.isStopped);
    if (other !== undefined) history.breach(`I5 Fenced: ${process.name} sends ${txnId} while ${other.sender.name} waits for the answer to ${other.push.txnId} (${appserviceId})`, [appserviceId]);
    const { events, toDevice } = contentsOf(body);
    const push: PushRecord = {
      process: process.name,
      replicaId: link.replicaId,
      appserviceId,
      txnId,
      body,
      events,
      toDevice,
      state: store.states.get(appserviceId),
      sentOrder: history.next(),
      sentMs: history.nowMs,
      acceptedOrder: null,
      acceptedMs: null,
      heard: null,
      heardOrder: null,
    };
    history.pushes.push(push);
    appservice.underWay = [...appservice.underWay.filter(({ push: { heard } }) => heard === null), { sender: process, push }];
    history.note('push', appserviceId, `${txnId} by ${process.name}: ${events.join(' ')}${toDevice.length === 0 ? '' : ` | ${toDevice.join(' ')}`}`);
    return push;
  }

  #send(exchange: Exchange, timeoutMs: number, signal: AbortSignal): Promise<OutboundResult> {
    const { process, chance, diesAt } = this.#options;
    const { promise, resolve } = Promise.withResolvers<OutboundResult>();
    let isOver = false;
    const settle = (result: OutboundResult, what: string): void => {
      if (isOver) return;
      isOver = true;
      overdue.isDue = false;
      signal.removeEventListener('abort', abort);
      exchange.heard(what);
      resolve(result);
    };
    const arrive = (): void => {
      arrival.isDue = false;
      exchange.arrive((reply) => process.after(chance.between(0.2, 20), () => settle(...resultOf(reply))));
      diesAt(process, 'after push');
    };
    const outlives = chance.is(0.5);
    const arrival = process.kernel.after(chance.is(0.9) ? chance.between(0.2, 5) : chance.between(5, 100), () => {
      if (!process.isDead || outlives) arrive();
    });
    const overdue = process.after(timeoutMs, () => settle({ kind: 'failed', failure: 'timeout', sentence: null }, 'timeout'));
    const abort = (): void => {
      if (arrival.isDue && chance.is(0.5)) arrive();
      arrival.isDue = false;
      settle({ kind: 'aborted' }, 'aborted');
    };
    signal.addEventListener('abort', abort, { once: true });
    return promise;
  }
}

function resultOf(reply: Reply): [OutboundResult, string] {
  if (reply.kind === 'silence') throw new Error('silence is not heard');
  if (reply.kind === 'failure') return [{ kind: 'failed', failure: reply.failure, sentence: null }, reply.failure];
  const { status, headers, body } = reply;
  return [{ kind: 'answered', status, header: (name) => headers[name] ?? null, body: Buffer.from(body), bodyComplete: true }, String(status)];
}

interface Contents {
  readonly events: readonly string[];
  readonly toDevice: readonly string[];
}

/** The ids of what is in a body; what has none (typing, receipts) is passed over. */
function contentsOf(body: Uint8Array): Contents {
  const parsed = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString()) as { events: { event_id: string }[]; 'de.sorunome.msc2409.to_device'?: { content: { id: string } }[] };
  return { events: parsed.events.map(({ event_id: id }) => id), toDevice: (parsed['de.sorunome.msc2409.to_device'] ?? []).map(({ content }) => content.id) };
}
