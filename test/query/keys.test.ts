import assert from 'node:assert/strict';
import { test } from 'node:test';
import { claimedKeysFrom, keyClaimFrom, keyQueryFrom } from '../../src/appservice/key-request.ts';
import type { KeyOwners, KeysResult } from '../../src/appservice/key-request.ts';
import type { JsonObject } from '../../src/appservice/json.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { isUnknownRoute } from '../../src/query/unknown-route.ts';
import { settle } from '../support/clock.ts';
import { appserviceAt, LOOKUP_SERVER, LookupWorld, refusedWith } from '../support/lookup-world.ts';
import { HS_TOKEN } from '../support/push-world.ts';
import { answer, endless, hang, raw, Receiver, reset } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';

const LIMIT = { timeout: 20_000 };
const ANN = '@irc_ann:example.org';
const BOB = '@irc_bob:example.org';
const CURVE = 'signed_curve25519';
const CLAIM_PATH = '/_matrix/app/unstable/org.matrix.msc3983/keys/claim';
const QUERY_PATH = '/_matrix/app/unstable/org.matrix.msc3984/keys/query';
const UNKNOWN = answer(404, '{"errcode":"M_UNRECOGNIZED"}');

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const given = (value: unknown): Script => answer(200, JSON.stringify(value));
const keysOf = (user: string): Script => given({ [user]: { D: { [`${CURVE}:new`]: { key: user } } } });

/** Each registration with the users that it owns. */
const owning = (...pairs: readonly (readonly [Registration, ...string[]])[]): KeyOwners => (userIds) => {
  const asked = new Set(userIds);
  return new Map(pairs.map(([registration, ...users]): [Registration, Set<string>] => [registration, new Set(users.filter((user) => asked.has(user)))]).filter(([, users]) => users.size > 0));
};

const claim = (world: LookupWorld, owners: KeyOwners, users: readonly string[] = [ANN], held: unknown = {}): Promise<KeysResult> =>
  world.keys.claim(LOOKUP_SERVER, keyClaimFrom(json(Object.fromEntries(users.map((user) => [user, { D: [CURVE] }]))), 'json'), claimedKeysFrom(json(held), 'homeserver_json'), owners);
const query = (world: LookupWorld, owners: KeyOwners, held: JsonObject = {}): Promise<KeysResult> => world.keys.query(LOOKUP_SERVER, keyQueryFrom(json({ [ANN]: [] }), 'json'), held, owners);

test('R100 each owner is asked for its own users, for the shortfall only, once, with the hs_token', async () => {
  await using world = new LookupWorld();
  await using one = await Receiver.start(keysOf(ANN));
  await using two = await Receiver.start(keysOf(BOB));
  const owners = owning([appserviceAt('one', one), ANN, '@irc_full:example.org'], [appserviceAt('two', two), BOB]);
  const held = { '@irc_full:example.org': { D: { [`${CURVE}:own`]: { key: 'hs' } } } };
  const { json: merged, failedAppserviceIds } = await claim(world, owners, [ANN, BOB, '@irc_full:example.org', '@human:example.org'], held);
  assert.deepEqual(JSON.parse(merged), { ...held, [ANN]: { D: { [`${CURVE}:new`]: { key: ANN } } }, [BOB]: { D: { [`${CURVE}:new`]: { key: BOB } } } });
  assert.deepEqual(failedAppserviceIds, []);
  assert.deepEqual(
    [...one.requests, ...two.requests].map(({ method, target, headers, body }) => [method, target, headers['authorization'], headers['content-type'], JSON.parse(body.toString()) as unknown]),
    [ANN, BOB].map((user) => ['POST', CLAIM_PATH, `Bearer ${HS_TOKEN}`, 'application/json', { [user]: { D: [CURVE] } }]),
  );
});

test('R107 key requests have no legacy path, whatever the registration says', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(UNKNOWN, answer(500));
  for (const legacy_paths of ['unrecognized', 'any_error'] as const) await claim(world, owning([appserviceAt(legacy_paths, receiver, { delivery_options: { legacy_paths } }), ANN]));
  assert.deepEqual(receiver.requests.map(({ target }) => target), [CLAIM_PATH, CLAIM_PATH]);
});

test('R100 where the homeserver has all keys, and where nobody owns the user, nobody is asked', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(answer(500));
  const held = { [ANN]: { D: { [`${CURVE}:own`]: { key: 'hs' } } } };
  assert.deepEqual(await claim(world, owning([appserviceAt('irc', receiver), ANN]), [ANN], held), { json: JSON.stringify(held), failedAppserviceIds: [] });
  assert.deepEqual(await claim(world, owning(), [ANN]), { json: '{}', failedAppserviceIds: [] });
  assert.equal(receiver.requests.length, 0);
});

test('R101 an owner is asked for devices of its users, and its answer lies over the homeserver\'s', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(given({ device_keys: { [ANN]: { D: { from: 'as' } } } }));
  const { json: merged } = await query(world, owning([appserviceAt('irc', receiver), ANN]), { device_keys: { [ANN]: { D: { from: 'hs' }, E: { from: 'hs' } } } });
  assert.deepEqual(JSON.parse(merged), { device_keys: { [ANN]: { D: { from: 'as' }, E: { from: 'hs' } } } });
  assert.deepEqual(receiver.requests.map(({ method, target, body }) => [method, target, body.toString()]), [['POST', QUERY_PATH, `{"${ANN}":[]}`]]);
});

const BAD: readonly [name: string, script: Script][] = [
  ['an error', answer(500)],
  ['a refused token', answer(403, '{"errcode":"M_FORBIDDEN"}')],
  ['a list', answer(200, '[]')],
  ['no JSON', answer(200, 'x')],
  ['deep nesting', answer(200, '{"a":'.repeat(50_000) + '1' + '}'.repeat(50_000))],
  ['megabytes', answer(200, `{"${ANN}":"${'x'.repeat(2 * 1024 * 1024)}"}`)],
  ['no end', endless('HTTP/1.1 200 OK\r\n\r\n', '        ')],
  ['half an answer', raw('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{')],
  ['silence', hang],
  ['a broken connection', reset],
  ['a redirect', answer(307, '', { location: 'http://169.254.169.254/' })],
];

for (const [name, script] of BAD) {
  test(`R100 R101 I8 ${name} is no keys, in bounded time; the homeserver's and another appservice's stand`, LIMIT, async () => {
    await using world = new LookupWorld();
    await using bad = await Receiver.start(script);
    await using good = await Receiver.start(keysOf(BOB), given({}));
    const owners = owning([appserviceAt('bad', bad), ANN], [appserviceAt('good', good), BOB]);
    const claiming = claim(world, owners, [ANN, BOB]);
    const querying = query(world, owners, { device_keys: { [ANN]: { D: { from: 'hs' } } } });
    assert.ok((await world.ended(Promise.all([claiming, querying]))) <= 5_000);
    assert.deepEqual(await claiming, { json: JSON.stringify({ [BOB]: { D: { [`${CURVE}:new`]: { key: BOB } } } }), failedAppserviceIds: ['bad'] });
    assert.deepEqual(await querying, { json: JSON.stringify({ device_keys: { [ANN]: { D: { from: 'hs' } } } }), failedAppserviceIds: ['bad'] });
    assert.equal(bad.requests.length, 2);
    assert.equal(world.warnings.length, 2);
  });
}

test('R102 an appservice that does not know the endpoint is left alone for a time that doubles, apart for claims and queries', LIMIT, async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(UNKNOWN);
  const owners = owning([appserviceAt('irc', receiver), ANN]);
  const asked = async (): Promise<number> => {
    const before = receiver.requests.length;
    assert.deepEqual(await claim(world, owners), { json: '{}', failedAppserviceIds: [] });
    return receiver.requests.length - before;
  };
  assert.equal(await asked(), 1);
  assert.equal(await asked(), 0);
  await query(world, owners);
  assert.deepEqual(receiver.requests.map(({ target }) => target), [CLAIM_PATH, QUERY_PATH]);
  for (const wholeMs of [60_000, 120_000, 240_000]) {
    await world.push.clock.advance(wholeMs / 2 - 1);
    assert.equal(await asked(), 0, `${wholeMs}`);
    await world.push.clock.advance(wholeMs / 2 + 1);
    assert.equal(await asked(), 1, `${wholeMs}`);
  }
  for (let times = 0; times < 10; times++) {
    await world.push.clock.advance(3_600_000);
    assert.equal(await asked(), 1);
  }
  assert.deepEqual(world.warnings, []);
});

test('R102 unknown routes told to several at the same time count once', LIMIT, async () => {
  await using world = new LookupWorld();
  const release: (() => void)[] = [];
  await using receiver = await Receiver.start((connection, request) => void release.push(() => UNKNOWN(connection, request)));
  const owners = owning([appserviceAt('irc', receiver), ANN]);
  const asking = [claim(world, owners), claim(world, owners), claim(world, owners)];
  await receiver.received(3);
  for (const go of release) go();
  await Promise.all(asking);
  await world.push.clock.advance(60_000);
  const again = claim(world, owners);
  await receiver.received(4);
  release.at(-1)?.();
  await again;
});

test('R100 R101 an answer of 900 KiB is read whole; of several only as many as fit together', LIMIT, async () => {
  await using world = new LookupWorld();
  const long = (who: string): Script => given({ device_keys: { [who]: { D: { more: 'x'.repeat(900_000) } } } });
  const ids = ['a', 'b', 'c'];
  const receivers = await Promise.all(ids.map((id) => Receiver.start(long(`@${id}:example.org`))));
  const owners = owning(...ids.map((id, at): [Registration, string] => [appserviceAt(id, receivers[at] ?? { url: '' }), `@${id}:example.org`]));
  const wanted = keyQueryFrom(json(Object.fromEntries(ids.map((id) => [`@${id}:example.org`, []]))), 'json');
  const result = await world.keys.query(LOOKUP_SERVER, wanted, {}, owners);
  assert.deepEqual(result.failedAppserviceIds, ['c']);
  assert.ok(result.json.length > 1_800_000 && result.json.includes('@b:example.org') && !result.json.includes('@c:example.org'));
  for (const receiver of receivers) await receiver[Symbol.asyncDispose]();
});

test('R102 a changed registration is asked at once, and any other answer begins the times anew', LIMIT, async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(UNKNOWN, UNKNOWN, UNKNOWN, answer(500), UNKNOWN, keysOf(ANN));
  const irc = appserviceAt('irc', receiver);
  await claim(world, owning([irc, ANN]));
  await claim(world, owning([{ ...irc }, ANN]));
  assert.equal(receiver.requests.length, 2);
  await world.push.clock.advance(60_000);
  await claim(world, owning([irc, ANN]));
  await world.push.clock.advance(120_000);
  await claim(world, owning([irc, ANN]));
  // The failure: asked again at once, and then for a first time unknown again.
  await claim(world, owning([irc, ANN]));
  assert.equal(receiver.requests.length, 5);
  await world.push.clock.advance(60_000);
  assert.deepEqual(JSON.parse((await claim(world, owning([irc, ANN]))).json), { [ANN]: { D: { [`${CURVE}:new`]: { key: ANN } } } });
});

test('R102 an unknown route is told from a no', () => {
  for (const [status, text] of [[404, '{"errcode":"M_UNRECOGNIZED"}'], [405, '{"errcode":"M_UNRECOGNIZED"}'], [400, '{"errcode":"M_UNRECOGNIZED"}'], [404, ''], [405, ''], [404, '<html>Cannot POST</html>']] as const) assert.equal(isUnknownRoute(status, text), true, `${status} ${text}`);
  for (const [status, text] of [[404, '{"errcode":"M_NOT_FOUND"}'], [404, '{}'], [404, '[]'], [400, ''], [400, '{"errcode":"M_BAD_JSON"}'], [500, ''], [200, '{"errcode":"M_UNRECOGNIZED"}'], [403, '']] as const) assert.equal(isUnknownRoute(status, text), false, `${status} ${text}`);
});

test('R100 claims that overlap are not one, since each uses keys up', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(keysOf(ANN));
  const owners = owning([appserviceAt('irc', receiver), ANN]);
  await Promise.all([claim(world, owners), claim(world, owners)]);
  assert.equal(receiver.requests.length, 2);
});

test('more key calls than may be under way are refused; an appservice with too many requests gives no keys; both are over when those have ended', LIMIT, async () => {
  await using world = new LookupWorld({ keys: { callsMax: 3, appserviceQuestionsMax: 2 } });
  await using hanging = await Receiver.start(hang, hang, hang, keysOf(ANN));
  const irc = appserviceAt('irc', hanging);
  const asking = [claim(world, owning([irc, ANN])), query(world, owning([irc, ANN]))];
  await hanging.received(2);
  assert.deepEqual(await claim(world, owning([irc, ANN])), { json: '{}', failedAppserviceIds: ['irc'] });
  asking.push(claim(world, owning([appserviceAt('other', hanging), ANN])));
  await hanging.received(3);
  await assert.rejects(claim(world, owning([appserviceAt('third', hanging), ANN])), refusedWith('TOO_MANY_LOOKUPS'));
  hanging.dropConnections();
  await world.ended(Promise.all(asking));
  assert.notEqual((await claim(world, owning([irc, ANN]))).json, '{}');
});

test('key requests that hang hold up neither transactions nor third-party look-ups, and end with the router', LIMIT, async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.startWith({ scripts: [(connection, { method, target }) => (target.includes('/keys/') ? hang : answer(200, '[]'))(connection, { method, target, headers: {}, body: Buffer.alloc(0), connection: 1 })] });
  const irc = appserviceAt('irc', receiver);
  const asking = Array.from({ length: 16 }, () => claim(world, owning([irc, ANN])));
  await receiver.received(8);
  assert.deepEqual(await world.push.send(irc), { kind: 'delivered', httpStatus: 200 });
  const look = await world.thirdParty.lookUp(LOOKUP_SERVER, 'users', { by: 'identifier', identifier: ANN }, [irc]);
  assert.deepEqual(look, { matches: [], failedAppserviceIds: [] });
  await settle();
  const rejections = asking.map((one) => assert.rejects(one, refusedWith('DRAINING')));
  await world.keys[Symbol.asyncDispose]();
  await Promise.all(rejections);
});

test('I12 neither tokens nor keys stand in the log', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(answer(500, '{"key":"secret-key"}'));
  await claim(world, owning([appserviceAt('irc', receiver, { delivery_options: { legacy_auth: 'both' } }), ANN]));
  assert.doesNotMatch(JSON.stringify(world.logged), new RegExp(`${HS_TOKEN}|secret-key|irc_ann`));
  assert.equal(world.warnings.length, 1);
});
