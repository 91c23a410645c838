// The snippets of docs/synapse.md for reverse proxies, in real ones: the bridges' ping goes to the router, everything else to Synapse.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { unusedPort } from '../test/support/receiver.ts';
import { blocksOf } from './support/docs-page.ts';
import { MatrixClient } from './support/matrix-client.ts';
import type { Json } from './support/matrix-client.ts';
import { MautrixAppservice } from './support/mautrix-appservice.ts';
import { Program } from './support/program.ts';
import { routedSynapse } from './support/routed-synapse.ts';
import { findCaddy, findNginx } from './support/software.ts';
import type { SystemProgram } from './support/software.ts';
import { inWorld } from './support/world.ts';

const run = promisify(execFile);
const START_TIMEOUT_MS = 20_000;

interface Proxy {
  readonly program: SystemProgram;
  readonly configuration: (snippet: string, port: number) => string;
  readonly check: (file: string) => readonly string[];
  readonly serve: (file: string) => readonly string[];
}

const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `  ${kind}_temp_path ${kind};\n`).join('');
const nginx = await findNginx();
const caddy = await findCaddy();
const PROXIES: Readonly<Record<string, Proxy | null>> = {
  nginx: nginx && {
    program: nginx,
    configuration: (snippet, port) => `daemon off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\n  access_log off;\n${temporary}  server {\n    listen 127.0.0.1:${port};\n${snippet}  }\n}\n`,
    check: (file) => ['-t', '-e', 'stderr', '-p', join(file, '..'), '-c', file],
    serve: (file) => ['-e', 'stderr', '-p', join(file, '..'), '-c', file],
  },
  Caddy: caddy && {
    program: caddy,
    configuration: (snippet, port) => `{\n  admin off\n  auto_https off\n}\nhttp://127.0.0.1:${port} {\n${snippet}}\n`,
    check: (file) => ['validate', '--config', file, '--adapter', 'caddyfile'],
    serve: (file) => ['run', '--config', file, '--adapter', 'caddyfile'],
  },
};

const ping = (client: MatrixClient): Promise<Json> => client.request('POST', '/_matrix/client/v1/appservice/mautrix/ping', { transaction_id: 'mine' });

test('R131 R137 docs/synapse.md: each reverse proxy snippet is accepted by its proxy and gives the ping to the router and the rest to Synapse', { timeout: 180_000 }, (t) =>
  inWorld(async (world) => {
    const [nginxSnippet = ''] = blocksOf('synapse.md', "The bridges' ping", 'nginx');
    const [caddySnippet = '', ...further] = blocksOf('synapse.md', "The bridges' ping", '');
    assert.deepEqual(further, []);
    const appservice = world.use(await MautrixAppservice.configure(world.python, join(world.folder, 'mautrix')));
    const { router, synapse } = await routedSynapse(world, [appservice.registration]);
    const alice = await synapse.register('alice');
    const room = await alice.createRoom();
    await synapse.as(appservice.asToken, '@mautrixbot:hs.test').join(room);
    const clients: MatrixClient[] = [];
    for (const [name, snippet] of Object.entries({ nginx: nginxSnippet, Caddy: caddySnippet })) {
      const proxy = PROXIES[name];
      if (proxy === null || proxy === undefined) {
        t.diagnostic(`NO ${name} COULD BE HAD: ITS SNIPPET WAS NOT TRIED`);
        continue;
      }
      const folder = join(world.folder, name);
      mkdirSync(folder);
      const file = join(folder, 'configuration');
      const port = await unusedPort();
      writeFileSync(file, proxy.configuration(snippet.replaceAll('127.0.0.1:8080', new URL(router.url).host).replaceAll('127.0.0.1:8008', new URL(synapse.url).host), port));
      const { path, env } = proxy.program;
      await run(path, [...proxy.check(file)], { cwd: folder, env: { HOME: folder, ...env } });
      const program = world.use(Program.start({ name, command: path, args: proxy.serve(file), cwd: folder, env, logFile: join(folder, `${name}.log`) }));
      const client = new MatrixClient(`http://127.0.0.1:${port}`, '', appservice.asToken);
      const answers = await program.until('answers', START_TIMEOUT_MS, () => client.request('GET', '/_matrix/client/v3/account/whoami').then(({ user_id: userId }) => userId, () => null));
      assert.equal(answers, '@mautrixbot:hs.test', 'Synapse answers');
      // Synapse would say M_URL_NOT_SET.
      await assert.rejects(ping(client), { status: 502, errcode: 'M_CONNECTION_FAILED' });
      clients.push(client);
    }
    await alice.say(room, 'before it started');
    await router.statusThat('mautrix', 'waits for a later attempt', ({ transaction }) => (transaction?.attemptCount ?? 0) >= 2);
    await appservice.start(synapse.url);
    for (const client of clients) assert.equal(typeof (await ping(client))['duration_ms'], 'number');
    if (clients.length > 0) assert.equal((await appservice.messages(1)).length, 1, 'the ping wakes the queue');
  }),
);
