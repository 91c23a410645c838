/** ExplainRouting of the whole router: why an event goes where, and where it is now. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { ExplainRoutingResponse } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { EventDelivery_Whereabouts as Whereabouts } from '../../gen/matrix/appservice/v1/routing_explanation_pb.ts';
import { failing, failureOf } from '../rpc/doors.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import type { EventFields } from '../support/routing.ts';
import { eventJson, member } from '../support/routing.ts';
import type { ServiceWorld } from '../support/service-world.ts';
import { startService } from '../support/service-world.ts';

const admin = AppserviceAdmin.method;
const ROOM = '!r:hs.test';

function yaml(id: string, url: string | null): string {
  return `id: ${id}
url: ${url}
as_token: as-${id}-long-enough
hs_token: hs-${id}-long-enough
sender_localpart: _${id}_bot
namespaces:
  users:
    - regex: "@_${id}_.*"
      exclusive: true
  aliases:
    - regex: "#${id}_.*"
      exclusive: false
`;
}

async function put(world: ServiceWorld, id: string, url: string | null): Promise<void> {
  await world.admin.call(admin.putRegistration, { source: { case: 'yaml', value: yaml(id, url) } });
}

async function submit(world: ServiceWorld, ...events: (EventFields & { at?: number })[]): Promise<void> {
  await world.homeserver.call(AppserviceRouter.method.submitEvents, { events: events.map((fields) => ({ json: eventJson(fields), streamPosition: BigInt(fields.at ?? 0) })) });
}

function explainId(world: ServiceWorld, eventId: string): Promise<ExplainRoutingResponse> {
  return world.admin.call(admin.explainRouting, { event: { case: 'eventId', value: eventId } });
}

function nameOf(whereabouts: Whereabouts | undefined): string | undefined {
  return Object.entries(Whereabouts).find(([, value]) => value === whereabouts)?.[0];
}

const whereabouts = ({ appservices }: ExplainRoutingResponse): unknown[] => appservices.map(({ appserviceId, interested, delivery }) => [appserviceId, interested, nameOf(delivery?.whereabouts)]);

test('R31 an event that is asked about by its JSON is judged by the room as it is known, and by facts given for the question', async () => {
  await using world = await startService();
  await put(world, 'irc', 'http://127.0.0.1:1');
  await put(world, 'mute', null);
  const event = { case: 'eventJson' as const, value: eventJson({ id: '$ask', room: ROOM }) };
  const unknown = await world.admin.call(admin.explainRouting, { event });
  assert.deepEqual(unknown.appservices.map(({ appserviceId, interested, roomContextWanted }) => [appserviceId, interested, roomContextWanted]), [['irc', false, true], ['mute', false, false]]);
  assert.deepEqual([unknown.eventId, unknown.logSearch, unknown.room?.localMembersKnown], ['$ask', undefined, false]);
  const rooms = [{ roomId: ROOM, localAliases: { roomAliases: ['#irc_a:hs.test', '#mute_a:hs.test'] } }];
  const given = await world.admin.call(admin.explainRouting, { event, rooms });
  assert.deepEqual(given.appservices.map(({ appserviceId, interested, noUrl, reasons }) => [appserviceId, interested, noUrl, reasons[0]?.identifier, reasons[0]?.regex]), [
    ['irc', true, false, '#irc_a:hs.test', '#irc_.*'],
    ['mute', false, true, '#mute_a:hs.test', '#mute_.*'],
  ]);
  // It was for the question only.
  assert.equal((await world.admin.call(admin.explainRouting, { event })).appservices[0]?.interested, false);
  await submit(world, member('$join', '@_irc_ann:hs.test', 'join', ROOM));
  const joined = await world.admin.call(admin.explainRouting, { event });
  assert.deepEqual(joined.appservices[0]?.reasons.map(({ identifier, regex, senderUser }) => [identifier, regex, senderUser]), [['@_irc_ann:hs.test', '@_irc_.*', false]]);
  const malformed = failureOf(await failing(world.admin.call(admin.explainRouting, { event: { case: 'eventJson', value: Buffer.from('{"no":"event"}') } })));
  assert.deepEqual([malformed.reason, malformed.field], ['INVALID_FIELD', 'event_json']);
});

test('R46 an event is told from its queue to its delivery, and one that nobody wanted is not found', async () => {
  await using receiver = await RecordingReceiver.start();
  await using world = await startService();
  await put(world, 'irc', `${receiver.url}/irc`);
  await put(world, 'other', `${receiver.url}/other`);
  receiver.answer = () => 'error';
  await submit(world, { id: '$dropped', room: '!else:hs.test', at: 3 }, { ...member('$join', '@_irc_ann:hs.test', 'join', ROOM), at: 4 });
  await submit(world, { id: '$late', room: ROOM, at: 5 });
  await receiver.until(() => receiver.received.length >= 2);
  const stuck = await explainId(world, '$join');
  assert.deepEqual(whereabouts(stuck), [['irc', true, 'IN_FLIGHT'], ['other', false, 'NOT_ROUTED']]);
  assert.equal(stuck.appservices[0]?.delivery?.txnId, receiver.received[0]?.txnId);
  assert.ok((stuck.appservices[0]?.delivery?.attemptCount ?? 0) >= 1);
  assert.deepEqual([stuck.logSearch?.complete, stuck.room?.roomId, stuck.room?.localMemberCount], [true, ROOM, 1]);
  await world.admin.call(admin.pauseDelivery, { appserviceId: 'irc' });
  assert.deepEqual(whereabouts(await explainId(world, '$late'))[0], ['irc', true, 'HELD']);

  const dropped = await explainId(world, '$dropped');
  assert.deepEqual([dropped.appservices, dropped.room, dropped.logSearch?.logPosition, dropped.logSearch?.complete], [[], undefined, undefined, true]);
  // It was submitted not long ago and is not in the log: nobody wanted it.
  assert.deepEqual([dropped.logSearch?.stream, dropped.logSearch?.streamPosition], ['', 3n]);
  const never = await explainId(world, '$never');
  assert.deepEqual([never.logSearch?.stream, typeof never.logSearch?.retainedLogPosition], [undefined, 'bigint']);

  receiver.answer = () => 'ok';
  await world.admin.call(admin.resumeDelivery, { appserviceId: 'irc' });
  await receiver.until(() => receiver.taken('irc').length === 2);
  // Acknowledged, and durable a moment later.
  while ((await world.admin.call(admin.getAppservice, { appserviceId: 'irc' })).appservice?.deliveredEntries !== 2n);
  const delivered = await explainId(world, '$late');
  assert.deepEqual(whereabouts(delivered)[0], ['irc', true, 'DELIVERED']);
  assert.equal(delivered.appservices[0]?.delivery?.txnId, receiver.received.find(({ answer, eventIds }) => answer === 'ok' && eventIds.includes('$late'))?.txnId);
  await world.admin.call(admin.deleteRegistration, { appserviceId: 'irc', backlog: 1 });
  assert.deepEqual(whereabouts(await explainId(world, '$late')), [['other', false, 'NOT_ROUTED'], ['irc', false, 'DELIVERED']]);
});
