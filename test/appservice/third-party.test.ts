import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NamespaceIndex } from '../../src/appservice/namespaces.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { matchesFrom, mergedProtocol, protocolMetadataFrom, protocolOwners, queryOf, thirdPartyCandidates, THIRD_PARTY_DEPTH_MAX } from '../../src/appservice/third-party.ts';
import type { ProtocolMetadata, ThirdPartyKind, ThirdPartyQuestion } from '../../src/appservice/third-party.ts';
import { registration, SERVER } from '../support/routing.ts';

const indexOf = (registrations: readonly Registration[]): Promise<NamespaceIndex> => NamespaceIndex.compile(SERVER, registrations, () => Promise.resolve());

async function asked(registrations: readonly Registration[], kind: ThirdPartyKind, question: ThirdPartyQuestion): Promise<string[]> {
  return thirdPartyCandidates(await indexOf(registrations), kind, question).map(({ id }) => id);
}

function metadata(value: unknown): ProtocolMetadata {
  const parsed = protocolMetadataFrom(JSON.stringify(value));
  assert.ok(parsed !== null);
  return parsed;
}

const COMMON = { user_fields: ['network', 'nick'], location_fields: ['network', 'channel'], icon: 'mxc://hs.test/a', field_types: { nick: { regexp: '.+', placeholder: 'ann' } } };
const instance = (networkId: string, rest: Record<string, unknown> = {}): Record<string, unknown> => ({ desc: networkId, fields: { network: networkId }, network_id: networkId, ...rest });

test('R122 only appservices with a url that list the protocol are asked, in registration order', async () => {
  const registrations = [registration('z', { protocols: ['irc', 'irc'] }), registration('other', { protocols: ['gitter'] }), registration('silent', { protocols: ['irc'], url: null }), registration('a', { protocols: ['gitter', 'irc'] })];
  for (const kind of ['users', 'locations'] as const) {
    assert.deepEqual(await asked(registrations, kind, { by: 'fields', protocol: 'irc', fields: [] }), ['z', 'a']);
    assert.deepEqual(await asked(registrations, kind, { by: 'fields', protocol: 'IRC', fields: [] }), []);
  }
  const owners = protocolOwners(await indexOf(registrations));
  assert.deepEqual([...owners].map(([protocol, of]) => [protocol, of.map(({ id }) => id)]), [['irc', ['z', 'a']], ['gitter', ['other', 'a']]]);
});

test('R129 in reverse, those with a url whose namespace has the identifier are asked, exclusive or not, whatever protocols they list', async () => {
  const claims = (pattern: string, exclusive: boolean): Partial<Registration> => ({ namespaces: { users: [{ regex: `@${pattern}`, exclusive }], aliases: [{ regex: `#${pattern}`, exclusive }], rooms: [] } });
  const registrations = [registration('z', claims('x_.*', true)), registration('other', { ...claims('y_.*', true), protocols: ['irc'] }), registration('silent', { ...claims('x_.*', true), url: null }), registration('a', claims('x_.*', false))];
  assert.deepEqual(await asked(registrations, 'users', { by: 'identifier', identifier: '@x_1:hs.test' }), ['z', 'a']);
  assert.deepEqual(await asked(registrations, 'locations', { by: 'identifier', identifier: '#x_1:hs.test' }), ['z', 'a']);
  assert.deepEqual(await asked(registrations, 'users', { by: 'identifier', identifier: '@x_1:remote.test' }), []);
});

test('a malformed question is refused by the name of its field', async () => {
  const fields = (count: number, length: number): { name: string; value: string }[] => Array.from({ length: count }, (_, at) => ({ name: `f${at}`, value: 'x'.repeat(length) }));
  const cases: [ThirdPartyKind, ThirdPartyQuestion, string][] = [
    ['users', { by: 'identifier', identifier: 'ann' }, 'user_id'],
    ['locations', { by: 'identifier', identifier: '@ann:hs.test' }, 'room_alias'],
    ['users', { by: 'identifier', identifier: '@\ud800:hs.test' }, 'user_id'],
    ['users', { by: 'fields', protocol: '', fields: [] }, 'protocol'],
    ['users', { by: 'fields', protocol: 'x'.repeat(256), fields: [] }, 'protocol'],
    ['users', { by: 'fields', protocol: '\udc00', fields: [] }, 'protocol'],
    ['locations', { by: 'fields', protocol: 'irc', fields: fields(65, 1) }, 'fields'],
    ['locations', { by: 'fields', protocol: 'irc', fields: fields(2, 2_100) }, 'fields'],
    ['locations', { by: 'fields', protocol: 'irc', fields: [{ name: 'a', value: '' }, { name: 'b', value: '\ud800' }] }, 'fields[1]'],
  ];
  for (const [kind, question, field] of cases) {
    await assert.rejects(asked([], kind, question), (error) => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === field, field);
  }
});

test('R126 every field goes on in its order, repeated names included, except access_token', () => {
  const fields = [['nick', 'a b'], ['access_token', 'secret'], ['nick', 'c&d=e'], ['ümlaut', '#?/%'], ['', ''], ['Access_Token', 'kept']].map(([name = '', value = '']) => ({ name, value }));
  const query = queryOf(fields);
  assert.deepEqual([...new URLSearchParams(query)], [['nick', 'a b'], ['nick', 'c&d=e'], ['ümlaut', '#?/%'], ['', ''], ['Access_Token', 'kept']]);
  assert.doesNotMatch(query, /secret/);
  assert.equal(queryOf([{ name: 'access_token', value: 'x' }]), '');
});

test('R127 what is no user or location is dropped and counted; what is one keeps everything in it', () => {
  const good = { userid: '@x_1:hs.test', protocol: 'irc', fields: { nick: 'ann', deep: [1, { a: null }] }, more: 'kept' };
  const bad = [null, 7, 'x', [], {}, { ...good, userid: 7 }, { ...good, userid: 'ann' }, { ...good, protocol: null }, { ...good, fields: [] }, { alias: '#x:hs.test', protocol: 'irc', fields: {} }];
  const found = matchesFrom(JSON.stringify([bad, good, good].flat()), 'users', 'irc');
  assert.equal(found?.droppedCount, bad.length);
  assert.deepEqual(found?.matches.map(({ json, ...rest }) => ({ ...rest, json: JSON.parse(json) as unknown })), [good, good].map((json) => ({ appserviceId: 'irc', identifier: '@x_1:hs.test', protocol: 'irc', json })));
  const location = { alias: '#x_1:hs.test', protocol: 'irc', fields: {} };
  assert.deepEqual(matchesFrom(JSON.stringify([location, good]), 'locations', 'irc')?.matches.map(({ identifier }) => identifier), ['#x_1:hs.test']);
});

test('R127 an answer that is no list, no JSON or nests too deep is none', () => {
  const nested = `[{"userid":"@x:hs.test","protocol":"irc","fields":${'{"a":'.repeat(THIRD_PARTY_DEPTH_MAX)}1${'}'.repeat(THIRD_PARTY_DEPTH_MAX)}}]`;
  for (const text of ['', '{}', 'null', '"x"', '[', '<html>', nested, '['.repeat(100_000) + ']'.repeat(100_000)]) assert.equal(matchesFrom(text, 'users', 'irc'), null, text.slice(0, 20));
  assert.deepEqual(matchesFrom('[]', 'users', 'irc'), { matches: [], droppedCount: 0 });
});

test('R125 an answer that is no Protocol object is none; parts may be missing but not of another type', () => {
  for (const value of [null, [], 'x', {}, { instances: {} }, { ...COMMON, instances: null }, { ...COMMON, instances: [], user_fields: 'nick' }, { ...COMMON, instances: [], location_fields: [1] }, { ...COMMON, instances: [], icon: 1 }, { ...COMMON, instances: [], field_types: [] }]) {
    assert.equal(protocolMetadataFrom(JSON.stringify(value)), null, JSON.stringify(value));
  }
  assert.deepEqual(metadata({ instances: [] }), { common: {}, instances: [], droppedCount: 0 });
});

test('R123 of several appservices the first one gives the fields and all of them the instances', () => {
  const answers = [
    { appserviceId: 'b', metadata: metadata({ ...COMMON, extra: { kept: true }, instances: [instance('libera', { icon: 'mxc://hs.test/l' })] }) },
    { appserviceId: 'a', metadata: metadata({ ...COMMON, icon: 'mxc://hs.test/other', instances: [instance('oftc'), instance('libera')] }) },
  ];
  const merged = mergedProtocol('irc', answers);
  assert.deepEqual(merged === null ? null : JSON.parse(merged.json), {
    ...COMMON,
    extra: { kept: true },
    instances: [
      { ...instance('libera', { icon: 'mxc://hs.test/l' }), instance_id: 'b|libera' },
      { ...instance('oftc'), instance_id: 'a|oftc' },
      { ...instance('libera'), instance_id: 'a|libera' },
    ],
  });
  assert.deepEqual(merged?.instances, [
    { instanceId: 'b|libera', appserviceId: 'b', networkId: 'libera' },
    { instanceId: 'a|oftc', appserviceId: 'a', networkId: 'oftc' },
    { instanceId: 'a|libera', appserviceId: 'a', networkId: 'libera' },
  ]);
});

test('R124 an instance_id is unique, does not depend on who answers first, and is never the appservice\'s word', () => {
  const odd = metadata({ ...COMMON, instances: [instance('x|y'), instance('x', { instance_id: 'b|x' }), instance('x', { desc: 'again' }), { desc: 'no id' }, instance('', {}), 5] });
  assert.deepEqual([odd.instances.map(({ networkId }) => networkId), odd.droppedCount], [['x|y', 'x', ''], 3]);
  const a = { appserviceId: 'a', metadata: odd };
  const b = { appserviceId: 'b', metadata: odd };
  const ids = (answers: readonly (typeof a)[]): string[] => mergedProtocol('irc', answers)?.instances.map(({ instanceId }) => instanceId) ?? [];
  assert.deepEqual(ids([a, b]), ['a|x|y', 'a|x', 'a|', 'b|x|y', 'b|x', 'b|']);
  assert.deepEqual(ids([b, a]).sort(), ids([a, b]).sort());
  assert.equal(new Set(ids([a, b])).size, 6);
  const told = JSON.parse(mergedProtocol('irc', [a])?.json ?? '{}') as { instances: { instance_id: string }[] };
  assert.deepEqual(told.instances.map(({ instance_id }) => instance_id), ['a|x|y', 'a|x', 'a|']);
});

test('R125 a protocol without an answer is none', () => {
  assert.equal(mergedProtocol('irc', []), null);
});
