/** A homeserver's and an operator's client over gRPC, as any caller would have it: grpc-js with the generated messages. */
import type { DescMethodBiDiStreaming, DescMethodServerStreaming, DescMethodUnary, DescMessage, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import type { ClientDuplexStream, ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../gen/google/rpc/status_pb.ts';
import { anyUnpack } from '@bufbuild/protobuf/wkt';

const encode = (schema: DescMessage) => (message: MessageShape<DescMessage>) => Buffer.from(toBinary(schema, message));
const decode = <Schema extends DescMessage>(schema: Schema) => (bytes: Buffer) => fromBinary(schema, bytes);

export class RouterClient implements Disposable {
  readonly #client: Client;
  readonly #metadata = new Metadata();

  constructor(address: string, token: string | null) {
    this.#client = new Client(address, credentials.createInsecure(), { 'grpc.max_receive_message_length': -1, 'grpc.use_local_subchannel_pool': 1, 'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 500 });
    if (token !== null) this.#metadata.set('authorization', `Bearer ${token}`);
  }

  call<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, request: MessageInitShape<I>, deadlineMs = 20_000): Promise<MessageShape<O>> {
    return this.callRaw(method, Buffer.from(toBinary(method.input, create(method.input, request))), deadlineMs);
  }

  /** The same with bytes that need not be a message. */
  callRaw<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, request: Buffer, deadlineMs = 20_000): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + deadlineMs;
      this.#client.makeUnaryRequest(pathOf(method), (bytes: Buffer) => bytes, decode(method.output), request, this.#metadata, { deadline }, (error, response) => {
        if (error !== null || response === undefined) reject(error ?? new Error('no answer'));
        else resolve(response);
      });
    });
  }

  bidi<I extends DescMessage, O extends DescMessage>(method: DescMethodBiDiStreaming<I, O>): ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
    return this.#client.makeBidiStreamRequest(pathOf(method), encode(method.input), decode(method.output), this.#metadata);
  }

  watch<I extends DescMessage, O extends DescMessage>(method: DescMethodServerStreaming<I, O>, request: MessageInitShape<I>): ClientReadableStream<MessageShape<O>> {
    return this.#client.makeServerStreamRequest(pathOf(method), encode(method.input), decode(method.output), create(method.input, request), this.#metadata);
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function pathOf(method: { readonly parent: { readonly typeName: string }; readonly name: string }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** What a caller reads of an error: code, reason, metadata, field, delay. */
export function errorOf(error: unknown): { code: number; message: string; reason: string | undefined; domain: string | undefined; metadata: Record<string, string>; field: string | undefined; retryDelayMs: number | undefined } {
  const { code, details, metadata } = error as ServiceError;
  const [bytes] = metadata.get('grpc-status-details-bin');
  const status = Buffer.isBuffer(bytes) ? fromBinary(StatusSchema, bytes) : undefined;
  const info = status?.details.map((any) => anyUnpack(any, ErrorInfoSchema)).find((found) => found !== undefined);
  const bad = status?.details.map((any) => anyUnpack(any, BadRequestSchema)).find((found) => found !== undefined);
  const retry = status?.details.map((any) => anyUnpack(any, RetryInfoSchema)).find((found) => found !== undefined);
  const delay = retry?.retryDelay;
  return {
    code,
    message: details,
    reason: info?.reason,
    domain: info?.domain,
    metadata: { ...info?.metadata },
    field: bad?.fieldViolations[0]?.field,
    retryDelayMs: delay === undefined ? undefined : Number(delay.seconds) * 1000 + delay.nanos / 1_000_000,
  };
}
