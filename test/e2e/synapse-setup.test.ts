import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';
import { cli } from '../support/cli.ts';
import { IngressClient } from '../support/ingress-world.ts';
import { RouterHome } from '../support/router-home.ts';

const IRC = `id: irc
# where the bridge listens
url: "http://127.0.0.1:9999"   # loopback
as_token: as-irc-long-enough
hs_token: hs-irc-long-enough
sender_localpart: ircbot
namespaces:
  users:
    - {exclusive: true, regex: "@irc_.*:hs\\\\.test"}
protocols: [irc]
org.matrix.msc3202: true
`;

test('synapse-setup writes registrations that Synapse takes, and a token file with which the router serves it', async () => {
  await using home = await RouterHome.make();
  writeFileSync(home.path('irc.yaml'), IRC);
  const run = (...more: readonly string[]): ReturnType<typeof cli> => cli(['--server-name', 'hs.test', 'synapse-setup', 'out', 'irc.yaml', '--router-url', 'http://router:8080', ...more], { cwd: home.dir });
  const first = await run();
  assert.equal(first.code, 0, first.err);
  const tokens = JSON.parse(readFileSync(home.path('out', 'ingress-tokens.json'), 'utf8')) as Record<string, string>;
  assert.ok(first.out.includes(`hs_token ${tokens['hs_token']}`) && first.out.includes(`as_token ${tokens['as_token']}`));
  const read = (name: string): unknown => parse(readFileSync(home.path('out', name), 'utf8'));
  const everything = (sigil: string): unknown => [{ exclusive: false, regex: `${sigil}.*` }];
  assert.deepEqual(read('synapse/appservice-router.yaml'), {
    id: 'appservice-router',
    url: 'http://router:8080',
    as_token: tokens['as_token'],
    hs_token: tokens['hs_token'],
    sender_localpart: 'appservice-router',
    rate_limited: false,
    receive_ephemeral: true,
    'de.sorunome.msc2409.push_ephemeral': true,
    'org.matrix.msc3202': true,
    namespaces: { users: everything('@'), aliases: everything('#'), rooms: everything('!') },
    protocols: ['irc'],
  });
  assert.equal(readFileSync(home.path('out', 'synapse', 'irc.yaml'), 'utf8'), IRC.replace(/^url: .*$/m, 'url: null'));
  assert.deepEqual(read('homeserver-lines.yaml'), {
    app_service_config_files: [home.path('out', 'synapse', 'appservice-router.yaml'), home.path('out', 'synapse', 'irc.yaml')],
    experimental_features: { msc2409_to_device_messages_enabled: true, msc3202_device_masquerading: true, msc3202_transaction_extensions: true },
  });
  for (const name of ['ingress-tokens.json', 'homeserver-lines.yaml', 'synapse/appservice-router.yaml', 'synapse/irc.yaml']) assert.equal(statSync(home.path('out', name)).mode & 0o777, 0o600, name);
  const again = await run();
  assert.equal(again.code, 0);
  assert.doesNotMatch(again.out, new RegExp(`${tokens['hs_token']}|${tokens['as_token']}`));
  assert.deepEqual(JSON.parse(readFileSync(home.path('out', 'ingress-tokens.json'), 'utf8')), tokens);
  const router = await home.start({ ROUTER_INGRESS_TOKEN_FILE: home.path('out', 'ingress-tokens.json') });
  const client = new IngressClient(router.httpAddress);
  assert.deepEqual(await client.request('PUT', '/_matrix/app/v1/transactions/1', '{"events":[]}', { authorization: `Bearer ${tokens['hs_token']}` }), { status: 200, body: {} });
});

test('synapse-setup writes nothing if a registration is wrong, missing, twice the same or named like the router', async () => {
  await using home = await RouterHome.make();
  writeFileSync(home.path('irc.yaml'), IRC);
  writeFileSync(home.path('IRC2.yaml'), IRC.replace('id: irc', 'id: IRC'));
  writeFileSync(home.path('bad.yaml'), IRC.replace('sender_localpart: ircbot', 'sender_localpart: 7'));
  writeFileSync(home.path('own.yaml'), IRC.replace('id: irc', 'id: appservice-router'));
  const { code, err } = await cli(['--server-name', 'hs.test', 'synapse-setup', 'out', 'irc.yaml', 'IRC2.yaml', 'bad.yaml', 'own.yaml', 'none.yaml'], { cwd: home.dir });
  assert.equal(code, 1);
  for (const part of [/IRC2\.yaml has the id of irc\.yaml/, /bad\.yaml, line 6, sender_localpart/, /own\.yaml has the id "appservice-router"/, /none\.yaml cannot be read \(ENOENT\)/]) assert.match(err, part);
  assert.equal(statSync(home.path('out'), { throwIfNoEntry: false }), undefined);
});

test('R3 a registration whose url cannot be taken out line by line is written as the same in JSON', async () => {
  await using home = await RouterHome.make();
  writeFileSync(home.path('flow.yaml'), `{id: irc, url: "http://127.0.0.1:1", as_token: as-irc-long-enough, hs_token: hs-irc-long-enough, sender_localpart: ircbot, namespaces: {}}\n`);
  writeFileSync(home.path('folded.yaml'), IRC.replace('id: irc', 'id: two').replace(/^url: .*$/m, 'url: >-\n  http://127.0.0.1:1'));
  assert.equal((await cli(['--server-name', 'hs.test', 'synapse-setup', 'out', 'flow.yaml', 'folded.yaml'], { cwd: home.dir })).code, 0);
  for (const id of ['irc', 'two']) {
    const written = parse(readFileSync(home.path('out', 'synapse', `${id}.yaml`), 'utf8')) as Record<string, unknown>;
    assert.deepEqual([written['id'], written['url'], written['hs_token']], [id, null, 'hs-irc-long-enough']);
  }
});
