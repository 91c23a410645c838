/** AuthenticateAppservice and PingAppservice as callers of both doors see them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { toJson } from '@bufbuild/protobuf';
import { AppserviceRouter, AuthenticateAppserviceResponseSchema, PingAppserviceResponseSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { AuthenticateRequest } from '../../src/appservice/authenticate.ts';
import { failedPing } from '../../src/appservice/ping.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { PingRequest } from '../../src/rpc/ports.ts';
import { codeName } from '../../src/rpc/status.ts';
import { call, Doors, failing, failureOf, PROTOCOLS, SERVER_NAME, TOKENS } from './doors.ts';
import type { Protocol } from './doors.ts';

const { authenticateAppservice, pingAppservice } = AppserviceRouter.method;

const authenticate = (doors: Doors, protocol: Protocol, request: MessageInitShape<typeof authenticateAppservice.input>, token: string = TOKENS.homeserver) => call(doors, protocol, authenticateAppservice, request, token);
const ping = (doors: Doors, protocol: Protocol, request: MessageInitShape<typeof pingAppservice.input>, token: string = TOKENS.homeserver) => call(doors, protocol, pingAppservice, request, token);

for (const protocol of PROTOCOLS) {
  test(`R138 R139 R142 M7 AuthenticateAppservice hands over what was asserted, and tells as whom the request acts, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: AuthenticateRequest[] = [];
    doors.house.router.authenticate = (request) => {
      asked.push(request);
      const { deviceId, userId } = request;
      return { appserviceId: 'irc', userId: userId ?? '@irc:a.test', deviceId, isRateLimited: userId !== undefined, isSenderUser: userId === undefined };
    };
    const alone = await authenticate(doors, protocol, { asToken: ' as\ntoken ' });
    const asserted = await authenticate(doors, protocol, { serverName: SERVER_NAME, asToken: 'as', userId: '@irc_ü/%2F\n:a.test', deviceId: '', sourceIp: '::1', userRegistered: false });
    assert.deepEqual(asked, [
      { asToken: ' as\ntoken ', userId: undefined, deviceId: undefined, userRegistered: undefined },
      { asToken: 'as', userId: '@irc_ü/%2F\n:a.test', deviceId: '', userRegistered: false },
    ]);
    assert.deepEqual(toJson(AuthenticateAppserviceResponseSchema, alone), { appserviceId: 'irc', userId: '@irc:a.test', isSenderUser: true });
    assert.equal(alone.deviceId, undefined);
    assert.deepEqual(toJson(AuthenticateAppserviceResponseSchema, asserted), { appserviceId: 'irc', userId: '@irc_ü/%2F\n:a.test', deviceId: '', rateLimited: true });
  });

  test(`R138 R140 a refusal of AuthenticateAppservice says what the homeserver answers, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    for (const [reason, errcode, httpStatus] of [['APPSERVICE_UNKNOWN_TOKEN', 'M_UNKNOWN_TOKEN', '401'], ['APPSERVICE_MASQUERADE_DENIED', 'M_FORBIDDEN', '403']] as const) {
      const metadata = { errcode, http_status: httpStatus };
      doors.house.router.authenticate = () => {
        throw new RefusalError(reason, 'No.', { metadata });
      };
      const failure = failureOf(await failing(authenticate(doors, protocol, { asToken: 'as' })));
      // UNAUTHENTICATED is for the homeserver itself.
      assert.deepEqual([codeName(failure.code), failure.reason, failure.metadata], ['PERMISSION_DENIED', reason, metadata]);
    }
  });

  test(`R133 R134 R135 PingAppservice hands over whom and what, and tells the time or the failure, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: PingRequest[] = [];
    const outcomes = [{ kind: 'answered', durationMs: 0 } as const, failedPing('M_BAD_STATUS', { status: 404, body: '<ü\u0000>' }), failedPing('M_FORBIDDEN')];
    doors.house.router.ping = (request) => {
      asked.push(request);
      return Promise.resolve(outcomes[asked.length - 1] ?? failedPing('M_CONNECTION_TIMEOUT'));
    };
    const named = { case: 'appserviceId', value: 'irc' } as const;
    const answers = [
      await ping(doors, protocol, { serverName: SERVER_NAME, appservice: named, transactionId: '' }),
      await ping(doors, protocol, { appservice: named, transactionId: '\u0000\ufffdü' }),
      await ping(doors, protocol, { appservice: { case: 'asToken', value: 'as\n' } }),
      await ping(doors, protocol, { appservice: named }),
    ];
    assert.deepEqual(asked, [
      { appservice: { kind: 'appservice_id', appserviceId: 'irc' }, transactionId: '' },
      { appservice: { kind: 'appservice_id', appserviceId: 'irc' }, transactionId: '\u0000\ufffdü' },
      { appservice: { kind: 'as_token', asToken: 'as\n' }, transactionId: undefined },
      { appservice: { kind: 'appservice_id', appserviceId: 'irc' }, transactionId: undefined },
    ]);
    assert.deepEqual(answers.map((one) => toJson(PingAppserviceResponseSchema, one)), [
      { durationMs: 0 },
      { failure: { errcode: 'M_BAD_STATUS', httpStatus: 502, status: 404, body: '<ü\u0000>' } },
      { failure: { errcode: 'M_FORBIDDEN', httpStatus: 403 } },
      { failure: { errcode: 'M_CONNECTION_TIMEOUT', httpStatus: 504 } },
    ]);
  });

  test(`too many pings are RESOURCE_EXHAUSTED with a time to come back, and an unknown appservice is NOT_FOUND, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    for (const [reason, code, retryDelayMs] of [['TOO_MANY_PINGS', 'RESOURCE_EXHAUSTED', 1_000], ['APPSERVICE_NOT_FOUND', 'NOT_FOUND', undefined]] as const) {
      doors.house.router.ping = () => Promise.reject(new RefusalError(reason, 'No.', retryDelayMs === undefined ? {} : { retryDelayMs }));
      const failure = failureOf(await failing(ping(doors, protocol, { appservice: { case: 'appserviceId', value: 'irc' } })));
      assert.deepEqual([codeName(failure.code), failure.reason, failure.retryDelayMs], [code, reason, retryDelayMs]);
    }
  });

  test(`what is too long, or lacks what is asked about, is refused by its field before the house is asked, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    doors.house.router.authenticate = () => assert.fail('asked');
    doors.house.router.ping = () => assert.fail('asked');
    const fieldOf = async (pending: Promise<unknown>): Promise<string | undefined> => {
      const { code, field, message } = failureOf(await failing(pending));
      assert.equal(codeName(code), 'INVALID_ARGUMENT');
      assert.doesNotMatch(message, /xxx/);
      return field;
    };
    const long = 'x'.repeat(10_000);
    assert.equal(await fieldOf(authenticate(doors, protocol, { asToken: long })), 'as_token');
    assert.equal(await fieldOf(authenticate(doors, protocol, { asToken: 'as', userId: `@irc_${long}:a.test` })), 'user_id');
    assert.equal(await fieldOf(authenticate(doors, protocol, { asToken: 'as', deviceId: long })), 'device_id');
    assert.equal(await fieldOf(authenticate(doors, protocol, { asToken: 'as', sourceIp: long })), 'source_ip');
    assert.equal(await fieldOf(ping(doors, protocol, {})), 'appservice');
    assert.equal(await fieldOf(ping(doors, protocol, { appservice: { case: 'appserviceId', value: '' } })), 'appservice_id');
    assert.equal(await fieldOf(ping(doors, protocol, { appservice: { case: 'appserviceId', value: long } })), 'appservice_id');
    assert.equal(await fieldOf(ping(doors, protocol, { appservice: { case: 'asToken', value: long } })), 'as_token');
    assert.equal(await fieldOf(ping(doors, protocol, { appservice: { case: 'appserviceId', value: 'irc' }, transactionId: long })), 'transaction_id');
  });
}

test('only a homeserver, and only as itself, may ask as whom an appservice acts; an operator may ping too', async () => {
  await using doors = await Doors.open();
  const reasonOf = async (pending: Promise<unknown>): Promise<string | undefined> => failureOf(await failing(pending)).reason;
  const appservice = { case: 'appserviceId', value: 'irc' } as const;
  for (const token of [TOKENS.admin, TOKENS.monitor]) assert.equal(await reasonOf(authenticate(doors, 'gRPC', { asToken: 'as' }, token)), 'ROLE_FORBIDDEN');
  assert.equal(await reasonOf(authenticate(doors, 'gRPC', { serverName: 'other.test', asToken: 'as' })), 'SERVER_NAME_FORBIDDEN');
  assert.equal(await reasonOf(ping(doors, 'gRPC', { appservice }, TOKENS.monitor)), 'ROLE_FORBIDDEN');
  assert.equal(await reasonOf(ping(doors, 'gRPC', { serverName: 'other.test', appservice })), 'SERVER_NAME_FORBIDDEN');
  assert.equal((await ping(doors, 'gRPC', { appservice }, TOKENS.admin)).result.case, 'durationMs');
});

test('R18 neither AuthenticateAppservice nor PingAppservice can be got by GET, so that no as_token stands in a URL', async () => {
  await using doors = await Doors.open();
  for (const method of ['AuthenticateAppservice', 'PingAppservice']) {
    const url = `http://${doors.http.address}/${AppserviceRouter.typeName}/${method}?encoding=json&message=${encodeURIComponent('{"asToken":"as"}')}`;
    const response = await fetch(url, { headers: { authorization: `Bearer ${TOKENS.homeserver}` } });
    await response.arrayBuffer();
    assert.equal(response.status, 405, method);
  }
});
