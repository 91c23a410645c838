/** From where the configuration says the store is to an open store. */
import type { Clock, Random } from '../clock.ts';
import type { StoreLocation } from '../config-schema.ts';
import type { Logger } from '../logger.ts';
import type { Store } from './port.ts';
import type { WakeRelay } from './wake-relay.ts';
import { openSqliteStore } from './sqlite/sqlite-store.ts';

export interface OpenStoreOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Told what other processes do in a shared store. */
  readonly wakes?: WakeRelay;
}

/**
 * Opens the store at `location`; the caller disposes of it. Rejects with a StoreError whose message says what to do:
 * `unsuitable` where it can never work (another process has the file, a standalone MongoDB), `unreadable` for damage or a
 * newer schema, otherwise `unavailable` or `exhausted`.
 */
export async function openStore(location: StoreLocation, options: OpenStoreOptions): Promise<Store> {
  switch (location.kind) {
    case 'memory':
      return openSqliteStore({ path: ':memory:', clock: options.clock });
    case 'sqlite':
      return openSqliteStore({ path: location.path, clock: options.clock });
    case 'mongodb': {
      // The driver takes a fifth of a second to load, which only those who use it should wait for.
      const { openMongoStore } = await import('./mongo/open.ts');
      return openMongoStore(location.uri, options);
    }
  }
}
