/** Users and aliases that come into being when somebody asks for them: homeserver, router, and an appservice of a published library. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { AppserviceHttpError, startMatrixAppservice } from '../support/receiver-matrix-appservice.ts';
import { startService } from '../support/service-world.ts';

const { queryUser, queryRoomAlias } = AppserviceRouter.method;
const HS_TOKEN = 'hs-lazy';
const PROBE = '@irc_probe:hs.test';

const yaml = (url: string): string => `id: irc
url: ${url}
as_token: as-lazy
hs_token: ${HS_TOKEN}
sender_localpart: irc
namespaces:
  users: [{ exclusive: true, regex: '@irc_.*:hs\\.test' }]
  aliases: [{ exclusive: true, regex: '#irc_.*:hs\\.test' }]
  rooms: []
`;

test('M14 M8 R114 R115 an appservice creates the user and the alias that are asked for, says so, and watchers learn it', { timeout: 20_000 }, async () => {
  // The homeserver's own accounts and directory.
  const known = new Set<string>();
  await using appservice = await startMatrixAppservice({
    hsToken: HS_TOKEN,
    onUserQuery: async (userId) => {
      await Promise.resolve();
      if (userId.includes('nobody')) throw new AppserviceHttpError({ errcode: 'M_NOT_FOUND', error: 'no such user' }, 404);
      known.add(userId);
    },
    onAliasQuery: async (alias) => {
      await Promise.resolve();
      known.add(alias);
    },
  });
  await using world = await startService();
  await world.admin.call(AppserviceAdmin.method.putRegistration, { source: { case: 'yaml', value: yaml(appservice.url) } });
  const watch = world.admin.watch(AppserviceAdmin.method.watchEvents, {});
  const seen: unknown[] = [];
  let isWatching = false;
  const both = new Promise<void>((resolve) => {
    watch.on('data', ({ event }) => {
      if (event.case === 'userProvisioned' && event.value.userId === PROBE) isWatching = true;
      else if (event.case === 'userProvisioned') seen.push([event.case, event.value.serviceId, event.value.userId]);
      else if (event.case === 'aliasProvisioned') seen.push([event.case, event.value.serviceId, event.value.alias]);
      if (seen.length === 2) resolve();
    });
    watch.on('error', () => undefined);
  });
  // Nothing tells that a watch has begun but what it sees.
  while (!isWatching) await world.homeserver.call(queryUser, { userId: PROBE });

  const user = await world.homeserver.call(queryUser, { userId: '@irc_ann/1:hs.test' });
  assert.deepEqual([user.exists, user.appserviceId, known.has('@irc_ann/1:hs.test')], [true, 'irc', true]);
  const alias = await world.homeserver.call(queryRoomAlias, { roomAlias: '#irc_room%:hs.test' });
  assert.deepEqual([alias.exists, alias.appserviceId, known.has('#irc_room%:hs.test')], [true, 'irc', true]);
  for (const userId of ['@irc_nobody:hs.test', '@irc:hs.test', '@ann:hs.test', '@irc_ann:other.test']) {
    const answer = await world.homeserver.call(queryUser, { userId });
    assert.deepEqual([answer.exists, answer.appserviceId], [false, undefined], userId);
  }
  await both;
  assert.deepEqual(seen, [
    ['userProvisioned', 'irc', '@irc_ann/1:hs.test'],
    ['aliasProvisioned', 'irc', '#irc_room%:hs.test'],
  ]);
  assert.deepEqual([...known], [PROBE, '@irc_ann/1:hs.test', '#irc_room%:hs.test']);
  watch.cancel();
});
