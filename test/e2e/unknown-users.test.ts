/** Unknown users of submissions, through the whole router: who waits for whom, and what a kill leaves behind. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { after, test } from 'node:test';
import { MongoClient } from 'mongodb';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { MONGODB_MISSING, startMongod, testDatabaseName } from '../support/mongod.ts';
import { answer, hang, Receiver } from '../support/receiver.ts';
import type { ReceivedRequest } from '../support/receiver.ts';
import type { RouterClient } from '../support/router-client.ts';
import { put, RouterHome } from '../support/router-home.ts';
import type { Environment } from '../support/router-home.ts';
import { eventJson, member } from '../support/routing.ts';
import type { EventFields } from '../support/routing.ts';
import { startService } from '../support/service-world.ts';

const GHOST = '@irc_ghost/1:hs.test';
const LIMIT = { timeout: 30_000 };

function yaml(id: string, url: string): string {
  return `id: ${id}
url: ${url}
as_token: as-${id}-long-enough
hs_token: hs-${id}-long-enough
sender_localpart: _${id}_bot
namespaces:
  users: [{ exclusive: true, regex: '@${id}_.*:hs\\.test' }]
  rooms: [{ exclusive: false, regex: '!.*' }]
`;
}

/** An appservice that takes every transaction and answers queries as it is told. */
class Appservice implements AsyncDisposable {
  onQuery = hang;
  readonly held: (() => void)[] = [];
  readonly #receiver: Receiver;

  private constructor(receiver: Receiver) {
    this.#receiver = receiver;
  }

  static async start(): Promise<Appservice> {
    const made: { appservice?: Appservice } = {};
    const receiver = await Receiver.start((connection: Socket, request: ReceivedRequest) => {
      if (request.method === 'PUT') return answer(200)(connection, request);
      const { appservice } = made;
      appservice?.held.push(() => answer(200)(connection, request));
      appservice?.onQuery(connection, request);
    });
    return (made.appservice = new Appservice(receiver));
  }

  get url(): string {
    return this.#receiver.url;
  }

  get queries(): string[] {
    return this.#receiver.requests.filter(({ method }) => method === 'GET').map(({ target }) => target);
  }

  /** In the order in which they first came: a kill may have a transaction sent again (I6). */
  get eventIds(): string[] {
    const bodies = this.#receiver.requests.filter(({ method }) => method === 'PUT').map(({ body }) => JSON.parse(body.toString()) as { events: { event_id: string }[] });
    return [...new Set(bodies.flatMap(({ events }) => events.map(({ event_id: id }) => id)))];
  }

  until(holds: (appservice: this) => boolean): Promise<void> {
    return this.#receiver.until(() => holds(this));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#receiver[Symbol.asyncDispose]();
  }
}

function submit(homeserver: RouterClient, events: readonly EventFields[], firstPosition: number, unknownUserIds: string[] = []): Promise<unknown> {
  return homeserver.call(AppserviceRouter.method.submitEvents, { events: events.map((fields, at) => ({ json: eventJson(fields), streamPosition: BigInt(firstPosition + at) })), unknownUserIds });
}

const invite = (id: string, room: string): EventFields => ({ ...member(id, GHOST, 'invite', room), sender: '@alice:hs.test' });

test('M5 M8 R110 R114 R119 I8 a query that hangs holds up one room of one appservice, and neither the answer nor anything else', LIMIT, async () => {
  await using irc = await Appservice.start();
  await using xmpp = await Appservice.start();
  await using world = await startService({ settings: { queryTimeoutMs: 60_000, queryAttemptsMax: 1 } });
  for (const [id, { url }] of [['irc', irc], ['xmpp', xmpp]] as const) await put(world.admin, yaml(id, url));
  const provisioned: string[] = [];
  const watch = world.admin.watch(AppserviceAdmin.method.watchEvents, {});
  watch.on('error', () => undefined);
  watch.on('data', ({ event }) => {
    if (event.case === 'userProvisioned') provisioned.push(`${event.value.serviceId} ${event.value.userId}`);
  });
  await submit(world.homeserver, [invite('$1', '!a'), { id: '$2', room: '!a' }, { id: '$3', room: '!b' }], 1, [GHOST]);
  await irc.until(({ queries }) => queries.length === 1);
  await submit(world.homeserver, [{ id: '$4', room: '!a' }, { id: '$5', room: '!b' }], 4);
  // Everything else is there before the answer, so nothing of it waits for it.
  await xmpp.until(({ eventIds }) => eventIds.length === 5);
  await irc.until(({ eventIds }) => eventIds.length === 2);
  assert.deepEqual([xmpp.eventIds, irc.eventIds], [['$1', '$2', '$3', '$4', '$5'], ['$3', '$5']]);
  assert.deepEqual([irc.queries, xmpp.queries], [['/_matrix/app/v1/users/%40irc_ghost%2F1%3Ahs.test'], []]);

  irc.held[0]?.();
  await irc.until(({ eventIds }) => eventIds.length === 5);
  assert.deepEqual(irc.eventIds, ['$3', '$5', '$1', '$2', '$4']);
  await submit(world.homeserver, [invite('$6', '!c')], 6, [GHOST]);
  await irc.until(({ eventIds }) => eventIds.includes('$6'));
  assert.equal(irc.queries.length, 1, 'it has answered lately');
  while (provisioned.length === 0) await world.admin.call(AppserviceAdmin.method.getAppservice, { appserviceId: 'irc' });
  assert.deepEqual(provisioned, [`irc ${GHOST}`]);
  watch.cancel();
});

for (const [what, onQuery] of [['hangs for its whole time-out', hang], ['is answered with 404', answer(404)], ['fails', answer(500)], ['breaks off', (connection: Socket) => void connection.resetAndDestroy()]] as const) {
  test(`M5 R116 R117 a query that ${what} is followed by the events all the same, in order`, LIMIT, async () => {
    await using irc = await Appservice.start();
    irc.onQuery = onQuery;
    await using world = await startService({ settings: { queryTimeoutMs: 100, queryAttemptsMax: 2 } });
    await put(world.admin, yaml('irc', irc.url));
    await submit(world.homeserver, [invite('$1', '!a'), { id: '$2', room: '!a' }], 1, [GHOST]);
    await irc.until(({ eventIds }) => eventIds.length === 2);
    assert.deepEqual(irc.eventIds, ['$1', '$2']);
    assert.ok(irc.queries.length >= 1, 'it was asked before');
  });
}

test('M5 a request with unknown users that are none of this homeserver is refused whole', LIMIT, async () => {
  await using world = await startService();
  const refused = submit(world.homeserver, [invite('$1', '!a')], 1, [GHOST, '@x:other.test']);
  await assert.rejects(refused, /users of this homeserver/);
  assert.equal((await world.homeserver.call(AppserviceRouter.method.getStreamPosition, {})).streamPosition, 0n);
});

/** Killed while the appservice is asked, twice; then it answers. */
async function killWhileAsked(env: Environment): Promise<void> {
  await using irc = await Appservice.start();
  await using home = await RouterHome.make();
  const first = await home.start(env);
  await put(first.client('admin'), yaml('irc', irc.url));
  const events = [invite('$1', '!a'), { id: '$2', room: '!a' }, { id: '$3', room: '!b' }];
  await submit(first.client('homeserver'), events, 1, [GHOST]);
  await irc.until(({ queries, eventIds }) => queries.length === 1 && eventIds.includes('$3'));
  await first.kill();

  const second = await home.start(env);
  await irc.until(({ queries }) => queries.length === 2);
  // As a homeserver does that has lost an answer.
  await submit(second.client('homeserver'), [...events, { id: '$4', room: '!a' }], 1, [GHOST]);
  await second.kill();

  irc.onQuery = answer(200);
  const third = await home.start(env);
  await irc.until(({ eventIds }) => eventIds.length === 4);
  await submit(third.client('homeserver'), [{ id: '$5', room: '!a' }], 5);
  await irc.until(({ eventIds }) => eventIds.length === 5);
  assert.deepEqual(irc.eventIds, ['$3', '$1', '$2', '$4', '$5']);
  assert.equal(irc.queries.length, 3, 'asked again after each kill');
  assert.equal(await third.terminate(), 0);
}

test('M5 R65 I1 I2 a kill -9 between hold and release loses nothing and asks again (SQLite)', { timeout: 60_000 }, async () => {
  await killWhileAsked({ ROUTER_QUERY_TIMEOUT_MS: '60000' });
});

const mongod = await startMongod();
after(() => mongod?.stop());
test('M5 R65 I1 I2 a kill -9 between hold and release loses nothing and asks again (MongoDB)', { timeout: 90_000, skip: mongod === null && MONGODB_MISSING }, async () => {
  assert.ok(mongod !== null);
  const database = new URL(mongod.uri);
  database.pathname = `/${testDatabaseName()}`;
  await using keys = await RouterHome.make();
  await writeFile(keys.path('encryption.key'), `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
  try {
    await killWhileAsked({ ROUTER_QUERY_TIMEOUT_MS: '60000', ROUTER_STORE: database.href, ROUTER_ENCRYPTION_KEY_FILE: keys.path('encryption.key') });
  } finally {
    const client = new MongoClient(mongod.uri);
    await client.db(database.pathname.slice(1)).dropDatabase();
    await client.close();
  }
});
