/**
 * The gRPC door: @grpc/grpc-js with protobuf-es as its codec.
 *
 *   serving ──drain──▶ draining (calls end, new ones are refused) ──dispose or time──▶ closed
 */
import type { DescMessage, DescMethod, DescService, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { handleServerStreamingCall, handleUnaryCall, Metadata, MethodDefinition, ServerDuplexStream, UntypedHandleCall } from '@grpc/grpc-js';
import { Metadata as GrpcMetadata, Server, ServerCredentials, setLogger, status } from '@grpc/grpc-js';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { AdminMethods } from './admin-methods.ts';
import { admission } from './admission.ts';
import type { CallFailure } from './admission.ts';
import type { Authenticator, Caller } from './authentication.ts';
import { messagesOf } from './call-reader.ts';
import { REQUEST_BYTES_MAX } from './conversion.ts';
import { statusOf } from './errors.ts';
import { enlargeReceiveWindows, limitConnections } from './flow-control.ts';
import { malformedMessage } from './malformed-message.ts';
import type { RpcMeter } from './ports.ts';
import { addHealth, addReflection } from './reflection.ts';
import type { RouterMethods } from './router-methods.ts';
import { untilDrained } from './router-methods.ts';
import { Code, encodedStatus, RpcStatus } from './status.ts';

export interface GrpcServerOptions {
  /** `host:port`; port 0 = any free one. */
  readonly listen: string;
  readonly router: RouterMethods;
  readonly admin: AdminMethods;
  readonly authenticator: Authenticator;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: RpcMeter;
}

/** Room for the framing and the small fields of a request of the largest size. */
const RECEIVE_BYTES_MAX = REQUEST_BYTES_MAX + 64 * 1024;
const SEND_BYTES_MAX = 16 * 1024 * 1024;
const STREAMS_PER_CONNECTION_MAX = 1000;
const HEADER_BYTES_MAX = 16 * 1024;
const KEEPALIVE_MS = 60_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;
const CONNECTIONS_MAX = 1000;
/** A connection without calls is closed after this time. */
const CONNECTION_IDLE_MS = 300_000;

/** grpc-js has an enum of its own for the numbers of the codes. */
const STATUSES: ReadonlyMap<number, status> = new Map(
  Object.values(status)
    .filter((value) => typeof value === 'number')
    .map((code) => [code, code]),
);

const SERVICES: readonly DescService[] = [AppserviceRouter, AppserviceAdmin];

export class GrpcServer implements AsyncDisposable {
  /** `host:port` it listens on. */
  readonly address: string;
  readonly #server: Server;
  readonly #health: { stop(): void };
  readonly #streams: AbortController;

  private constructor(address: string, server: Server, health: { stop(): void }, streams: AbortController) {
    this.address = address;
    this.#server = server;
    this.#health = health;
    this.#streams = streams;
  }

  /** Rejects with an Error whose message says what to do if the address cannot be listened on. */
  static async start(options: GrpcServerOptions): Promise<GrpcServer> {
    // By itself it writes lines of its own form beside the log.
    setLogger({ error: (...parts: unknown[]) => options.logger.debug({ text: parts.map(String).join(' ') }, 'grpc-js tells something') });
    const streams = new AbortController();
    const door = new Door(options, streams.signal);
    const server = new Server({
      interceptors: [admission((method, metadata) => door.refusal(method, metadata))],
      'grpc.max_receive_message_length': RECEIVE_BYTES_MAX,
      'grpc.max_send_message_length': SEND_BYTES_MAX,
      'grpc.max_concurrent_streams': STREAMS_PER_CONNECTION_MAX,
      'grpc.max_metadata_size': HEADER_BYTES_MAX,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.enable_channelz': 0,
      'grpc.max_connection_idle_ms': CONNECTION_IDLE_MS,
    });
    if (!enlargeReceiveWindows(server)) options.logger.warn({}, 'this version of grpc-js has no larger receive windows; large requests are slower');
    if (!limitConnections(server, CONNECTIONS_MAX)) options.logger.warn({}, 'this version of grpc-js takes no limit of connections on the gRPC port');
    addServices(server, options, door);
    const health = addHealth(server, SERVICES);
    addReflection(server, SERVICES);
    const port = await bind(server, options.listen);
    return new GrpcServer(`${options.listen.slice(0, options.listen.lastIndexOf(':'))}:${port}`, server, health, streams);
  }

  /** Says NOT_SERVING, ends the streams as UNAVAILABLE after what was read is answered, and resolves when all calls have ended. */
  async drain(): Promise<void> {
    this.#health.stop();
    this.#streams.abort();
    await new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
  }

  /** Ends what is left at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#streams.abort();
    this.#server.forceShutdown();
    await Promise.resolve();
  }
}

function bind(server: Server, listen: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(listen, ServerCredentials.createInsecure(), (error, port) => {
      if (error === null) resolve(port);
      else reject(new Error(`cannot listen for gRPC on ${listen}: ${/EADDRINUSE/.test(error.message) ? 'the port is taken' : 'the address cannot be used'}. Choose another by ROUTER_GRPC_LISTEN`, { cause: error }));
    });
  });
}

function addServices(server: Server, { router, admin }: GrpcServerOptions, door: Door): void {
  const r = AppserviceRouter.method;
  const a = AppserviceAdmin.method;
  door.add(server, AppserviceRouter, {
    submitEvents: door.unary(r.submitEvents, (request, caller) => router.submitEvents(request, caller)),
    streamEvents: door.bidi(r.streamEvents, (requests, caller, draining) => router.streamEvents(requests, caller, draining)),
    getDeliveredPositions: door.unary(r.getDeliveredPositions, (request, caller) => router.getDeliveredPositions(request, caller)),
    getStreamPosition: door.unary(r.getStreamPosition, (request, caller) => router.getStreamPosition(request, caller)),
    checkNamespace: door.unary(r.checkNamespace, (request, caller) => router.checkNamespace(request, caller)),
    authorizeIdentifier: door.unary(r.authorizeIdentifier, (request, caller) => router.authorizeIdentifier(request, caller)),
    authenticateAppservice: door.unary(r.authenticateAppservice, (request, caller) => router.authenticateAppservice(request, caller)),
    pingAppservice: door.unary(r.pingAppservice, (request, caller) => router.pingAppservice(request, caller)),
    queryUser: door.unary(r.queryUser, (request, caller) => router.queryUser(request, caller)),
    queryRoomAlias: door.unary(r.queryRoomAlias, (request, caller) => router.queryRoomAlias(request, caller)),
    listThirdPartyProtocols: door.unary(r.listThirdPartyProtocols, (request, caller) => router.listThirdPartyProtocols(request, caller)),
    queryThirdPartyUsers: door.unary(r.queryThirdPartyUsers, (request, caller) => router.queryThirdPartyUsers(request, caller)),
    queryThirdPartyLocations: door.unary(r.queryThirdPartyLocations, (request, caller) => router.queryThirdPartyLocations(request, caller)),
    claimKeys: door.unary(r.claimKeys, (request, caller) => router.claimKeys(request, caller)),
    queryKeys: door.unary(r.queryKeys, (request, caller) => router.queryKeys(request, caller)),
  });
  door.add(server, AppserviceAdmin, {
    putRegistration: door.unary(a.putRegistration, (request, caller) => admin.putRegistration(request, caller)),
    getRegistration: door.unary(a.getRegistration, (request, caller) => admin.getRegistration(request, caller)),
    listRegistrations: door.unary(a.listRegistrations, (request, caller) => admin.listRegistrations(request, caller)),
    deleteRegistration: door.unary(a.deleteRegistration, (request, caller) => admin.deleteRegistration(request, caller)),
    getAppservice: door.unary(a.getAppservice, (request, caller) => admin.getAppservice(request, caller)),
    listAppservices: door.unary(a.listAppservices, (request, caller) => admin.listAppservices(request, caller)),
    pauseDelivery: door.unary(a.pauseDelivery, (request, caller) => admin.setPaused(request, caller, true)),
    resumeDelivery: door.unary(a.resumeDelivery, (request, caller) => admin.setPaused(request, caller, false)),
    retryNow: door.unary(a.retryNow, (request, caller) => admin.retryNow(request, caller)),
    rotateEncryptionKey: door.unary(a.rotateEncryptionKey, (request, caller) => admin.rotateEncryptionKey(request, caller)),
    stopAppservice: door.unary(a.stopAppservice, (request, caller) => admin.operator.stopAppservice(request, caller)),
    skipTransaction: door.unary(a.skipTransaction, (request, caller) => admin.operator.skipTransaction(request, caller)),
    listQuarantinedTransactions: door.unary(a.listQuarantinedTransactions, (request, caller) => admin.operator.listQuarantinedTransactions(request, caller)),
    redeliverTransaction: door.unary(a.redeliverTransaction, (request, caller) => admin.operator.redeliverTransaction(request, caller)),
    discardTransaction: door.unary(a.discardTransaction, (request, caller) => admin.operator.discardTransaction(request, caller)),
    replayEvents: door.unary(a.replayEvents, (request, caller) => admin.operator.replayEvents(request, caller)),
    listAuditEntries: door.unary(a.listAuditEntries, (request, caller) => admin.operator.listAuditEntries(request, caller)),
    explainRouting: door.unary(a.explainRouting, (request, caller) => admin.explainRouting(request, caller)),
    watchEvents: door.serverStream(a.watchEvents, (request, caller, signal, begun) => admin.watchEvents(request, caller, signal, begun)),
  });
}

type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { readonly input: I; readonly output: O };

/** Puts methods behind authentication, timing and the error table. */
class Door {
  readonly #options: GrpcServerOptions;
  readonly #draining: AbortSignal;

  constructor(options: GrpcServerOptions, draining: AbortSignal) {
    this.#options = options;
    this.#draining = draining;
  }

  /** What keeps a call of our services out; null for those of others, which are open. */
  refusal(name: string, metadata: Metadata): CallFailure | null {
    if (!SERVICES.some(({ typeName }) => name.startsWith(`${typeName}/`))) return null;
    const beganMs = this.#options.clock.monotonicMs();
    try {
      this.#caller(name, metadata);
      return null;
    } catch (error) {
      return this.#failure(name, error, beganMs);
    }
  }

  add(server: Server, service: DescService, handlers: Record<string, UntypedHandleCall>): void {
    const definition = Object.fromEntries(service.methods.map((method) => [method.localName, methodDefinition(method)]));
    server.addService(definition, handlers);
  }

  unary<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    run: (request: MessageShape<I>, caller: Caller) => Promise<MessageInitShape<O>>,
  ): handleUnaryCall<MessageShape<I>, MessageShape<O>> {
    const name = nameOf(method);
    const { meter, clock } = this.#options;
    return (call, callback) => {
      const beganMs = clock.monotonicMs();
      this.#run(name, call.metadata, (caller) => run(intact(call.request), caller))
        .then((response) => {
          const answer = create(method.output, response);
          meter.observe(name, 0, clock.monotonicMs() - beganMs);
          callback(null, answer);
        })
        .catch((error: unknown) => callback(this.#failure(name, error, beganMs)));
    };
  }

  bidi<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    run: (requests: AsyncIterable<MessageShape<I>>, caller: Caller, draining: AbortSignal) => AsyncIterable<MessageInitShape<O>>,
  ): UntypedHandleCall {
    return (call: ServerDuplexStream<MessageShape<I>, MessageShape<O>>) => {
      // The loop below ends with the call; an error of the connection shows as its end.
      call.on('error', () => undefined);
      void this.#stream(method, call, (caller) => run(intactOnes(messagesOf(call)), caller, this.#draining));
    };
  }

  /** `begun` sends the headers, which otherwise come with the first answer. */
  serverStream<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    run: (request: MessageShape<I>, caller: Caller, signal: AbortSignal, begun: () => void) => AsyncIterable<MessageInitShape<O>>,
  ): handleServerStreamingCall<MessageShape<I>, MessageShape<O>> {
    return (call) => {
      const gone = new AbortController();
      call.on('cancelled', () => gone.abort());
      const signal = AbortSignal.any([gone.signal, this.#draining]);
      void this.#stream(method, call, (caller) => untilDrained(run(intact(call.request), caller, signal, () => call.sendMetadata(new GrpcMetadata())), this.#draining));
    };
  }

  async #run<Result>(name: string, metadata: Metadata, run: (caller: Caller) => Promise<Result>): Promise<Result> {
    return run(this.#caller(name, metadata));
  }

  #caller(name: string, metadata: Metadata): Caller {
    const [header] = metadata.get('authorization');
    return this.#options.authenticator.authenticate(name, typeof header === 'string' ? header : undefined);
  }

  async #stream<O extends DescMessage>(method: Method<DescMessage, O>, call: StreamCall, run: (caller: Caller) => AsyncIterable<MessageInitShape<O>>): Promise<void> {
    const name = nameOf(method);
    const { clock, meter } = this.#options;
    const beganMs = clock.monotonicMs();
    try {
      for await (const answer of run(this.#caller(name, call.metadata))) {
        if (call.cancelled) break;
        if (!call.write(create(method.output, answer))) await writable(call);
      }
      // The requests of a call that is reset end just before it is marked as cancelled.
      if (!call.cancelled) await clock.pause();
      meter.observe(name, call.cancelled ? Code.cancelled : 0, clock.monotonicMs() - beganMs);
      call.end();
    } catch (error) {
      call.emit('error', this.#failure(name, error, beganMs));
    }
  }

  #failure(name: string, error: unknown, beganMs: number): CallFailure {
    const { parts } = statusOf(error, this.#options.logger);
    this.#options.meter.observe(name, parts.code, this.#options.clock.monotonicMs() - beganMs);
    const metadata = new GrpcMetadata();
    metadata.set('grpc-status-details-bin', encodedStatus(parts));
    return { code: STATUSES.get(parts.code) ?? status.UNKNOWN, details: parts.message, metadata };
  }
}

/** What a streaming call is, as far as it is written to. */
interface StreamCall {
  readonly metadata: Metadata;
  readonly cancelled: boolean;
  write(message: unknown): boolean;
  end(): void;
  emit(event: 'error', error: object): boolean;
  once(event: string, listener: () => void): unknown;
  off(event: string, listener: () => void): unknown;
}

function writable(call: StreamCall): Promise<void> {
  const events = ['drain', 'close', 'cancelled'];
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of events) call.off(event, done);
      resolve();
    };
    for (const event of events) call.once(event, done);
  });
}

/**
 * A request that did not decode travels to its method as the status to answer: thrown in the codec, grpc-js would make
 * INTERNAL of it.
 */
function intact<Request>(request: Request): Request {
  if (request instanceof RpcStatus) throw request;
  return request;
}

async function* intactOnes<Request>(requests: AsyncIterable<Request>): AsyncGenerator<Request> {
  for await (const request of requests) yield intact(request);
}

function nameOf(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

type Decoded = MessageShape<DescMessage> | RpcStatus;

function methodDefinition(method: DescMethod): MethodDefinition<Decoded, Decoded> {
  const serializer = (schema: DescMessage) => (message: Decoded) => {
    if (message instanceof RpcStatus) throw message;
    const bytes = toBinary(schema, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  const deserializer = (schema: DescMessage) => (bytes: Buffer): Decoded => decode(schema, bytes);
  return {
    path: `/${nameOf(method)}`,
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: serializer(method.input),
    requestDeserialize: deserializer(method.input),
    responseSerialize: serializer(method.output),
    responseDeserialize: deserializer(method.output),
  };
}

function decode(schema: DescMessage, bytes: Buffer): Decoded {
  try {
    return fromBinary(schema, bytes);
  } catch {
    return malformedMessage(schema.typeName);
  }
}
