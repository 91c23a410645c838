import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Provision, ProvisionSubject } from '../../src/appservice/provisioning.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { Queries } from '../../src/ingress/queries.ts';
import { VirtualClock } from '../support/clock.ts';
import { HS_TOKEN, startIngress } from '../support/ingress-world.ts';
import type { IngressWorld } from '../support/ingress-world.ts';
import { silent } from '../support/ledger-world.ts';
import { answer, hang, Receiver } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';
import { put } from '../support/router-home.ts';

const USER: ProvisionSubject = { kind: 'users', identifier: '@irc_x:hs.test' };

/** A homeserver whose questions a test answers one by one. */
function scripted(clock: VirtualClock): { queries: Queries; asked: { settle(provision: Provision): void; refuse(error: unknown): void }[]; homeserver: { registrationsVersion: number } } {
  const asked: { settle(provision: Provision): void; refuse(error: unknown): void }[] = [];
  const homeserver = {
    registrationsVersion: 1,
    query: () => {
      const { promise, resolve, reject } = Promise.withResolvers<Provision>();
      asked.push({ settle: resolve, refuse: reject });
      return promise;
    },
  };
  return { queries: new Queries({ homeserver, clock, logger: silent }), asked, homeserver };
}

const YES: Provision = { exists: true, appserviceId: 'irc' };
const NO: Provision = { exists: false, appserviceId: undefined };

test('R119 a user query that hangs is given up after five seconds and costs nothing for a minute after', async () => {
  const clock = new VirtualClock();
  const { queries, asked } = scripted(clock);
  const first = queries.answer(USER);
  await clock.advance(5_000);
  assert.equal((await first).status, 408);
  assert.equal((await queries.answer(USER)).status, 408);
  await clock.advance(59_000);
  assert.equal((await queries.answer(USER)).status, 408);
  assert.equal(asked.length, 1);
  await clock.advance(1_001);
  void queries.answer(USER);
  assert.equal(asked.length, 2);
});

test('R114 what an appservice says after the homeserver has given up is known the next time', async () => {
  const clock = new VirtualClock();
  const { queries, asked } = scripted(clock);
  const first = queries.answer(USER);
  await clock.advance(5_000);
  assert.equal((await first).status, 408);
  asked[0]?.settle(YES);
  await clock.advance(0);
  assert.deepEqual(await queries.answer(USER), { status: 200, body: '{}' });
  assert.equal(asked.length, 1);
});

test('R117 an answer is known for a while: a "no" for half a minute, a failure for a minute, and nothing over a change of registrations', async () => {
  const clock = new VirtualClock();
  const { queries, asked, homeserver } = scripted(clock);
  const ask = async (settle: (at: number) => void): Promise<number> => {
    const answering = queries.answer(USER);
    settle(asked.length - 1);
    return (await answering).status;
  };
  assert.equal(await ask((at) => asked[at]?.settle(NO)), 404);
  await clock.advance(29_000);
  assert.equal(await ask(() => undefined), 404);
  homeserver.registrationsVersion = 2;
  assert.equal(await ask((at) => asked[at]?.refuse(new RefusalError('APPSERVICE_SERVICE_UNAVAILABLE', 'No.', { metadata: { errcode: 'M_UNKNOWN', http_status: '503' } }))), 503);
  assert.equal(await ask(() => undefined), 503);
  assert.equal(asked.length, 2);
});

test('an alias is waited for for half a minute, since only who joins waits', async () => {
  const clock = new VirtualClock();
  const { queries, asked } = scripted(clock);
  const answering = queries.answer({ kind: 'aliases', identifier: '#irc_x:hs.test' });
  await clock.advance(29_000);
  asked[0]?.settle(YES);
  assert.equal((await answering).status, 200);
});

test('answers of ten thousand identifiers at most are known', async () => {
  const clock = new VirtualClock();
  const { queries, asked } = scripted(clock);
  for (let at = 0; at <= 10_000; at++) {
    const answering = queries.answer({ kind: 'users', identifier: `@irc_${at}:hs.test` });
    asked[at]?.settle(NO);
    await answering;
  }
  void queries.answer({ kind: 'users', identifier: '@irc_0:hs.test' });
  void queries.answer({ kind: 'users', identifier: '@irc_10000:hs.test' });
  assert.equal(asked.length, 10_002);
});

/** Registers an appservice at a scripted receiver. */
async function register(ingress: IngressWorld, receiver: Receiver, id: string, url: string | null = receiver.url): Promise<void> {
  const yaml = `id: ${id}\nurl: ${url}\nas_token: as-${id}-long-enough\nhs_token: hs-${id}-long-enough\nsender_localpart: ${id}bot\nnamespaces:\n  users: [{exclusive: true, regex: '@${id}_.*:hs\\.test'}]\n  aliases: [{exclusive: true, regex: '#${id}_.*:hs\\.test'}]\nprotocols: [${id}]\n`;
  await put(ingress.world.admin, yaml);
}

async function errcodeOf(ingress: IngressWorld, method: string, target: string, token = HS_TOKEN, body: string | null = null): Promise<unknown[]> {
  const { status, body: answered } = await ingress.client.request(method, target, body, { authorization: `Bearer ${token}` });
  return [status, (answered as { errcode?: string }).errcode];
}

test('R112 R113 R115 R118 users and aliases are asked of the appservices whose namespaces match, by both paths, and of nobody else', async () => {
  await using ingress = await startIngress();
  await using receiver = await Receiver.start((connection, request) => answer(request.target.includes('404') ? 404 : 200)(connection, request));
  await register(ingress, receiver, 'irc');
  const users = '/_matrix/app/v1/users/';
  assert.deepEqual(await ingress.client.request('GET', `${users}%40irc_bob%3Ahs.test`), { status: 200, body: {} });
  assert.deepEqual(await errcodeOf(ingress, 'GET', `${users}%40irc_ghost404%3Ahs.test`), [404, 'M_NOT_FOUND']);
  assert.deepEqual(await ingress.client.request('GET', `/rooms/%23irc_x%3Ahs.test?access_token=${HS_TOKEN}`, null, {}), { status: 200, body: {} });
  assert.deepEqual(await ingress.client.request('GET', '/users/@irc_a/b:hs.test'), { status: 200, body: {} });
  const asked = receiver.requests.map(({ target }) => decodeURIComponent(target.split('/').at(-1) ?? ''));
  assert.deepEqual(asked, ['@irc_bob:hs.test', '@irc_ghost404:hs.test', '#irc_x:hs.test', '@irc_a/b:hs.test']);
  for (const target of ['%40nobody_at_all%3Ahs.test', '%40ircbot%3Ahs.test', '%40irc_x%3Aelsewhere.test', 'nonsense']) assert.deepEqual(await errcodeOf(ingress, 'GET', users + target), [404, 'M_NOT_FOUND'], target);
  assert.equal(receiver.requests.length, 4);
});

test('R122 R126 R127 R129 third-party look-ups are answered from all appservices that have the protocol or the identifier', async () => {
  await using ingress = await startIngress();
  const user = { userid: '@irc_bob:hs.test', protocol: 'irc', fields: { nick: 'bob' } };
  const protocol = { user_fields: ['nick'], location_fields: [], icon: 'mxc://x', field_types: {}, instances: [{ network_id: 'net', desc: 'n', fields: {} }] };
  const script: Script = (connection, request) => answer(200, JSON.stringify(request.target.includes('/protocol/') ? protocol : [user]))(connection, request);
  await using receiver = await Receiver.start(script);
  await register(ingress, receiver, 'irc');
  const base = '/_matrix/app/v1/thirdparty';
  const { body } = await ingress.client.request('GET', `${base}/protocol/irc`);
  assert.deepEqual(body, { ...protocol, instances: [{ ...protocol.instances[0], instance_id: 'irc|net' }] });
  assert.deepEqual(await errcodeOf(ingress, 'GET', `${base}/protocol/nope`), [404, 'M_NOT_FOUND']);
  assert.deepEqual(await ingress.client.request('GET', `${base}/user/irc?nick=bob&nick=b%26b&access_token=${HS_TOKEN}`, null, {}), { status: 200, body: [user] });
  assert.ok(receiver.requests.some(({ target }) => target.endsWith('/user/irc?nick=bob&nick=b%26b')));
  assert.deepEqual(await ingress.client.request('GET', `/_matrix/app/unstable/thirdparty/user?userid=${encodeURIComponent(user.userid)}`), { status: 200, body: [user] });
  assert.deepEqual(await ingress.client.request('GET', `${base}/location/other?channel=x`), { status: 200, body: [] });
  assert.deepEqual(await errcodeOf(ingress, 'GET', `${base}/location`), [400, 'M_INVALID_PARAM']);
});

test('R131 R132 R133 R134 R135 an appservice that pings itself through a reverse proxy is answered as a homeserver would', async () => {
  await using ingress = await startIngress();
  await using receiver = await Receiver.start(answer(200), answer(418, 'teapot'));
  await register(ingress, receiver, 'irc');
  await register(ingress, receiver, 'mute', null);
  const ping = (id: string, token: string, body = '{"transaction_id":"mx1"}'): ReturnType<typeof ingress.client.request> =>
    ingress.client.request('POST', `/_matrix/client/v1/appservice/${id}/ping`, body, token === '' ? {} : { authorization: `Bearer ${token}` });
  const answered = await ping('irc', 'as-irc-long-enough');
  assert.equal(answered.status, 200);
  assert.ok(Number.isInteger((answered.body as { duration_ms: number }).duration_ms));
  assert.deepEqual(JSON.parse(receiver.requests[0]?.body.toString() ?? ''), { transaction_id: 'mx1' });
  const bad = await ping('irc', 'as-irc-long-enough', '');
  assert.deepEqual([bad.status, { ...(bad.body as object), error: '' }], [502, { errcode: 'M_BAD_STATUS', error: '', status: 418, body: 'teapot' }]);
  assert.deepEqual(receiver.requests[1]?.body.toString(), '{}');
  const errcode = async (id: string, token: string, body?: string): Promise<unknown[]> => {
    const { status, body: answer } = await ping(id, token, body);
    return [status, (answer as { errcode: string }).errcode];
  };
  assert.deepEqual(await errcode('mute', 'as-mute-long-enough'), [400, 'M_URL_NOT_SET']);
  assert.deepEqual(await errcode('irc', 'as-mute-long-enough'), [403, 'M_FORBIDDEN']);
  assert.deepEqual(await errcode('irc', 'somebody-else'), [403, 'M_FORBIDDEN']);
  assert.deepEqual(await errcode('irc', HS_TOKEN), [403, 'M_FORBIDDEN']);
  assert.deepEqual(await errcode('irc', ''), [401, 'M_MISSING_TOKEN']);
  assert.deepEqual(await errcode('irc', 'as-irc-long-enough', 'no json'), [400, 'M_NOT_JSON']);
  assert.deepEqual(await errcode('irc', 'as-irc-long-enough', '{"transaction_id":1}'), [400, 'M_BAD_JSON']);
  assert.deepEqual(await errcode('irc', 'as-irc-long-enough', `{"x":"${'x'.repeat(100_000)}"}`), [400, 'M_NOT_JSON']);
  assert.equal(receiver.requests.length, 2);
});

test('R119 while a user query hangs transactions are taken and delivered', async () => {
  await using ingress = await startIngress();
  await using receiver = await Receiver.start(hang);
  await register(ingress, receiver, 'slow');
  await ingress.register('irc');
  const asking = ingress.client.request('GET', '/_matrix/app/v1/users/%40slow_x%3Ahs.test').catch(() => null);
  await receiver.received(1);
  assert.equal((await ingress.client.put('1', { events: [{ event_id: '$a', type: 'm.x', room_id: '!r:hs.test', sender: '@a:hs.test', content: {} }] })).status, 200);
  await ingress.receiver.until(() => ingress.receiver.taken('irc').includes('$a'));
  receiver.dropConnections();
  void asking;
});
