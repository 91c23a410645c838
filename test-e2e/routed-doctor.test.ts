// What doctor learns of the set-up from a real Synapse.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse, stringify } from 'yaml';
import type { Json } from './support/matrix-client.ts';
import { MautrixAppservice } from './support/mautrix-appservice.ts';
import { routedSynapse } from './support/routed-synapse.ts';
import { inWorld } from './support/world.ts';

const FOUND_PROBLEMS = 5;

test('doctor finds nothing wrong with the set-up of docs/synapse.md, and tells a registration that Synapse lacks from a wrong token and a wrong url', { timeout: 240_000 }, () =>
  inWorld(async (world) => {
    const appservice = world.use(await MautrixAppservice.configure(world.python, join(world.folder, 'mautrix')));
    const { router, synapse } = await routedSynapse(world, [appservice.registration]);
    const alice = await synapse.register('alice');
    await appservice.start(synapse.url);
    const room = await alice.createRoom();
    await alice.invite(room, '@ghost_one:hs.test');
    await alice.member(room, '@ghost_one:hs.test');
    await alice.say(room, 'hello');
    await appservice.messages(1);
    assert.match(await router.command(['doctor']), /checks found nothing wrong/);

    const registration = join(world.folder, 'setup', 'synapse', 'appservice-router.yaml');
    const sound = parse(readFileSync(registration, 'utf8')) as Json;
    const codesWith = async (files: readonly string[], more: Json = {}): Promise<string[]> => {
      await synapse.stop();
      writeFileSync(registration, stringify({ ...sound, ...more }));
      synapse.reconfigure({ registrations: files });
      await synapse.start();
      const { findings } = JSON.parse(await router.command(['--json', 'doctor'], FOUND_PROBLEMS)) as { findings: readonly { readonly code: string }[] };
      return findings.map(({ code }) => code);
    };
    assert.deepEqual(await codesWith([]), ['CATCH_ALL_UNKNOWN']);
    assert.deepEqual(await codesWith([registration], { hs_token: 'another-hs-token' }), ['CATCH_ALL_HS_TOKEN_REFUSED']);
    assert.deepEqual(await codesWith([registration], { url: 'http://127.0.0.1:1' }), ['CATCH_ALL_URL_WRONG']);
    assert.deepEqual(await codesWith([registration], { url: null }), ['CATCH_ALL_URL_WRONG']);
  }),
);
