import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { seenIdOf } from '../../src/ingest/seen-ids.ts';
import { AS_TOKEN, captured, message, startIngress } from '../support/ingress-world.ts';
import type { IngressWorld } from '../support/ingress-world.ts';
import { openLedger, routedIds } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { answer, hang, Receiver } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';
import { put } from '../support/router-home.ts';
import { member, registration, submission } from '../support/routing.ts';

/** The client API of a homeserver, by the end of the path; 404 for the rest. */
function clientApi(answers: Readonly<Record<string, unknown>>): Script {
  return (connection, request) => {
    const path = decodeURIComponent(request.target.split('?')[0] ?? '');
    const found = Object.entries(answers).find(([end]) => path.endsWith(end));
    answer(found === undefined ? 404 : 200, JSON.stringify(found?.[1] ?? { errcode: 'M_NOT_FOUND', error: 'no' }))(connection, request);
  };
}

/** What was asked of rooms. */
function askedOf({ requests }: Receiver): Receiver['requests'] {
  return requests.filter(({ target }) => target.includes('/rooms/'));
}

async function register(ingress: IngressWorld, id: string, namespaces: string): Promise<void> {
  await put(ingress.world.admin, `id: ${id}\nurl: ${ingress.receiver.url}/${id}\nas_token: as-${id}-long-enough\nhs_token: hs-${id}-long-enough\nsender_localpart: ${id}bot\nnamespaces: ${namespaces}\n`);
}

test('M15 R36 R37 events of a room from before the router reach who has a member or an alias in it, from the first event on', async () => {
  const api = clientApi({
    '/rooms/!old:hs.test/joined_members': { joined: { '@carol:hs.test': {}, '@irc_bob:hs.test': { display_name: null, avatar_url: null } } },
    '/rooms/!old:hs.test/aliases': { aliases: ['#logged_1:hs.test'] },
  });
  await using homeserver = await Receiver.start(api);
  await using ingress = await startIngress({ homeserverUrl: homeserver.url });
  await register(ingress, 'irc', "{users: [{regex: '@irc_.*', exclusive: true}]}");
  await register(ingress, 'logger', "{aliases: [{regex: '#logged_.*', exclusive: false}]}");
  await ingress.client.put('1', { events: [message('$a', { room_id: '!old:hs.test' })] });
  await ingress.receiver.until(() => ['irc', 'logger'].every((id) => ingress.receiver.taken(id).includes('$a')));
  assert.deepEqual(askedOf(homeserver).map(({ headers }) => headers['authorization']), [`Bearer ${AS_TOKEN}`, `Bearer ${AS_TOKEN}`]);
  assert.ok(askedOf(homeserver)[1]?.target.endsWith('/aliases?user_id=%40carol%3Ahs.test'));
  await ingress.client.put('2', { events: [message('$b', { room_id: '!old:hs.test' })] });
  assert.equal(askedOf(homeserver).length, 2);
});

test('M15 a room that Synapse makes with an alias reaches who has the alias, once the event that tells of it makes the router ask', async () => {
  const requests = captured('01');
  const roomId = (requests[0]?.body as { events: { room_id: string }[] }).events[0]?.room_id ?? '';
  await using homeserver = await Receiver.start(clientApi({ [`/rooms/${roomId}/aliases`]: { aliases: ['#labroom:hs.test'] } }));
  await using ingress = await startIngress({ homeserverUrl: homeserver.url });
  await register(ingress, 'logger', "{aliases: [{regex: '#lab.*', exclusive: false}]}");
  await ingress.client.replay([...requests, ...captured('02')]);
  await ingress.client.put('99', { events: [message('$end', { room_id: roomId })] });
  await ingress.receiver.until(() => ingress.receiver.taken('logger').includes('$end'));
  const types = ingress.receiver.received.flatMap(({ body }) => (body['events'] as { type: string }[]).map(({ type }) => type));
  assert.deepEqual(types.slice(0, 2), ['m.room.canonical_alias', 'm.room.join_rules']);
  assert.ok(askedOf(homeserver).every(({ target }) => target.includes('/aliases?user_id=%40alice%3Ahs.test')));
});

test('R31 the rooms of an appservice\'s own user are looked up before anything comes of them', async () => {
  await using homeserver = await Receiver.start(clientApi({ '/joined_rooms': { joined_rooms: ['!quiet:hs.test', 7] }, '/rooms/!quiet:hs.test/joined_members': { joined: { '@ircbot:hs.test': {}, '@carol:hs.test': {} } } }));
  await using ingress = await startIngress({ homeserverUrl: homeserver.url });
  await register(ingress, 'irc', "{users: [{regex: '@irc_.*', exclusive: true}]}");
  await ingress.client.put('1', { events: [message('$other', { room_id: '!other:hs.test' })] });
  await homeserver.until(() => askedOf(homeserver).some(({ target }) => decodeURIComponent(target).includes('!quiet:hs.test')));
  const [listed] = homeserver.requests.filter(({ target }) => target.includes('joined_rooms'));
  assert.deepEqual([listed?.target, listed?.headers['authorization']], ['/_matrix/client/v3/joined_rooms?user_id=%40ircbot%3Ahs.test', `Bearer ${AS_TOKEN}`]);
  await ingress.client.put('2', { events: [message('$a', { room_id: '!quiet:hs.test' })] });
  await ingress.receiver.until(() => ingress.receiver.taken('irc').includes('$a'));
});

test('M11 while the homeserver gives no answer events are routed with what is known, and the status says which rooms are not', async () => {
  await using homeserver = await Receiver.start(hang);
  await using ingress = await startIngress({ homeserverUrl: homeserver.url, roomWaitMs: 20 });
  await register(ingress, 'irc', "{users: [{regex: '@irc_.*', exclusive: true}]}");
  const ghost = { event_id: '$a', type: 'm.room.message', room_id: '!old:hs.test', sender: '@irc_bob:hs.test', content: {} };
  assert.equal((await ingress.client.put('1', { events: [ghost] })).status, 200);
  await ingress.receiver.until(() => ingress.receiver.taken('irc').includes('$a'));
  const { ingress: status } = await ingress.world.admin.call(AppserviceAdmin.method.listAppservices, {});
  assert.deepEqual([status?.unknownRooms, status?.unknownRoomIds], [1n, ['!old:hs.test']]);
  assert.ok(status?.lastTransactionTime !== undefined);
  assert.match(String((await ingress.client.request('GET', '/metrics')).body), /ingress_unknown_rooms\{server_name="hs.test"\} 1/);
  assert.match(JSON.stringify((await ingress.client.request('GET', '/readyz')).body), /"unknown_rooms":1/);
});

test('a homeserver that refuses a look-up, or that answers with what is no answer, loses nothing', async () => {
  for (const script of [answer(403, '{"errcode":"M_FORBIDDEN"}'), answer(429, '{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":100000}'), answer(401, '{"errcode":"M_UNKNOWN_TOKEN"}'), answer(200, '[]'), answer(200, 'no json'), answer(200, '{"joined":[]}'), answer(302, '', { location: 'http://127.0.0.1:1/' }), answer(502, '<h1>')]) {
    await using homeserver = await Receiver.start(script);
    await using ingress = await startIngress({ homeserverUrl: homeserver.url });
    await register(ingress, 'irc', "{users: [{regex: '@irc_.*', exclusive: true}]}");
    await ingress.client.put('1', { events: [message('$a', { sender: '@irc_bob:hs.test' })] });
    await ingress.receiver.until(() => ingress.receiver.taken('irc').includes('$a'));
  }
});

test('R40 what is seen of memberships while a look-up is under way counts more than what it finds, and known members stay', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc', { namespaces: { users: [{ regex: '@_irc_.*', exclusive: true }], aliases: [], rooms: [] } }));
  const take = (id: string, events: Parameters<typeof submission>[0]): Promise<unknown> => world.ledger.submit(submission(events, { ids: { events: events.map((event) => seenIdOf(`${id}${event.id}`)), others: undefined } }));
  const tell = (localMembers: readonly string[], partialBefore: Readonly<Record<string, boolean>>): Promise<unknown> =>
    world.ledger.submit({ stream: '', events: [], rooms: [{ roomId: '!r:hs.test', localMembers, localAliases: undefined, partialBefore }], bytes: 0 });
  await take('a', [member('$old', '@_irc_old:hs.test', 'join')]);
  const before = { '@_irc_old:hs.test': true };
  // Asked for here. Then one leaves and one comes, and the answer is from before that; of the one seen before it knows better.
  await take('b', [member('$gone', '@_irc_gone:hs.test', 'leave'), member('$new', '@_irc_new:hs.test', 'join')]);
  await tell(['@_irc_gone:hs.test', '@alice:hs.test'], before);
  const joined = [...world.fold.rooms.get('!r:hs.test').joinedUsers()];
  assert.deepEqual(joined.sort(), ['@_irc_new:hs.test', '@alice:hs.test']);
  await tell([], {});
  assert.deepEqual([...world.fold.rooms.get('!r:hs.test').joinedUsers()].sort(), joined);
  await take('c', [{ id: '$m' }]);
  assert.equal(routedIds(log, 'irc').at(-1), '$m');
});
