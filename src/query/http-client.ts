/**
 * The one HTTP client for all that the router asks of appservices. The only importer of undici.
 *
 *   request ──▶ pool of the appservice ──▶ connection ──▶ status ──▶ body, up to its bounds ──▶ answered
 *                                   └──────────┴─────────────▶ failed, with its class
 *
 * Each appservice has a pool of its own, so one that hangs holds up no other. A request is sent at most once: nothing is
 * followed, nothing repeated. The status decides; the body is read as far as its bounds allow, and a connection whose
 * answer goes on beyond them is dropped. The total time-out runs by the injected clock, from the call to the result,
 * with waiting for a connection included.
 */
import { errors, Pool } from 'undici';
import type { Dispatcher } from 'undici';
import type { Clock } from '../clock.ts';
import { codeOf, failureOfCode, openConnection, OutboundError, proxyRefusal } from './connect.ts';
import type { ConnectOptions, ConnectRoute, OutboundFailure } from './connect.ts';
import type { OutboundUrl } from './outbound-url.ts';
import { parseProxyUrl } from './tunnel.ts';

export interface HttpClientOptions extends ConnectOptions {
  /** Connections of one pool. */
  readonly connectionsMax: number;
  /** Pools that are kept although nothing uses them now. */
  readonly idlePoolsMax: number;
  /** A pool that nothing has used for this long is closed. */
  readonly poolIdleMs: number;
  readonly responseBytesMax: number;
  readonly responseHeaderBytesMax: number;
}

export const HTTP_CLIENT_LIMITS = {
  connectTimeoutMs: 10_000,
  connectionsMax: 8,
  idlePoolsMax: 2_000,
  poolIdleMs: 60_000,
  responseBytesMax: 64 * 1024,
  responseHeaderBytesMax: 16 * 1024,
} as const;

export interface OutboundTarget extends ConnectRoute {
  /** Whose pool: server name and appservice id together. */
  readonly owner: string;
  readonly url: OutboundUrl;
}

export interface OutboundRequest {
  readonly method: 'GET' | 'PUT' | 'POST';
  /** Below the url's own path; begins with a slash. Query included. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | null;
  /** From the call to the result. */
  readonly timeoutMs: number;
  /** How long an answer's body may take once its status is known; the total time-out stands in any case. */
  readonly bodyTimeoutMs: number;
  /** How much of the answer's body is read; the client's own bound if absent. */
  readonly responseBytesMax?: number;
}

export type OutboundResult =
  | {
      readonly kind: 'answered';
      readonly status: number;
      /** By lower-case name; the first of several. */
      header(name: string): string | null;
      readonly body: Buffer;
      /** False if the body went on beyond its bounds or ended early. */
      readonly bodyComplete: boolean;
    }
  | { readonly kind: 'failed'; readonly failure: OutboundFailure; readonly sentence: string | null }
  | { readonly kind: 'aborted' };

interface PoolEntry {
  readonly pool: Pool;
  inFlight: number;
  lastUsedMs: number;
}

/** A peer that keeps connections open without saying for how long is trusted this far; what it says goes first. */
const KEEP_ALIVE_MS = 4_000;
const KEEP_ALIVE_MS_MAX = 60_000;

/** More informational answers before the real one than any appservice has a use for. */
const INFORMATIONAL_ANSWERS_MAX = 16;

const STOPPED = new Error('the exchange is over');

/** What a request looks like on its way: through a proxy without a tunnel it names the whole URL (RFC 9112 section 3.2.2). */
interface Way {
  readonly isForwarded: boolean;
  /** What its path begins with. */
  readonly root: string;
  readonly headers: Readonly<Record<string, string>>;
}

function wayOf({ url, proxy }: OutboundTarget): Way {
  if (proxy === null || url.secure) return { isForwarded: false, root: url.basePath, headers: {} };
  const authorization = parseProxyUrl(proxy)?.authorization ?? null;
  return { isForwarded: true, root: url.origin + url.basePath, headers: authorization === null ? {} : { 'proxy-authorization': authorization } };
}

export class HttpClient implements AsyncDisposable {
  readonly #options: HttpClientOptions;
  /** Least recently used first. */
  readonly #pools = new Map<string, PoolEntry>();
  readonly #closing = new Set<Promise<void>>();
  #nextSweepMs = 0;
  #disposed = false;

  constructor(options: HttpClientOptions) {
    this.#options = options;
  }

  get poolCount(): number {
    return this.#pools.size;
  }

  /** Never rejects. `aborted` when `signal` is aborted or the client is disposed of. */
  request(target: OutboundTarget, request: OutboundRequest, signal: AbortSignal): Promise<OutboundResult> {
    if (signal.aborted || this.#disposed) return Promise.resolve({ kind: 'aborted' });
    const entry = this.#acquire(target);
    return new Promise((resolve) => {
      const way = wayOf(target);
      const exchange = new Exchange(request, way, this.#options, signal, (result) => {
        entry.inFlight -= 1;
        entry.lastUsedMs = this.#options.clock.monotonicMs();
        resolve(result);
      });
      exchange.start(entry.pool, way.root + request.path);
    });
  }

  /** Drops all connections; what is in flight ends as `aborted`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    const entries = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all([...entries.map(({ pool }) => pool.destroy()), ...this.#closing]);
  }

  #acquire(target: OutboundTarget): PoolEntry {
    const { owner, url, caFile, proxy } = target;
    const nowMs = this.#options.clock.monotonicMs();
    const key = JSON.stringify([owner, url.unixPath ?? url.origin, caFile, proxy]);
    const known = this.#pools.get(key);
    this.#pools.delete(key);
    this.#sweep(nowMs);
    const entry = known ?? { pool: this.#openPool(target), inFlight: 0, lastUsedMs: nowMs };
    entry.inFlight += 1;
    entry.lastUsedMs = nowMs;
    this.#pools.set(key, entry);
    return entry;
  }

  /** Closes pools that are unused for long, and the least recently used beyond the limit. */
  #sweep(nowMs: number): void {
    const { poolIdleMs, idlePoolsMax } = this.#options;
    if (nowMs < this.#nextSweepMs && this.#pools.size < idlePoolsMax) return;
    this.#nextSweepMs = nowMs + poolIdleMs / 4;
    for (const [key, entry] of this.#pools) {
      const isOld = nowMs - entry.lastUsedMs >= poolIdleMs;
      if (!isOld && this.#pools.size < idlePoolsMax) break;
      if (entry.inFlight > 0) continue;
      this.#pools.delete(key);
      const closing = entry.pool.destroy().finally(() => this.#closing.delete(closing));
      this.#closing.add(closing);
    }
  }

  #openPool(target: OutboundTarget): Pool {
    const { connectionsMax, responseHeaderBytesMax } = this.#options;
    return new Pool(target.url.origin, {
      connections: connectionsMax,
      pipelining: 1,
      allowH2: false,
      // The exchange's own deadline covers all of these.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: KEEP_ALIVE_MS_MAX,
      maxHeaderSize: responseHeaderBytesMax,
      connect: (_options, callback) => {
        openConnection(target.url, target, this.#options).then(
          (socket) => callback(null, socket),
          (error: unknown) => callback(error instanceof Error ? error : new OutboundError('local_error'), null),
        );
      },
    });
  }
}

/** One request and its answer: settles once, then wants nothing more of the connection. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #request: OutboundRequest;
  readonly #way: Way;
  readonly #clock: Clock;
  readonly #bytesMax: number;
  readonly #signal: AbortSignal;
  readonly #settle: (result: OutboundResult) => void;
  readonly #over = new AbortController();
  readonly #pieces: Buffer[] = [];
  #bytes = 0;
  #status = 0;
  #informationalCount = 0;
  #headers: Readonly<Record<string, string | string[] | undefined>> = {};
  #controller: Dispatcher.DispatchController | null = null;

  constructor(request: OutboundRequest, way: Way, options: HttpClientOptions, signal: AbortSignal, settle: (result: OutboundResult) => void) {
    this.#request = request;
    this.#way = way;
    this.#clock = options.clock;
    this.#bytesMax = request.responseBytesMax ?? options.responseBytesMax;
    this.#signal = signal;
    this.#settle = settle;
  }

  start(pool: Pool, path: string): void {
    const { method, headers, body, timeoutMs } = this.#request;
    this.#signal.addEventListener('abort', this.#abort, { once: true });
    void this.#clock.sleep(timeoutMs, this.#over.signal).then(() => this.#expire());
    try {
      pool.dispatch({ method, path, headers: this.#way.isForwarded ? { ...headers, ...this.#way.headers } : headers, body }, this);
    } catch (error) {
      this.onResponseError(this.#controller, error);
    }
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    // Waited for a connection for too long: it is not sent at all.
    if (this.#over.signal.aborted) controller.abort(STOPPED);
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: Readonly<Record<string, string | string[] | undefined>>): void {
    // An informational answer only announces the real one.
    if (status < 200) {
      this.#informationalCount += 1;
      if (this.#informationalCount > INFORMATIONAL_ANSWERS_MAX) this.#end({ kind: 'failed', failure: 'bad_response', sentence: null });
      return;
    }
    if (status === 407 && this.#way.isForwarded) {
      const { failure, sentence } = proxyRefusal(status);
      return this.#end({ kind: 'failed', failure, sentence });
    }
    this.#status = status;
    this.#headers = headers;
    // Most bodies come in the same turn as their head and need no timer.
    queueMicrotask(() => {
      if (!this.#over.signal.aborted) void this.#clock.sleep(this.#request.bodyTimeoutMs, this.#over.signal).then(() => this.#expire());
    });
  }

  onResponseData(_controller: Dispatcher.DispatchController, piece: Buffer): void {
    const room = this.#bytesMax - this.#bytes;
    this.#pieces.push(piece.byteLength > room ? piece.subarray(0, room) : piece);
    this.#bytes += Math.min(piece.byteLength, room);
    if (piece.byteLength > room) this.#answer(false);
  }

  onResponseEnd(): void {
    this.#answer(true);
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: unknown): void {
    if (this.#status !== 0) return this.#answer(false);
    if (error instanceof errors.ClientDestroyedError || error instanceof errors.ClientClosedError) return this.#end({ kind: 'aborted' });
    this.#end({ kind: 'failed', failure: failureOf(error), sentence: error instanceof OutboundError ? error.sentence : null });
  }

  #abort = (): void => this.#end({ kind: 'aborted' });

  #expire(): void {
    if (this.#status !== 0) this.#answer(false);
    else this.#end({ kind: 'failed', failure: 'timeout', sentence: null });
  }

  #answer(bodyComplete: boolean): void {
    if (this.#over.signal.aborted) return;
    const headers = this.#headers;
    const header = (name: string): string | null => {
      const value = headers[name];
      return (Array.isArray(value) ? value[0] : value) ?? null;
    };
    const [only] = this.#pieces;
    const body = this.#pieces.length === 1 && only !== undefined ? only : Buffer.concat(this.#pieces, this.#bytes);
    if (bodyComplete) this.#controller = null;
    this.#end({ kind: 'answered', status: this.#status, header, body, bodyComplete });
  }

  #end(result: OutboundResult): void {
    if (this.#over.signal.aborted) return;
    // With a reason of its own: making the default one costs more than the rest of ending.
    this.#over.abort(STOPPED);
    this.#signal.removeEventListener('abort', this.#abort);
    this.#controller?.abort(STOPPED);
    this.#settle(result);
  }
}

function failureOf(error: unknown): OutboundFailure {
  if (error instanceof OutboundError) return error.failure;
  if (error instanceof errors.SocketError) {
    // undici's words for a connection that talks out of turn.
    return error.message === 'bad response' || error.message === 'bad upgrade' ? 'bad_response' : 'connection_reset';
  }
  const code = codeOf(error);
  const known = failureOfCode(code);
  if (known !== null) return known;
  if (code.startsWith('ERR_SSL') || code.startsWith('ERR_TLS')) return 'tls';
  return error instanceof errors.HTTPParserError || code.startsWith('HPE_') || code.startsWith('UND_ERR_') ? 'bad_response' : 'local_error';
}
