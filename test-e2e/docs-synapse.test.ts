// docs/synapse.md, followed to the letter: its blocks are run as they stand there, with other paths and another server name.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { unusedPort } from '../test/support/receiver.ts';
import { Heisenbridge } from './support/heisenbridge.ts';
import { Program } from './support/program.ts';
import { SERVER_NAME, Synapse } from './support/synapse.ts';
import { inWorld } from './support/world.ts';

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, '..');
const COMMAND_TIMEOUT_MS = 60_000;

/** The blocks of the section in this language, without the indentation of the list they stand in. */
function blocksOf(section: string, language: string): string[] {
  const page = readFileSync(join(ROOT, 'docs', 'synapse.md'), 'utf8');
  const text = page.split(/^## /m).find((part) => part.startsWith(`${section}\n`)) ?? '';
  return [...text.matchAll(/^( *)```(\w+)\n(.*?)^\1```$/gms)].filter(([, , found]) => found === language).map(([, indent = '', , block = '']) => block.replaceAll(new RegExp(`^${indent}`, 'gm'), ''));
}

test('docs/synapse.md: a new user who follows "Set up" to the letter talks to a bridge through the router', { timeout: 240_000 }, () =>
  inWorld(async ({ folder, python, use }) => {
    const etc = join(folder, 'etc');
    mkdirSync(etc);
    const synapse = use(await Synapse.configure(python, join(folder, 'synapse'), { registrations: [] }));
    const placed = (text: string): string => text.replaceAll('/etc/matrix-synapse', etc).replaceAll('hs.example', SERVER_NAME).replaceAll('http://127.0.0.1:8008', synapse.url).replace('chown -R matrix-synapse', `chown -R ${userInfo().username}`);
    const httpListen = `127.0.0.1:${await unusedPort()}`;
    const env = { ...process.env, ROUTER_DATA_DIR: join(folder, 'data'), ROUTER_HTTP_LISTEN: httpListen, ROUTER_GRPC_LISTEN: `127.0.0.1:${await unusedPort()}`, ROUTER_LOG_FORMAT: 'json', TMPDIR: folder };
    const inShell = async (block: string): Promise<string> => (await run('bash', ['-euc', placed(block)], { cwd: ROOT, env, timeout: COMMAND_TIMEOUT_MS })).stdout;
    const [version = '', setup = '', permissions = '', start = '', register = '', look = '', ...further] = blocksOf('Set up', 'sh');
    assert.deepEqual(further, [], 'every block is run');

    const bridge = use(await Heisenbridge.configure(python, join(folder, 'heisenbridge')));
    copyFileSync(bridge.registration, join(etc, 'heisenbridge.yaml'));
    assert.match(await inShell(version), /\d+\.\d+\.\d+/);
    await inShell(setup);
    await inShell(permissions);
    const router = use(Program.start({ name: 'npm start', command: 'bash', args: ['-euc', placed(start).replace(/npm start\n$/, 'exec npm start\n')], cwd: ROOT, env: { ...env, HOME: folder }, logFile: join(folder, 'router.log') }));
    await router.until('is ready', COMMAND_TIMEOUT_MS, async () => fetch(`http://${httpListen}/readyz`).then(({ ok }) => (ok ? (true as const) : null), () => null));
    assert.match(await inShell(register), /heisenbridge/);

    const [lines = ''] = blocksOf('Set up', 'yaml');
    const settings = parse(placed(lines)) as { app_service_config_files: string[] };
    assert.deepEqual(parse(readFileSync(join(etc, 'router', 'homeserver-lines.yaml'), 'utf8')), settings);
    synapse.reconfigure({ registrations: [], settings });
    await synapse.start();
    const alice = await synapse.register('alice');
    await bridge.start(synapse.url, alice.userId);
    const room = await alice.acceptInvite();
    await alice.ask(room, 'VERSION', /heisenbridge/i);
    const status = await inShell(look);
    assert.match(status, /heisenbridge +idle/i, status);
  }),
);
