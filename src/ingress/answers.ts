/** What the ingress answers with. */
import { RefusalError } from '../appservice/refusal.ts';
import type { Logger } from '../logger.ts';
import type { IngressAnswer, IngressRequest } from '../rpc/ports.ts';
import { StoreError } from '../store/errors.ts';

export interface MatchedRequest extends IngressRequest {
  /** What the path's pattern captured, percent-decoded. */
  readonly captured: readonly string[];
}

export const DONE: IngressAnswer = { status: 200, body: '{}' };

/** A Matrix error; `more` beside its two fields. */
export function matrixError(status: number, errcode: string, message: string, more: Readonly<Record<string, unknown>> = {}): IngressAnswer {
  return { status, body: JSON.stringify({ errcode, error: message, ...more }) };
}

/** What a failed request comes to: that which may go better the next time. */
export function answerFor(cause: unknown, logger: Logger): IngressAnswer {
  if (cause instanceof RefusalError) return refused(cause);
  if (cause instanceof StoreError) return matrixError(503, 'M_UNKNOWN', 'The router cannot reach its store now. Send the request again in a second.');
  if (isEnded(cause)) return matrixError(400, 'M_UNKNOWN', 'The request ended before its body was complete.');
  logger.error({ error: cause instanceof Error ? (cause.stack ?? cause.message) : String(cause) }, 'a request of a homeserver could not be answered');
  return matrixError(500, 'M_UNKNOWN', 'The router failed to answer. Its log has the rest.');
}

/** The query of a request, in its order; empty without one. */
export function queryOf({ target }: Pick<IngressRequest, 'target'>): URLSearchParams {
  const mark = target.indexOf('?');
  return new URLSearchParams(mark === -1 ? '' : target.slice(mark + 1));
}

/** The token of a request: of the header, or without one of the query; null if there is neither. */
export function tokenOf(request: Pick<IngressRequest, 'target' | 'authorization'>): string | null {
  const { authorization } = request;
  if (authorization === undefined) return queryOf(request).get('access_token');
  return /^Bearer +(\S+) *$/i.exec(authorization)?.[1] ?? '';
}

function refused({ reason, message, details: { retryDelayMs, metadata } }: RefusalError): IngressAnswer {
  const more = retryDelayMs === undefined ? {} : { retry_after_ms: retryDelayMs };
  const status = Number(metadata?.['http_status']);
  if (Number.isInteger(status)) return matrixError(status, metadata?.['errcode'] ?? 'M_UNKNOWN', message, more);
  if (reason === 'QUEUE_FULL' || reason === 'TOO_MANY_LOOKUPS' || reason === 'TOO_MANY_PINGS') return matrixError(429, 'M_LIMIT_EXCEEDED', message, more);
  if (reason === 'INVALID_FIELD') return matrixError(400, 'M_INVALID_PARAM', message);
  return matrixError(503, 'M_UNKNOWN', message, more);
}

/** The connection broke off; nobody reads the answer. */
function isEnded(cause: unknown): boolean {
  if (!(cause instanceof Error)) return false;
  const code = 'code' in cause ? String(cause.code) : '';
  return code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE' || code.startsWith('ERR_HTTP2_') || cause.name === 'AbortError';
}
