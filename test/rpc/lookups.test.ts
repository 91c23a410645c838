import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { ThirdPartyKind, ThirdPartyQuestion } from '../../src/appservice/third-party.ts';
import { codeName } from '../../src/rpc/status.ts';
import { call, Doors, failing, failureOf, PROTOCOLS, SERVER_NAME, TOKENS } from './doors.ts';

const { listThirdPartyProtocols, queryThirdPartyUsers, queryThirdPartyLocations, claimKeys, queryKeys } = AppserviceRouter.method;
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

for (const protocol of PROTOCOLS) {
  test(`R122 R123 R124 protocols are told with their instances and their JSON, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: (string | undefined)[] = [];
    const instance = { instanceId: 'irc|libera', appserviceId: 'irc', networkId: 'libera' };
    doors.house.router.thirdPartyProtocols = (name) => {
      asked.push(name);
      return Promise.resolve({ protocols: [{ protocol: 'irc', instances: [instance], json: '{"icon":"ü"}' }], failedAppserviceIds: ['down'] });
    };
    const told = await call(doors, protocol, listThirdPartyProtocols, { serverName: SERVER_NAME }, TOKENS.homeserver);
    await call(doors, protocol, listThirdPartyProtocols, { protocol: 'irc' }, TOKENS.homeserver);
    assert.deepEqual(asked, [undefined, 'irc']);
    assert.deepEqual(told.failedAppserviceIds, ['down']);
    assert.deepEqual(
      told.protocols.map((one) => [one.protocol, text(one.json), one.instances.map(({ instanceId, appserviceId, networkId }) => ({ instanceId, appserviceId, networkId }))]),
      [['irc', '{"icon":"ü"}', [instance]]],
    );
  });

  test(`R126 R127 R129 look-ups hand on fields in their order, or the identifier, and tell every match, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: [ThirdPartyKind, ThirdPartyQuestion][] = [];
    doors.house.router.thirdPartyMatches = (kind, question) => {
      asked.push([kind, question]);
      const identifier = kind === 'users' ? '@irc_ann:a.test' : '#irc_x:a.test';
      return Promise.resolve({ matches: [{ appserviceId: 'irc', identifier, protocol: 'irc', json: '{"a":1}' }], failedAppserviceIds: ['down'] });
    };
    const fields = [{ name: 'nick', value: 'a' }, { name: 'network', value: 'x' }, { name: 'nick', value: 'b' }];
    const users = await call(doors, protocol, queryThirdPartyUsers, { query: { case: 'protocol', value: 'irc' }, fields }, TOKENS.homeserver);
    await call(doors, protocol, queryThirdPartyUsers, { query: { case: 'userId', value: '@irc_ann:a.test' } }, TOKENS.homeserver);
    const locations = await call(doors, protocol, queryThirdPartyLocations, { query: { case: 'roomAlias', value: '#irc_x:a.test' } }, TOKENS.homeserver);
    await call(doors, protocol, queryThirdPartyLocations, { query: { case: 'protocol', value: 'irc' } }, TOKENS.homeserver);
    assert.deepEqual(asked, [
      ['users', { by: 'fields', protocol: 'irc', fields }],
      ['users', { by: 'identifier', identifier: '@irc_ann:a.test' }],
      ['locations', { by: 'identifier', identifier: '#irc_x:a.test' }],
      ['locations', { by: 'fields', protocol: 'irc', fields: [] }],
    ]);
    assert.deepEqual(users.users.map((user) => [user.userId, user.protocol, user.appserviceId, text(user.json)]), [['@irc_ann:a.test', 'irc', 'irc', '{"a":1}']]);
    assert.deepEqual(locations.locations.map((location) => [location.roomAlias, location.protocol, location.appserviceId, text(location.json)]), [['#irc_x:a.test', 'irc', 'irc', '{"a":1}']]);
    assert.deepEqual([users.failedAppserviceIds, locations.failedAppserviceIds], [['down'], ['down']]);
  });

  test(`R100 R101 key requests are JSON in and JSON out, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: string[] = [];
    const answering = (name: string) => (wanted: Uint8Array, held: Uint8Array) => {
      asked.push(name, text(wanted), text(held));
      return Promise.resolve({ json: `{"${name}":"ü"}`, failedAppserviceIds: ['down'] });
    };
    doors.house.router.claimKeys = answering('claim');
    doors.house.router.queryKeys = answering('query');
    const claimed = await call(doors, protocol, claimKeys, { json: Buffer.from('{"u":{}}'), homeserverJson: Buffer.from('{"h":{}}') }, TOKENS.homeserver);
    const queried = await call(doors, protocol, queryKeys, { json: Buffer.from('{"u":[]}') }, TOKENS.homeserver);
    assert.deepEqual(asked, ['claim', '{"u":{}}', '{"h":{}}', 'query', '{"u":[]}', '']);
    assert.deepEqual([text(claimed.json), claimed.failedAppserviceIds, text(queried.json), queried.failedAppserviceIds], ['{"claim":"ü"}', ['down'], '{"query":"ü"}', ['down']]);
  });

  test(`too many look-ups are RESOURCE_EXHAUSTED with a time to come back, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    doors.house.router.queryKeys = () => Promise.reject(new RefusalError('TOO_MANY_LOOKUPS', 'Too many.', { retryDelayMs: 1_000 }));
    const failure = failureOf(await failing(call(doors, protocol, queryKeys, {}, TOKENS.homeserver)));
    assert.deepEqual([codeName(failure.code), failure.reason, failure.retryDelayMs], ['RESOURCE_EXHAUSTED', 'TOO_MANY_LOOKUPS', 1_000]);
  });
}

test('a look-up that does not say how, or both, is refused by its field before the house is asked', async () => {
  await using doors = await Doors.open();
  doors.house.router.thirdPartyMatches = () => assert.fail('asked');
  for (const protocol of ['gRPC', 'Connect with JSON'] as const) {
    assert.equal(failureOf(await failing(call(doors, protocol, queryThirdPartyUsers, {}, TOKENS.homeserver))).field, 'query');
    assert.equal(failureOf(await failing(call(doors, protocol, queryThirdPartyLocations, {}, TOKENS.homeserver))).field, 'query');
    const fields = [{ name: 'a', value: 'b' }];
    assert.equal(failureOf(await failing(call(doors, protocol, queryThirdPartyUsers, { query: { case: 'userId', value: '@x:a.test' }, fields }, TOKENS.homeserver))).field, 'fields');
  }
});

test('only a homeserver may look up, and only as itself', async () => {
  await using doors = await Doors.open();
  const calls = (request: { serverName?: string }, token: string): Promise<unknown>[] => [
    call(doors, 'gRPC', listThirdPartyProtocols, request, token),
    call(doors, 'gRPC', queryThirdPartyUsers, request, token),
    call(doors, 'gRPC', queryThirdPartyLocations, request, token),
    call(doors, 'gRPC', claimKeys, request, token),
    call(doors, 'gRPC', queryKeys, request, token),
  ];
  const reasons = async (request: { serverName?: string }, token: string): Promise<(string | undefined)[]> => {
    const errors = await Promise.all(calls(request, token).map(failing));
    return errors.map((error) => failureOf(error).reason);
  };
  for (const token of [TOKENS.admin, TOKENS.monitor]) assert.deepEqual(await reasons({}, token), Array(5).fill('ROLE_FORBIDDEN'));
  assert.deepEqual(await reasons({ serverName: 'other.test' }, TOKENS.homeserver), ['SERVER_NAME_FORBIDDEN', 'SERVER_NAME_FORBIDDEN', 'SERVER_NAME_FORBIDDEN', 'SERVER_NAME_FORBIDDEN', 'SERVER_NAME_FORBIDDEN']);
});
