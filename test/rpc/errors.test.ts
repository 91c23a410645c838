import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter, AuthorizeIdentifierRequest_Action as Action } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { RefusalReason } from '../../src/appservice/refusal.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { errorsPage, REFUSALS, STORE_FAILURES } from '../../src/rpc/errors.ts';
import { Code, codeName, ERROR_DOMAIN } from '../../src/rpc/status.ts';
import type { StoreErrorKind } from '../../src/store/errors.ts';
import { StoreError } from '../../src/store/errors.ts';
import { call, Doors, failing, failureOf, preconditionOf, PROTOCOLS, TOKENS } from './doors.ts';

const router = AppserviceRouter.method;
const admin = AppserviceAdmin.method;

/** What contract section 3 says, written out again: the table of the code must come to the same. */
const CODES: Readonly<Record<RefusalReason, string>> = {
  INVALID_FIELD: 'INVALID_ARGUMENT',
  APPSERVICE_NOT_FOUND: 'NOT_FOUND',
  TRANSACTION_NOT_FOUND: 'NOT_FOUND',
  REGISTRATION_CONFLICT: 'ALREADY_EXISTS',
  DELIVERY_STATE_FORBIDS: 'FAILED_PRECONDITION',
  POSITION_NOT_RETAINED: 'FAILED_PRECONDITION',
  QUEUE_FULL: 'RESOURCE_EXHAUSTED',
  TOO_MANY_PINGS: 'RESOURCE_EXHAUSTED',
  TOO_MANY_LOOKUPS: 'RESOURCE_EXHAUSTED',
  APPSERVICE_QUERY_TIMEOUT: 'DEADLINE_EXCEEDED',
  APPSERVICE_SERVICE_UNAVAILABLE: 'UNAVAILABLE',
  DRAINING: 'UNAVAILABLE',
  STREAM_POSITION_REWOUND: 'FAILED_PRECONDITION',
  APPSERVICE_NAMESPACE_CONFLICT: 'PERMISSION_DENIED',
  APPSERVICE_UNKNOWN_TOKEN: 'PERMISSION_DENIED',
  APPSERVICE_MASQUERADE_DENIED: 'PERMISSION_DENIED',
  APPSERVICE_USER_NOT_REGISTERED: 'PERMISSION_DENIED',
};
const STORE_CODES: Readonly<Record<StoreErrorKind, string>> = { unavailable: 'UNAVAILABLE', exhausted: 'RESOURCE_EXHAUSTED', unreadable: 'INTERNAL', unsuitable: 'INTERNAL' };

function refusalOf(reason: string): RefusalReason {
  const found = Object.keys(REFUSALS).find((known): known is RefusalReason => known === reason);
  assert.ok(found);
  return found;
}

for (const protocol of PROTOCOLS) {
  test(`R77 M9 every refusal of the house arrives with its code and details, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    for (const [name, code] of Object.entries(CODES)) {
      const reason = refusalOf(name);
      const metadata = { errcode: 'M_EXCLUSIVE', http_status: '400' };
      doors.house.router.submit = () => Promise.reject(new RefusalError(reason, `Refused: ${reason}, näml­ich.`, { field: 'events[3].json', retryDelayMs: 1_250, metadata }));
      const error = await failing(call(doors, protocol, router.submitEvents, {}, TOKENS.homeserver));
      const { code: number, ...failure } = failureOf(error);
      assert.equal(codeName(number), code, reason);
      assert.deepEqual(failure, { message: `Refused: ${reason}, näml­ich.`, reason, domain: ERROR_DOMAIN, metadata, field: 'events[3].json', retryDelayMs: 1_250 });
      if (protocol !== 'gRPC') assert.equal(preconditionOf(error), code === 'FAILED_PRECONDITION' ? reason : undefined);
    }
  });

  test(`M11 I12 failures of the store arrive without the store's words, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    for (const [kind, code] of Object.entries(STORE_CODES)) {
      const failure = Object.keys(STORE_FAILURES).find((known): known is StoreErrorKind => known === kind);
      assert.ok(failure);
      doors.house.router.submit = () => Promise.reject(new StoreError(failure, 'connect ECONNREFUSED db.internal:27017 token=secret'));
      const seen = failureOf(await failing(call(doors, protocol, router.submitEvents, {}, TOKENS.homeserver)));
      assert.equal(codeName(seen.code), code, kind);
      assert.equal(seen.retryDelayMs !== undefined, code !== 'INTERNAL', kind);
      assert.doesNotMatch(JSON.stringify(seen), /db\.internal|secret|ECONN/);
    }
  });

  test(`I12 a bug is told as INTERNAL without its text, and logged with it, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    doors.house.admin.getAppservice = () => Promise.reject(new TypeError('undefined at /srv/router/secret.ts'));
    const seen = failureOf(await failing(call(doors, protocol, admin.getAppservice, { appserviceId: 'irc' }, TOKENS.admin)));
    assert.equal(codeName(seen.code), 'INTERNAL');
    assert.equal(seen.reason, 'INTERNAL');
    assert.doesNotMatch(JSON.stringify(seen), /secret|TypeError/);
    assert.match(JSON.stringify(doors.logged), /secret\.ts/);
    assert.deepEqual(doors.observed, [`GetAppservice ${Code.internal}`]);
  });

  test(`a refusal that quotes what does not fit into trailers arrives shortened, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    for (const text of ['x'.repeat(100_000), '😀'.repeat(10_000), `${'x'.repeat(254)}\ud83d`]) {
      doors.house.router.submit = () => Promise.reject(new RefusalError('APPSERVICE_NOT_FOUND', `There is no appservice "${text}".`, { metadata: { appservice_id: text } }));
      const seen = failureOf(await failing(call(doors, protocol, router.submitEvents, {}, TOKENS.homeserver)));
      assert.equal(codeName(seen.code), 'NOT_FOUND');
      assert.ok(seen.message.isWellFormed() && seen.message.startsWith('There is no appservice "'));
    }
    doors.house.router.submit = () => Promise.resolve({ streamPosition: 1, logPosition: 1, accepted: 0, duplicates: 0, routed: 0, wantedRoomIds: [] });
    assert.equal((await call(doors, protocol, router.submitEvents, {}, TOKENS.homeserver)).logPosition, 1n);
  });

  test(`a request outside its bounds is INVALID_ARGUMENT and names the field, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    doors.house.router.submit = () => Promise.reject(new Error('nothing of a refused request reaches the house'));
    const fieldOf = async (pending: Promise<unknown>): Promise<string | undefined> => {
      const { code, field } = failureOf(await failing(pending));
      assert.equal(codeName(code), 'INVALID_ARGUMENT');
      return field;
    };
    const submit = (request: Parameters<typeof call<typeof router.submitEvents.input, typeof router.submitEvents.output>>[3]) =>
      fieldOf(call(doors, protocol, router.submitEvents, request, TOKENS.homeserver));
    assert.equal(await submit({ events: Array.from({ length: 1_001 }, () => ({})) }), 'events');
    assert.equal(await submit({ events: [{}, { streamPosition: -1n }] }), 'events[1].stream_position');
    assert.equal(await submit({ events: [{ streamPosition: 2n ** 53n }] }), 'events[0].stream_position');
    assert.equal(await submit({ stream: 's'.repeat(256) }), 'stream');
    assert.equal(await submit({ rooms: Array.from({ length: 1_001 }, () => ({ roomId: '!r' })) }), 'rooms');
    assert.equal(await submit({ rooms: [{ roomId: '' }] }), 'rooms[0].room_id');
    assert.equal(await submit({ unknownUserIds: Array.from({ length: 1_001 }, () => '@x:a.test') }), 'unknown_user_ids');
    assert.equal(await submit({ rooms: [{ roomId: '!r', localAliases: { roomAliases: Array.from({ length: 1_001 }, () => '#a') } }] }), 'rooms[0].local_aliases.room_aliases');
    assert.equal(await fieldOf(call(doors, protocol, router.checkNamespace, {}, TOKENS.homeserver)), 'subject');
    const subject = { case: 'userId', value: '@x:a.test' } as const;
    const authorize = (request: Parameters<typeof call<typeof router.authorizeIdentifier.input, typeof router.authorizeIdentifier.output>>[3]) =>
      fieldOf(call(doors, protocol, router.authorizeIdentifier, { subject, ...request }, TOKENS.homeserver));
    assert.equal(await authorize({ actor: { case: 'appserviceId', value: 'irc' } }), 'action');
    assert.equal(await authorize({ action: Action.LOGIN }), 'actor');
    assert.equal(await authorize({ action: Action.LOGIN, actor: { case: 'appserviceId', value: 'x'.repeat(100_000) } }), 'appservice_id');
    assert.equal(await authorize({ action: Action.LOGIN, actor: { case: 'asToken', value: 'x'.repeat(4_097) } }), 'as_token');
    assert.equal(await fieldOf(call(doors, protocol, admin.putRegistration, {}, TOKENS.admin)), 'source');
    assert.equal(await fieldOf(call(doors, protocol, admin.putRegistration, { source: { case: 'yaml', value: 'x'.repeat(2 ** 20 + 1) } }, TOKENS.admin)), 'yaml');
    assert.equal(await fieldOf(call(doors, protocol, admin.deleteRegistration, { appserviceId: 'irc' }, TOKENS.admin)), 'backlog');
    assert.equal(await fieldOf(call(doors, protocol, admin.getAppservice, {}, TOKENS.admin)), 'appservice_id');
    assert.equal(await fieldOf(call(doors, protocol, admin.listAppservices, { pageSize: -1 }, TOKENS.admin)), 'page_size');
  });
}

test('the reference page of errors is the table of the code', async () => {
  assert.equal(await readFile(new URL('../../docs/errors.md', import.meta.url), 'utf8'), errorsPage());
});
