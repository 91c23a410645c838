/**
 * The one table from what the house refuses, and from how a store fails, to what a caller sees (contract section 3).
 * docs/errors.md is made from it.
 */
import type { RefusalReason } from '../appservice/refusal.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { Logger } from '../logger.ts';
import type { StoreErrorKind } from '../store/errors.ts';
import { StoreError } from '../store/errors.ts';
import { Code, codeName, RpcStatus } from './status.ts';
import type { StatusParts } from './status.ts';

interface ErrorRule {
  readonly code: keyof typeof Code;
  /** For the reference page. */
  readonly when: string;
  readonly isPrecondition?: boolean;
}

export const REFUSALS: Readonly<Record<RefusalReason, ErrorRule>> = {
  INVALID_FIELD: { code: 'invalidArgument', when: 'A field of the request is malformed. BadRequest names it. Nothing of the request is applied.' },
  APPSERVICE_NOT_FOUND: { code: 'notFound', when: 'There is no appservice with this id.' },
  TRANSACTION_NOT_FOUND: { code: 'notFound', when: 'There is no such transaction.' },
  REGISTRATION_CONFLICT: { code: 'alreadyExists', when: 'Another registration has the same as_token or id.' },
  DELIVERY_STATE_FORBIDS: { code: 'failedPrecondition', when: 'The delivery state of the appservice forbids the operation.', isPrecondition: true },
  POSITION_NOT_RETAINED: { code: 'failedPrecondition', when: 'A replay would begin where the log is no longer whole. Metadata: oldest_log_position, from which it is.', isPrecondition: true },
  QUEUE_FULL: { code: 'resourceExhausted', when: 'Too much waits to be written, or too many queries or watches are under way. RetryInfo says when to try again.' },
  TOO_MANY_PINGS: { code: 'resourceExhausted', when: 'Too many pings are under way, of this appservice or of all. RetryInfo says when to try again.' },
  TOO_MANY_LOOKUPS: { code: 'resourceExhausted', when: 'Too many third-party look-ups, or too many key requests, are under way. RetryInfo says when to try again.' },
  DRAINING: { code: 'unavailable', when: 'The router is shutting down. RetryInfo says when to try again.' },
  STREAM_POSITION_REWOUND: { code: 'failedPrecondition', when: "A stream position was taken over before with another event: the homeserver's stream went back.", isPrecondition: true },
  APPSERVICE_NAMESPACE_CONFLICT: { code: 'permissionDenied', when: 'A namespace keeps the actor out. Metadata: errcode, http_status.' },
  APPSERVICE_UNKNOWN_TOKEN: { code: 'permissionDenied', when: 'No registration has the as_token that the actor sent. Metadata: errcode, http_status.' },
  APPSERVICE_MASQUERADE_DENIED: { code: 'permissionDenied', when: 'The appservice may not act as this user. Metadata: errcode, http_status.' },
  APPSERVICE_USER_NOT_REGISTERED: { code: 'permissionDenied', when: 'The user has no account to log in to. Metadata: errcode, http_status.' },
  APPSERVICE_QUERY_TIMEOUT: { code: 'deadlineExceeded', when: 'An appservice that may have the identifier gave no answer, after all attempts. Metadata: errcode, http_status.' },
  APPSERVICE_SERVICE_UNAVAILABLE: { code: 'unavailable', when: 'An appservice that may have the identifier answered with a failure. Metadata: errcode, http_status. RetryInfo says when to try again.' },
};

interface StoreRule {
  readonly code: keyof typeof Code;
  readonly reason: string;
  readonly message: string;
  readonly retryDelayMs?: number;
  readonly when: string;
}

export const STORE_FAILURES: Readonly<Record<StoreErrorKind, StoreRule>> = {
  unavailable: { code: 'unavailable', reason: 'STORE_UNAVAILABLE', retryDelayMs: 1000, message: 'The router cannot reach its store. Send the request again with the same positions.', when: 'The store is down or does not answer in time. Whether a write happened may be unknown; repeating it with the same positions is safe.' },
  exhausted: { code: 'resourceExhausted', reason: 'STORE_EXHAUSTED', retryDelayMs: 5000, message: 'The store of the router has no room or takes no more now. Send the request again later.', when: 'The disk is full, or too much waits for the store.' },
  unreadable: { code: 'internal', reason: 'STORE_UNREADABLE', message: 'The router cannot read what it stored. Its log says what to do.', when: 'What is stored is damaged, or belongs to a newer release or another encryption key.' },
  unsuitable: { code: 'internal', reason: 'STORE_UNSUITABLE', message: 'The store of the router is not set up as it must be. Its log says what to do.', when: 'The deployment of the store does not fit.' },
};

/** Reasons that arise at the edge itself. */
const EDGE_REASONS: Readonly<Record<string, { readonly code: keyof typeof Code; readonly when: string }>> = {
  CREDENTIAL_MISSING: { code: 'unauthenticated', when: 'The call carries no `authorization: Bearer TOKEN`.' },
  CREDENTIAL_UNKNOWN: { code: 'unauthenticated', when: 'No credential has this token.' },
  ROLE_FORBIDDEN: { code: 'permissionDenied', when: 'The role of the credential may not call this method.' },
  SERVER_NAME_FORBIDDEN: { code: 'permissionDenied', when: 'The credential is bound to another homeserver.' },
  SERVER_NAME_UNKNOWN: { code: 'notFound', when: 'The router serves no homeserver of this name.' },
  MALFORMED_MESSAGE: { code: 'invalidArgument', when: 'The bytes are no message of the method.' },
  INTERNAL: { code: 'internal', when: 'A bug in the router. Its log has the rest.' },
};

/** What the caller sees of an error. Anything that is no expected failure is logged and told as INTERNAL, without its text. */
export function statusOf(error: unknown, logger: Logger): RpcStatus {
  if (error instanceof RpcStatus) return error;
  if (error instanceof RefusalError) return new RpcStatus(refusalParts(error));
  if (error instanceof StoreError) {
    const { code, reason, message, retryDelayMs } = STORE_FAILURES[error.kind];
    if (retryDelayMs === undefined) logger.error({ kind: error.kind, error: error.message }, 'a call failed because of the store');
    return new RpcStatus({ code: Code[code], reason, message, ...(retryDelayMs === undefined ? {} : { retryDelayMs }) });
  }
  logger.error({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }, 'a call ended with a bug');
  return new RpcStatus({ code: Code.internal, reason: 'INTERNAL', message: 'The router failed to do this. Its log has the rest; please report it.' });
}

function refusalParts({ reason, message, details }: RefusalError): StatusParts {
  const { code, isPrecondition } = REFUSALS[reason];
  const { field, retryDelayMs, metadata } = details;
  return {
    code: Code[code],
    reason,
    message,
    ...(metadata === undefined ? {} : { metadata }),
    ...(field === undefined ? {} : { field }),
    ...(retryDelayMs === undefined ? {} : { retryDelayMs }),
    ...(isPrecondition === undefined ? {} : { isPrecondition }),
  };
}

/** The reference page docs/errors.md. */
export function errorsPage(): string {
  const name = (code: keyof typeof Code): string => codeName(Code[code]);
  const rows = [
    ...Object.entries(REFUSALS).map(([reason, { code, when }]) => [reason, name(code), when]),
    ...Object.values(STORE_FAILURES).map(({ reason, code, when }) => [reason, name(code), when]),
    ...Object.entries(EDGE_REASONS).map(([reason, { code, when }]) => [reason, name(code), when]),
  ].sort(([a = ''], [b = '']) => (a < b ? -1 : 1));
  const table = rows.map(([reason, code, when]) => `| \`${reason}\` | ${code} | ${when} |`).join('\n');
  return `# Errors

Every error carries a \`google.rpc.ErrorInfo\` with the domain \`appservice-router.matrix.org\` and one of these reasons, and where it
applies \`BadRequest\`, \`RetryInfo\` or \`PreconditionFailure\`. This page is made from src/rpc/errors.ts.

| reason | code | when |
|---|---|---|
${table}
`;
}
