import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '@bufbuild/protobuf';
import { AppserviceAdmin, ExplainRoutingResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { ExplainRoutingRequest } from '../../src/rpc/ports.ts';
import { call, Doors, failing, failureOf, PROTOCOLS, TOKENS } from './doors.ts';

const { explainRouting } = AppserviceAdmin.method;

for (const protocol of PROTOCOLS) {
  test(`ExplainRouting answers whole, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const asked: ExplainRoutingRequest[] = [];
    doors.house.admin.explainRouting = (request) => {
      asked.push(request);
      return Promise.resolve({
        eventId: '$e',
        search: { found: { position: 7, timeMs: 1_700_000_000_000 }, oldest: { position: 2, timeMs: 1_600_000_000_000 }, isComplete: true, seen: { stream: 'main', position: 4 } },
        room: { roomId: '!r:a.test', knowsMembers: true, memberCount: 3, knowsAliases: false, aliasCount: 0 },
        appservices: [
          {
            appserviceId: 'irc',
            interested: true,
            reasons: [{ rule: 'joined_member', identifier: '@irc_ann:a.test', regex: '@irc_.*' }, { rule: 'sender', identifier: '@irc:a.test', regex: null }],
            reasonCount: 9,
            lacksUrl: false,
            wantsContext: false,
            delivery: { whereabouts: 'in_flight', txnId: '17', attemptCount: 2, nextAttemptTimeMs: 1_700_000_008_000, heldBy: null },
          },
          { appserviceId: 'mail', interested: false, reasons: [], reasonCount: 0, lacksUrl: false, wantsContext: true, delivery: { whereabouts: 'held', txnId: null, attemptCount: 0, nextAttemptTimeMs: null, heldBy: 'paused' } },
        ],
      });
    };
    const rooms = [{ roomId: '!r:a.test', localAliases: { roomAliases: ['#a:a.test'] } }];
    const answer = await call(doors, protocol, explainRouting, { event: { case: 'eventId', value: '$e' }, rooms }, TOKENS.monitor);
    assert.deepEqual(asked, [{ event: { kind: 'id', eventId: '$e' }, rooms: [{ roomId: '!r:a.test', localAliases: ['#a:a.test'], localMembers: undefined }] }]);
    assert.deepEqual(toJson(ExplainRoutingResponseSchema, answer), {
      eventId: '$e',
      room: { roomId: '!r:a.test', localMembersKnown: true, localMemberCount: 3 },
      logSearch: { logPosition: '7', submittedTime: '2023-11-14T22:13:20Z', retainedLogPosition: '2', retainedSinceTime: '2020-09-13T12:26:40Z', complete: true, stream: 'main', streamPosition: '4' },
      appservices: [
        {
          appserviceId: 'irc',
          interested: true,
          reasons: [
            { rule: 'ROUTING_RULE_JOINED_MEMBER', identifier: '@irc_ann:a.test', regex: '@irc_.*' },
            { rule: 'ROUTING_RULE_SENDER', identifier: '@irc:a.test', senderUser: true },
          ],
          reasonCount: 9,
          delivery: { whereabouts: 'WHEREABOUTS_IN_FLIGHT', txnId: '17', attemptCount: 2, nextAttemptTime: '2023-11-14T22:13:28Z' },
        },
        { appserviceId: 'mail', roomContextWanted: true, delivery: { whereabouts: 'WHEREABOUTS_HELD', heldBy: 'HELD_BY_PAUSED' } },
      ],
    });
  });
}

test('ExplainRouting refuses what names no event, and callers who may not look', async () => {
  await using doors = await Doors.open();
  const refused = async (request: Parameters<typeof call<typeof explainRouting.input, typeof explainRouting.output>>[3], token: string = TOKENS.admin): Promise<unknown> => {
    const { reason, field } = failureOf(await failing(call(doors, 'gRPC', explainRouting, request, token)));
    return [reason, field];
  };
  assert.deepEqual(await refused({}), ['INVALID_FIELD', 'event']);
  assert.deepEqual(await refused({ event: { case: 'eventId', value: '' } }), ['INVALID_FIELD', 'event_id']);
  assert.deepEqual(await refused({ event: { case: 'eventId', value: 'x'.repeat(1_025) } }), ['INVALID_FIELD', 'event_id']);
  assert.deepEqual(await refused({ event: { case: 'eventId', value: '$e' }, rooms: [{ roomId: '' }] }), ['INVALID_FIELD', 'rooms[0].room_id']);
  assert.deepEqual(await refused({ event: { case: 'eventId', value: '$e' } }, TOKENS.homeserver), ['ROLE_FORBIDDEN', undefined]);
});
