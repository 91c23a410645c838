/**
 * Asks an appservice whether it can be reached (Application Service API, "Pinging"; requirements R132 to R136): one
 * POST, sent once, never to a legacy path (R108), whatever its registration says of those.
 */
import type { PingOutcome } from '../appservice/ping.ts';
import { failedPing } from '../appservice/ping.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { OperationSink } from '../appservice/operation.ts';
import type { Registration } from '../appservice/registration.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { AppserviceClient } from './appservice-client.ts';
import { AppserviceTargets } from './appservice-target.ts';
import type { HttpClient, OutboundResult, OutboundTarget } from './http-client.ts';

export interface PingOptions {
  readonly client: HttpClient;
  readonly clock: Clock;
  readonly logger: Logger;
  /** From the call to the answer. */
  readonly operations?: OperationSink;
  readonly timeoutMs: number;
  /** Pings under way together. */
  readonly pingsMax: number;
  /** Of one appservice; fewer than its connections, so that pings that hang hold up no transaction. */
  readonly appservicePingsMax: number;
}

export const PING_LIMITS = { pingsMax: 64, appservicePingsMax: 2 } as const;

const PATH = '/_matrix/app/v1/ping';
/** Of the appservice's answer, as UTF-8. */
const BODY_BYTES_MAX = 64 * 1024;
const BODY_TIMEOUT_MS = 1_000;
const RETRY_DELAY_MS = 1_000;

export class Ping implements AsyncDisposable {
  readonly #options: PingOptions;
  readonly #appservices: AppserviceClient;
  readonly #targets = new AppserviceTargets();
  readonly #ending = new AbortController();
  /** By the owner of the connections. */
  readonly #underWay = new Map<string, number>();
  #underWayCount = 0;

  constructor(options: PingOptions) {
    this.#options = options;
    this.#appservices = new AppserviceClient(options);
  }

  /**
   * Every way in which an appservice fails is an outcome. Rejects with a RefusalError if too many pings are under way,
   * or the router ends.
   */
  async ping(serverName: string, registration: Registration, transactionId: string | undefined): Promise<PingOutcome> {
    if (registration.url === null) return failedPing('M_URL_NOT_SET');
    const target = this.#targets.of(serverName, registration);
    if (target === null) return failedPing('M_CONNECTION_FAILED');
    this.#begin(target.owner);
    try {
      return await this.#send(serverName, target, registration, transactionId);
    } finally {
      this.#end(target.owner);
    }
  }

  /** What is under way is refused as one that came too late. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await Promise.resolve();
  }

  async #send(serverName: string, target: OutboundTarget, registration: Registration, transactionId: string | undefined): Promise<PingOutcome> {
    const { clock, logger, operations, timeoutMs } = this.#options;
    const body = Buffer.from(JSON.stringify(transactionId === undefined ? {} : { transaction_id: transactionId }));
    const beganMs = clock.monotonicMs();
    const { result } = await this.#appservices.request(target, registration, { method: 'POST', path: PATH, body, timeoutMs, bodyTimeoutMs: BODY_TIMEOUT_MS }, this.#ending.signal);
    const durationMs = Math.max(0, Math.round(clock.monotonicMs() - beganMs));
    if (result.kind === 'aborted') throw new RefusalError('DRAINING', 'The router is shutting down. Call again in a second.', { retryDelayMs: RETRY_DELAY_MS });
    const outcome = outcomeOf(result, durationMs);
    operations?.operated({ serverName, appserviceId: registration.id, kind: 'ping', failed: outcome.kind !== 'answered' });
    logger.info(
      {
        server_name: serverName,
        appservice_id: registration.id,
        outcome: outcome.kind === 'answered' ? 'answered' : outcome.failure.errcode,
        ...(result.kind === 'answered' ? { http_status: result.status } : { failure: result.failure }),
        duration_ms: durationMs,
      },
      'ping',
    );
    return outcome;
  }

  #begin(owner: string): void {
    const { pingsMax, appservicePingsMax } = this.#options;
    const count = this.#underWay.get(owner) ?? 0;
    if (this.#underWayCount >= pingsMax || count >= appservicePingsMax) {
      throw new RefusalError('TOO_MANY_PINGS', 'Too many pings are under way. Call again when one of them has ended.', { retryDelayMs: RETRY_DELAY_MS });
    }
    this.#underWay.set(owner, count + 1);
    this.#underWayCount += 1;
  }

  #end(owner: string): void {
    const count = this.#underWay.get(owner) ?? 0;
    if (count > 1) this.#underWay.set(owner, count - 1);
    else this.#underWay.delete(owner);
    this.#underWayCount -= 1;
  }
}

function outcomeOf(result: Exclude<OutboundResult, { kind: 'aborted' }>, durationMs: number): PingOutcome {
  if (result.kind === 'failed') return failedPing(result.failure === 'timeout' ? 'M_CONNECTION_TIMEOUT' : 'M_CONNECTION_FAILED');
  const { status, body } = result;
  if (status >= 200 && status < 300) return { kind: 'answered', durationMs };
  return failedPing('M_BAD_STATUS', { status, body: boundedText(body, BODY_BYTES_MAX) });
}

/** The beginning of the bytes as text of at most so many bytes, with U+FFFD for what is no UTF-8; cut between characters. */
export function boundedText(bytes: Uint8Array, bytesMax: number): string {
  const text = decoded(bytes.subarray(0, bytesMax), bytes.byteLength > bytesMax);
  // A replacement takes more room than what it stands for.
  const encoded = Buffer.from(text);
  return encoded.byteLength > bytesMax ? decoded(encoded.subarray(0, bytesMax), true) : text;
}

/** `isCut`: a character that the end divides is left out. */
function decoded(bytes: Uint8Array, isCut: boolean): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes, { stream: isCut });
}
