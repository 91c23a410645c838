/** Requests whose bytes are no message of the method, told alike at both doors: the caller's fault, as MALFORMED_MESSAGE. */
import type { HandlerContext } from '@connectrpc/connect';
import { Code as ConnectCode, ConnectError } from '@connectrpc/connect';
import { Code, detailsOf, RpcStatus } from './status.ts';

/** How connect begins the message of what it could not decode. */
const UNDECODED = 'parse binary: ';

export function malformedMessage(typeName: string): RpcStatus {
  return malformed(`The request is not a valid ${typeName} message in protobuf.`);
}

/**
 * Corrects what connect says of a malformed request: it calls undecodable protobuf INTERNAL, and gives no ErrorInfo for JSON
 * either. Gives back whether the error was one of these. What the house refuses has its details already and stays as it is.
 */
export function blameCaller(error: unknown, { method }: HandlerContext): error is ConnectError {
  if (!(error instanceof ConnectError) || error.details.length > 0) return false;
  const isUndecoded = error.code === ConnectCode.Internal && error.rawMessage.startsWith(UNDECODED);
  if (!isUndecoded && error.code !== ConnectCode.InvalidArgument) return false;
  const { parts } = isUndecoded ? malformedMessage(method.input.typeName) : malformed(error.rawMessage);
  Object.assign(error, { code: ConnectCode.InvalidArgument, rawMessage: parts.message, details: detailsOf(parts) });
  return true;
}

/**
 * Calls `onMalformed` after {@link blameCaller} has corrected the error of a call. Connect decodes before it calls anything
 * of ours, and hands the error only to the signal of the call, just before it writes it: the one moment to correct it.
 */
export function correctMalformed(context: HandlerContext, onMalformed: () => void): void {
  const { signal } = context;
  const correct = (): void => {
    if (blameCaller(signal.reason, context)) onMalformed();
  };
  signal.addEventListener('abort', correct, { once: true });
}

function malformed(message: string): RpcStatus {
  return new RpcStatus({ code: Code.invalidArgument, reason: 'MALFORMED_MESSAGE', message });
}
