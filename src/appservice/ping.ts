/** What a ping of an appservice came to (Client-Server API, "POST /appservice/{appserviceId}/ping"; R131 to R136). */

/** What a homeserver answers the appservice whose ping failed. */
export interface PingFailure {
  readonly errcode: PingErrcode;
  /** The HTTP status to answer with. */
  readonly httpStatus: number;
  /** What the appservice itself answered, with M_BAD_STATUS; null otherwise. */
  readonly answer: { readonly status: number; readonly body: string } | null;
}

/** Whole milliseconds, 0 or more. */
export type PingOutcome = { readonly kind: 'answered'; readonly durationMs: number } | { readonly kind: 'failed'; readonly failure: PingFailure };

const HTTP_STATUSES = {
  /** No appservice has the token, or it is another's. */
  M_FORBIDDEN: 403,
  M_URL_NOT_SET: 400,
  /** Anything but 2xx. */
  M_BAD_STATUS: 502,
  M_CONNECTION_FAILED: 502,
  M_CONNECTION_TIMEOUT: 504,
} as const;

export type PingErrcode = keyof typeof HTTP_STATUSES;

export function failedPing(errcode: PingErrcode, answer: PingFailure['answer'] = null): PingOutcome {
  return { kind: 'failed', failure: { errcode, httpStatus: HTTP_STATUSES[errcode], answer } };
}
