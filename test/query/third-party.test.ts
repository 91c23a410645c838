import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Registration } from '../../src/appservice/registration.ts';
import type { ThirdPartyMatches, ThirdPartyProtocols, ThirdPartyQuestion } from '../../src/appservice/third-party.ts';
import { settle } from '../support/clock.ts';
import { appserviceAt, LOOKUP_SERVER, LookupWorld, refusedWith } from '../support/lookup-world.ts';
import { HS_TOKEN, registrationFor } from '../support/push-world.ts';
import { answer, endless, hang, raw, Receiver, reset, unusedPort } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';

const LIMIT = { timeout: 20_000 };
const HOUR_MS = 3_600_000;
const BY_NICK: ThirdPartyQuestion = { by: 'fields', protocol: 'irc', fields: [{ name: 'nick', value: 'ann' }] };

const user = (name: string): Record<string, unknown> => ({ userid: `@${name}:example.org`, protocol: 'irc', fields: { nick: name } });
const users = (...names: string[]): Script => answer(200, JSON.stringify(names.map(user)));
const protocol = (network: string): Script => answer(200, JSON.stringify({ user_fields: ['nick'], location_fields: [], icon: '', field_types: {}, instances: [{ desc: network, fields: {}, network_id: network }] }));

const find = (world: LookupWorld, candidates: readonly Registration[], question: ThirdPartyQuestion = BY_NICK): Promise<ThirdPartyMatches> => world.thirdParty.lookUp(LOOKUP_SERVER, 'users', question, candidates);
const list = (world: LookupWorld, registrations: readonly Registration[], name = 'irc'): Promise<ThirdPartyProtocols> => world.thirdParty.protocols(LOOKUP_SERVER, new Map([[name, registrations]]));
const namesOf = ({ matches }: ThirdPartyMatches): string[] => matches.map(({ appserviceId, identifier }) => `${appserviceId} ${identifier}`);
const instancesOf = ({ protocols }: ThirdPartyProtocols): string[] => protocols.flatMap(({ instances }) => instances.map(({ instanceId }) => instanceId));

test('R120 R126 R129 each look-up has its path, the fields in their order, and the hs_token where the appservice wants it', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(answer(404));
  const irc = appserviceAt('irc', receiver);
  const fields = [{ name: 'nick', value: 'a b&c' }, { name: 'access_token', value: 'theirs' }, { name: 'nick', value: '#ü' }];
  await find(world, [irc], { by: 'fields', protocol: 'i r/c', fields });
  await find(world, [irc], { by: 'identifier', identifier: '@x/y?:example.org' });
  await world.thirdParty.lookUp(LOOKUP_SERVER, 'locations', { by: 'identifier', identifier: '#x&y:example.org' }, [irc]);
  await world.thirdParty.lookUp(LOOKUP_SERVER, 'locations', { by: 'fields', protocol: 'irc', fields: [] }, [irc]);
  await list(world, [irc], 'a/b');
  await find(world, [appserviceAt('old', receiver, { delivery_options: { legacy_auth: 'both' } })]);
  assert.deepEqual(
    receiver.requests.map(({ method, target, body }) => [method, target, body.byteLength]),
    [
      ['GET', '/_matrix/app/v1/thirdparty/user/i%20r%2Fc?nick=a%20b%26c&nick=%23%C3%BC', 0],
      ['GET', '/_matrix/app/v1/thirdparty/user?userid=%40x%2Fy%3F%3Aexample.org', 0],
      ['GET', '/_matrix/app/v1/thirdparty/location?alias=%23x%26y%3Aexample.org', 0],
      ['GET', '/_matrix/app/v1/thirdparty/location/irc', 0],
      ['GET', '/_matrix/app/v1/thirdparty/protocol/a%2Fb', 0],
      ['GET', `/_matrix/app/v1/thirdparty/user/irc?nick=ann&access_token=${HS_TOKEN}`, 0],
    ],
  );
  for (const { headers } of receiver.requests) assert.equal(headers['authorization'], `Bearer ${HS_TOKEN}`);
});

test('R104 R107 a look-up goes to the unstable path where the appservice does not know v1, and its results count', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(answer(404, '{"errcode":"M_UNRECOGNIZED"}'), users('ann'), users('bob'));
  const irc = appserviceAt('irc', receiver, { delivery_options: { legacy_paths: 'unrecognized' } });
  assert.deepEqual(namesOf(await find(world, [irc])), ['irc @ann:example.org']);
  assert.deepEqual(namesOf(await find(world, [irc])), ['irc @bob:example.org']);
  assert.deepEqual(receiver.requests.map(({ target }) => target), ['v1', 'unstable', 'unstable'].map((version) => `/_matrix/app/${version}/thirdparty/user/irc?nick=ann`));
});

test('R127 results of all appservices stand together in registration order, whoever answers first', LIMIT, async () => {
  await using world = new LookupWorld();
  let answerFirst: () => void = () => undefined;
  await using slow = await Receiver.start((connection, request) => void (answerFirst = () => users('one', 'two')(connection, request)));
  await using quick = await Receiver.start(users('three'));
  const asking = find(world, [appserviceAt('z', slow), appserviceAt('a', quick)]);
  await Promise.all([slow.received(1), quick.received(1)]);
  await settle();
  answerFirst();
  const found = await asking;
  assert.deepEqual(namesOf(found), ['z @one:example.org', 'z @two:example.org', 'a @three:example.org']);
  assert.deepEqual(found.failedAppserviceIds, []);
  assert.deepEqual(found.matches.map(({ json }) => JSON.parse(json) as unknown), ['one', 'two', 'three'].map(user));
});

test('R128 no candidate, and candidates that know nothing, are an empty list and no failure', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(answer(404, '{"errcode":"M_NOT_FOUND"}'), answer(200, '[]'));
  for (const candidates of [[], [appserviceAt('irc', receiver)], [appserviceAt('irc', receiver)]]) assert.deepEqual(await find(world, candidates), { matches: [], failedAppserviceIds: [] });
  assert.deepEqual(world.warnings, []);
});

const BAD: readonly [name: string, failure: string, script: Script][] = [
  ['of the wrong type', 'answer_malformed', answer(200, '{"userid":"@x:example.org"}')],
  ['that is HTML', 'answer_malformed', answer(200, '<html>')],
  ['that is empty', 'answer_malformed', answer(200, '')],
  ['that nests deeply', 'answer_malformed', answer(200, '['.repeat(60_000) + ']'.repeat(60_000))],
  ['of megabytes', 'answer_cut_short', answer(200, `[${'{"userid":"@x:example.org","protocol":"irc","fields":{}},'.repeat(60_000)}1]`)],
  ['that never ends', 'answer_cut_short', endless('HTTP/1.1 200 OK\r\n\r\n', '[[[[[[[[')],
  ['that stops in the middle', 'answer_cut_short', raw('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[')],
  ['that is an error', 'http_500', answer(500)],
  ['that refuses the token', 'http_403', answer(403)],
  ['that leads elsewhere', 'http_302', answer(302, '', { location: 'http://169.254.169.254/' })],
  ['that never begins', 'timeout', hang],
  ['that is no HTTP', 'bad_response', raw('nonsense\r\n\r\n')],
  ['that breaks off', 'connection_reset', reset],
];

for (const [name, failure, script] of BAD) {
  test(`R127 I8 an answer ${name} is left out and logged once; another appservice's results survive`, LIMIT, async () => {
    await using world = new LookupWorld();
    await using bad = await Receiver.start(script);
    await using good = await Receiver.start(users('ann'));
    const asking = find(world, [appserviceAt('bad', bad), appserviceAt('good', good)]);
    assert.ok((await world.ended(asking)) <= 5_000);
    const found = await asking;
    assert.deepEqual([namesOf(found), found.failedAppserviceIds], [['good @ann:example.org'], ['bad']]);
    assert.deepEqual(world.warnings.map(({ fields, message }) => [message, fields['appservice_id'], fields['failure']]), [['look-up failed', 'bad', failure]]);
    assert.equal(bad.requests.length, 1);
  });
}

test('R127 of a list with thousands of malformed entries the others are kept, and one line tells how many were dropped', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(answer(200, JSON.stringify([...Array<number>(9_000).fill(1), user('ann')])));
  assert.deepEqual(namesOf(await find(world, [appserviceAt('irc', receiver)])), ['irc @ann:example.org']);
  assert.deepEqual(world.warnings.map(({ fields }) => [fields['appservice_id'], fields['dropped_count']]), [['irc', 9_000]]);
});

test('R127 more results than an answer may have are cut, from the first on, and told once', async () => {
  await using world = new LookupWorld({ thirdParty: { matchesMax: 3 } });
  await using receiver = await Receiver.start(users('one', 'two'));
  const found = await find(world, [appserviceAt('a', receiver), appserviceAt('b', receiver)]);
  assert.deepEqual(namesOf(found), ['a @one:example.org', 'a @two:example.org', 'b @one:example.org']);
  assert.deepEqual(world.warnings.map(({ fields }) => fields['dropped_count']), [1]);
});

test('R127 an answer of 200 KiB is read whole; results beyond their bytes are cut, and told once', async () => {
  await using world = new LookupWorld({ thirdParty: { resultBytesMax: 500_000 } });
  const long = { ...user('ann'), more: 'x'.repeat(200_000) };
  await using receiver = await Receiver.start(answer(200, JSON.stringify([long])));
  const found = await find(world, ['a', 'b', 'c'].map((id) => appserviceAt(id, receiver)));
  assert.deepEqual([namesOf(found), found.failedAppserviceIds], [['a @ann:example.org', 'b @ann:example.org'], []]);
  assert.deepEqual(JSON.parse(found.matches[0]?.json ?? ''), long);
  assert.deepEqual(world.warnings.map(({ fields }) => fields['dropped_count']), [1]);
});

test('I8 many that hang take no longer than the call may, and those behind them are named as failed', LIMIT, async () => {
  await using world = new LookupWorld({ thirdParty: { callQuestionsMax: 2 } });
  await using hanging = await Receiver.start(hang);
  await using good = await Receiver.start(users('ann'));
  const candidates = [appserviceAt('good', good), ...Array.from({ length: 7 }, (_, at) => appserviceAt(`h${at}`, hanging))];
  const asking = find(world, candidates);
  assert.equal(await world.ended(asking), 10_000);
  assert.deepEqual([namesOf(await asking), (await asking).failedAppserviceIds], [['good @ann:example.org'], ['h0', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6']]);
  assert.equal(hanging.requests.length, 4);
});

test('look-ups that hang hold up no transaction to the same appservice', LIMIT, async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.startWith({ scripts: [(connection, request) => (request.method === 'PUT' ? answer(200) : hang)(connection, request)] });
  const irc = appserviceAt('irc', receiver);
  const asking = Array.from({ length: 8 }, (_, at) => find(world, [irc], { by: 'identifier', identifier: `@${at}:example.org` }));
  await receiver.received(8);
  assert.deepEqual(await world.push.send(irc), { kind: 'delivered', httpStatus: 200 });
  await world.thirdParty[Symbol.asyncDispose]();
  for (const one of asking) await assert.rejects(one, refusedWith('DRAINING'));
});

test('look-ups of the same that overlap are one, unless the candidates have changed', LIMIT, async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(hang, users('ann'));
  const irc = appserviceAt('irc', receiver);
  const same = [find(world, [irc]), find(world, [irc]), find(world, [irc])];
  await receiver.received(1);
  const changed = { ...irc, as_token: 'other' };
  assert.deepEqual(namesOf(await find(world, [changed])), ['irc @ann:example.org']);
  assert.equal(receiver.requests.length, 2);
  receiver.dropConnections();
  await world.ended(Promise.all(same));
  for (const one of same) assert.deepEqual((await one).failedAppserviceIds, ['irc']);
  assert.deepEqual(namesOf(await find(world, [irc])), ['irc @ann:example.org']);
});

test('more calls than may be under way are refused; an appservice with too many questions is named as failed, and refused where it is the only one', LIMIT, async () => {
  await using world = new LookupWorld({ thirdParty: { callsMax: 3, appserviceQuestionsMax: 2 } });
  await using hanging = await Receiver.start(hang, hang, hang, users('ann'));
  await using good = await Receiver.start(users('ann'));
  const as = appserviceAt('as', hanging);
  const by = (at: number): ThirdPartyQuestion => ({ by: 'identifier', identifier: `@${at}:example.org` });
  const asking = [find(world, [as], by(1)), find(world, [as], by(2))];
  await hanging.received(2);
  await assert.rejects(find(world, [as], by(3)), refusedWith('TOO_MANY_LOOKUPS'));
  const found = await find(world, [as, appserviceAt('good', good)], by(4));
  assert.deepEqual([namesOf(found), found.failedAppserviceIds], [['good @ann:example.org'], ['as']]);
  asking.push(find(world, [appserviceAt('third', hanging)], by(5)));
  await hanging.received(3);
  await assert.rejects(find(world, [appserviceAt('good', good)], by(6)), refusedWith('TOO_MANY_LOOKUPS'));
  hanging.dropConnections();
  await world.ended(Promise.all(asking));
  assert.deepEqual(namesOf(await find(world, [as], by(3))), ['as @ann:example.org']);
});

test('R123 R124 R125 protocols of several appservices are one; one that nobody answers for is left out', LIMIT, async () => {
  await using world = new LookupWorld();
  await using first = await Receiver.start(protocol('libera'));
  await using second = await Receiver.start(protocol('oftc'));
  await using broken = await Receiver.start(answer(200, '[]'));
  const [a, b, c] = [appserviceAt('b', first), appserviceAt('a', second), appserviceAt('c', broken)];
  const told = await world.thirdParty.protocols(LOOKUP_SERVER, new Map([['irc', [a, b, c]], ['gitter', [c]]]));
  assert.deepEqual(told.protocols.map((one) => one.protocol), ['irc']);
  assert.deepEqual([instancesOf(told), told.failedAppserviceIds], [['b|libera', 'a|oftc'], ['c']]);
  assert.deepEqual(world.warnings.map(({ fields }) => fields['failure']), ['answer_malformed', 'answer_malformed']);
});

test('R130 what is known of a protocol is not asked for again for an hour, and is asked for then', LIMIT, async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(protocol('old'), protocol('new'));
  const irc = appserviceAt('irc', receiver);
  assert.deepEqual(instancesOf(await list(world, [irc])), ['irc|old']);
  await world.push.clock.advance(HOUR_MS - 1);
  assert.deepEqual(instancesOf(await list(world, [irc])), ['irc|old']);
  assert.equal(receiver.requests.length, 1);
  await world.push.clock.advance(1);
  assert.deepEqual(instancesOf(await list(world, [irc])), ['irc|new']);
  assert.equal(receiver.requests.length, 2);
});

test('R130 a failure is remembered for ten seconds only, and a changed registration is asked at once', LIMIT, async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(answer(500), protocol('libera'), protocol('oftc'));
  const irc = appserviceAt('irc', receiver);
  for (const advanceMs of [0, 9_999]) {
    await world.push.clock.advance(advanceMs);
    assert.deepEqual(await list(world, [irc]), { protocols: [], failedAppserviceIds: ['irc'] });
  }
  assert.equal(receiver.requests.length, 1);
  await world.push.clock.advance(1);
  assert.deepEqual(instancesOf(await list(world, [irc])), ['irc|libera']);
  assert.deepEqual(instancesOf(await list(world, [{ ...irc }])), ['irc|oftc']);
  assert.equal(receiver.requests.length, 3);
});

test('R130 an old answer stands in for an appservice that fails, for a day; a definite no ends it', LIMIT, async () => {
  await using world = new LookupWorld();
  await using failing = await Receiver.start(protocol('libera'), answer(500));
  await using gone = await Receiver.start(protocol('oftc'), answer(404));
  const [a, b] = [appserviceAt('a', failing), appserviceAt('b', gone)];
  assert.deepEqual(instancesOf(await list(world, [a, b])), ['a|libera', 'b|oftc']);
  await world.push.clock.advance(HOUR_MS);
  assert.deepEqual([instancesOf(await list(world, [a, b])), (await list(world, [a, b])).failedAppserviceIds], [['a|libera'], []]);
  assert.deepEqual([failing.requests.length, gone.requests.length], [2, 2]);
  await world.push.clock.advance(24 * HOUR_MS - 1);
  assert.deepEqual(instancesOf(await list(world, [a])), ['a|libera']);
  await world.push.clock.advance(1);
  assert.deepEqual(await list(world, [a]), { protocols: [], failedAppserviceIds: ['a'] });
});

test('R130 what a registration answered does not stand in for another that took its place and fails', LIMIT, async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(protocol('libera'), answer(500));
  const irc = appserviceAt('irc', receiver);
  assert.deepEqual(instancesOf(await list(world, [irc])), ['irc|libera']);
  assert.deepEqual(await list(world, [{ ...irc }]), { protocols: [], failedAppserviceIds: ['irc'] });
});

test('R130 what is kept is bounded in number and in bytes; the least recently used goes first', LIMIT, async () => {
  await using receiver = await Receiver.start(protocol('libera'));
  const [a, b, c] = [appserviceAt('a', receiver), appserviceAt('b', receiver), appserviceAt('c', receiver)];
  const cache = { freshMs: HOUR_MS, staleMs: 0, failureMs: 10_000, entriesMax: 2, bytesMax: 1_000_000 };
  for (const limits of [cache, { ...cache, entriesMax: 99, bytesMax: 300 }]) {
    await using world = new LookupWorld({ thirdParty: { cache: limits } });
    const before = receiver.requests.length;
    for (const registration of [a, b, a, c, a, b]) assert.deepEqual(instancesOf(await list(world, [registration])), [`${registration.id}|libera`]);
    // All once, and b again, which made room for c.
    assert.equal(receiver.requests.length - before, 4);
  }
});

test('R122 an appservice whose address is refused, or that does not run, fails alone', LIMIT, async () => {
  await using world = new LookupWorld();
  await using good = await Receiver.start(users('ann'));
  const asking = find(world, [registrationFor('http://169.254.169.254', { id: 'metadata' }), registrationFor(`http://127.0.0.1:${await unusedPort()}`, { id: 'down' }), appserviceAt('good', good)]);
  await world.ended(asking);
  assert.deepEqual([namesOf(await asking), (await asking).failedAppserviceIds], [['good @ann:example.org'], ['metadata', 'down']]);
});

test('I12 neither tokens nor what is looked for stand in the log', async () => {
  await using world = new LookupWorld();
  await using receiver = await Receiver.start(answer(500));
  await find(world, [appserviceAt('irc', receiver, { delivery_options: { legacy_auth: 'both' } })]);
  const text = JSON.stringify(world.logged);
  assert.doesNotMatch(text, new RegExp(HS_TOKEN));
  assert.doesNotMatch(text, /nick|ann/);
  assert.match(text, /thirdparty\/user\/irc/);
});
