import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '@bufbuild/protobuf';
import { AppserviceAdmin, DeleteRegistrationRequest_Backlog as Backlog, DeleteRegistrationResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceSchema } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { AppserviceRouter, AuthorizeIdentifierRequest_Action as Action, SubmitEventsResponseSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { RegistrationSchema } from '../../gen/matrix/appservice/v1/registration_pb.ts';
import type { AuthorizeRequest } from '../../src/appservice/authorize.ts';
import type { PutRegistrationRequest, Submission } from '../../src/rpc/ports.ts';
import { call, Doors, PROTOCOLS, REGISTRATION, STATUS, TOKENS } from './doors.ts';

const router = AppserviceRouter.method;
const admin = AppserviceAdmin.method;

for (const protocol of PROTOCOLS) {
  test(`R51 SubmitEvents hands the bytes over as they came, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const submissions: Submission[] = [];
    doors.house.router.submit = (submission) => {
      submissions.push(submission);
      return Promise.resolve({ streamPosition: 2 ** 53 - 1, logPosition: 9, accepted: 1, duplicates: 2, routed: 3, wantedRoomIds: ['!r:a.test'] });
    };
    const json = Buffer.from('{"odd": 1.0e2, "ünï": "\\u0000"}');
    const rooms = [{ roomId: '!r:a.test', localAliases: { roomAliases: [] } }];
    const answer = await call(doors, protocol, router.submitEvents, { stream: 'main', events: [{ json, streamPosition: BigInt(2 ** 53 - 1) }], rooms }, TOKENS.homeserver);
    assert.deepEqual(toJson(SubmitEventsResponseSchema, answer), { streamPosition: '9007199254740991', logPosition: '9', accepted: 1, duplicates: 2, routed: 3, wantedRoomIds: ['!r:a.test'] });
    const [submission] = submissions;
    assert.deepEqual(
      { ...submission, events: submission?.events.map(({ json: bytes, streamPosition }) => ({ json: Buffer.from(bytes).toString(), streamPosition })) },
      {
        stream: 'main',
        events: [{ json: json.toString(), streamPosition: 2 ** 53 - 1 }],
        // An empty list replaces what was known; an absent one changes nothing.
        rooms: [{ roomId: '!r:a.test', localAliases: [], localMembers: undefined }],
      },
    );
  });

  test(`M5 SubmitEvents hands over the unknown users, and none where there are none, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const seen: (readonly string[] | undefined)[] = [];
    doors.house.router.submit = ({ unknownUserIds }) => {
      seen.push(unknownUserIds);
      return Promise.resolve({ streamPosition: 0, logPosition: 1, accepted: 0, duplicates: 0, routed: 0, wantedRoomIds: [] });
    };
    await call(doors, protocol, router.submitEvents, { unknownUserIds: ['@irc_ü/%:a.test', '@b:a.test'] }, TOKENS.homeserver);
    await call(doors, protocol, router.submitEvents, {}, TOKENS.homeserver);
    assert.deepEqual(seen, [['@irc_ü/%:a.test', '@b:a.test'], undefined]);
  });

  test(`the other methods of AppserviceRouter answer by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: AuthorizeRequest[] = [];
    doors.house.router.authorize = (request) => {
      asked.push(request);
      return 'irc';
    };
    const position = await call(doors, protocol, router.getStreamPosition, {}, TOKENS.homeserver);
    assert.deepEqual([position.streamPosition, position.logPosition], [7n, 9n]);
    const delivered = await call(doors, protocol, router.getDeliveredPositions, { stream: 'four' }, TOKENS.homeserver);
    assert.deepEqual(delivered.positions.map(({ appserviceId, streamPosition }) => [appserviceId, streamPosition]), [['irc', 5n], ['mail', 4n]]);
    const verdict = await call(doors, protocol, router.checkNamespace, { subject: { case: 'userId', value: '@irc_x:a.test' } }, TOKENS.homeserver);
    assert.deepEqual([verdict.matches.map(({ appserviceId, regex, exclusive }) => [appserviceId, regex, exclusive]), verdict.exclusive, verdict.exclusiveAppserviceIds], [[['irc', '@irc_.*', true]], true, ['irc']]);
    const subject = { case: 'roomAlias', value: '#irc_x:a.test' } as const;
    const answer = await call(doors, protocol, router.authorizeIdentifier, { subject, action: Action.DELETE, actor: { case: 'personUserId', value: '@p:a.test' } }, TOKENS.homeserver);
    assert.equal(answer.appserviceId, 'irc');
    assert.deepEqual(asked, [{ subject: { kind: 'aliases', identifier: '#irc_x:a.test' }, action: 'delete', actor: { kind: 'person', userId: '@p:a.test' }, userRegistered: undefined }]);
  });

  test(`R18 M10 no answer of AppserviceAdmin holds a token, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const put: PutRegistrationRequest[] = [];
    const given = doors.house.admin.putRegistration;
    doors.house.admin.putRegistration = (request, actor) => {
      put.push(request);
      return given(request, actor);
    };
    const registration = { id: 'irc', asToken: 'as-secret', hsToken: 'hs-secret', senderLocalpart: 'irc', namespaces: { users: [{ regex: '@irc_.*', exclusive: true }] } };
    const stored = await call(doors, protocol, admin.putRegistration, { source: { case: 'registration', value: registration }, validateOnly: true }, TOKENS.admin);
    const got = await call(doors, protocol, admin.getRegistration, { appserviceId: 'irc' }, TOKENS.monitor);
    const listed = await call(doors, protocol, admin.listRegistrations, {}, TOKENS.monitor);
    for (const one of [stored.registration, got.registration, listed.registrations[0]]) {
      assert.ok(one);
      const json = toJson(RegistrationSchema, one);
      assert.doesNotMatch(JSON.stringify(json), /secret|Token/);
      assert.deepEqual(json, {
        id: 'irc',
        url: REGISTRATION.url,
        senderLocalpart: 'irc',
        namespaces: { users: [{ regex: '@irc_.*', exclusive: true }], aliases: [{ regex: '#irc_.*' }] },
        protocols: ['irc'],
        rateLimited: false,
        receiveEphemeral: true,
        deliveryOptions: { legacyPaths: 'LEGACY_PATHS_UNRECOGNIZED', pushTimeoutMs: 5_000 },
      });
    }
    assert.equal(listed.nextPageToken, 'irc');
    assert.deepEqual(stored.warnings.map(({ code }) => code), ['overlap']);
    // The control: the tokens did reach the house.
    const [request] = put;
    assert.ok(request?.source.kind === 'registration' && request.validateOnly);
    assert.deepEqual([request.source.registration.as_token, request.source.registration.url, request.source.registration.rate_limited], ['as-secret', null, true]);
  });

  test(`the operator's methods answer how delivery stands, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const calls: unknown[] = [];
    doors.house.admin.setPaused = (id, paused) => {
      calls.push(['setPaused', id, paused]);
      return Promise.resolve({ ...STATUS, paused });
    };
    doors.house.admin.deleteRegistration = (id, backlog) => {
      calls.push(['delete', id, backlog]);
      return Promise.resolve();
    };
    const request = { appserviceId: 'irc' };
    const { appservice } = await call(doors, protocol, admin.getAppservice, request, TOKENS.monitor);
    assert.ok(appservice);
    assert.deepEqual(toJson(AppserviceSchema, appservice), {
      appserviceId: 'irc',
      state: 'DELIVERY_STATE_RETRYING',
      paused: true,
      deliveredLogPosition: '41',
      backlogEntries: '3',
      backlogBytes: '2100',
      oldestEntryTime: '2023-11-14T22:13:20Z',
      transaction: { txnId: '17', eventCount: 2, attemptCount: 4, nextAttemptTime: '2023-11-14T22:13:28Z' },
      lastError: { kind: 'rejected', httpStatus: 502, message: 'The appservice answered 502.', time: '2023-11-14T22:13:21Z' },
      deliveredEntries: '40',
      attempts: '9',
      failedAttempts: '4',
      heldBy: 'HELD_BY_PAUSED',
      quarantinedEntries: '1',
      leaseHolder: 'r1',
    });
    assert.equal((await call(doors, protocol, admin.listAppservices, {}, TOKENS.monitor)).appservices.length, 1);
    assert.equal((await call(doors, protocol, admin.pauseDelivery, request, TOKENS.admin)).appservice?.paused, true);
    assert.equal((await call(doors, protocol, admin.resumeDelivery, request, TOKENS.admin)).appservice?.paused, false);
    assert.equal((await call(doors, protocol, admin.retryNow, request, TOKENS.admin)).appservice?.appserviceId, 'irc');
    const gone = await call(doors, protocol, admin.deleteRegistration, { ...request, backlog: Backlog.PARK }, TOKENS.admin);
    assert.deepEqual(toJson(DeleteRegistrationResponseSchema, gone), {});
    assert.deepEqual(calls, [['setPaused', 'irc', true], ['setPaused', 'irc', false], ['delete', 'irc', 'park']]);
  });
}

test('R18 look-ups can be got by GET, and AuthorizeIdentifier cannot, so that no as_token stands in a URL', async () => {
  await using doors = await Doors.open();
  const get = async (method: string, message: object): Promise<number> => {
    const url = `http://${doors.http.address}/${AppserviceRouter.typeName}/${method}?encoding=json&message=${encodeURIComponent(JSON.stringify(message))}`;
    const response = await fetch(url, { headers: { authorization: `Bearer ${TOKENS.homeserver}` } });
    await response.arrayBuffer();
    return response.status;
  };
  assert.equal(await get('CheckNamespace', { userId: '@irc_x:a.test' }), 200);
  assert.equal(await get('AuthorizeIdentifier', { userId: '@irc_x:a.test', action: 'ACTION_CREATE', asToken: 'as-secret' }), 405);
});
