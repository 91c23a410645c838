import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '@bufbuild/protobuf';
import { AppserviceRouter, QueryRoomAliasResponseSchema, QueryUserResponseSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { ProvisionSubject } from '../../src/appservice/provisioning.ts';
import { codeName } from '../../src/rpc/status.ts';
import { call, Doors, failing, failureOf, PROTOCOLS, SERVER_NAME, TOKENS } from './doors.ts';

const { queryUser, queryRoomAlias } = AppserviceRouter.method;

for (const protocol of PROTOCOLS) {
  test(`M14 QueryUser and QueryRoomAlias hand the identifier over and tell who says that it exists, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: ProvisionSubject[] = [];
    doors.house.router.query = (subject) => {
      asked.push(subject);
      return Promise.resolve(subject.kind === 'users' ? { exists: true, appserviceId: 'irc' } : { exists: false, appserviceId: undefined });
    };
    const user = await call(doors, protocol, queryUser, { serverName: SERVER_NAME, userId: '@irc_ü/x:a.test' }, TOKENS.homeserver);
    assert.deepEqual(toJson(QueryUserResponseSchema, user), { exists: true, appserviceId: 'irc' });
    const alias = await call(doors, protocol, queryRoomAlias, { roomAlias: '#irc_x:a.test' }, TOKENS.homeserver);
    assert.deepEqual(toJson(QueryRoomAliasResponseSchema, alias), {});
    assert.equal(alias.appserviceId, undefined);
    assert.deepEqual(asked, [
      { kind: 'users', identifier: '@irc_ü/x:a.test' },
      { kind: 'aliases', identifier: '#irc_x:a.test' },
    ]);
  });

  test(`R116 R117 M9 a query that came to nothing is a timeout or an unavailable appservice, never a no, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const metadata = (status: string): Record<string, string> => ({ errcode: 'M_UNKNOWN', http_status: status, appservice_ids: 'irc' });
    doors.house.router.query = ({ kind }) =>
      Promise.reject(
        kind === 'users'
          ? new RefusalError('APPSERVICE_QUERY_TIMEOUT', 'No answer in time.', { metadata: metadata('408') })
          : new RefusalError('APPSERVICE_SERVICE_UNAVAILABLE', 'Application service is currently unavailable', { metadata: metadata('503'), retryDelayMs: 5_000 }),
      );
    const timeout = failureOf(await failing(call(doors, protocol, queryUser, { userId: '@irc_x:a.test' }, TOKENS.homeserver)));
    assert.deepEqual([codeName(timeout.code), timeout.reason, timeout.metadata], ['DEADLINE_EXCEEDED', 'APPSERVICE_QUERY_TIMEOUT', metadata('408')]);
    const unavailable = failureOf(await failing(call(doors, protocol, queryRoomAlias, { roomAlias: '#irc_x:a.test' }, TOKENS.homeserver)));
    assert.deepEqual(
      [codeName(unavailable.code), unavailable.reason, unavailable.message, unavailable.metadata, unavailable.retryDelayMs],
      ['UNAVAILABLE', 'APPSERVICE_SERVICE_UNAVAILABLE', 'Application service is currently unavailable', metadata('503'), 5_000],
    );
  });
}

test('an identifier that is too long is refused by its field, before anything of the house is asked', async () => {
  await using doors = await Doors.open();
  doors.house.router.query = () => assert.fail('asked');
  const long = 'x'.repeat(1_025);
  for (const protocol of ['gRPC', 'Connect with JSON'] as const) {
    assert.equal(failureOf(await failing(call(doors, protocol, queryUser, { userId: long }, TOKENS.homeserver))).field, 'user_id');
    assert.equal(failureOf(await failing(call(doors, protocol, queryRoomAlias, { roomAlias: long }, TOKENS.homeserver))).field, 'room_alias');
  }
});

test('M9 an unavailable appservice is HTTP 503 to a caller of Connect with JSON', async () => {
  await using doors = await Doors.open();
  doors.house.router.query = () => Promise.reject(new RefusalError('APPSERVICE_SERVICE_UNAVAILABLE', 'Application service is currently unavailable', { retryDelayMs: 5_000 }));
  const response = await fetch(`http://${doors.http.address}/matrix.appservice.v1.AppserviceRouter/QueryUser`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${TOKENS.homeserver}` },
    body: JSON.stringify({ userId: '@irc_x:a.test' }),
  });
  assert.equal(response.status, 503);
  assert.match(await response.text(), /"message":"Application service is currently unavailable"/);
});

test('only a homeserver may query, and only as itself', async () => {
  await using doors = await Doors.open();
  for (const [token, reason] of [
    [TOKENS.admin, 'ROLE_FORBIDDEN'],
    [TOKENS.monitor, 'ROLE_FORBIDDEN'],
    [null, 'CREDENTIAL_MISSING'],
  ] as const) {
    assert.equal(failureOf(await failing(call(doors, 'gRPC', queryUser, { userId: '@irc_x:a.test' }, token))).reason, reason);
  }
  assert.equal(failureOf(await failing(call(doors, 'gRPC', queryUser, { serverName: 'other.test', userId: '@irc_x:a.test' }, TOKENS.homeserver))).reason, 'SERVER_NAME_FORBIDDEN');
});
