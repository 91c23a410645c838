/** To-device messages and news of devices through the real doors, over outages, kills and restarts. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { after, test } from 'node:test';
import { MongoClient } from 'mongodb';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { MONGODB_MISSING, startMongod, testDatabaseName } from '../support/mongod.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import type { RouterClient } from '../support/router-client.ts';
import { errorOf } from '../support/router-client.ts';
import { put, RouterHome, statusOf } from '../support/router-home.ts';
import { eventJson, member } from '../support/routing.ts';
import { startService } from '../support/service-world.ts';

const { submitEvents, getStreamPosition, getDeliveredPositions } = AppserviceRouter.method;
const KEY = 'de.sorunome.msc2409.to_device';
const STREAM = 'to_device';
const COUNT = 150;

const yaml = (id: string, url: string, more: string): string => `id: ${id}
url: ${url}/${id}
as_token: as-${id}-long-enough
hs_token: hs-${id}-long-enough
sender_localpart: _${id}_bot
namespaces:
  users:
    - regex: "@_${id}_.*:hs\\\\.test"
      exclusive: true
${more}`;

interface Message {
  readonly type: string;
  readonly sender: string;
  readonly content: { readonly n: number };
  readonly to_user_id: string;
  readonly to_device_id: string;
}

const messageOf = (n: number): Message => ({ type: 'm.room_key', sender: '@alice:far.test', content: { n }, to_user_id: '@_crypt_ghost:hs.test', to_device_id: `D${n % 3}` });

function wireOf(n: number): { json: Uint8Array; toUserId: string; toDeviceId: string; streamPosition: bigint } {
  const { to_user_id: toUserId, to_device_id: toDeviceId, ...message } = messageOf(n);
  return { json: Buffer.from(JSON.stringify(message)), toUserId, toDeviceId, streamPosition: BigInt(n) };
}

/** The messages in the bodies that the appservice took, in order. */
function taken(receiver: RecordingReceiver): Message[] {
  return receiver.received.flatMap(({ body, answer }) => (answer === 'ok' ? ((body[KEY] ?? []) as Message[]) : []));
}

async function deliveredTo(homeserver: RouterClient, id: string, stream = STREAM): Promise<number> {
  const { positions } = await homeserver.call(getDeliveredPositions, { stream });
  return Number(positions.find(({ appserviceId }) => appserviceId === id)?.streamPosition ?? -1);
}

/** Asks until the answer is so; each answer before it is no greater. */
async function untilDelivered(homeserver: RouterClient, id: string, wanted: number): Promise<void> {
  for (;;) {
    const position = await deliveredTo(homeserver, id);
    assert.ok(position <= wanted, `${position} before ${wanted}`);
    if (position === wanted) return;
  }
}

/** Submits from where the router stands through message `last`, some at a time, each request once more. */
async function submitThrough(homeserver: RouterClient, last: number): Promise<void> {
  const { streamPosition } = await homeserver.call(getStreamPosition, { stream: STREAM });
  for (let next = Number(streamPosition) + 1; next <= last; next += 20) {
    const toDevice = Array.from({ length: Math.min(20, last - next + 1) }, (_, at) => wireOf(next + at));
    const answer = await homeserver.call(submitEvents, { stream: STREAM, toDevice });
    assert.deepEqual([answer.accepted, answer.routed, Number(answer.streamPosition)], [toDevice.length, toDevice.length, next + toDevice.length - 1]);
    const again = await homeserver.call(submitEvents, { stream: STREAM, toDevice });
    assert.deepEqual([again.accepted, again.duplicates], [0, toDevice.length]);
  }
}

async function outage(env: Readonly<Record<string, string>>): Promise<void> {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  receiver.answer = () => 'error';
  const first = await home.start(env);
  await put(first.client('admin'), yaml('crypt', receiver.url, 'receive_ephemeral: true\n'));
  await put(first.client('admin'), yaml('other', receiver.url, 'org.matrix.msc3202: true\n'));
  await submitThrough(first.client('homeserver'), 70);
  await receiver.until(() => receiver.received.length > 0);
  assert.deepEqual([await deliveredTo(first.client('homeserver'), 'crypt'), await deliveredTo(first.client('homeserver'), 'other')], [0, 70]);
  await first.kill();

  const second = await home.start(env);
  await submitThrough(second.client('homeserver'), COUNT);
  await receiver.until(() => receiver.received.length > 3);
  assert.equal(await deliveredTo(second.client('homeserver'), 'crypt'), 0);
  // The transaction in flight and one more are taken; then the appservice is away again.
  receiver.answer = () => (taken(receiver).length < 71 ? 'ok' : 'error');
  await receiver.until(() => taken(receiver).length >= 71);
  const partly = taken(receiver).length;
  assert.ok(partly < COUNT);
  await untilDelivered(second.client('homeserver'), 'crypt', partly);
  await second.kill();

  const third = await home.start(env);
  assert.equal(await deliveredTo(third.client('homeserver'), 'crypt'), partly);
  receiver.answer = () => 'ok';
  await receiver.until(() => taken(receiver).length >= COUNT);
  await untilDelivered(third.client('homeserver'), 'crypt', COUNT);
  assert.equal(await third.terminate(), 0);

  const fourth = await home.start(env);
  assert.deepEqual([await deliveredTo(fourth.client('homeserver'), 'crypt'), await deliveredTo(fourth.client('homeserver'), 'other')], [COUNT, COUNT]);
  assert.equal(Number((await statusOf(fourth.client('admin'), 'crypt')).backlogEntries), 0);
  assert.deepEqual(taken(receiver), Array.from({ length: COUNT }, (_, at) => messageOf(at + 1)));
  assert.deepEqual(receiver.violations('crypt', 0), []);
  assert.ok(receiver.received.every(({ body }) => ((body[KEY] ?? []) as unknown[]).length <= 100 && Array.isArray(body['events'])));
}

const WHAT = 'R72 R89 R90 R91 R92 M4 150 to-device messages to an appservice that is down arrive complete and in order after it is back, over kill -9';

test(`${WHAT} (SQLite)`, { timeout: 60_000 }, async () => {
  await outage({});
});

const mongod = await startMongod();
after(() => mongod?.stop());
test(`${WHAT} (MongoDB)`, { timeout: 90_000, skip: mongod === null && MONGODB_MISSING }, async () => {
  assert.ok(mongod !== null);
  const database = new URL(mongod.uri);
  database.pathname = `/${testDatabaseName()}`;
  await using keys = await RouterHome.make();
  await writeFile(keys.path('encryption.key'), `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
  try {
    await outage({ ROUTER_STORE: database.href, ROUTER_ENCRYPTION_KEY_FILE: keys.path('encryption.key') });
  } finally {
    const client = new MongoClient(mongod.uri);
    await client.db(database.pathname.slice(1)).dropDatabase();
    await client.close();
  }
});

test('R94 R95 R97 R98 R99 news of devices reach who asked for them, under the names of MSC3202, beside the event and the message that call for them', { timeout: 30_000 }, async () => {
  await using receiver = await RecordingReceiver.start();
  await using world = await startService();
  await put(world.admin, yaml('crypt', receiver.url, 'org.matrix.msc3202: true\n'));
  await put(world.admin, yaml('plain', receiver.url, 'receive_ephemeral: true\n'));
  const ghost = '@_crypt_ghost:hs.test';
  const answer = await world.homeserver.call(submitEvents, {
    events: [member('$1', ghost, 'join'), { id: '$2', type: 'm.room.encrypted' }, member('$3', '@_plain_ghost:hs.test', 'join')].map((fields) => ({ json: eventJson(fields) })),
    toDevice: [wireOf(7)].map((message) => ({ ...message, streamPosition: 0n })),
    deviceLists: [
      { userId: '@far:far.test', roomIds: ['!r:hs.test'] },
      { userId: '@gone:far.test', roomIds: ['!r:hs.test'] },
      { userId: '@gone:far.test', roomIds: ['!r:hs.test'], left: true },
    ],
    deviceKeys: [
      { userId: ghost, deviceId: 'FULL', oneTimeKeyCounts: { signed_curve25519: 50 }, unusedFallbackKeyTypes: ['signed_curve25519'] },
      { userId: ghost, deviceId: 'EMPTY' },
      { userId: '@_crypt_elsewhere:hs.test', deviceId: 'X', oneTimeKeyCounts: { signed_curve25519: 1 } },
    ],
  });
  assert.deepEqual([answer.accepted, answer.duplicates, answer.routed], [10, 0, 3 + 1 + 1 + 3]);
  await receiver.until(() => receiver.received.length >= 2);
  const bodies = new Map(receiver.received.map(({ appservice, body }) => [appservice, body]));
  assert.deepEqual(Object.keys(bodies.get('plain') ?? {}), ['events']);
  const { events, ...others } = bodies.get('crypt') ?? {};
  assert.ok(Array.isArray(events) && events.length === 3);
  assert.deepEqual(others, {
    [KEY]: [messageOf(7)],
    'org.matrix.msc3202.device_lists': { changed: ['@far:far.test'], left: ['@gone:far.test'] },
    'org.matrix.msc3202.device_one_time_keys_count': { [ghost]: { FULL: { signed_curve25519: 50 }, EMPTY: {} } },
    'org.matrix.msc3202.device_unused_fallback_key_types': { [ghost]: { FULL: ['signed_curve25519'], EMPTY: [] } },
  });
});

test('R89 a request with one message that is wrong is refused whole, at the field at fault', { timeout: 30_000 }, async () => {
  await using world = await startService();
  const refused = async (request: Parameters<typeof world.homeserver.call<typeof submitEvents.input, typeof submitEvents.output>>[1]): Promise<[string | undefined, string | undefined]> => {
    const { reason, field } = await world.homeserver.call(submitEvents, request).then(() => assert.fail('it is taken'), errorOf);
    return [reason, field];
  };
  const good = wireOf(1);
  assert.deepEqual(await refused({ events: [{ json: eventJson({ id: '$1' }) }], toDevice: [good, { ...good, toUserId: '' }] }), ['INVALID_FIELD', 'to_device[1].to_user_id']);
  assert.deepEqual(await refused({ toDevice: [{ ...good, streamPosition: -1n }] }), ['INVALID_FIELD', 'to_device[0].stream_position']);
  assert.deepEqual(await refused({ toDevice: [good], deviceKeys: [{ userId: '@a:b', deviceId: 'D', oneTimeKeyCounts: { k: -1 } }] }), ['INVALID_FIELD', 'device_keys[0].one_time_key_counts']);
  const many = Array.from({ length: 600 }, () => good);
  assert.deepEqual(await refused({ toDevice: many, deviceLists: many.map(() => ({ userId: '@a:b' })) }), ['INVALID_FIELD', 'to_device']);
  assert.equal((await world.homeserver.call(getStreamPosition, {})).streamPosition, 0n);
  assert.equal((await world.homeserver.call(submitEvents, { toDevice: Array.from({ length: 1_000 }, (_, at) => wireOf(at + 1)) })).accepted, 1_000);
});
