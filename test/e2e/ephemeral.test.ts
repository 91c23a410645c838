/** Ephemeral data through the real doors: over kills and outages, and what is wrong with it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { errorOf } from '../support/router-client.ts';
import { put, registrationYaml, RouterHome, statusOf } from '../support/router-home.ts';
import { eventJson, member } from '../support/routing.ts';
import { startService, TOKENS } from '../support/service-world.ts';

const { submitEvents, getStreamPosition } = AppserviceRouter.method;
const BOTH = 'receive_ephemeral: true\nde.sorunome.msc2409.push_ephemeral: true\n';
const ROOM = '!r:hs.test';

const wire = (value: unknown): { json: Uint8Array } => ({ json: Buffer.from(JSON.stringify(value)) });
const typing = (...userIds: readonly string[]) => ({ type: 'm.typing', room_id: ROOM, content: { user_ids: userIds } });
const receipt = (user: string, data: unknown = { ts: 5 }) => ({ type: 'm.receipt', room_id: ROOM, content: { $1: { 'm.read': { [user]: data } } } });
const presence = { type: 'm.presence', sender: '@_a_bot:hs.test', content: { presence: 'online' } };

test('R59 R65 R80 R88 I3 ephemeral data in flight keeps its bytes over kill -9, far beyond its age; what came after is left out', { timeout: 60_000 }, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  receiver.answer = () => 'error';
  const env = { ROUTER_EPHEMERAL_AGE_MAX_MS: '100' };
  const first = await home.start(env);
  await put(first.client('admin'), registrationYaml('a', `${receiver.url}/a`, BOTH));
  const ephemeral = [typing('@alice:hs.test'), receipt('@alice:hs.test'), presence].map(wire);
  const answer = await first.client('homeserver').call(submitEvents, { events: [{ json: eventJson(member('$1', '@_a_bot:hs.test', 'join', ROOM)) }], ephemeral });
  assert.equal(answer.routed, 4);
  await receiver.until(() => receiver.received.length >= 2);
  await first.client('homeserver').call(submitEvents, { ephemeral: [wire(typing())], events: [{ json: eventJson({ id: '$2', room: ROOM }) }] });
  await receiver.until(() => receiver.received.length >= 6);
  await first.kill();

  const second = await home.start(env);
  await receiver.until(() => receiver.received.length >= 9);
  receiver.answer = () => 'ok';
  await receiver.until(() => receiver.taken('a').length === 2);
  assert.equal(await second.terminate(), 0);
  const list = [typing('@alice:hs.test'), presence, receipt('@alice:hs.test')];
  const bodies = receiver.received.map(({ body }) => ({ ...body, events: (body['events'] as { event_id: string }[]).map(({ event_id: id }) => id) }));
  const inFlight = { events: ['$1'], ephemeral: list, 'de.sorunome.msc2409.ephemeral': list };
  assert.deepEqual(bodies, [...bodies.slice(0, -1).map(() => inFlight), { events: ['$2'] }]);
  assert.deepEqual(receiver.violations('a', 0), []);
});

test('R88 what is left out is told by the metrics, and nothing waits any more', { timeout: 30_000 }, async () => {
  await using receiver = await RecordingReceiver.start();
  await using world = await startService({ settings: { delivery: { eventsMax: 100, ephemeralMax: 100, toDeviceMax: 100, ephemeralAgeMaxMs: 100, bytesMax: 1_000_000, backoff: { firstMs: 50, maxMs: 200 } } } });
  receiver.answer = () => 'error';
  await put(world.admin, registrationYaml('a', `${receiver.url}/a`, BOTH));
  await world.homeserver.call(submitEvents, { events: [{ json: eventJson({ id: '$1', room: ROOM }) }] });
  await receiver.until(() => receiver.received.length >= 1);
  for (const user of ['@alice:hs.test', '@bob:hs.test']) await world.homeserver.call(submitEvents, { ephemeral: [wire(receipt(user))] });
  // Attempts wait for 25 ms or more, from the third on for 100.
  await receiver.until(() => receiver.received.length >= 6);
  receiver.answer = () => 'ok';
  await receiver.until(() => receiver.taken('a').length === 1);
  const { answer } = await world.homeserver.call(submitEvents, { events: [{ json: eventJson({ id: '$2', room: ROOM }) }] }).then((one) => ({ answer: one }));
  assert.equal(answer.routed, 1);
  await receiver.until(() => receiver.taken('a').length === 2);
  assert.deepEqual(receiver.received.flatMap(({ body }) => Object.keys(body)), receiver.received.map(() => 'events'));
  const page = await (await fetch(`http://${world.service.httpAddress}/metrics`)).text();
  assert.match(page, /appservice_router_left_out_entries_total\{server_name="hs\.test",appservice_id="a",kind="ephemeral",reason="expired"\} 2\n/);
  for (let waits = true; waits; ) waits = (await statusOf(world.admin, 'a')).backlogEntries > 0n;
});

test('R85 a request with one ephemeral event that is wrong is refused whole at both doors, at the field at fault, and touches no appservice', { timeout: 30_000 }, async () => {
  await using receiver = await RecordingReceiver.start();
  await using world = await startService();
  await put(world.admin, registrationYaml('a', `${receiver.url}/a`, BOTH));
  const users = Object.fromEntries(Array.from({ length: 3_000 }, (_, at) => [`@u${at}:hs.test`, { ts: 1 }]));
  const faults: unknown[] = [
    { type: 'm.direct', content: {} }, { type: 'm.typing', content: { user_ids: [] } }, { type: 'm.typing', room_id: ROOM, content: { user_ids: '@a:b' } },
    receipt('@alice:hs.test', { ts: -1 }), receipt('@alice:hs.test', []), receipt('alice'), { type: 'm.receipt', room_id: ROOM, content: { $1: { 'm.read': users } } },
    { type: 'm.presence', sender: '@alice:hs.test', content: { presence: 'online', last_active_ago: -5 } }, { type: 'm.presence', content: { presence: 'online' } }, [], null,
  ];
  const event = { json: eventJson({ id: '$1', room: ROOM }), streamPosition: 7n };
  for (const fault of faults) {
    const { code, reason, field } = await world.homeserver.call(submitEvents, { events: [event], ephemeral: [wire(typing()), wire(fault)] }).then(() => assert.fail('it is taken'), errorOf);
    assert.deepEqual([code, reason, field], [3, 'INVALID_FIELD', 'ephemeral[1].json']);
    const json = (value: unknown): { json: string } => ({ json: Buffer.from(JSON.stringify(value)).toString('base64') });
    const answer = await fetch(`http://${world.service.httpAddress}/matrix.appservice.v1.AppserviceRouter/SubmitEvents`, {
      method: 'POST',
      headers: { authorization: `Bearer ${TOKENS.homeserver}`, 'content-type': 'application/json' },
      body: JSON.stringify({ events: [{ json: Buffer.from(event.json).toString('base64'), streamPosition: '7' }], ephemeral: [json(typing()), json(fault)] }),
    });
    const text = await answer.text();
    assert.equal(answer.status, 400, text);
    assert.ok(text.includes('"invalid_argument"') && text.includes('ephemeral[1].json'), text);
  }
  assert.equal((await world.homeserver.call(getStreamPosition, {})).streamPosition, 0n);
  assert.equal((await world.homeserver.call(submitEvents, { events: [event], ephemeral: [wire(typing())] })).accepted, 2);
  await receiver.until(() => receiver.received.length === 1);
  assert.deepEqual(receiver.received.map(({ body }) => body['ephemeral']), [[typing()]]);
});
