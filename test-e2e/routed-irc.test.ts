// Synapse, the router, heisenbridge and an IRC server.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Heisenbridge } from './support/heisenbridge.ts';
import { IrcPerson, startIrcServer } from './support/irc.ts';
import { until } from './support/program.ts';
import { routedSynapse } from './support/routed-synapse.ts';
import { findNgircd, NGIRCD_MISSING } from './support/software.ts';
import { inWorld } from './support/world.ts';

const LIMIT = { timeout: 180_000 };
const ngircd = await findNgircd();

test('I1 I2 a message reaches IRC through the router and the answer comes back; what is said while the bridge hangs reaches IRC in order, and one that was killed takes its backlog and works again', { ...LIMIT, skip: ngircd === null && NGIRCD_MISSING }, () =>
  inWorld(async (world) => {
    assert.ok(ngircd !== null);
    const { folder, python, use } = world;
    const irc = use(await startIrcServer(ngircd, join(folder, 'irc')));
    const bridge = use(await Heisenbridge.configure(python, join(folder, 'heisenbridge')));
    const { router, synapse } = await routedSynapse(world, [bridge.registration]);
    const alice = await synapse.register('alice');
    await bridge.start(synapse.url, alice.userId);
    using bob = await IrcPerson.join(irc.port, 'bob', '#e2e');
    const { networkRoom } = await bridge.openNetwork(alice, irc.port);
    const room = await bridge.joinChannel(alice, networkRoom, '#e2e');
    await alice.say(room, 'hello irc');
    assert.deepEqual(await bob.message('hello irc'), { from: 'alice', target: '#e2e', text: 'hello irc' });
    bob.say('#e2e', 'hello matrix');
    assert.equal((await alice.message(room, 'hello matrix')).sender, '@irc_irctest_bob:hs.test');

    bridge.freeze();
    // It says things to IRC slowly, so as not to be taken for a flood.
    const said = Array.from({ length: 8 }, (_, at) => `while it hung ${at + 1}`);
    for (const text of said) await alice.say(room, text);
    await router.statusThat('heisenbridge', 'has a backlog', ({ backlogEntries }) => backlogEntries >= BigInt(said.length));
    bridge.thaw();
    await bob.message('while it hung 8');
    assert.deepEqual(bob.messages.map(({ text }) => text).filter((text) => text.startsWith('while')), said);

    await bridge.kill();
    const forBridge = Array.from({ length: 20 }, (_, at) => `while it was dead ${at + 1}`);
    for (const text of forBridge) await alice.say(room, text);
    await router.statusThat('heisenbridge', 'has a backlog', ({ backlogEntries }) => backlogEntries >= BigInt(forBridge.length));
    await bridge.start(synapse.url, alice.userId);
    await router.command(['retry', 'heisenbridge']);
    await router.statusThat('heisenbridge', 'has had everything', ({ backlogEntries }) => backlogEntries === 0n);
    await until('the bridge is back on IRC', 60_000, async () => {
      await alice.say(room, 'are you back?');
      await new Promise((resolve) => setTimeout(resolve, 500));
      return bob.messages.some(({ text }) => text === 'are you back?') ? true : null;
    });
  }),
);
