/** Routers that share a store: what one of them trims, another may not have read yet. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import type { Store, TrimRequest } from '../../src/store/port.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { eventJson } from '../support/routing.ts';
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
  // By its own count too, since the clock of the others may be an hour behind.
  assert.equal(shared.request.through, 0);
});

/** The store, with a dispose that does nothing, for all but the last of the routers on it. */
function lent(store: Store): Store {
  return new Proxy(store, {
    get: (target, name) => {
      if (name === Symbol.asyncDispose) return () => Promise.resolve();
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (...args: unknown[]): unknown => Reflect.apply(value, target, args) : value;
    },
  });
}

test('I11 R62 GetStreamPosition of one router never lies behind what another has answered for', { timeout: 30_000 }, async () => {
  const store = await openSqliteStore({ path: ':memory:', clock: systemClock });
  await using one = await startService({ store, isStoreExclusive: false });
  await using other = await startService({ store: lent(store), isStoreExclusive: false });
  const { method } = AppserviceRouter;
  for (let position = 1n; position <= 20n; position++) {
    const rooms = [{ roomId: '!r:hs.test', localMembers: { userIds: [`@user${position}:hs.test`] } }];
    await one.homeserver.call(method.submitEvents, { stream: 's', events: [{ json: eventJson({ id: `$${position}` }), streamPosition: position }], rooms });
    const asked = await other.homeserver.call(method.getStreamPosition, { stream: 's' });
    assert.equal(asked.streamPosition, position);
  }
});
