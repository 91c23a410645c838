/** A router with an ingress, and the requests that a real Synapse sent to one (test/ingress/captures). */
import { readdirSync, readFileSync } from 'node:fs';
import { systemClock } from '../../src/clock.ts';
import type { Logger } from '../../src/logger.ts';
import type { ServiceSettings } from '../../src/service.ts';
import type { Store } from '../../src/store/port.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { RecordingReceiver } from './recording-receiver.ts';
import { put, registrationYaml } from './router-home.ts';
import { startService } from './service-world.ts';
import type { ServiceWorld } from './service-world.ts';

export const HS_TOKEN = 'hs-token-of-the-catch-all';
export const AS_TOKEN = 'as-token-of-the-catch-all';

export interface CapturedRequest {
  readonly method: string;
  readonly path: string;
  readonly query?: string;
  readonly body: unknown;
  readonly answered: { readonly status: number } | null;
}

const CAPTURES = new URL('../ingress/captures/', import.meta.url);

/** The requests of a scenario, by the number that its file begins with. */
export function captured(scenario: string): readonly CapturedRequest[] {
  const name = readdirSync(CAPTURES).find((file) => file.startsWith(`${scenario}-`));
  if (name === undefined) throw new Error(`there is no capture ${scenario}`);
  return (JSON.parse(readFileSync(new URL(name, CAPTURES), 'utf8')) as { readonly requests: readonly CapturedRequest[] }).requests;
}

/** Event ids in captured transactions, each once, in the order in which they first came. */
export function eventIdsOf(requests: readonly CapturedRequest[]): string[] {
  const bodies = requests.map(({ body }) => body as { readonly events?: readonly { readonly event_id: string }[] } | null);
  return [...new Set(bodies.flatMap((body) => (body?.events ?? []).map((event) => event.event_id)))];
}

export interface IngressAnswered {
  readonly status: number;
  readonly body: unknown;
}

/** Speaks to an ingress as a homeserver does. */
export class IngressClient {
  readonly #address: string;

  constructor(address: string) {
    this.#address = address;
  }

  async request(method: string, target: string, body: string | Uint8Array | null = null, headers: Readonly<Record<string, string>> = { authorization: `Bearer ${HS_TOKEN}` }): Promise<IngressAnswered> {
    const response = await fetch(`http://${this.#address}${target}`, { method, headers: { ...headers, 'content-type': 'application/json' }, ...(body === null ? {} : { body: Buffer.from(body) }) });
    const text = await response.text();
    return { status: response.status, body: response.headers.get('content-type') === 'application/json' ? JSON.parse(text) : text };
  }

  put(txnId: string, body: unknown): Promise<IngressAnswered> {
    return this.request('PUT', `/_matrix/app/v1/transactions/${encodeURIComponent(txnId)}`, typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body));
  }

  /** Sends captured requests in their order; the answers. */
  async replay(requests: readonly CapturedRequest[]): Promise<IngressAnswered[]> {
    const answers: IngressAnswered[] = [];
    for (const { method, path, query, body } of requests) {
      answers.push(await this.request(method, query === undefined ? path : `${path}?${query}`, body === null ? null : JSON.stringify(body)));
    }
    return answers;
  }
}

export interface IngressWorld extends AsyncDisposable {
  readonly world: ServiceWorld;
  readonly receiver: RecordingReceiver;
  readonly store: Store;
  readonly client: IngressClient;
  readonly warnings: Record<string, unknown>[];
  /** Puts a registration whose url is the receiver's. */
  register(id: string, more?: string): Promise<void>;
}

export async function startIngress(settings: Partial<ServiceSettings> = {}): Promise<IngressWorld> {
  const store = await openSqliteStore({ path: ':memory:', clock: systemClock });
  const receiver = await RecordingReceiver.start();
  const warnings: Record<string, unknown>[] = [];
  const logger: Logger = { debug: () => undefined, info: () => undefined, error: () => undefined, warn: (fields) => void warnings.push({ ...fields }) };
  const world = await startService({ store, logger, settings: { ingress: { hsToken: HS_TOKEN, asToken: AS_TOKEN, serverName: null }, ...settings } });
  return {
    world,
    receiver,
    store,
    client: new IngressClient(world.service.httpAddress),
    warnings,
    register: (id, more = '') => put(world.admin, registrationYaml(id, `${receiver.url}/${id}`, more)),
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await receiver[Symbol.asyncDispose]();
    },
  };
}

export function message(id: string, more: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  return { event_id: id, type: 'm.room.message', room_id: '!r:hs.test', sender: '@alice:hs.test', content: { body: id }, ...more };
}
