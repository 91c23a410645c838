/** What a registration says of the way to its appservice, from the registration to the wire, in a whole router. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { answer, Receiver } from '../support/receiver.ts';
import { errorOf } from '../support/router-client.ts';
import type { RouterClient } from '../support/router-client.ts';
import { startService } from '../support/service-world.ts';

const LIMIT = { timeout: 20_000 };
const HS_TOKEN = 'hs-outbound';

const yaml = (url: string, options = ''): string => `id: irc
url: ${url}
as_token: as-outbound
hs_token: ${HS_TOKEN}
sender_localpart: irc
namespaces:
  users: [{ exclusive: true, regex: '@irc_.*:hs\\.test' }]
${options}`;

const put = (admin: RouterClient, text: string): Promise<unknown> => admin.call(AppserviceAdmin.method.putRegistration, { source: { case: 'yaml', value: text } });
const exists = async (homeserver: RouterClient): Promise<boolean> => (await homeserver.call(AppserviceRouter.method.queryUser, { userId: '@irc_ann:hs.test' })).exists;
const refusalOf = (call: Promise<unknown>): Promise<ReturnType<typeof errorOf>> => call.then(() => assert.fail('it was not refused'), errorOf);

test('R104 R107 R56 legacy_paths and legacy_auth of a registration hold for transactions and queries', LIMIT, async () => {
  await using world = await startService();
  await using receiver = await Receiver.start((connection, request) => (request.target.startsWith('/_matrix/') ? answer(404, 'Cannot PUT') : answer(200))(connection, request));
  await put(world.admin, yaml(receiver.url, 'appservice_router: { legacy_paths: unrecognized, legacy_auth: query_only }\n'));
  assert.equal(await exists(world.homeserver), true);
  const json = Buffer.from(JSON.stringify({ event_id: '$1', type: 'm.room.message', room_id: '!r:hs.test', sender: '@irc_ann:hs.test', content: {} }));
  await world.homeserver.call(AppserviceRouter.method.submitEvents, { events: [{ json }] });
  await receiver.received(4);
  const [v1Query, query, v1Push, push] = receiver.requests;
  assert.deepEqual([query?.target, query?.headers['authorization']], [`/users/%40irc_ann%3Ahs.test?access_token=${HS_TOKEN}`, undefined]);
  assert.match(push?.target ?? '', new RegExp(`^/transactions/\\d+\\?access_token=${HS_TOKEN}$`));
  assert.deepEqual([v1Query?.target, v1Push?.target], [query, push].map((one) => `/_matrix/app/v1${one?.target}`));
  assert.deepEqual(v1Push?.body, push?.body);
});

test("a registration that leads to the router's own listeners is refused, and under a name it is never connected to", LIMIT, async () => {
  await using world = await startService();
  for (const address of [world.service.httpAddress, world.service.grpcAddress]) {
    assert.match((await refusalOf(put(world.admin, yaml(`http://${address}`)))).message, /the router itself listens on/);
    assert.match((await refusalOf(put(world.admin, yaml('http://x.example', `appservice_router: { proxy: 'http://${address}' }\n`)))).message, /the router itself listens on/);
  }
  await put(world.admin, yaml(`http://localhost:${world.service.httpAddress.split(':').at(-1)}`));
  // Its HTTP server would say that there is no such thing, which is a no.
  assert.equal((await refusalOf(exists(world.homeserver))).reason, 'APPSERVICE_QUERY_TIMEOUT');
});

test('the strict policy refuses a private address at registration and a name for it at the connection, unless they are listed', LIMIT, async () => {
  await using receiver = await Receiver.start(answer(200));
  {
    await using world = await startService({ settings: { outbound: { mode: 'strict', allow: [] } } });
    assert.match((await refusalOf(put(world.admin, yaml(receiver.url)))).message, /ROUTER_OUTBOUND_ALLOW/);
    assert.match((await refusalOf(put(world.admin, yaml('unix:/run/irc.sock')))).message, /ROUTER_OUTBOUND_ALLOW/);
    await put(world.admin, yaml(`http://localhost:${receiver.port}`));
    assert.equal((await refusalOf(exists(world.homeserver))).reason, 'APPSERVICE_QUERY_TIMEOUT');
    assert.equal(receiver.connectionCount, 0);
  }
  for (const allow of [['127.0.0.0/8'], ['localhost']]) {
    await using world = await startService({ settings: { outbound: { mode: 'strict', allow } } });
    await put(world.admin, yaml(`http://localhost:${receiver.port}`));
    assert.equal(await exists(world.homeserver), true);
  }
});
