/** Routers that share a store: what one of them trims, another may not have read yet. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import type { Store, TrimRequest } from '../../src/store/port.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { startService } from '../support/service-world.ts';

/** The first request to trim, and the wall clock when it came. */
async function firstTrim(isStoreExclusive: boolean): Promise<{ request: TrimRequest; nowMs: number }> {
  const opened = await openSqliteStore({ path: ':memory:', clock: systemClock });
  const seen = Promise.withResolvers<{ request: TrimRequest; nowMs: number }>();
  const trim: Store['trim'] = (serverName, request) => {
    seen.resolve({ request, nowMs: Date.now() });
    return opened.trim(serverName, request);
  };
  const store = new Proxy(opened, {
    get: (target, name) => {
      if (name === 'trim') return trim;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (...args: unknown[]): unknown => Reflect.apply(value, target, args) : value;
    },
  });
  await using world = await startService({ store, isStoreExclusive });
  assert.ok(world.service.grpcAddress !== '');
  return await seen.promise;
}

test('segments stay for routers that are behind, unless there can be no other router', { timeout: 30_000 }, async () => {
  const [shared, alone] = await Promise.all([firstTrim(false), firstTrim(true)]);
  assert.ok(shared.nowMs - shared.request.beforeMs >= 60_000);
  assert.ok(alone.nowMs - alone.request.beforeMs < 10_000);
});
