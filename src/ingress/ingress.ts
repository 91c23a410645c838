/**
 * The Application Service API (Matrix specification, "Application Service API") served to an unmodified homeserver that
 * registered the router as one catch-all appservice: which path is what, and whose token opens it. The token is looked at
 * before anything else of a request.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { IngressAnswer, IngressPort, IngressRequest, IngressStatus } from '../rpc/ports.ts';
import { answerFor, DONE, matrixError, tokenOf } from './answers.ts';
import type { MatchedRequest } from './answers.ts';
import { answerAppservicePing } from './appservice-ping.ts';
import type { IngressEndpoint, IngressHomeserver, IngressMeter } from './ports.ts';
import { Queries } from './queries.ts';
import type { RoomLookups } from './room-lookups.ts';
import { Shelf } from './shelf.ts';
import type { ShelfOptions } from './shelf.ts';
import { answerThirdParty } from './third-party.ts';
import { READER_LIMITS } from './transaction-reader.ts';
import type { ReaderLimits } from './transaction-reader.ts';
import { Transactions } from './transactions.ts';

export interface IngressOptions {
  /** Of the catch-all registration. */
  readonly hsToken: string;
  readonly homeserver: IngressHomeserver;
  readonly store: ShelfOptions['store'];
  readonly meter: IngressMeter;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Undefined: rooms are known by events alone. Started, and ended by its owner. */
  readonly rooms: RoomLookups | undefined;
  /** READER_LIMITS if absent. */
  readonly limits?: ReaderLimits;
}

interface Route {
  readonly endpoint: IngressEndpoint;
  readonly method: string;
  readonly path: RegExp;
}

/** Version 1 and the paths from before it. Identifiers may have a slash that was not encoded. */
const ROUTES: readonly Route[] = [
  { endpoint: 'transaction', method: 'PUT', path: /^(?:\/_matrix\/app\/v1)?\/transactions\/([^/]+)$/ },
  { endpoint: 'user', method: 'GET', path: /^(?:\/_matrix\/app\/v1)?\/users\/(.+)$/ },
  { endpoint: 'alias', method: 'GET', path: /^(?:\/_matrix\/app\/v1)?\/rooms\/(.+)$/ },
  { endpoint: 'third_party', method: 'GET', path: /^\/_matrix\/app\/(?:v1|unstable)\/thirdparty\/(protocol|user|location)\/([^/]+)$/ },
  { endpoint: 'third_party', method: 'GET', path: /^\/_matrix\/app\/(?:v1|unstable)\/thirdparty\/(user|location)$/ },
  { endpoint: 'ping', method: 'POST', path: /^\/_matrix\/app\/v1\/ping$/ },
  { endpoint: 'appservice_ping', method: 'POST', path: /^\/_matrix\/client\/v1\/appservice\/([^/]+)\/ping$/ },
];
/** What is under here is answered even if it is no route. */
const API_PATH = /^\/_matrix\/app\//;

const NO_LOOKUPS: RoomLookups['status'] = { unknownRoomCount: 0, unknownRoomIds: [], problem: null };

export class Ingress implements IngressPort {
  readonly #options: IngressOptions;
  readonly #tokenHash: Buffer;
  readonly #shelf: Shelf;
  readonly #transactions: Transactions;
  readonly #queries: Queries;

  constructor(options: IngressOptions) {
    this.#options = options;
    this.#tokenHash = sha256(options.hsToken);
    this.#shelf = new Shelf({ ...options, serverName: options.homeserver.serverName });
    this.#transactions = new Transactions({ ...options, shelf: this.#shelf, limits: options.limits ?? READER_LIMITS });
    this.#queries = new Queries(options);
  }

  get serverName(): string {
    return this.#options.homeserver.serverName;
  }

  /** For people who look after the router. */
  get detail(): Readonly<Record<string, unknown>> {
    const { shelvedItemCount, unknownRoomCount, problem } = this.status();
    return {
      ...(shelvedItemCount === 0 ? {} : { shelved_items: shelvedItemCount }),
      ...(unknownRoomCount === 0 ? {} : { unknown_rooms: unknownRoomCount }),
      ...(problem === null ? {} : { problem }),
    };
  }

  status(): IngressStatus {
    const { unknownRoomCount, unknownRoomIds, problem } = this.#options.rooms?.status ?? NO_LOOKUPS;
    const { lastTimeMs: lastTransactionTimeMs, gapSinceMs } = this.#transactions;
    return { lastTransactionTimeMs, gapSinceMs, shelvedItemCount: this.#shelf.count, unknownRoomCount, unknownRoomIds, problem };
  }

  answer(request: IngressRequest): Promise<IngressAnswer> | null {
    const path = request.target.split('?', 1)[0] ?? '';
    if (!isRoute(path) && !API_PATH.test(path)) return null;
    return this.#measured(ROUTES.find((route) => route.method === request.method && route.path.test(path)), path, request);
  }

  async #measured(route: Route | undefined, path: string, request: IngressRequest): Promise<IngressAnswer> {
    const { clock, meter, logger } = this.#options;
    const beganMs = clock.monotonicMs();
    const answered = await this.#routed(route, path, request).catch((cause: unknown) => answerFor(cause, logger));
    meter.request(route?.endpoint ?? 'other', answered.status, clock.monotonicMs() - beganMs);
    return answered;
  }

  async #routed(route: Route | undefined, path: string, request: IngressRequest): Promise<IngressAnswer> {
    // A ping of an appservice shows the token of that appservice.
    const refusal = route?.endpoint === 'appservice_ping' ? null : this.#refusedToken(request);
    if (refusal !== null) return refusal;
    if (route === undefined) return isRoute(path) ? matrixError(405, 'M_UNRECOGNIZED', 'This path takes another method.') : matrixError(404, 'M_UNRECOGNIZED', 'The router does not know this path.');
    const captured = capturedOf(route.path, path);
    if (captured === null) return matrixError(400, 'M_INVALID_PARAM', 'The path is not percent-encoded UTF-8.');
    return await this.#serve(route.endpoint, { ...request, captured });
  }

  async #serve(endpoint: IngressEndpoint, request: MatchedRequest): Promise<IngressAnswer> {
    const { homeserver } = this.#options;
    const [identifier = ''] = request.captured;
    switch (endpoint) {
      case 'transaction':
        return await this.#transactions.take(request);
      case 'user':
        return await this.#queries.answer({ kind: 'users', identifier });
      case 'alias':
        return await this.#queries.answer({ kind: 'aliases', identifier });
      case 'third_party':
        return await answerThirdParty(request, homeserver);
      case 'appservice_ping':
        return await answerAppservicePing(request, homeserver);
      case 'ping':
      case 'other':
        return DONE;
    }
  }

  /** The header counts before the query, where both are. */
  #refusedToken(request: IngressRequest): IngressAnswer | null {
    const token = tokenOf(request);
    if (token === null) return matrixError(401, 'M_MISSING_TOKEN', 'Send the hs_token of the registration as "Authorization: Bearer TOKEN".');
    if (timingSafeEqual(sha256(token), this.#tokenHash)) return null;
    return matrixError(403, 'M_FORBIDDEN', 'This is not the hs_token of the registration.');
  }
}

function isRoute(path: string): boolean {
  return ROUTES.some((route) => route.path.test(path));
}

function capturedOf(pattern: RegExp, path: string): string[] | null {
  try {
    return (pattern.exec(path) ?? []).slice(1).map((text) => decodeURIComponent(text));
  } catch {
    return null;
  }
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
