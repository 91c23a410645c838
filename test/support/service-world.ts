/** The whole router in this process, on a store of its own. */
import { createHash } from 'node:crypto';
import { systemClock, systemRandom } from '../../src/clock.ts';
import type { Logger } from '../../src/logger.ts';
import { encryptionKeysFrom } from '../../src/registration/encryption-key.ts';
import type { EncryptionKeys } from '../../src/registration/encryption-key.ts';
import { Vault } from '../../src/registration/vault.ts';
import { Service } from '../../src/service.ts';
import type { ServiceSettings } from '../../src/service.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import type { Store } from '../../src/store/port.ts';
import { silent } from './ledger-world.ts';
import { RouterClient } from './router-client.ts';
import { SERVER } from './routing.ts';

export const TOKENS = { homeserver: 'homeserver-token', admin: 'admin-token', monitor: 'monitor-token', other: 'other-token' };

function testKeys(): EncryptionKeys {
  const keys = encryptionKeysFrom('11'.repeat(32));
  if (typeof keys === 'string') throw new Error(keys);
  return keys;
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

export interface ServiceWorld extends AsyncDisposable {
  readonly service: Service;
  readonly homeserver: RouterClient;
  readonly admin: RouterClient;
  client(token: string | null): RouterClient;
}

export interface ServiceWorldOptions {
  readonly store?: Store;
  readonly isStoreExclusive?: boolean;
  readonly logger?: Logger;
  readonly settings?: Partial<ServiceSettings>;
}

export async function startService(options: ServiceWorldOptions = {}): Promise<ServiceWorld> {
  const service = await Service.start({
    settings: {
      serverName: SERVER,
      grpcListen: '127.0.0.1:0',
      httpListen: '127.0.0.1:0',
      credentials: [
        { name: 'hs', role: 'homeserver', serverName: SERVER, tokenSha256: sha256(TOKENS.homeserver) },
        { name: 'ops', role: 'admin', serverName: null, tokenSha256: sha256(TOKENS.admin) },
        { name: 'eyes', role: 'monitor', serverName: null, tokenSha256: sha256(TOKENS.monitor) },
        { name: 'other', role: 'homeserver', serverName: 'other.test', tokenSha256: sha256(TOKENS.other) },
      ],
      registrationPaths: [],
      rateLimitedDefault: true,
      pushTimeoutMs: 5_000,
      queryTimeoutMs: 5_000,
      queryAttemptsMax: 3,
      pingTimeoutMs: 5_000,
      escalationWindowMs: 300_000,
      delivery: { eventsMax: 100, ephemeralMax: 100, toDeviceMax: 100, ephemeralAgeMaxMs: 300_000, bytesMax: 1_000_000, backoff: { firstMs: 50, maxMs: 200 } },
      outbound: { mode: 'default', allow: [] },
      logRetentionMs: 0,
      ...options.settings,
    },
    version: 'test',
    store: options.store ?? (await openSqliteStore({ path: ':memory:', clock: systemClock })),
    isStoreExclusive: options.isStoreExclusive ?? true,
    vault: new Vault(testKeys(), systemRandom),
    clock: systemClock,
    random: systemRandom,
    logger: options.logger ?? silent,
  });
  const clients: RouterClient[] = [];
  const client = (token: string | null): RouterClient => {
    const made = new RouterClient(service.grpcAddress, token);
    clients.push(made);
    return made;
  };
  return {
    service,
    homeserver: client(TOKENS.homeserver),
    admin: client(TOKENS.admin),
    client,
    async [Symbol.asyncDispose]() {
      for (const made of clients) made[Symbol.dispose]();
      await service[Symbol.asyncDispose]();
    },
  };
}
