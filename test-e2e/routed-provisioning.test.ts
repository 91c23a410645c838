// Synapse, the router and an appservice on mautrix that creates what it is asked for.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { MatrixClient } from './support/matrix-client.ts';
import type { Json } from './support/matrix-client.ts';
import { MautrixAppservice } from './support/mautrix-appservice.ts';
import { routedSynapse } from './support/routed-synapse.ts';
import { inWorld } from './support/world.ts';

const LIMIT = { timeout: 180_000 };

test('R110 R112 R114 inviting a ghost that is not registered creates it, joining an alias that does not exist creates the room, and both are told of what happens', LIMIT, () =>
  inWorld(async (world) => {
    const appservice = world.use(await MautrixAppservice.configure(world.python, join(world.folder, 'mautrix')));
    const { synapse } = await routedSynapse(world, [appservice.registration]);
    const alice = await synapse.register('alice');
    await appservice.start(synapse.url);
    const room = await alice.createRoom();
    await alice.invite(room, '@ghost_one:hs.test');
    await alice.member(room, '@ghost_one:hs.test');
    const created = await alice.join('#ghost_room:hs.test');
    assert.deepEqual(
      appservice.records().filter(({ kind }) => kind.endsWith('_query')),
      [
        { kind: 'user_query', id: '@ghost_one:hs.test' },
        { kind: 'alias_query', id: '#ghost_room:hs.test' },
      ],
    );
    const said = [await alice.say(room, 'to the ghost'), await alice.say(created, 'in the room')];
    assert.deepEqual(await appservice.messages(2), said);
    await assert.rejects(alice.join('#nobodys:hs.test'), { status: 404, errcode: 'M_NOT_FOUND' });
    await assert.rejects(alice.request('PUT', `/_matrix/client/v3/directory/room/${encodeURIComponent('#ghost_mine:hs.test')}`, { room_id: room }), { status: 400, errcode: 'M_EXCLUSIVE' });
  }),
);

test("R131 R137 the bridges' ping, which Synapse cannot answer any more, is answered by the router and has the queue tried at once", LIMIT, () =>
  inWorld(async (world) => {
    const appservice = world.use(await MautrixAppservice.configure(world.python, join(world.folder, 'mautrix')));
    const { router, synapse } = await routedSynapse(world, [appservice.registration]);
    const alice = await synapse.register('alice');
    const room = await alice.createRoom({ room_alias_name: 'e2e' });
    const pingAt = (url: string): Promise<Json> => new MatrixClient(url, '', appservice.asToken).request('POST', '/_matrix/client/v1/appservice/mautrix/ping', {});
    await assert.rejects(pingAt(synapse.url), { status: 400, errcode: 'M_URL_NOT_SET' }, 'control');
    await assert.rejects(pingAt(router.url), { status: 502, errcode: 'M_CONNECTION_FAILED' });

    await synapse.as(appservice.asToken, '@mautrixbot:hs.test').join(room);
    await alice.say(room, 'before it started');
    await router.statusThat('mautrix', 'waits for a later attempt', ({ transaction }) => (transaction?.attemptCount ?? 0) >= 2);
    await appservice.start(synapse.url);
    assert.equal(typeof (await pingAt(router.url))['duration_ms'], 'number');
    assert.equal((await appservice.messages(1)).length, 1);
  }),
);
