/**
 * From the driver's errors to the closed set of store errors: one table. Whatever the driver reports and the table does
 * not name is `unavailable`: a network, a primary or a majority that is not there now, and an outcome that is unknown.
 */
import { MongoBulkWriteError, MongoError, MongoServerError } from 'mongodb';
import type { LogFields } from '../../logger.ts';
import { StoreError } from '../errors.ts';
import type { StoreErrorKind } from '../errors.ts';

const DUPLICATE_KEY = 11_000;

const KIND_BY_NAME: Readonly<Record<string, StoreErrorKind>> = {
  MongoParseError: 'unsuitable',
  MongoCompatibilityError: 'unsuitable',
  MongoMissingCredentialsError: 'unsuitable',
  MongoMissingDependencyError: 'unsuitable',
  BSONError: 'unreadable',
  BSONVersionError: 'unreadable',
  BSONOffsetError: 'unreadable',
  BSONRuntimeError: 'unreadable',
};

/** Codes of the server, by its own names. */
const KIND_BY_CODE: ReadonlyMap<number, StoreErrorKind> = new Map<number, StoreErrorKind>([
  [13, 'unsuitable'], // Unauthorized
  [18, 'unsuitable'], // AuthenticationFailed
  [20, 'unsuitable'], // IllegalOperation: what a standalone answers to retryable writes
  [59, 'unsuitable'], // CommandNotFound
  [85, 'unsuitable'], // IndexOptionsConflict
  [86, 'unsuitable'], // IndexKeySpecsConflict
  [115, 'unsuitable'], // CommandNotSupported
  [148, 'unsuitable'], // ReadConcernMajorityNotEnabled
  [8000, 'unsuitable'], // AtlasError: refused credentials
  [22, 'unreadable'], // InvalidBSON
  [146, 'exhausted'], // ExceededMemoryLimit
  [292, 'exhausted'], // QueryExceededMemoryLimitNoDiskUseAllowed
  [10_334, 'exhausted'], // BSONObjectTooLarge
  [14_031, 'exhausted'], // OutOfDiskSpace
]);

/** What a socket says when it breaks in the middle of a write: the driver lets such errors through as they are. */
const BROKEN_SOCKET: ReadonlySet<unknown> = new Set([
  'ECONNRESET',
  'ECONNABORTED',
  'ECONNREFUSED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENETDOWN',
  'ENOTCONN',
  'ERR_SOCKET_CLOSED',
  'ERR_STREAM_DESTROYED',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ERR_STREAM_WRITE_AFTER_END',
]);

const MESSAGE_BY_KIND: Readonly<Record<StoreErrorKind, string>> = {
  unavailable: 'the database cannot be reached or has not confirmed in time',
  exhausted: 'the database has no room for this',
  unreadable: 'the database holds something that cannot be read',
  unsuitable: 'the database refuses what the router needs of it; see the log for its words',
};

/** Null: an error of neither the driver nor its sockets, so a bug. */
function storeErrorKind(error: unknown): StoreErrorKind | null {
  if (error instanceof StoreError) return error.kind;
  if (!(error instanceof Error)) return null;
  const named = KIND_BY_NAME[error.name];
  if (named !== undefined) return named;
  if (!(error instanceof MongoError)) return BROKEN_SOCKET.has(Reflect.get(error, 'code')) ? 'unavailable' : null;
  const coded = error instanceof MongoServerError && typeof error.code === 'number' ? KIND_BY_CODE.get(error.code) : undefined;
  return coded ?? 'unavailable';
}

/** A StoreError with the driver's error as cause only; anything else is a bug and comes back as it is. */
export function storeErrorFrom(error: unknown): unknown {
  const kind = storeErrorKind(error);
  if (kind === null || error instanceof StoreError) return error;
  return new StoreError(kind, MESSAGE_BY_KIND[kind], { cause: error });
}

/** What the operator's log says of a driver error. */
export function driverErrorFields(error: unknown): LogFields {
  if (!(error instanceof Error)) return { error: String(error) };
  const code = error instanceof MongoError && error.code !== undefined ? error.code : undefined;
  return { error_name: error.name, error_code: code, error: error.message };
}

export function isDuplicateKey(error: unknown): boolean {
  return error instanceof MongoServerError && error.code === DUPLICATE_KEY;
}

/** True if a bulk write was carried out and answered in full, and nothing but keys that existed already stood in its way. */
export function isOnlyDuplicateKeys(error: unknown): boolean {
  if (!(error instanceof MongoBulkWriteError)) return false;
  const { writeErrors } = error;
  const errors = Array.isArray(writeErrors) ? writeErrors : [writeErrors];
  return errors.length > 0 && errors.every(({ code }) => code === DUPLICATE_KEY) && error.result.getWriteConcernError() === undefined;
}
