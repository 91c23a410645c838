// The real programs without the router between them: where these fail, nothing is said about the router.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Heisenbridge } from './support/heisenbridge.ts';
import { IrcPerson, startIrcServer } from './support/irc.ts';
import { MautrixAppservice } from './support/mautrix-appservice.ts';
import { findNgircd, NGIRCD_MISSING } from './support/software.ts';
import { Synapse } from './support/synapse.ts';
import { inWorld } from './support/world.ts';

const LIMIT = { timeout: 180_000 };
const ngircd = await findNgircd();

test('control: a bridge that Synapse feeds itself carries messages to IRC and back', { ...LIMIT, skip: ngircd === null && NGIRCD_MISSING }, () =>
  inWorld(async ({ folder, python, use }) => {
    assert.ok(ngircd !== null);
    const irc = use(await startIrcServer(ngircd, join(folder, 'irc')));
    const bridge = use(await Heisenbridge.configure(python, join(folder, 'heisenbridge')));
    const synapse = use(await Synapse.configure(python, join(folder, 'synapse'), { registrations: [bridge.registration] }));
    await synapse.start();
    const alice = await synapse.register('alice');
    await bridge.start(synapse.url, alice.userId);
    using bob = await IrcPerson.join(irc.port, 'bob', '#e2e');
    const { networkRoom } = await bridge.openNetwork(alice, irc.port);
    const room = await bridge.joinChannel(alice, networkRoom, '#e2e');
    await alice.say(room, 'hello irc');
    assert.deepEqual(await bob.message('hello irc'), { from: 'alice', target: '#e2e', text: 'hello irc' });
    bob.say('#e2e', 'hello matrix');
    assert.equal((await alice.message(room, 'hello matrix')).sender, '@irc_irctest_bob:hs.test');
  }),
);

test('control: an appservice on mautrix that Synapse asks itself creates ghosts and rooms', LIMIT, () =>
  inWorld(async ({ folder, python, use }) => {
    const appservice = use(await MautrixAppservice.configure(python, join(folder, 'mautrix')));
    const synapse = use(await Synapse.configure(python, join(folder, 'synapse'), { registrations: [appservice.registration] }));
    await synapse.start();
    const alice = await synapse.register('alice');
    await appservice.start(synapse.url);
    const room = await alice.createRoom();
    await alice.invite(room, '@ghost_one:hs.test');
    await alice.member(room, '@ghost_one:hs.test');
    await alice.join('#ghost_room:hs.test');
    assert.deepEqual(
      appservice.records().filter(({ kind }) => kind.endsWith('_query')),
      [
        { kind: 'user_query', id: '@ghost_one:hs.test' },
        { kind: 'alias_query', id: '#ghost_room:hs.test' },
      ],
    );
  }),
);
