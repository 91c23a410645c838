/** The whole table of R138 to R150, as a homeserver asks it, and pings: R131 to R137. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { toJson } from '@bufbuild/protobuf';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter, AuthenticateAppserviceResponseSchema, AuthorizeIdentifierRequest_Action as Action, PingAppserviceResponseSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { startMatrixAppservice } from '../support/receiver-matrix-appservice.ts';
import { answer, hang, Receiver, reset } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';
import { errorOf } from '../support/router-client.ts';
import { put, statusOf, submit } from '../support/router-home.ts';
import { startService } from '../support/service-world.ts';
import type { ServiceWorld } from '../support/service-world.ts';

const { authenticateAppservice, authorizeIdentifier, checkNamespace, pingAppservice } = AppserviceRouter.method;

interface Registered {
  readonly url?: string | null;
  readonly exclusive?: boolean;
  readonly rateLimited?: boolean;
}

function yaml(id: string, { url = null, exclusive = true, rateLimited = true }: Registered = {}): string {
  return `id: ${id}
url: ${url}
as_token: as-${id}
hs_token: hs-${id}
sender_localpart: ${id}bot
rate_limited: ${rateLimited}
namespaces:
  users: [{ exclusive: ${exclusive}, regex: '@${id}_' }]
  aliases: [{ exclusive: ${exclusive}, regex: '#${id}_' }]
  rooms: [{ exclusive: false, regex: '!${id}_' }]
`;
}

let world: ServiceWorld;
before(async () => {
  world = await startService();
  await put(world.admin, yaml('irc'));
  await put(world.admin, yaml('log', { exclusive: false, rateLimited: false }));
});
after(() => world[Symbol.asyncDispose]());

/** What came of a call: its answer in JSON, or `errcode status` for the Matrix client, or a reason. */
async function outcome(pending: Promise<unknown>): Promise<unknown> {
  try {
    return await pending;
  } catch (error) {
    const { reason, metadata, field } = errorOf(error);
    return metadata['errcode'] === undefined ? `${reason} ${field}` : `${metadata['errcode']} ${metadata['http_status']}`;
  }
}

type Assertion = MessageInitShape<typeof authenticateAppservice.input>;
const identity = (request: Assertion): Promise<unknown> => outcome(world.homeserver.call(authenticateAppservice, request).then((response) => toJson(AuthenticateAppserviceResponseSchema, response)));

const sender = { appserviceId: 'irc', userId: '@ircbot:hs.test', isSenderUser: true };
const ann = { appserviceId: 'irc', userId: '@irc_ann:hs.test', rateLimited: true };
const FORBIDDEN = 'M_FORBIDDEN 403';
const UNKNOWN = 'M_UNKNOWN_TOKEN 401';

const IDENTITIES: readonly (readonly [name: string, request: Assertion, answer: unknown])[] = [
  ['R138 R139 R150 a token alone is the sender user, never rate-limited', { asToken: 'as-irc' }, sender],
  ['R138 no token', { asToken: '' }, 'M_MISSING_TOKEN 401'],
  ['R138 an unknown token', { asToken: 'as-nobody' }, UNKNOWN],
  ['R138 a token in upper case is another', { asToken: 'AS-IRC' }, UNKNOWN],
  ['R138 a token with a trailing newline is another', { asToken: 'as-irc\n' }, UNKNOWN],
  ['R138 a token with a blank before it is another', { asToken: ' as-irc' }, UNKNOWN],
  ['R138 an hs_token is no as_token', { asToken: 'hs-irc' }, UNKNOWN],
  ['R140 the sender user by name, without an account', { asToken: 'as-irc', userId: '@ircbot:hs.test', userRegistered: false }, sender],
  ['R140 R150 a registered user of the namespace, rate-limited as registered', { asToken: 'as-irc', userId: '@irc_ann:hs.test', userRegistered: true }, ann],
  ['R140 a user of the namespace without an account', { asToken: 'as-irc', userId: '@irc_ann:hs.test', userRegistered: false }, FORBIDDEN],
  ['R140 a user outside of the namespaces', { asToken: 'as-irc', userId: '@alice:hs.test', userRegistered: true }, FORBIDDEN],
  ['R140 a remote user', { asToken: 'as-irc', userId: '@irc_ann:other.test', userRegistered: true }, FORBIDDEN],
  ['R140 a user whose server name goes on', { asToken: 'as-irc', userId: '@irc_ann:hs.test\n', userRegistered: true }, FORBIDDEN],
  ['R140 a user of another’s namespace', { asToken: 'as-irc', userId: '@log_ann:hs.test' }, FORBIDDEN],
  ['R140 no user ID at all', { asToken: 'as-irc', userId: '' }, FORBIDDEN],
  ['R140 a user ID that is too long for Matrix', { asToken: 'as-irc', userId: `@irc_${'x'.repeat(300)}:hs.test` }, FORBIDDEN],
  ['R140 10,000 characters', { asToken: 'as-irc', userId: `@irc_${'x'.repeat(10_000)}:hs.test` }, 'INVALID_FIELD user_id'],
  ['R140 a user with slashes and percent signs is its own name and no other', { asToken: 'as-irc', userId: '@irc_a/..%2F%:hs.test' }, { ...ann, userId: '@irc_a/..%2F%:hs.test' }],
  ['R140 an encoded name is not the name', { asToken: 'as-irc', userId: '%40irc_ann:hs.test' }, FORBIDDEN],
  ['R141 R150 a non-exclusive namespace is enough, and rate_limited: false exempts its users', { asToken: 'as-log', userId: '@log_ann:hs.test', userRegistered: true }, { appserviceId: 'log', userId: '@log_ann:hs.test' }],
  ['R142 a device comes back with the effective user, to be judged', { asToken: 'as-irc', deviceId: 'D' }, { ...sender, deviceId: 'D' }],
  ['R142 a device of an asserted user', { asToken: 'as-irc', userId: '@irc_ann:hs.test', deviceId: 'D' }, { ...ann, deviceId: 'D' }],
  ['R143 an assertion without an appservice’s token means nothing', { asToken: 'a-person', userId: '@irc_ann:hs.test', deviceId: 'D' }, UNKNOWN],
  ['R144 who acts as the sender user is told, for /sync and /events to refuse', { asToken: 'as-irc', userId: '@ircbot:hs.test' }, sender],
  ['R144 a masqueraded user is not it', { asToken: 'as-irc', userId: '@irc_ann:hs.test' }, ann],
  ['R146 another’s sender user', { asToken: 'as-irc', userId: '@logbot:hs.test' }, FORBIDDEN],
];
for (const [name, request, expected] of IDENTITIES) test(`M7 AuthenticateAppservice: ${name}`, async () => assert.deepEqual(await identity(request), expected));

type Authorization = MessageInitShape<typeof authorizeIdentifier.input>;
type Subject = NonNullable<Authorization['subject']>;
type Actor = NonNullable<Authorization['actor']>;
const user = (value: string): Subject => ({ case: 'userId', value });
const alias = (value: string): Subject => ({ case: 'roomAlias', value });
const irc: Actor = { case: 'asToken', value: 'as-irc' };
const log: Actor = { case: 'appserviceId', value: 'log' };
const person: Actor = { case: 'personUserId', value: '@alice:hs.test' };
const EXCLUSIVE = 'M_EXCLUSIVE 400';

const AUTHORIZATIONS: readonly (readonly [name: string, action: Action, actor: Actor, subject: Subject, answer: string, userRegistered?: boolean])[] = [
  ['R145 an appservice registers a user of its namespace', Action.CREATE, irc, user('@irc_ann:hs.test'), 'irc'],
  ['R145 an appservice registers a user outside', Action.CREATE, irc, user('@alice:hs.test'), EXCLUSIVE],
  ['R145 an appservice registers a user of another’s exclusive namespace', Action.CREATE, log, user('@irc_ann:hs.test'), EXCLUSIVE],
  ['R145 a person registers in an exclusive namespace', Action.CREATE, person, user('@irc_ann:hs.test'), EXCLUSIVE],
  ['R145 a person registers in a non-exclusive one', Action.CREATE, person, user('@log_ann:hs.test'), ''],
  ['R145 a person registers elsewhere', Action.CREATE, person, user('@alice:hs.test'), ''],
  ['R145 with a token in upper case', Action.CREATE, { case: 'asToken', value: 'AS-IRC' }, user('@irc_ann:hs.test'), UNKNOWN],
  ['R145 a name with a slash and a percent sign stays in the namespace', Action.CREATE, person, user('@irc_a/%00:hs.test'), EXCLUSIVE],
  ['R145 10,000 characters', Action.CREATE, person, user(`@irc_${'x'.repeat(10_000)}:hs.test`), 'INVALID_FIELD user_id'],
  ['R146 a person registers an appservice’s own user', Action.CREATE, person, user('@ircbot:hs.test'), EXCLUSIVE],
  ['R146 an appservice registers its own user', Action.CREATE, irc, user('@ircbot:hs.test'), 'irc'],
  ['R147 an appservice makes an alias of its namespace', Action.CREATE, irc, alias('#irc_x:hs.test'), 'irc'],
  ['R147 an appservice deletes an alias of its namespace', Action.DELETE, irc, alias('#irc_x:hs.test'), 'irc'],
  ['R147 an appservice makes an alias outside', Action.CREATE, irc, alias('#x:hs.test'), EXCLUSIVE],
  ['R147 a person makes an alias in an exclusive namespace', Action.CREATE, person, alias('#irc_x:hs.test'), EXCLUSIVE],
  ['R147 a person deletes an alias in an exclusive namespace', Action.DELETE, person, alias('#irc_x:hs.test'), EXCLUSIVE],
  ['R147 a person makes an alias in a non-exclusive one', Action.CREATE, person, alias('#log_x:hs.test'), ''],
  ['R148 a name is checked for availability', Action.CREATE, person, user('@irc_new:hs.test'), EXCLUSIVE, false],
  ['R149 an appservice logs in as a registered user of its namespace', Action.LOGIN, irc, user('@irc_ann:hs.test'), 'irc', true],
  ['R149 an appservice logs in outside', Action.LOGIN, irc, user('@alice:hs.test'), EXCLUSIVE, true],
  ['R149 an appservice logs in as a user without an account', Action.LOGIN, irc, user('@irc_ann:hs.test'), FORBIDDEN, false],
];
for (const [name, action, actor, subject, expected, userRegistered] of AUTHORIZATIONS) {
  test(`M13 AuthorizeIdentifier: ${name}`, async () => {
    const request: Authorization = { subject, action, actor, ...(userRegistered === undefined ? {} : { userRegistered }) };
    assert.equal(await outcome(world.homeserver.call(authorizeIdentifier, request).then(({ appserviceId = '' }) => appserviceId)), expected);
  });
}

test('R148 a look-up tells the same of a name as a refusal does', async () => {
  for (const [value, exclusive] of [['@irc_new:hs.test', true], ['@logbot:hs.test', true], ['@log_new:hs.test', false]] as const) {
    assert.equal((await world.homeserver.call(checkNamespace, { subject: { case: 'userId', value } })).exclusive, exclusive, value);
  }
});

type Named = NonNullable<MessageInitShape<typeof pingAppservice.input>['appservice']>;
async function pinged(router: ServiceWorld, appservice: Named, transactionId?: string): Promise<unknown> {
  const response = await router.homeserver.call(pingAppservice, { appservice, ...(transactionId === undefined ? {} : { transactionId }) });
  return toJson(PingAppserviceResponseSchema, response);
}
const byId = (value: string): Named => ({ case: 'appserviceId', value });

test('R131 R132 a ping by an unknown token is M_FORBIDDEN, one of an appservice without a url M_URL_NOT_SET, and an unknown id not found', async () => {
  for (const value of ['as-nobody', 'AS-IRC', 'as-irc\n', 'hs-irc', '']) assert.deepEqual(await pinged(world, { case: 'asToken', value }), { failure: { errcode: 'M_FORBIDDEN', httpStatus: 403 } });
  assert.deepEqual(await pinged(world, { case: 'asToken', value: 'as-irc' }), { failure: { errcode: 'M_URL_NOT_SET', httpStatus: 400 } });
  for (const id of ['nobody', 'IRC', 'irc/../irc', '%', 'irc\n']) assert.equal(await outcome(pinged(world, byId(id))), 'APPSERVICE_NOT_FOUND undefined');
  assert.equal(await outcome(pinged(world, byId('x'.repeat(10_000)))), 'INVALID_FIELD appservice_id');
});

test('R133 R134 R135 R136 each way in which an appservice takes a ping is told as it is', { timeout: 20_000 }, async () => {
  await using library = await startMatrixAppservice({ hsToken: 'hs-library' });
  await using scripted = await Receiver.start(answer(200), answer(500, '\u0000\ufeff<h1>ü'), reset, hang);
  await using router = await startService({ settings: { pingTimeoutMs: 200 } });
  await put(router.admin, yaml('library', { url: library.url }));
  await put(router.admin, yaml('scripted', { url: scripted.url }));
  await put(router.admin, yaml('nowhere', { url: 'http://127.0.0.1:1' }));

  const answered = (await router.homeserver.call(pingAppservice, { appservice: byId('scripted'), transactionId: '\u0000\n"ü' })).result;
  assert.ok(answered.case === 'durationMs' && answered.value >= 0, 'R134');
  assert.deepEqual(scripted.requests.map(({ method, target, headers, body }) => [method, target, headers['authorization'], JSON.parse(body.toString())]), [
    ['POST', '/_matrix/app/v1/ping', 'Bearer hs-scripted', { transaction_id: '\u0000\n"ü' }],
  ]);
  assert.deepEqual(await pinged(router, byId('scripted')), { failure: { errcode: 'M_BAD_STATUS', httpStatus: 502, status: 500, body: '\u0000\ufeff<h1>ü' } });
  assert.deepEqual(scripted.requests[1]?.body.toString(), '{}');
  assert.deepEqual(await pinged(router, { case: 'asToken', value: 'as-scripted' }), { failure: { errcode: 'M_CONNECTION_FAILED', httpStatus: 502 } });
  assert.deepEqual(await pinged(router, byId('scripted')), { failure: { errcode: 'M_CONNECTION_TIMEOUT', httpStatus: 504 } });
  assert.deepEqual(await pinged(router, byId('nowhere')), { failure: { errcode: 'M_CONNECTION_FAILED', httpStatus: 502 } });
  const { result } = await router.homeserver.call(pingAppservice, { appservice: byId('library') });
  assert.ok(result.case === 'failure');
  assert.deepEqual([result.value.errcode, result.value.httpStatus, result.value.status], ['M_BAD_STATUS', 502, 404], 'matrix-appservice knows no pings');
});

const HOUR_MS = 3_600_000;

test('R137 a ping that succeeds wakes a backed-off queue at once; one that fails does not', { timeout: 20_000 }, async () => {
  const taken: string[] = [];
  let isUp = false;
  const behave: Script = (connection, request) => {
    taken.push(`${request.method} ${request.target}`);
    answer(isUp ? 200 : 503)(connection, request);
  };
  await using appservice = await Receiver.start(behave);
  await using router = await startService({ settings: { delivery: { eventsMax: 100, ephemeralMax: 100, toDeviceMax: 100, ephemeralAgeMaxMs: 300_000, bytesMax: 1_000_000, backoff: { firstMs: HOUR_MS, maxMs: HOUR_MS } } } });
  await put(router.admin, yaml('irc', { url: appservice.url }).replace('!irc_', '!'));
  await submit(router.homeserver, 'waits', 1);
  while ((await statusOf(router.admin, 'irc')).failedAttempts < 1n);
  const failed = await router.homeserver.call(pingAppservice, { appservice: byId('irc') });
  assert.equal(failed.result.case, 'failure');
  const status = await statusOf(router.admin, 'irc');
  assert.deepEqual([status.attempts, status.backlogEntries], [1n, 1n], 'it goes on waiting');

  isUp = true;
  assert.equal((await router.homeserver.call(pingAppservice, { appservice: { case: 'asToken', value: 'as-irc' } })).result.case, 'durationMs');
  await appservice.received(4);
  const [first, , , last] = taken;
  assert.match(first ?? '', /^PUT .*\/transactions\/\d+$/);
  assert.deepEqual(taken, [first, 'POST /_matrix/app/v1/ping', 'POST /_matrix/app/v1/ping', first], 'the same transaction again');
  assert.ok(last);
});

test('control: RetryNow delivers it as well, so what the queue waits for is nothing but its time', { timeout: 20_000 }, async () => {
  await using appservice = await Receiver.start(answer(503), answer(200));
  await using router = await startService({ settings: { delivery: { eventsMax: 100, ephemeralMax: 100, toDeviceMax: 100, ephemeralAgeMaxMs: 300_000, bytesMax: 1_000_000, backoff: { firstMs: HOUR_MS, maxMs: HOUR_MS } } } });
  await put(router.admin, yaml('irc', { url: appservice.url }).replace('!irc_', '!'));
  await submit(router.homeserver, 'waits', 1);
  while ((await statusOf(router.admin, 'irc')).failedAttempts < 1n);
  await router.admin.call(AppserviceAdmin.method.retryNow, { appserviceId: 'irc' });
  await appservice.received(2);
});
