import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  acceptedClaim,
  acceptedQuery,
  claimedKeysFrom,
  keyAnswerFrom,
  keyClaimFrom,
  keyOwners,
  keyQueryFrom,
  mergedClaim,
  mergedQuery,
  requestJsonOf,
  shortfallOf,
} from '../../src/appservice/key-request.ts';
import type { ClaimedKeys, KeyClaim } from '../../src/appservice/key-request.ts';
import { NamespaceIndex } from '../../src/appservice/namespaces.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { registration, SERVER } from '../support/routing.ts';

const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
const claim = (value: unknown): KeyClaim => keyClaimFrom(json(value), 'json');
const held = (value: unknown): ClaimedKeys => claimedKeysFrom(json(value), 'homeserver_json');
const plain = (asked: KeyClaim): unknown => JSON.parse(Buffer.from(requestJsonOf(asked)).toString());
const ANN = '@_irc_ann:hs.test';
const SIGNED = 'signed_curve25519';

async function owners(registrations: readonly Registration[], userIds: readonly string[]): Promise<[string, string[]][]> {
  const index = await NamespaceIndex.compile(SERVER, registrations, () => Promise.resolve());
  return [...keyOwners(index, userIds)].map(([{ id }, users]) => [id, [...users]]);
}

test('R100 R101 only users that are one appservice\'s alone are asked for, each of its own appservice', async () => {
  const users = (regex: string, exclusive: boolean): Partial<Registration> => ({ namespaces: { users: [{ regex, exclusive }], aliases: [], rooms: [] } });
  const registrations = [
    registration('z', users('@z_.*', true)),
    registration('shared', users('@s_.*', false)),
    registration('silent', { ...users('@q_.*', true), url: null }),
    registration('a', users('@a_.*', true)),
    registration('over', users('@a_over_.*', true)),
    registration('wide', users('@z_.*', false)),
  ];
  const asked = ['@a_1:hs.test', '@z_1:hs.test', '@s_1:hs.test', '@q_1:hs.test', '@a_over_1:hs.test', '@z_1:remote.test', '@nobody:hs.test', '@_wide_bot:hs.test', '@a_2:hs.test', ''];
  assert.deepEqual(await owners(registrations, asked), [['z', ['@z_1:hs.test']], ['a', ['@a_1:hs.test', '@a_2:hs.test']], ['wide', ['@_wide_bot:hs.test']]]);
});

test('R100 only what the homeserver falls short of is claimed; its fallback keys do not count', () => {
  const wanted = claim({ [ANN]: { A: [SIGNED, SIGNED, 'curve25519'], B: SIGNED, C: [SIGNED], D: [SIGNED] }, '@full:hs.test': { A: [SIGNED] } });
  const has = held({
    [ANN]: { A: { [`${SIGNED}:AAAA`]: { key: '1' }, [`${SIGNED}_v2:AAAA`]: { key: '2' } }, B: { [`${SIGNED}:BB`]: { key: '3' } }, C: { [`${SIGNED}:CC`]: { key: '4', fallback: true } } },
    '@full:hs.test': { A: { [`${SIGNED}:1`]: {}, [`${SIGNED}:2`]: {} } },
    '@stranger:hs.test': { X: {} },
  });
  assert.deepEqual(plain(shortfallOf(wanted, has)), { [ANN]: { A: [SIGNED, 'curve25519'], C: [SIGNED], D: [SIGNED] } });
  assert.deepEqual(plain(shortfallOf(wanted, held({}))), { [ANN]: { A: [SIGNED, SIGNED, 'curve25519'], B: [SIGNED], C: [SIGNED], D: [SIGNED] }, '@full:hs.test': { A: [SIGNED] } });
});

test('R100 of an answer only keys that were asked for count, and no more of an algorithm than that', () => {
  const asked = claim({ [ANN]: { A: [SIGNED], __proto__2: [SIGNED] } });
  const answer = { [ANN]: { A: { [`${SIGNED}:1`]: { key: 'a' }, [`${SIGNED}:2`]: { key: 'b' }, 'curve25519:1': 'c', [SIGNED]: {}, [`${SIGNED}:3`]: 5 }, OTHER: { [`${SIGNED}:1`]: {} }, __proto__2: [] }, '@victim:hs.test': { V: { [`${SIGNED}:1`]: {} } } };
  const accepted = acceptedClaim(JSON.stringify(answer), asked);
  assert.deepEqual(accepted, { keys: new Map([[ANN, new Map([['A', new Map([[`${SIGNED}:1`, { key: 'a' }]])]])]]), droppedCount: 7 });
  for (const text of ['', 'null', '[]', '"x"', '{', `{"a":${'['.repeat(40)}${']'.repeat(40)}}`]) assert.equal(acceptedClaim(text, asked), null, text);
  assert.deepEqual(acceptedClaim('{}', asked), { keys: new Map(), droppedCount: 0 });
});

test('R100 claimed keys of homeserver and appservices stand together, the appservice\'s first, a fallback key only where one is missing', () => {
  const wanted = claim({ [ANN]: { A: [SIGNED, SIGNED], B: [SIGNED], C: [SIGNED] } });
  const has = held({ [ANN]: { A: { [`${SIGNED}:own`]: { key: 'hs' }, [`${SIGNED}:both`]: { key: 'hs' } }, B: { [`${SIGNED}:fb`]: { key: 'f', fallback: true } }, C: { [`${SIGNED}:fb`]: { key: 'g', fallback: true } } } });
  const answers = [held({ [ANN]: { A: { [`${SIGNED}:both`]: { key: 'as' } }, B: { [`${SIGNED}:new`]: { key: 'as' } } } })];
  assert.deepEqual(JSON.parse(mergedClaim(wanted, has, answers)), {
    [ANN]: { A: { [`${SIGNED}:own`]: { key: 'hs' }, [`${SIGNED}:both`]: { key: 'as' } }, B: { [`${SIGNED}:new`]: { key: 'as' } }, C: { [`${SIGNED}:fb`]: { key: 'g', fallback: true } } },
  });
  assert.equal(mergedClaim(wanted, new Map(), []), '{}');
});

test('R101 an appservice\'s devices and signing keys lie over the homeserver\'s, device by device, and no others', () => {
  const BOB = '@bob:hs.test';
  const has = keyAnswerFrom(json({ device_keys: { [ANN]: { D1: { from: 'hs' }, D2: { from: 'hs' } }, [BOB]: { B: { from: 'hs' } } }, master_keys: { [ANN]: { from: 'hs' }, [BOB]: { from: 'hs' } }, self_signing_keys: { [ANN]: { from: 'hs' } }, failures: { 'remote.test': {} } }), 'homeserver_json');
  const asked = keyQueryFrom(json({ [ANN]: ['D1', 'D3'] }), 'json');
  const answer = { device_keys: { [ANN]: { D1: { from: 'as' }, D3: { from: 'as' }, D4: { from: 'as' } }, [BOB]: { B: { from: 'thief' } } }, master_keys: { [ANN]: { from: 'as' }, [BOB]: { from: 'thief' } }, user_signing_keys: { [ANN]: 7 }, failures: { x: {} } };
  const accepted = acceptedQuery(JSON.stringify(answer), asked);
  assert.equal(accepted?.droppedCount, 4);
  assert.deepEqual(JSON.parse(mergedQuery(has, accepted === null ? [] : [accepted.keys])), {
    device_keys: { [ANN]: { D1: { from: 'as' }, D2: { from: 'hs' }, D3: { from: 'as' } }, [BOB]: { B: { from: 'hs' } } },
    master_keys: { [ANN]: { from: 'as' }, [BOB]: { from: 'hs' } },
    self_signing_keys: { [ANN]: { from: 'hs' } },
    failures: { 'remote.test': {} },
  });
  const all = acceptedQuery(JSON.stringify({ device_keys: { [ANN]: { D9: {}, D8: null } } }), keyQueryFrom(json({ [ANN]: [] }), 'json'));
  assert.deepEqual([[...(all?.keys.devices.get(ANN)?.keys() ?? [])], all?.droppedCount], [['D9'], 1]);
  for (const text of ['', '[]', 'null', '{"device_keys":[]}', '{"device_keys":7}']) assert.equal(acceptedQuery(text, asked), null, text);
  assert.equal(mergedQuery({}, []), '{}');
});

test('names that mean something to JavaScript are names like others', () => {
  const names = '{"__proto__":{"constructor":["toString"]}}';
  const wanted = keyClaimFrom(Buffer.from(names), 'json');
  assert.equal(Buffer.from(requestJsonOf(wanted)).toString(), names);
  const answer = '{"__proto__":{"constructor":{"toString:1":{"key":"k"}}},"constructor":{}}';
  const accepted = acceptedClaim(answer, wanted);
  assert.equal(accepted?.droppedCount, 1);
  assert.equal(mergedClaim(wanted, new Map(), [accepted.keys]), '{"__proto__":{"constructor":{"toString:1":{"key":"k"}}}}');
  const query = keyQueryFrom(Buffer.from('{"__proto__":["__proto__"]}'), 'json');
  const devices = acceptedQuery('{"device_keys":{"__proto__":{"__proto__":{"a":1}}}}', query);
  assert.equal(mergedQuery({}, devices === null ? [] : [devices.keys]), '{"device_keys":{"__proto__":{"__proto__":{"a":1}}}}');
});

test('a malformed request is refused by the name of its field', () => {
  const refused = (parse: () => unknown, field: string): void => {
    assert.throws(parse, (error) => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === field);
  };
  const manyUsers = Object.fromEntries(Array.from({ length: 1_001 }, (_, at) => [`@${at}:hs.test`, {}]));
  for (const bytes of [Buffer.from(''), Buffer.from([0xff]), json(null), json([]), json({ u: 1 }), json({ u: { d: 1 } }), json({ u: { d: [1] } }), json({ u: { d: Array(101).fill('a') } }), json(manyUsers), Buffer.from(`{"a":"${'x'.repeat(1024 * 1024)}"}`), Buffer.from(`{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`)]) {
    refused(() => keyClaimFrom(bytes, 'json'), 'json');
  }
  for (const bytes of [Buffer.from('{'), json({ u: {} }), json({ u: [1] })]) refused(() => keyQueryFrom(bytes, 'json'), 'json');
  for (const bytes of [json([]), json({ u: 1 }), json({ u: { d: [] } })]) refused(() => claimedKeysFrom(bytes, 'homeserver_json'), 'homeserver_json');
  for (const bytes of [json([]), json({ device_keys: 1 }), json({ device_keys: { u: 1 } }), json({ master_keys: [] })]) refused(() => keyAnswerFrom(bytes, 'homeserver_json'), 'homeserver_json');
  assert.deepEqual([claimedKeysFrom(Buffer.alloc(0), 'x').size, keyAnswerFrom(Buffer.alloc(0), 'x')], [0, {}]);
});
