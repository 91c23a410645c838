/** A published library judges what goes beside events, from the homeserver's call to what its program is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { startBotSdk } from '../support/receiver-bot-sdk.ts';
import { put } from '../support/router-home.ts';
import { eventJson, member, SERVER } from '../support/routing.ts';
import { startService } from '../support/service-world.ts';
import { StubHomeserver } from '../support/stub-homeserver.ts';

const yaml = (url: string): string => `id: logger
url: ${url}
as_token: as-logger-long
hs_token: hs-logger-long
sender_localpart: logger
org.matrix.msc3202: true
namespaces:
  users: [{ exclusive: true, regex: '@_logger_.*' }]
`;

test('R89 R90 R94 R97 R98 R99 matrix-bot-sdk 0.8 tells its program of messages, device lists and keys as they were submitted', { timeout: 30_000 }, async () => {
  await using homeserver = await StubHomeserver.start();
  const told: [string, unknown][] = [];
  const all = Promise.withResolvers<void>();
  const onOther = (name: string, value: unknown): void => {
    told.push([name, value]);
    if (name === 'otk.unused_fallback_keys') all.resolve();
  };
  await using receiver = await startBotSdk({ hsToken: 'hs-logger-long', asToken: 'as-logger-long', homeserverUrl: homeserver.url, serverName: SERVER, onOther });
  await using world = await startService();
  await put(world.admin, yaml(receiver.url));
  const ghost = `@_logger_ghost:${SERVER}`;
  const message = { type: 'm.room.encrypted', sender: '@far:far.test', content: { ciphertext: { a: 'é' } } };
  await world.homeserver.call(AppserviceRouter.method.submitEvents, {
    events: [{ json: eventJson(member('$1', ghost, 'join')) }],
    toDevice: [{ json: Buffer.from(JSON.stringify(message)), toUserId: ghost, toDeviceId: 'DEV' }],
    deviceLists: [{ userId: '@far:far.test', roomIds: ['!r:hs.test'] }],
    deviceKeys: [{ userId: ghost, deviceId: 'DEV', oneTimeKeyCounts: { signed_curve25519: 12 }, unusedFallbackKeyTypes: [] }],
  });
  await all.promise;
  await receiver.received(1);
  const [[first, event], ...others] = told as [[string, { unsigned: unknown }], ...[string, unknown][]];
  const { unsigned: _mark, ...emitted } = event;
  assert.deepEqual([first, emitted], ['ephemeral.event', { ...message, to_user_id: ghost, to_device_id: 'DEV' }]);
  assert.deepEqual(others, [
    // The library looks for a list `removed`, which it puts in itself; MSC3202 calls it `left`.
    ['device_lists', { changed: ['@far:far.test'], left: [], removed: [] }],
    ['otk.counts', { [ghost]: { DEV: { signed_curve25519: 12 } } }],
    ['otk.unused_fallback_keys', { [ghost]: { DEV: [] } }],
  ]);
});
