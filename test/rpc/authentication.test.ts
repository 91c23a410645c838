import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { Authenticator, METHOD_ROLES } from '../../src/rpc/authentication.ts';
import { codeName, RpcStatus } from '../../src/rpc/status.ts';
import { call, Doors, failing, failureOf, PROTOCOLS, TOKENS } from './doors.ts';

const router = AppserviceRouter.method;
const admin = AppserviceAdmin.method;
/** Of the token `t`. */
const SHA_OF_T = 'e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8';
const METHODS = [AppserviceRouter, AppserviceAdmin].flatMap((service) => service.methods);

test('M10 every method of both services has a rule, and no rule is of another method', () => {
  assert.deepEqual(Object.keys(METHOD_ROLES).sort(), METHODS.map(({ parent, name }) => `${parent.typeName}/${name}`).sort());
  for (const [method, roles] of Object.entries(METHOD_ROLES)) assert.ok(roles.length > 0, method);
});

test('M10 monitor may call exactly what has no side effects, of AppserviceAdmin only', () => {
  const readable = Object.keys(METHOD_ROLES).filter((method) => METHOD_ROLES[method]?.includes('monitor') === true);
  const lookUps = AppserviceAdmin.methods.filter(({ idempotency }) => idempotency === 1).map(({ name }) => `${AppserviceAdmin.typeName}/${name}`);
  assert.deepEqual(readable.sort(), lookUps.sort());
});

test('M10 a method without a rule is open to nobody', () => {
  const authenticator = new Authenticator([{ name: 'a', role: 'admin', serverName: null, tokenSha256: 'a'.repeat(64) }, { name: 'b', role: 'admin', serverName: null, tokenSha256: SHA_OF_T }]);
  assert.equal(authenticator.authenticate(`${AppserviceAdmin.typeName}/GetAppservice`, 'Bearer t').name, 'b');
  for (const method of ['x.Y/Z', '__proto__', 'constructor']) assert.throws(() => authenticator.authenticate(method, 'Bearer t'), (error) => error instanceof RpcStatus && error.parts.reason === 'ROLE_FORBIDDEN');
});

test('M10 a credential whose hash is none is refused at the start, by name and without the hash', () => {
  assert.throws(() => new Authenticator([{ name: 'ops', role: 'admin', serverName: null, tokenSha256: 'cleartext' }]), (error) => error instanceof Error && error.message.includes('"ops"') && !error.message.includes('cleartext'));
});

for (const protocol of PROTOCOLS) {
  test(`M10 a call without the right credential reaches nothing, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    let reached = 0;
    doors.house.router.submit = () => Promise.reject(new Error(`reached ${++reached}`));
    doors.house.admin.setPaused = () => Promise.reject(new Error(`reached ${++reached}`));
    const outcome = async (pending: Promise<unknown>): Promise<unknown[]> => {
      const { code, reason, field } = failureOf(await failing(pending));
      return [codeName(code), reason, field];
    };
    assert.deepEqual(await outcome(call(doors, protocol, router.submitEvents, {}, null)), ['UNAUTHENTICATED', 'CREDENTIAL_MISSING', undefined]);
    assert.deepEqual(await outcome(call(doors, protocol, router.submitEvents, {}, 'guess')), ['UNAUTHENTICATED', 'CREDENTIAL_UNKNOWN', undefined]);
    assert.deepEqual(await outcome(call(doors, protocol, router.submitEvents, {}, TOKENS.admin)), ['PERMISSION_DENIED', 'ROLE_FORBIDDEN', undefined]);
    for (const token of [TOKENS.homeserver, TOKENS.monitor]) {
      assert.deepEqual(await outcome(call(doors, protocol, admin.pauseDelivery, { appserviceId: 'irc' }, token)), ['PERMISSION_DENIED', 'ROLE_FORBIDDEN', undefined]);
    }
    for (const token of [TOKENS.homeserver, TOKENS.configured]) {
      assert.deepEqual(await outcome(call(doors, protocol, router.submitEvents, { serverName: 'other.test' }, token)), ['PERMISSION_DENIED', 'SERVER_NAME_FORBIDDEN', 'server_name']);
    }
    assert.deepEqual(await outcome(call(doors, protocol, admin.getAppservice, { serverName: 'a.test', appserviceId: 'irc' }, TOKENS.bound)), ['PERMISSION_DENIED', 'SERVER_NAME_FORBIDDEN', 'server_name']);
    assert.deepEqual(await outcome(call(doors, protocol, admin.getAppservice, { serverName: 'none.test', appserviceId: 'irc' }, TOKENS.admin)), ['NOT_FOUND', 'SERVER_NAME_UNKNOWN', 'server_name']);
    assert.equal(reached, 0);
  });
}
