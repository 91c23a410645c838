/**
 * An operator's calls to a running router over gRPC, for the command line: the generated messages over grpc-js.
 */
import type { DescMessage, DescMethodServerStreaming, DescMethodUnary, JsonValue, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { create, fromBinary, toBinary, toJson } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import type { ServiceError } from '@grpc/grpc-js';
import { BadRequestSchema, ErrorInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../gen/google/rpc/status_pb.ts';
import { Code } from './status.ts';

/** What went wrong with a call, as the command line has to tell it. */
export type CallFailureKind = 'unreachable' | 'unauthorised' | 'refused';

export interface CallFailure {
  readonly kind: CallFailureKind;
  /** ErrorInfo.reason; empty where the error did not come from the router. */
  readonly reason: string;
  /** Full sentences. */
  readonly message: string;
  /** Fields at fault, each with what is wrong. */
  readonly violations: readonly { readonly field: string; readonly description: string }[];
}

export class CallError extends Error {
  override readonly name = 'CallError';
  readonly failure: CallFailure;

  constructor(failure: CallFailure) {
    super(failure.message);
    this.failure = failure;
  }
}

export interface AdminClientOptions {
  /** `host:port` of the gRPC listener. */
  readonly address: string;
  readonly token: string;
}

const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

export class AdminClient implements Disposable {
  readonly #client: Client;
  readonly #metadata = new Metadata();
  readonly #address: string;

  constructor({ address, token }: AdminClientOptions) {
    this.#address = address;
    this.#client = new Client(address, credentials.createInsecure(), { 'grpc.max_receive_message_length': MESSAGE_BYTES_MAX });
    this.#metadata.set('authorization', `Bearer ${token}`);
  }

  /** Rejects with a CallError, at the latest `timeoutMs` after `nowMs`. */
  call<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, request: MessageInitShape<I>, deadlineMs: number): Promise<MessageShape<O>> {
    const { encode, decode } = codec(method);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(pathOf(method), encode, decode, create(method.input, request), this.#metadata, { deadline: deadlineMs }, (error, answer) => {
        if (error !== null) reject(new CallError(failureFrom(error, this.#address)));
        else if (answer !== undefined) resolve(answer);
      });
    });
  }

  /** Until `signal` aborts, which ends it without an error. Throws a CallError. */
  async *watch<I extends DescMessage, O extends DescMessage>(method: DescMethodServerStreaming<I, O>, request: MessageInitShape<I>, signal: AbortSignal): AsyncGenerator<MessageShape<O>> {
    const { encode, decode } = codec(method);
    const call = this.#client.makeServerStreamRequest(pathOf(method), encode, decode, create(method.input, request), this.#metadata);
    const cancel = (): void => call.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      for await (const message of call as AsyncIterable<MessageShape<O>>) yield message;
    } catch (error) {
      if (!signal.aborted) throw new CallError(failureFrom(error, this.#address));
    } finally {
      signal.removeEventListener('abort', cancel);
      call.cancel();
    }
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

/** A message as JSON with the names of the contract. */
export function jsonFrom<Schema extends DescMessage>(schema: Schema, message: MessageShape<Schema>): JsonValue {
  return toJson(schema, message, { useProtoFieldName: true, alwaysEmitImplicit: true });
}

function codec<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O> | DescMethodServerStreaming<I, O>) {
  return {
    encode: (message: MessageShape<I>): Buffer => Buffer.from(toBinary(method.input, message)),
    decode: (bytes: Buffer): MessageShape<O> => fromBinary(method.output, bytes),
  };
}

function pathOf(method: { readonly parent: { readonly typeName: string }; readonly name: string }): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function failureFrom(error: unknown, address: string): CallFailure {
  if (!isServiceError(error)) return { kind: 'refused', reason: '', message: error instanceof Error ? error.message : String(error), violations: [] };
  const [bytes] = error.metadata.get('grpc-status-details-bin');
  const details = Buffer.isBuffer(bytes) ? fromBinary(StatusSchema, bytes).details : [];
  const reason = details.map((any) => anyUnpack(any, ErrorInfoSchema)?.reason).find((found) => found !== undefined) ?? '';
  const violations = details.flatMap((any) => anyUnpack(any, BadRequestSchema)?.fieldViolations ?? []).map(({ field, description }) => ({ field, description }));
  const code: number = error.code;
  if (code === Code.unauthenticated) return { kind: 'unauthorised', reason, message: `${error.details} Name a file with a token of this router by --token-file.`, violations };
  if (code === Code.permissionDenied) return { kind: 'unauthorised', reason, message: error.details, violations };
  if (reason === '' && (code === Code.unavailable || code === Code.deadlineExceeded)) {
    const message = `No router answers at ${address}. Start it with "appservice-router serve", or name its gRPC address by --address.`;
    return { kind: 'unreachable', reason, message, violations };
  }
  return { kind: 'refused', reason, message: error.details, violations };
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error && error.metadata instanceof Metadata;
}
