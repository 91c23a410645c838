// docs/synapse.md, followed to the letter: its blocks are run as they stand there, with other paths and another server name.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { parse, stringify } from 'yaml';
import { unusedPort } from '../test/support/receiver.ts';
import { blocksOf, sectionOf } from './support/docs-page.ts';
import { Heisenbridge } from './support/heisenbridge.ts';
import type { Json } from './support/matrix-client.ts';
import { Program } from './support/program.ts';
import { SERVER_NAME, Synapse } from './support/synapse.ts';
import { inWorld } from './support/world.ts';

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, '..');
const COMMAND_TIMEOUT_MS = 60_000;

test('docs/synapse.md: a new user who follows "Set up" and then "Going back" to the letter talks to a bridge through the router, and then without it', { timeout: 280_000 }, () =>
  inWorld(async ({ folder, python, use }) => {
    const etc = join(folder, 'etc');
    mkdirSync(etc);
    const synapse = use(await Synapse.configure(python, join(folder, 'synapse'), { registrations: [] }));
    const placed = (text: string): string => text.replaceAll('/etc/matrix-synapse', etc).replaceAll('hs.example', SERVER_NAME).replaceAll('http://127.0.0.1:8008', synapse.url).replace('chown -R matrix-synapse', `chown -R ${userInfo().username}`);
    const httpListen = `127.0.0.1:${await unusedPort()}`;
    const env = { ...process.env, ROUTER_DATA_DIR: join(folder, 'data'), ROUTER_HTTP_LISTEN: httpListen, ROUTER_GRPC_LISTEN: `127.0.0.1:${await unusedPort()}`, ROUTER_LOG_FORMAT: 'json', TMPDIR: folder };
    const inShell = async (block: string): Promise<string> => (await run('bash', ['-euc', placed(block)], { cwd: ROOT, env, timeout: COMMAND_TIMEOUT_MS })).stdout;
    const [version = '', setup = '', permissions = '', start = '', register = '', look = '', ...further] = blocksOf('synapse.md', 'Set up', 'sh');
    assert.deepEqual(further, [], 'every block is run');

    const bridge = use(await Heisenbridge.configure(python, join(folder, 'heisenbridge')));
    copyFileSync(bridge.registration, join(etc, 'heisenbridge.yaml'));
    assert.match(await inShell(version), /\d+\.\d+\.\d+/);
    await inShell(setup);
    await inShell(permissions);
    const router = use(Program.start({ name: 'npm start', command: 'bash', args: ['-euc', placed(start).replace(/npm start\n$/, 'exec npm start\n')], cwd: ROOT, env: { ...env, HOME: folder }, logFile: join(folder, 'router.log') }));
    await router.until('is ready', COMMAND_TIMEOUT_MS, async () => fetch(`http://${httpListen}/readyz`).then(({ ok }) => (ok ? (true as const) : null), () => null));
    assert.match(await inShell(register), /heisenbridge/);

    const [lines = ''] = blocksOf('synapse.md', 'Set up', 'yaml');
    const settings = parse(placed(lines)) as { app_service_config_files: string[] };
    assert.deepEqual(parse(readFileSync(join(etc, 'router', 'homeserver-lines.yaml'), 'utf8')), settings);
    synapse.reconfigure({ registrations: [], settings });
    await synapse.start();
    const alice = await synapse.register('alice');
    await bridge.start(synapse.url, alice.userId);
    const room = await alice.acceptInvite();
    await alice.ask(room, 'VERSION', /heisenbridge/i);
    const status = await inShell(look);
    assert.match(status, /heisenbridge +idle .*checks found nothing wrong/is, status);
    assert.match(status, /ingress: last transaction/);

    // A new bridge later: the same again.
    writeFileSync(join(etc, 'second.yaml'), stringify({ ...(parse(readFileSync(bridge.registration, 'utf8')) as Json), id: 'second', url: 'http://127.0.0.1:1', as_token: 'as-second-long-enough', hs_token: 'hs-second-long-enough', sender_localpart: 'second', namespaces: { users: [{ regex: '@second_.*', exclusive: true }] } }));
    const tokens = readFileSync(join(etc, 'router', 'ingress-tokens.json'), 'utf8');
    await inShell(`${setup.trimEnd()} /etc/matrix-synapse/second.yaml`);
    await inShell(register.replaceAll('heisenbridge.yaml', 'second.yaml'));
    assert.equal(readFileSync(join(etc, 'router', 'ingress-tokens.json'), 'utf8'), tokens);
    await synapse.stop();
    synapse.reconfigure({ registrations: [], settings: parse(readFileSync(join(etc, 'router', 'homeserver-lines.yaml'), 'utf8')) as Json });
    await synapse.start();
    await alice.ask(room, 'VERSION', /heisenbridge/i);
    assert.equal((await synapse.as('as-second-long-enough', '@second:hs.test').request('GET', '/_matrix/client/v3/account/whoami'))['user_id'], '@second:hs.test');

    // Going back, with the one command that it has.
    await synapse.stop();
    const [command = '', ...more] = [...sectionOf('synapse.md', 'Going back').matchAll(/`(npm [^`]+)`/g)].map(([, found = '']) => found);
    assert.deepEqual(more, [], 'every command is run');
    assert.match(await inShell(command), /heisenbridge +idle +0 /);
    synapse.reconfigure({ registrations: [join(etc, 'heisenbridge.yaml')] });
    assert.equal(await router.stop(), 0);
    await synapse.start();
    await alice.ask(room, 'VERSION', /heisenbridge/i);
  }),
);
