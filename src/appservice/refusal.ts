/**
 * The closed set of ways in which the house refuses what a caller asks. Thrown, because it crosses several owners on
 * its way to the edge; rpc/errors.ts maps each reason to a code in one table (contract section 3).
 */
export type RefusalReason =
  /** Malformed event, identifier, position, YAML, pattern. Carries `field`. */
  | 'INVALID_FIELD'
  | 'APPSERVICE_NOT_FOUND'
  | 'TRANSACTION_NOT_FOUND'
  /** An as_token or an id that another registration has. */
  | 'REGISTRATION_CONFLICT'
  /** An operation that the delivery state forbids. */
  | 'DELIVERY_STATE_FORBIDS'
  /** A replay from where the log is no longer whole. Metadata says from where it is. */
  | 'POSITION_NOT_RETAINED'
  /** Too much is queued already. Carries `retryDelayMs`. */
  | 'QUEUE_FULL'
  /** Carries `retryDelayMs`. */
  | 'TOO_MANY_PINGS'
  /** Carries `retryDelayMs`. */
  | 'TOO_MANY_LOOKUPS'
  /** On the way down. Carries `retryDelayMs`. */
  | 'DRAINING'
  /** A position that was seen with another event: the homeserver's stream went back (R77). */
  | 'STREAM_POSITION_REWOUND'
  /** A namespace keeps this actor out. */
  | 'APPSERVICE_NAMESPACE_CONFLICT'
  | 'APPSERVICE_UNKNOWN_TOKEN'
  | 'APPSERVICE_MASQUERADE_DENIED'
  /** A login that needs an existing account. */
  | 'APPSERVICE_USER_NOT_REGISTERED'
  /** An appservice gave no answer to a query. */
  | 'APPSERVICE_QUERY_TIMEOUT'
  /** An appservice answered a query with a failure. Carries `retryDelayMs`. */
  | 'APPSERVICE_SERVICE_UNAVAILABLE';

export interface RefusalDetails {
  /** Path of the field at fault, such as `events[3].json`. */
  readonly field?: string;
  readonly retryDelayMs?: number;
  /** Dynamic values by name; never a token. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** `message` reaches the caller: a full sentence that says what to do next, without internals. */
export class RefusalError extends Error {
  override readonly name = 'RefusalError';
  readonly reason: RefusalReason;
  readonly details: RefusalDetails;

  constructor(reason: RefusalReason, message: string, details: RefusalDetails = {}) {
    super(message);
    this.reason = reason;
    this.details = details;
  }
}
