/**
 * The Application Service API (Matrix specification, "Application Service API") served to an unmodified homeserver that
 * registered the router as one catch-all appservice.
 *
 * A transaction is answered `{}` once all that is good in it is durable. What is answered otherwise comes again, as often
 * as it takes, so only that is which may go better the next time: the store is away, the router ends, the body was damaged
 * on the way. An item that no repetition makes good is shelved; a body that is no JSON is refused once and, if it comes
 * again under its txn id, shelved as well.
 *
 * The token is looked at before anything else of a request. Transactions that run side by side are limited; each takes
 * the memory of one piece (transaction-reader.ts).
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { IngressAnswer, IngressPort, IngressRequest } from '../rpc/ports.ts';
import { StoreError } from '../store/errors.ts';
import type { IngressEndpoint, IngressHomeserver, IngressMeter } from './ports.ts';
import { Shelf } from './shelf.ts';
import type { ShelfOptions } from './shelf.ts';
import { READER_LIMITS, readTransaction } from './transaction-reader.ts';
import type { ReaderLimits } from './transaction-reader.ts';

export interface IngressOptions {
  /** Of the catch-all registration. */
  readonly hsToken: string;
  readonly homeserver: IngressHomeserver;
  readonly store: ShelfOptions['store'];
  readonly meter: IngressMeter;
  readonly clock: Clock;
  readonly logger: Logger;
  /** READER_LIMITS if absent. */
  readonly limits?: ReaderLimits;
}

interface Route {
  readonly endpoint: IngressEndpoint;
  readonly method: string;
  readonly path: RegExp;
}

interface MatchedRequest extends IngressRequest {
  /** What the path's pattern captured, percent-decoded. */
  readonly captured: readonly string[];
}

const TRANSACTIONS_MAX = 16;
const TXN_ID_LENGTH_MAX = 255;
const BROKEN_IDS_MAX = 64;

const ROUTES: readonly Route[] = [
  { endpoint: 'transaction', method: 'PUT', path: /^(?:\/_matrix\/app\/v1)?\/transactions\/([^/]+)$/ },
  { endpoint: 'ping', method: 'POST', path: /^\/_matrix\/app\/v1\/ping$/ },
];
/** What is answered under here if it is no route. */
const API_PATH = /^\/_matrix\/app\//;

const DONE: IngressAnswer = { status: 200, body: '{}' };

export class Ingress implements IngressPort {
  readonly #options: IngressOptions;
  readonly #tokenHash: Buffer;
  readonly #shelf: Shelf;
  /** Txn ids whose body was refused as no JSON. */
  readonly #broken = new Set<string>();
  #transactionCount = 0;

  constructor(options: IngressOptions) {
    this.#options = options;
    this.#tokenHash = sha256(options.hsToken);
    this.#shelf = new Shelf({ ...options, serverName: options.homeserver.serverName });
  }

  /** For people who look after the router. */
  get detail(): Readonly<Record<string, unknown>> {
    const { count } = this.#shelf;
    return count === 0 ? {} : { shelved_items: count };
  }

  answer(request: IngressRequest): Promise<IngressAnswer> | null {
    const path = request.target.split('?', 1)[0] ?? '';
    const routes = ROUTES.filter((route) => route.path.test(path));
    if (routes.length === 0 && !API_PATH.test(path)) return null;
    const route = routes.find(({ method }) => method === request.method);
    return this.#measured(route?.endpoint ?? 'other', async () => {
      const refusal = this.#refusedToken(request);
      if (refusal !== null) return refusal;
      if (route === undefined) return routes.length > 0 ? error(405, 'M_UNRECOGNIZED', 'This path takes another method.') : error(404, 'M_UNRECOGNIZED', 'The router does not know this path.');
      const captured = capturedOf(route.path, path);
      if (captured === null) return error(400, 'M_INVALID_PARAM', 'The path is not percent-encoded UTF-8.');
      return await this.#serve(route.endpoint, { ...request, captured });
    });
  }

  async #measured(endpoint: IngressEndpoint, answer: () => Promise<IngressAnswer>): Promise<IngressAnswer> {
    const { clock, meter } = this.#options;
    const beganMs = clock.monotonicMs();
    const answered = await answer();
    meter.request(endpoint, answered.status, clock.monotonicMs() - beganMs);
    return answered;
  }

  #serve(endpoint: IngressEndpoint, request: MatchedRequest): Promise<IngressAnswer> {
    if (endpoint === 'transaction') return this.#takeTransaction(request);
    return Promise.resolve(DONE);
  }

  async #takeTransaction({ captured: [txnId = ''], body }: MatchedRequest): Promise<IngressAnswer> {
    const { homeserver, limits = READER_LIMITS, logger } = this.#options;
    if (txnId.length > TXN_ID_LENGTH_MAX) return error(400, 'M_INVALID_PARAM', `A transaction id has at most ${TXN_ID_LENGTH_MAX} characters.`);
    if (this.#transactionCount >= TRANSACTIONS_MAX) return error(429, 'M_LIMIT_EXCEEDED', 'Too many transactions are under way. Send it again in a second.');
    const shelved = this.#shelf.of(txnId);
    this.#transactionCount++;
    try {
      const reading = await readTransaction(txnId, body, { take: (piece) => homeserver.takeTransaction(piece), shelve: (item) => shelved.shelve(item) }, limits);
      if (reading === 'broken' && this.#isFirstBroken(txnId)) return error(400, 'M_NOT_JSON', 'The body is no JSON object. Send the transaction again.');
      if (reading !== 'whole') {
        const reason = reading === 'cut' ? `A transaction has at most ${limits.bodyBytesMax} bytes; the rest of this one was not read.` : 'The body is no JSON object; what could be read of it was taken.';
        await shelved.shelve({ kind: 'body', reason, json: Buffer.from(`transaction ${txnId}`) });
      }
      return DONE;
    } catch (cause) {
      return refusalOf(cause, logger);
    } finally {
      this.#transactionCount--;
      shelved.end();
    }
  }

  #isFirstBroken(txnId: string): boolean {
    if (this.#broken.delete(txnId)) return false;
    for (const oldest of this.#broken) {
      if (this.#broken.size < BROKEN_IDS_MAX) break;
      this.#broken.delete(oldest);
    }
    this.#broken.add(txnId);
    return true;
  }

  /** The header counts before the query, where both are. */
  #refusedToken({ authorization, target }: IngressRequest): IngressAnswer | null {
    const query = new URLSearchParams(target.slice(target.indexOf('?') + 1));
    const token = authorization === undefined ? (target.includes('?') ? query.get('access_token') : null) : (/^Bearer +(\S+) *$/i.exec(authorization)?.[1] ?? '');
    if (token === null) return error(401, 'M_MISSING_TOKEN', 'Send the hs_token of the registration as "Authorization: Bearer TOKEN".');
    if (timingSafeEqual(sha256(token), this.#tokenHash)) return null;
    return error(403, 'M_FORBIDDEN', 'This is not the hs_token of the registration.');
  }
}

function capturedOf(pattern: RegExp, path: string): string[] | null {
  try {
    return (pattern.exec(path) ?? []).slice(1).map((text) => decodeURIComponent(text));
  } catch {
    return null;
  }
}

/** What a request comes to that may go better the next time. */
function refusalOf(cause: unknown, logger: Logger): IngressAnswer {
  if (cause instanceof RefusalError) {
    const { retryDelayMs } = cause.details;
    return error(cause.reason === 'QUEUE_FULL' ? 429 : 503, cause.reason === 'QUEUE_FULL' ? 'M_LIMIT_EXCEEDED' : 'M_UNKNOWN', cause.message, retryDelayMs === undefined ? {} : { retry_after_ms: retryDelayMs });
  }
  if (cause instanceof StoreError) return error(503, 'M_UNKNOWN', 'The router cannot write down the transaction now. Send it again in a second.');
  if (isEnded(cause)) return error(400, 'M_UNKNOWN', 'The request ended before its body was complete.');
  logger.error({ error: cause instanceof Error ? (cause.stack ?? cause.message) : String(cause) }, 'a transaction could not be taken');
  return error(500, 'M_UNKNOWN', 'The router failed to take the transaction. Its log has the rest.');
}

/** The connection broke off; nobody reads the answer. */
function isEnded(cause: unknown): boolean {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  return code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE' || code.startsWith('ERR_HTTP2_') || (cause instanceof Error && cause.name === 'AbortError');
}

function error(status: number, errcode: string, message: string, more: Readonly<Record<string, unknown>> = {}): IngressAnswer {
  return { status, body: JSON.stringify({ errcode, error: message, ...more }) };
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
