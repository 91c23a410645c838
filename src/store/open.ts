/** From what ROUTER_STORE says to an open store. */
import type { Clock, Random } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { StoreError } from './errors.ts';
import { openMongoStore } from './mongo/mongo-store.ts';
import type { Store } from './port.ts';
import { openSqliteStore } from './sqlite/sqlite-store.ts';

export interface OpenStoreOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

const SQLITE_SCHEME = 'sqlite:';
const MONGODB_SCHEMES: readonly string[] = ['mongodb://', 'mongodb+srv://'];
const FORMS = 'ROUTER_STORE takes sqlite:PATH, sqlite::memory: or mongodb://HOST/DATABASE?replicaSet=NAME';

/**
 * Opens the store that `spec` names: `sqlite:PATH`, `sqlite::memory:` or a `mongodb://` URI. Rejects with a StoreError that
 * says what to do: `unsuitable` for a spec or a deployment that can never work. The caller disposes of the store.
 */
export async function openStore(spec: string, options: OpenStoreOptions): Promise<Store> {
  if (spec.startsWith(SQLITE_SCHEME)) return openSqliteStore({ path: pathFrom(spec), clock: options.clock });
  if (MONGODB_SCHEMES.some((scheme) => spec.startsWith(scheme))) return openMongoStore(spec, options);
  throw new StoreError('unsuitable', `the store ${JSON.stringify(schemeOf(spec))} is not known. ${FORMS}`);
}

function pathFrom(spec: string): string {
  const path = spec.slice(SQLITE_SCHEME.length);
  if (path === '') throw new StoreError('unsuitable', `the path of the SQLite file is missing. ${FORMS}`);
  if (path.startsWith('//')) throw new StoreError('unsuitable', `a SQLite file is named by its path alone, without "//". ${FORMS}`);
  if (path.includes('\0')) throw new StoreError('unsuitable', `the path of the SQLite file holds a NUL. ${FORMS}`);
  if (path.startsWith(':') && path !== ':memory:') throw new StoreError('unsuitable', `the SQLite file cannot be called ${JSON.stringify(path)}. ${FORMS}`);
  return path;
}

/** Without what stands behind the scheme, where a password may be. */
function schemeOf(spec: string): string {
  return /^[a-z+]{1,20}:/i.exec(spec)?.[0] ?? spec.slice(0, 20);
}
