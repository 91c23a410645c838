// Synapse, the router and an appservice on mautrix: outages and crashes of each of the three.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { MatrixClient } from './support/matrix-client.ts';
import { MautrixAppservice } from './support/mautrix-appservice.ts';
import { until } from './support/program.ts';
import { putRouterBefore, routedSynapse } from './support/routed-synapse.ts';
import type { RoutedSynapse } from './support/routed-synapse.ts';
import { Synapse } from './support/synapse.ts';
import { inWorld } from './support/world.ts';
import type { World } from './support/world.ts';

const LIMIT = { timeout: 180_000 };
const BEGIN_TIMEOUT_MS = 60_000;

interface MautrixWorld extends RoutedSynapse {
  readonly appservice: MautrixAppservice;
  readonly alice: MatrixClient;
  /** With a ghost in it, so that all of it concerns the appservice. */
  readonly room: string;
}

async function mautrixWorld(world: World): Promise<MautrixWorld> {
  const appservice = world.use(await MautrixAppservice.configure(world.python, join(world.folder, 'mautrix')));
  const routed = await routedSynapse(world, [appservice.registration]);
  const alice = await routed.synapse.register('alice');
  await appservice.start(routed.synapse.url);
  const ghost = routed.synapse.as(appservice.asToken, '@ghost_one:hs.test');
  await ghost.request('POST', '/_matrix/client/v3/register', { type: 'm.login.application_service', username: 'ghost_one', inhibit_login: true });
  const room = await alice.createRoom();
  await alice.invite(room, ghost.userId);
  await alice.member(room, ghost.userId);
  return { ...routed, appservice, alice, room };
}

/** One after the other; the ids of the events. */
async function sayAll(person: MatrixClient, room: string, texts: readonly string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const text of texts) ids.push(await person.say(room, text));
  return ids;
}

const numbered = (name: string, count: number): string[] => Array.from({ length: count }, (_, at) => `${name} ${at + 1}`);

test('R62 R65 R69 an appservice that was killed for a while gets everything in order afterwards, in full transactions', LIMIT, () =>
  inWorld(async (world) => {
    const { appservice, alice, room, router, synapse } = await mautrixWorld(world);
    const before = await sayAll(alice, room, numbered('before', 3));
    await appservice.messages(3);
    await appservice.kill();
    const meanwhile = await sayAll(alice, room, numbered('meanwhile', 150));
    const { attempts } = await router.statusThat('mautrix', 'has a backlog', ({ backlogEntries }) => backlogEntries >= 150n);
    await appservice.start(synapse.url);
    await router.command(['retry', 'mautrix']);
    assert.deepEqual(await appservice.messages(153), [...before, ...meanwhile]);
    const after = await router.statusThat('mautrix', 'has had everything', ({ backlogEntries }) => backlogEntries === 0n);
    // The transaction that failed, one full one and the rest.
    assert.ok(after.attempts - attempts <= 4n, `${after.attempts - attempts} attempts`);
  }),
);

test('I1 I2 I6 a router killed with -9 in the middle of the traffic, three times, loses nothing, doubles nothing and keeps the order', LIMIT, () =>
  inWorld(async (world) => {
    const { appservice, alice, room, router } = await mautrixWorld(world);
    const ids: string[] = [];
    for (let round = 1; round <= 3; round++) {
      const talk = sayAll(alice, room, numbered(`round ${round}`, 40));
      await until('some of it has arrived', BEGIN_TIMEOUT_MS, () => (appservice.records().some(({ body }) => body?.startsWith(`round ${round}`) === true) ? true : null));
      await router.kill();
      await new Promise((resolve) => setTimeout(resolve, 300));
      await router.start();
      ids.push(...(await talk));
    }
    assert.deepEqual(await appservice.messages(120), ids);
  }),
);

test('R57 Synapse restarted, so that its txn ids begin again at 1, loses nothing and doubles nothing', LIMIT, () =>
  inWorld(async (world) => {
    const { appservice, alice, room, synapse, tap } = await mautrixWorld(world);
    const ids: string[] = [];
    for (let round = 1; round <= 3; round++) {
      ids.push(...(await sayAll(alice, room, numbered(`round ${round}`, 15))));
      await appservice.messages(ids.length);
      if (round === 3) break;
      assert.equal(await synapse.stop(), 0);
      await synapse.start();
    }
    assert.deepEqual(await appservice.messages(45), ids);
    const firsts = tap.transactions.filter(({ txnId }) => txnId === '1');
    assert.equal(firsts.length, 3, 'control: Synapse numbered its transactions from 1 each time');
  }),
);

test('I1 I2 what Synapse could not push before it was restarted arrives with the next traffic', LIMIT, () =>
  inWorld(async (world) => {
    const { appservice, alice, room, router, synapse } = await mautrixWorld(world);
    const before = await sayAll(alice, room, numbered('before', 3));
    await appservice.messages(3);
    assert.equal(await router.stop(), 0);
    const meanwhile = await sayAll(alice, room, numbered('meanwhile', 10));
    await synapse.hasQueued(meanwhile);
    await synapse.stop();
    await router.start();
    await synapse.start();
    assert.match(await router.command(['status']), /no transaction since the router started\n(?:.*\n)?.*what waits there comes with its next event in any room/);
    const next = await sayAll(alice, room, ['next']);
    assert.deepEqual(await appservice.messages(14), [...before, ...meanwhile, ...next]);
    assert.match(await router.command(['status']), /ingress: last transaction \S+ ago\n(?! +for)/);
  }),
);

test('I1 I2 R31 coming from Synapse alone: rooms from before are looked up, and what is said there from then on arrives once and in order', LIMIT, () =>
  inWorld(async (world) => {
    const appservice = world.use(await MautrixAppservice.configure(world.python, join(world.folder, 'mautrix')));
    const synapse = world.use(await Synapse.configure(world.python, join(world.folder, 'synapse'), { registrations: [appservice.registration] }));
    await synapse.start();
    const alice = await synapse.register('alice');
    await appservice.start(synapse.url);
    const withGhost = await alice.createRoom();
    await alice.invite(withGhost, '@ghost_one:hs.test');
    await alice.member(withGhost, '@ghost_one:hs.test');
    const withAlias = await alice.join('#ghost_room:hs.test');
    const without = await alice.createRoom();
    const before = [...(await sayAll(alice, withGhost, numbered('before', 3))), ...(await sayAll(alice, withAlias, numbered('before', 3)))];
    await appservice.messages(6);
    await synapse.stop();
    await putRouterBefore(synapse, world, [appservice.registration]);
    const after: string[] = [];
    for (const room of [withGhost, withAlias, without, withAlias, withGhost]) {
      const ids = await sayAll(alice, room, numbered('after', 3));
      if (room !== without) after.push(...ids);
    }
    assert.deepEqual(await appservice.messages(18), [...before, ...after]);
  }),
);

test('going back to Synapse alone: what the router still has and what Synapse sends itself from then on arrive once', LIMIT, () =>
  inWorld(async (world) => {
    const { appservice, alice, room, router, synapse } = await mautrixWorld(world);
    const routed = await sayAll(alice, room, numbered('routed', 5));
    await router.command(['pause', 'mautrix']);
    const waiting = await sayAll(alice, room, numbered('waiting', 5));
    await router.statusThat('mautrix', 'has a backlog', ({ backlogEntries }) => backlogEntries >= 5n);
    await synapse.stop();
    synapse.reconfigure({ registrations: [appservice.registration] });
    await router.command(['resume', 'mautrix']);
    await appservice.messages(10);
    await router.statusThat('mautrix', 'has had everything', ({ backlogEntries }) => backlogEntries === 0n);
    await router.stop();
    await synapse.start();
    const direct = await sayAll(alice, room, numbered('direct', 5));
    assert.deepEqual(await appservice.messages(15), [...routed, ...waiting, ...direct]);
  }),
);
