/**
 * The HTTP door: Connect, gRPC-Web and gRPC by connect-node, and the probes. One port speaks HTTP/1.1 and, for gRPC
 * clients, HTTP/2 without TLS: a connection's first bytes tell which.
 *
 * The HTTP/1.1 server itself listens, because node:http enforces its time limits only while it does. It hands over the
 * connections that turn out to speak HTTP/2.
 */
import type { ConnectRouter, HandlerContext, Interceptor } from '@connectrpc/connect';
import { Code as ConnectCode, ConnectError } from '@connectrpc/connect';
import { compressionGzip } from '@connectrpc/connect-node';
import { createServer as createHttpServer } from 'node:http';
import type { IncomingMessage, Server as HttpServer1 } from 'node:http';
import { constants as http2Constants, createServer as createHttp2Server } from 'node:http2';
import type { Http2Server, ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { AdminMethods } from './admin-methods.ts';
import type { Authenticator, Caller } from './authentication.ts';
import { connectAdapter, sendHeaders } from './connect-adapter.ts';
import type { NodeHandler } from './connect-adapter.ts';
import { REQUEST_BYTES_MAX } from './conversion.ts';
import { statusOf } from './errors.ts';
import { answerPage, answerText } from './http-pages.ts';
import { blameCaller, correctMalformed } from './malformed-message.ts';
import type { HttpProbes, IngressPort, RpcMeter } from './ports.ts';
import type { RouterMethods } from './router-methods.ts';
import { untilDrained } from './router-methods.ts';
import { Code, detailsOf } from './status.ts';

export interface HttpServerOptions {
  /** `host:port`; port 0 = any free one. */
  readonly listen: string;
  readonly router: RouterMethods;
  readonly admin: AdminMethods;
  readonly authenticator: Authenticator;
  readonly probes: HttpProbes;
  /** Absent: no homeserver is served. */
  readonly ingress?: IngressPort | undefined;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: RpcMeter;
  /** HTTP_TIME_LIMITS if absent. */
  readonly timeLimits?: HttpTimeLimits;
}

/** All in milliseconds. */
export interface HttpTimeLimits {
  /** From the first byte of a request to the end of its headers. */
  readonly headersMs: number;
  /** From the first byte of a request to the end of its body. */
  readonly requestMs: number;
  /** How long a connection without a request stays open. */
  readonly keepAliveMs: number;
  /** From the connection to its first byte. */
  readonly firstBytesMs: number;
  /** How often the limits of a request are looked at; they are met that much late. */
  readonly checkMs: number;
}

export const HTTP_TIME_LIMITS: HttpTimeLimits = { headersMs: 10_000, requestMs: 60_000, keepAliveMs: 65_000, firstBytesMs: 10_000, checkMs: 5_000 };

/** JSON carries bytes as base64, a third larger. */
const MESSAGE_BYTES_MAX = Math.ceil((REQUEST_BYTES_MAX * 4) / 3) + 64 * 1024;
const CONNECTIONS_MAX = 1000;
const HEADER_BYTES_MAX = 16 * 1024;
const STREAMS_PER_CONNECTION_MAX = 200;
const LINGER_MS = 1_000;
/** The one request that may stay silent for long. */
const STREAM_EVENTS_PATH = `/${AppserviceRouter.typeName}/${AppserviceRouter.method.streamEvents.name}`;
/** How a connection with HTTP/2 begins, RFC 9113 section 3.4. */
const HTTP2_PREFACE = Buffer.from('PRI * HTTP/2.0');

export class HttpServer implements AsyncDisposable {
  /** `host:port` it listens on. */
  readonly address: string;
  readonly #http1: HttpServer1;
  readonly #sessions: ReadonlySet<ServerHttp2Session>;
  readonly #sockets: ReadonlySet<Socket>;
  /** Those of which no byte has come yet. */
  readonly #silent: ReadonlySet<Socket>;
  readonly #streams: AbortController;

  private constructor(
    address: string,
    http1: HttpServer1,
    connections: { readonly sessions: ReadonlySet<ServerHttp2Session>; readonly sockets: ReadonlySet<Socket>; readonly silent: ReadonlySet<Socket> },
    streams: AbortController,
  ) {
    this.address = address;
    this.#http1 = http1;
    this.#sessions = connections.sessions;
    this.#sockets = connections.sockets;
    this.#silent = connections.silent;
    this.#streams = streams;
  }

  /** Rejects with an Error whose message says what to do if the address cannot be listened on. */
  static async start(options: HttpServerOptions): Promise<HttpServer> {
    const streams = new AbortController();
    const { headersMs, requestMs, keepAliveMs, firstBytesMs, checkMs } = options.timeLimits ?? HTTP_TIME_LIMITS;
    const handle = limited(handlerOf(options, streams.signal), () => http1, requestMs, streams.signal, options.clock);
    const http1: HttpServer1 = createHttpServer(
      { maxHeaderSize: HEADER_BYTES_MAX, headersTimeout: headersMs, requestTimeout: requestMs, keepAliveTimeout: keepAliveMs, connectionsCheckingInterval: checkMs },
      handle,
    );
    const http2 = createHttp2Server({ settings: { maxConcurrentStreams: STREAMS_PER_CONNECTION_MAX, maxHeaderListSize: HEADER_BYTES_MAX } }, handle);
    const sessions = new Set<ServerHttp2Session>();
    http2.on('session', (session: ServerHttp2Session) => {
      sessions.add(session);
      session.on('close', () => sessions.delete(session));
      endWhenIdle(session, keepAliveMs);
      if (streams.signal.aborted) session.close();
    });
    const sockets = new Set<Socket>();
    const silent = new Set<Socket>();
    const serveHttp1 = http1.listeners('connection');
    http1.removeAllListeners('connection');
    http1.on('connection', (socket: Socket) => {
      sockets.add(socket);
      silent.add(socket);
      socket.once('data', () => silent.delete(socket));
      socket.on('close', () => {
        sockets.delete(socket);
        silent.delete(socket);
      });
      sniff(socket, firstBytesMs, () => serveHttp1.forEach((serve) => void Reflect.apply(serve, http1, [socket])), http2);
    });
    http1.maxConnections = CONNECTIONS_MAX;
    const port = await listen(http1, options.listen);
    return new HttpServer(`${hostOf(options.listen)}:${port}`, http1, { sessions, sockets, silent }, streams);
  }

  /** Takes no more connections, ends the streams as UNAVAILABLE after what was read is answered, and resolves when all calls have ended. */
  async drain(): Promise<void> {
    this.#streams.abort();
    const closed = new Promise<void>((resolve) => this.#http1.close(() => resolve()));
    for (const session of this.#sessions) session.close();
    for (const socket of this.#silent) socket.destroy();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#streams.abort();
    this.#http1.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.resolve();
  }
}

function hostOf(listen: string): string {
  return listen.slice(0, listen.lastIndexOf(':'));
}

/** True if only this machine can reach the address. */
export function isLoopback(listen: string): boolean {
  const host = hostOf(listen).replace(/^\[|\]$/g, '');
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

function listen(server: HttpServer1, address: string): Promise<number> {
  const host = hostOf(address).replace(/^\[|\]$/g, '');
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(new Error(`cannot listen for HTTP on ${address}: ${error.code === 'EADDRINUSE' ? 'the port is taken' : 'the address cannot be used'}. Choose another by ROUTER_HTTP_LISTEN`, { cause: error }));
    });
    server.listen(Number(address.slice(address.lastIndexOf(':') + 1)), host, () => {
      const bound = server.address();
      resolve(typeof bound === 'object' && bound !== null ? bound.port : 0);
    });
  });
}

/** Hands the connection to HTTP/1.1 or HTTP/2 by its first bytes. */
function sniff(socket: Socket, firstBytesMs: number, serveHttp1: () => void, http2: Http2Server): void {
  socket.on('error', () => socket.destroy());
  socket.setTimeout(firstBytesMs, () => socket.destroy());
  socket.once('data', (bytes: Buffer) => {
    socket.pause();
    socket.setTimeout(0);
    socket.removeAllListeners('timeout');
    socket.unshift(bytes);
    const isHttp2 = bytes.length >= 3 && HTTP2_PREFACE.subarray(0, bytes.length).equals(bytes.subarray(0, HTTP2_PREFACE.length));
    if (isHttp2) {
      http2.emit('connection', socket);
      return;
    }
    serveHttp1();
    socket.resume();
  });
}

/** Closes a connection with HTTP/2 on which nothing moves and no call is open. */
function endWhenIdle(session: ServerHttp2Session, idleMs: number): void {
  let openStreams = 0;
  session.on('stream', (stream) => {
    openStreams += 1;
    stream.on('close', () => {
      openStreams -= 1;
    });
  });
  session.setTimeout(idleMs, () => {
    if (openStreams === 0) session.destroy();
  });
}

/** Ends what is left of a connection while draining, and HTTP/2 requests whose body stops coming. */
function limited(handle: NodeHandler, http1: () => HttpServer1, requestMs: number, draining: AbortSignal, clock: Clock): NodeHandler {
  return (request, response) => {
    if (!('stream' in request)) {
      response.once('close', () => {
        if (draining.aborted) http1().closeIdleConnections();
      });
      response.once('finish', () => {
        if (!request.complete) void lingering(request, clock);
      });
    } else if (request.url !== STREAM_EVENTS_PATH) {
      const { stream } = request;
      stream.setTimeout(requestMs, () => {
        if (!stream.readableEnded) stream.close(http2Constants.NGHTTP2_CANCEL);
      });
    }
    handle(request, response);
  };
}

/**
 * A request was answered before its body had come. What comes of it is passed over unread for a moment, so that the caller
 * can read the answer; then the connection ends.
 */
async function lingering(request: IncomingMessage, clock: Clock): Promise<void> {
  const over = new AbortController();
  request.once('close', () => over.abort());
  await clock.sleep(LINGER_MS, over.signal);
  // Of one that was destroyed the connection has gone, and with it the property.
  if (!request.complete && !request.destroyed) request.socket.destroy();
}

function handlerOf(options: HttpServerOptions, draining: AbortSignal): NodeHandler {
  const { probes, ingress, authenticator, listen: address } = options;
  const mayReadMetrics = (authorization: string | undefined): boolean => isLoopback(address) || authenticator.hasRole(authorization, ['monitor', 'admin']);
  const pages = { probes, ingress, mayReadMetrics };
  return connectAdapter({
    logger: options.logger,
    routes: (router) => addRoutes(router, options, draining),
    interceptors: [observing(options)],
    requestGate: (context) => {
      admit(options, context);
      countMalformed(options, context);
    },
    readMaxBytes: MESSAGE_BYTES_MAX,
    writeMaxBytes: 16 * 1024 * 1024,
    acceptCompression: [compressionGzip],
    fallback: (request, response) => {
      answerPage(pages, request, response).catch((error: unknown) => {
        options.logger.error({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }, 'a probe could not be answered');
        if (response.headersSent) response.destroy();
        else answerText(response, 500, 'text/plain', 'The router failed to answer. Its log has the rest.\n');
      });
    },
  });
}

/** Times every call that is no stream, and turns its errors into what callers see. */
function observing({ clock, meter, logger }: HttpServerOptions): Interceptor {
  return (next) => async (request) => {
    const beganMs = clock.monotonicMs();
    const name = `${request.service.typeName}/${request.method.name}`;
    try {
      const response = await next(request);
      if (!response.stream) meter.observe(name, 0, clock.monotonicMs() - beganMs);
      return response;
    } catch (error) {
      const connectError = error instanceof ConnectError ? error : connectErrorOf(error, logger);
      meter.observe(name, connectError.code, clock.monotonicMs() - beganMs);
      throw connectError;
    }
  };
}

/** Before anything of the body is read: a stranger must not make the router hold megabytes. Throws what the caller sees. */
function admit({ authenticator, clock, meter, logger }: HttpServerOptions, { service, method, requestHeader }: HandlerContext): void {
  const name = `${service.typeName}/${method.name}`;
  const beganMs = clock.monotonicMs();
  try {
    authenticator.authenticate(name, requestHeader.get('authorization') ?? undefined);
  } catch (error) {
    const connectError = connectErrorOf(error, logger);
    meter.observe(name, connectError.code, clock.monotonicMs() - beganMs);
    throw connectError;
  }
}

/** Calls that end before the interceptor, because their request is no message. A stream of requests is counted where it is read. */
function countMalformed({ clock, meter }: HttpServerOptions, context: HandlerContext): void {
  const beganMs = clock.monotonicMs();
  const { service, method } = context;
  correctMalformed(context, () => {
    if (method.methodKind !== 'bidi_streaming') meter.observe(`${service.typeName}/${method.name}`, Code.invalidArgument, clock.monotonicMs() - beganMs);
  });
}

function connectErrorOf(error: unknown, logger: Logger): ConnectError {
  const { parts } = statusOf(error, logger);
  const details = detailsOf(parts).map(({ desc, value }) => ({ desc, value }));
  return new ConnectError(parts.message, CONNECT_CODES.get(parts.code) ?? ConnectCode.Unknown, undefined, details);
}

/** Connect numbers the codes as gRPC does. */
const CONNECT_CODES: ReadonlyMap<number, ConnectCode> = new Map(
  Object.values(ConnectCode)
    .filter((value) => typeof value === 'number')
    .map((code) => [code, code]),
);

function addRoutes(router: ConnectRouter, options: HttpServerOptions, draining: AbortSignal): void {
  const { router: r, admin: a, authenticator, logger, clock, meter } = options;
  const callerOf = (context: HandlerContext): Caller =>
    authenticator.authenticate(`${context.service.typeName}/${context.method.name}`, context.requestHeader.get('authorization') ?? undefined);
  /** Streams end outside the interceptor, so they are timed and their errors turned here. */
  async function* told<Answer>(context: HandlerContext, answers: () => AsyncIterable<Answer>): AsyncGenerator<Answer> {
    const beganMs = clock.monotonicMs();
    let code: number = Code.cancelled;
    try {
      yield* answers();
      code = 0;
    } catch (error) {
      const connectError = error instanceof ConnectError ? error : connectErrorOf(error, logger);
      blameCaller(connectError, context);
      code = connectError.code;
      throw connectError;
    } finally {
      meter.observe(`${context.service.typeName}/${context.method.name}`, code, clock.monotonicMs() - beganMs);
    }
  }
  router.service(AppserviceRouter, {
    submitEvents: async (request, context) => r.submitEvents(request, callerOf(context)),
    streamEvents: (requests, context) => told(context, () => r.streamEvents(requests, callerOf(context), draining)),
    getStreamPosition: async (request, context) => r.getStreamPosition(request, callerOf(context)),
    getDeliveredPositions: async (request, context) => r.getDeliveredPositions(request, callerOf(context)),
    checkNamespace: async (request, context) => r.checkNamespace(request, callerOf(context)),
    authorizeIdentifier: async (request, context) => r.authorizeIdentifier(request, callerOf(context)),
    authenticateAppservice: async (request, context) => r.authenticateAppservice(request, callerOf(context)),
    pingAppservice: async (request, context) => r.pingAppservice(request, callerOf(context)),
    queryUser: async (request, context) => r.queryUser(request, callerOf(context)),
    queryRoomAlias: async (request, context) => r.queryRoomAlias(request, callerOf(context)),
    listThirdPartyProtocols: async (request, context) => r.listThirdPartyProtocols(request, callerOf(context)),
    queryThirdPartyUsers: async (request, context) => r.queryThirdPartyUsers(request, callerOf(context)),
    queryThirdPartyLocations: async (request, context) => r.queryThirdPartyLocations(request, callerOf(context)),
    claimKeys: async (request, context) => r.claimKeys(request, callerOf(context)),
    queryKeys: async (request, context) => r.queryKeys(request, callerOf(context)),
  });
  router.service(AppserviceAdmin, {
    putRegistration: async (request, context) => a.putRegistration(request, callerOf(context)),
    getRegistration: async (request, context) => a.getRegistration(request, callerOf(context)),
    listRegistrations: async (request, context) => a.listRegistrations(request, callerOf(context)),
    deleteRegistration: async (request, context) => a.deleteRegistration(request, callerOf(context)),
    getAppservice: async (request, context) => a.getAppservice(request, callerOf(context)),
    listAppservices: async (request, context) => a.listAppservices(request, callerOf(context)),
    pauseDelivery: async (request, context) => a.setPaused(request, callerOf(context), true),
    resumeDelivery: async (request, context) => a.setPaused(request, callerOf(context), false),
    retryNow: async (request, context) => a.retryNow(request, callerOf(context)),
    rotateEncryptionKey: async (request, context) => a.rotateEncryptionKey(request, callerOf(context)),
    stopAppservice: async (request, context) => a.operator.stopAppservice(request, callerOf(context)),
    skipTransaction: async (request, context) => a.operator.skipTransaction(request, callerOf(context)),
    listQuarantinedTransactions: async (request, context) => a.operator.listQuarantinedTransactions(request, callerOf(context)),
    redeliverTransaction: async (request, context) => a.operator.redeliverTransaction(request, callerOf(context)),
    discardTransaction: async (request, context) => a.operator.discardTransaction(request, callerOf(context)),
    replayEvents: async (request, context) => a.operator.replayEvents(request, callerOf(context)),
    listAuditEntries: async (request, context) => a.operator.listAuditEntries(request, callerOf(context)),
    explainRouting: async (request, context) => a.explainRouting(request, callerOf(context)),
    watchEvents: (request, context) => told(context, () => untilDrained(a.watchEvents(request, callerOf(context), AbortSignal.any([context.signal, draining]), () => sendHeaders(context)), draining)),
  });
}
