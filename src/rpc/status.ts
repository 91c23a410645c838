/**
 * How a call ends without a result, as both doors tell it: a gRPC code, a sentence for people and google.rpc details.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import type { GenMessage } from '@bufbuild/protobuf/codegenv2';
import type { Message, MessageInitShape } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import { BadRequestSchema, ErrorInfoSchema, PreconditionFailureSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../gen/google/rpc/status_pb.ts';

/** https://grpc.io/docs/guides/status-codes; Connect uses the same numbers. */
export const Code = {
  cancelled: 1,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const;

/** The name that gRPC gives a code, such as `INVALID_ARGUMENT`. */
export function codeName(code: number): string {
  const name = Object.entries(Code).find(([, value]) => value === code)?.[0];
  if (name === undefined) return code === 0 ? 'OK' : 'UNKNOWN';
  return name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

/** The domain of every ErrorInfo. */
export const ERROR_DOMAIN = 'appservice-router.matrix.org';

export interface StatusParts {
  readonly code: number;
  /** ErrorInfo.reason, in UPPER_SNAKE_CASE. */
  readonly reason: string;
  /** A full sentence that says what to do next. */
  readonly message: string;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Path of the request's field at fault. */
  readonly field?: string;
  readonly retryDelayMs?: number;
  /** Adds a PreconditionFailure. */
  readonly isPrecondition?: boolean;
}

export class RpcStatus extends Error {
  override readonly name = 'RpcStatus';
  readonly parts: StatusParts;

  constructor(parts: StatusParts) {
    const message = bounded(parts.message, MESSAGE_BYTES_MAX);
    super(message);
    const { metadata, field } = parts;
    this.parts = {
      ...parts,
      message,
      ...(metadata === undefined ? {} : { metadata: boundedValues(metadata) }),
      ...(field === undefined ? {} : { field: bounded(field, VALUE_BYTES_MAX) }),
    };
  }
}

/**
 * A status travels in trailers, the message up to three times over. Trailers that are too large end the whole connection
 * with every call on it, so these keep it below the 8 KiB that clients take by default.
 */
const MESSAGE_BYTES_MAX = 768;
const VALUE_BYTES_MAX = 255;
const VALUES_MAX = 8;

function boundedValues(metadata: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(metadata).slice(0, VALUES_MAX).map(([name, value]) => [name, bounded(value, VALUE_BYTES_MAX)]));
}

/** Well-formed, because grpc-js cannot send half a surrogate pair, and cut to whole characters. */
function bounded(text: string, bytesMax: number): string {
  const whole = text.toWellFormed();
  if (Buffer.byteLength(whole) <= bytesMax) return whole;
  const { read } = new TextEncoder().encodeInto(whole, new Uint8Array(bytesMax - 3));
  return `${whole.slice(0, read)}…`;
}

/** A detail message with its schema, as connect wants it. */
export interface StatusDetail {
  readonly desc: GenMessage<Message>;
  readonly value: Message;
}

export function detailsOf(parts: StatusParts): StatusDetail[] {
  const { reason, metadata = {}, field, message, retryDelayMs, isPrecondition } = parts;
  const details = [detail(ErrorInfoSchema, { reason, domain: ERROR_DOMAIN, metadata: { ...metadata } })];
  if (field !== undefined) details.push(detail(BadRequestSchema, { fieldViolations: [{ field, description: message }] }));
  if (retryDelayMs !== undefined) {
    const retryDelay = { seconds: BigInt(Math.floor(retryDelayMs / 1000)), nanos: Math.round((retryDelayMs % 1000) * 1_000_000) };
    details.push(detail(RetryInfoSchema, { retryDelay }));
  }
  if (isPrecondition === true) {
    details.push(detail(PreconditionFailureSchema, { violations: [{ type: reason, subject: metadata['appservice_id'] ?? '', description: message }] }));
  }
  return details;
}

function detail<Shape extends Message>(desc: GenMessage<Shape>, init: MessageInitShape<GenMessage<Shape>>): StatusDetail {
  return { desc, value: create(desc, init) };
}

/** The value of the trailer `grpc-status-details-bin`. */
export function encodedStatus(parts: StatusParts): Buffer {
  const details = detailsOf(parts).map(({ desc, value }) => anyPack(desc, value));
  return Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code: parts.code, message: parts.message, details })));
}
