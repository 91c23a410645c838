/** Third-party look-ups and key requests through the whole router, judged by what published libraries make of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { answer, Receiver } from '../support/receiver.ts';
import { startBotSdk } from '../support/receiver-bot-sdk.ts';
import { startBridge } from '../support/receiver-bridge.ts';
import { startElementBotSdk } from '../support/receiver-bot-sdk-element.ts';
import { SERVER } from '../support/routing.ts';
import { startService } from '../support/service-world.ts';
import type { ServiceWorld } from '../support/service-world.ts';
import { StubHomeserver } from '../support/stub-homeserver.ts';

const LIMIT = { timeout: 30_000 };
const { listThirdPartyProtocols, queryThirdPartyUsers, queryThirdPartyLocations, claimKeys, queryKeys } = AppserviceRouter.method;

const parsed = (json: Uint8Array): unknown => JSON.parse(Buffer.from(json).toString());
const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));

async function put(world: ServiceWorld, id: string, url: string, protocols: readonly string[] = []): Promise<void> {
  const yaml = `id: ${id}
url: ${url}
as_token: as-${id}
hs_token: hs-${id}
sender_localpart: ${id}
namespaces:
  users: [{ exclusive: true, regex: '@${id}_.*:hs\\.test' }]
  aliases: [{ exclusive: true, regex: '#${id}_.*:hs\\.test' }]
  rooms: []
protocols: ${JSON.stringify(protocols)}
`;
  await world.admin.call(AppserviceAdmin.method.putRegistration, { source: { case: 'yaml', value: yaml } });
}

const metadata = (networkId: string) => ({
  user_fields: ['nick'],
  location_fields: ['channel'],
  icon: 'mxc://hs.test/irc',
  field_types: { nick: { regexp: '.+', placeholder: 'ann' }, channel: { regexp: '#.+', placeholder: '#x' } },
  instances: [{ desc: networkId, network_id: networkId, fields: { network: networkId } }],
});

test('R122 R123 R124 R126 R127 R129 two libraries answer look-ups, a third appservice answers nonsense', LIMIT, async () => {
  const asked: unknown[] = [];
  await using bridge = await startBridge({
    hsToken: 'hs-bridge',
    asToken: 'as-bridge',
    serverName: SERVER,
    senderLocalpart: 'bridge',
    thirdPartyLookup: {
      protocols: ['irc'],
      getProtocol: () => Promise.resolve(metadata('libera')),
      getUser: (protocol, fields) => {
        asked.push(['bridge', protocol, fields]);
        return Promise.resolve([{ userid: '@bridge_ann:hs.test', protocol, fields: { nick: 'ann' } }]);
      },
      getLocation: (protocol, fields) => {
        asked.push(['bridge', protocol, fields]);
        return Promise.resolve([{ alias: '#bridge_x:hs.test', protocol, fields: { channel: '#x' } }]);
      },
      // The library's types have a location's alias here.
      parseUser: (userid) => Promise.resolve([{ userid, alias: '', protocol: 'irc', fields: { from: 'parseUser' } }]),
      parseLocation: (alias) => Promise.resolve([{ alias, protocol: 'irc', fields: { from: 'parseLocation' } }]),
    },
  });
  await using stub = await StubHomeserver.start();
  await using element = await startElementBotSdk({
    hsToken: 'hs-element',
    asToken: 'as-element',
    homeserverUrl: stub.url,
    protocols: ['irc'],
    listen: (appservice) => {
      appservice.on('thirdparty.protocol', (_protocol: string, answered: (value: unknown) => void) => answered(metadata('oftc')));
      appservice.on('thirdparty.user.remote', (protocol: string, fields: unknown, answered: (value: unknown) => void) => {
        asked.push(['element', protocol, fields]);
        answered([{ userid: '@element_ann:hs.test', protocol, fields: {} }, 'nonsense']);
      });
      appservice.on('thirdparty.location.remote', (_protocol: string, _fields: unknown, answered: (value: unknown) => void) => answered([]));
      appservice.on('thirdparty.user.matrix', (userId: string, answered: (value: unknown) => void) => answered([{ userid: userId, protocol: 'irc', fields: { from: 'element' } }]));
    },
  });
  await using nonsense = await Receiver.start(answer(200, '<html>'));
  await using world = await startService();
  await put(world, 'bridge', bridge.url, ['irc']);
  await put(world, 'nonsense', nonsense.url, ['irc', 'gitter']);
  await put(world, 'element', element.url, ['irc']);
  const { homeserver } = world;

  const { protocols, failedAppserviceIds } = await homeserver.call(listThirdPartyProtocols, {});
  assert.deepEqual(protocols.map((one) => [one.protocol, one.instances.map(({ instanceId }) => instanceId)]), [['irc', ['bridge|libera', 'element|oftc']]]);
  const [instance] = metadata('libera').instances;
  const [other] = metadata('oftc').instances;
  assert.deepEqual(protocols.map((one) => parsed(one.json)), [{ ...metadata(''), instances: [{ ...instance, instance_id: 'bridge|libera' }, { ...other, instance_id: 'element|oftc' }] }]);
  assert.deepEqual(failedAppserviceIds, ['nonsense']);
  assert.deepEqual((await homeserver.call(listThirdPartyProtocols, { protocol: 'gitter' })).protocols, []);

  const fields = [{ name: 'nick', value: 'ann' }, { name: 'nick', value: 'b&c' }, { name: 'access_token', value: 'theirs' }];
  const users = await homeserver.call(queryThirdPartyUsers, { query: { case: 'protocol', value: 'irc' }, fields });
  assert.deepEqual(users.users.map(({ userId, appserviceId }) => [appserviceId, userId]), [['bridge', '@bridge_ann:hs.test'], ['element', '@element_ann:hs.test']]);
  assert.deepEqual(users.failedAppserviceIds, ['nonsense']);
  const locations = await homeserver.call(queryThirdPartyLocations, { query: { case: 'protocol', value: 'irc' }, fields: [{ name: 'channel', value: '#x' }] });
  assert.deepEqual(locations.locations.map(({ roomAlias, appserviceId, json: bytes }) => [appserviceId, roomAlias, parsed(bytes)]), [['bridge', '#bridge_x:hs.test', { alias: '#bridge_x:hs.test', protocol: 'irc', fields: { channel: '#x' } }]]);
  const plain = asked.map((one) => JSON.parse(JSON.stringify(one)) as unknown);
  assert.deepEqual(plain.filter((one) => Array.isArray(one) && one[0] === 'bridge'), [['bridge', 'irc', { nick: ['ann', 'b&c'] }], ['bridge', 'irc', { channel: '#x' }]]);
  assert.deepEqual(plain.filter((one) => Array.isArray(one) && one[0] === 'element'), [['element', 'irc', { nick: ['ann', 'b&c'] }]]);

  const found = await homeserver.call(queryThirdPartyUsers, { query: { case: 'userId', value: '@element_ann/1:hs.test' } });
  assert.deepEqual(found.users.map(({ json: bytes }) => parsed(bytes)), [{ userid: '@element_ann/1:hs.test', protocol: 'irc', fields: { from: 'element' } }]);
  const rooms = await homeserver.call(queryThirdPartyLocations, { query: { case: 'roomAlias', value: '#bridge_ü%:hs.test' } });
  assert.deepEqual(rooms.locations.map(({ json: bytes }) => parsed(bytes)), [{ alias: '#bridge_ü%:hs.test', protocol: 'irc', fields: { from: 'parseLocation' } }]);
  assert.deepEqual((await homeserver.call(queryThirdPartyUsers, { query: { case: 'userId', value: '@nobody:hs.test' } })).users, []);
});

test('R100 R101 R102 Element\'s bot-sdk emits claims and queries and its keys come back; one that does not know them is no keys', LIMIT, async () => {
  const emitted: unknown[] = [];
  const key = { key: 'k', signatures: {} };
  await using stub = await StubHomeserver.start();
  await using element = await startElementBotSdk({
    hsToken: 'hs-element',
    asToken: 'as-element',
    homeserverUrl: stub.url,
    listen: (appservice) => {
      appservice.on('query.key_claim', (request: unknown, answered: (value: unknown) => void) => {
        emitted.push(['claim', request]);
        answered({ '@element_ann:hs.test': { D: { 'signed_curve25519:AAAA': key } } });
      });
      appservice.on('query.key', (request: unknown, answered: (value: unknown) => void) => {
        emitted.push(['query', request]);
        answered({ device_keys: { '@element_ann:hs.test': { D: { device_id: 'D', keys: {} } } } });
      });
    },
  });
  await using silent = await startBotSdk({ hsToken: 'hs-silent', asToken: 'as-silent', homeserverUrl: stub.url });
  await using world = await startService();
  await put(world, 'element', element.url);
  await put(world, 'silent', silent.url);
  const wanted = { '@element_ann:hs.test': { D: ['signed_curve25519'], E: 'signed_curve25519' }, '@silent_bob:hs.test': { B: ['signed_curve25519'] }, '@human:hs.test': { H: ['signed_curve25519'] } };
  const held = { '@element_ann:hs.test': { E: { 'signed_curve25519:own': key } } };
  for (let times = 0; times < 2; times++) {
    const claimed = await world.homeserver.call(claimKeys, { json: json(wanted), homeserverJson: json(held) });
    assert.deepEqual(parsed(claimed.json), { '@element_ann:hs.test': { E: { 'signed_curve25519:own': key }, D: { 'signed_curve25519:AAAA': key } } });
    assert.deepEqual(claimed.failedAppserviceIds, []);
  }
  const queried = await world.homeserver.call(queryKeys, { json: json({ '@element_ann:hs.test': [], '@silent_bob:hs.test': ['B'] }), homeserverJson: json({ device_keys: { '@silent_bob:hs.test': { B: { device_id: 'B' } } } }) });
  assert.deepEqual(parsed(queried.json), { device_keys: { '@silent_bob:hs.test': { B: { device_id: 'B' } }, '@element_ann:hs.test': { D: { device_id: 'D', keys: {} } } } });
  const claim = ['claim', { '@element_ann:hs.test': { D: ['signed_curve25519'] } }];
  assert.deepEqual(emitted, [claim, claim, ['query', { '@element_ann:hs.test': [] }]]);
});

test('R130 protocol metadata of a changed registration is asked for anew', LIMIT, async () => {
  await using first = await Receiver.start(answer(200, JSON.stringify(metadata('first'))));
  await using second = await Receiver.start(answer(200, JSON.stringify(metadata('second'))));
  await using world = await startService();
  const instances = async (): Promise<string[]> => {
    const { protocols } = await world.homeserver.call(listThirdPartyProtocols, { protocol: 'irc' });
    return protocols.flatMap((one) => one.instances.map(({ instanceId }) => instanceId));
  };
  await put(world, 'irc', first.url, ['irc']);
  assert.deepEqual([await instances(), await instances()], [['irc|first'], ['irc|first']]);
  await put(world, 'other', second.url);
  assert.deepEqual(await instances(), ['irc|first']);
  assert.equal(first.requests.length, 1);
  await put(world, 'irc', second.url, ['irc']);
  assert.deepEqual(await instances(), ['irc|second']);
});
