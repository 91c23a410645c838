/**
 * The closed set of ways in which a store fails. Everything else that a store throws is a bug.
 * `message` is for the log of the operator; it never reaches a caller (rpc/errors.ts maps the kind to a code).
 */
export type StoreErrorKind =
  /** It cannot be reached, or the outcome of a write could not be learnt in time. Try again later. */
  | 'unavailable'
  /** It is reached but has no room or takes no more now (disk full, queue full). */
  | 'exhausted'
  /** What is stored cannot be read: damaged, or written by a newer release, or under another encryption key. */
  | 'unreadable'
  /** The deployment does not fit: a standalone MongoDB, too old a server, a file another process has open. Final. */
  | 'unsuitable';

export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly kind: StoreErrorKind;

  constructor(kind: StoreErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}
