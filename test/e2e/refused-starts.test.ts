import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { portOf } from '../support/receiver.ts';
import { put, registrationYaml, RouterHome, statusOf, submit } from '../support/router-home.ts';
import type { Environment } from '../support/router-home.ts';

/** No start may hold anybody up for longer. */
const LIMIT = { timeout: 30_000 };

/** The start ends with this code and this as its last words: 1 in the log, 2 for a configuration or command that is wrong. */
async function refused(home: RouterHome, code: 1 | 2, says: RegExp, env: Environment = {}, args?: readonly string[]): Promise<void> {
  const end = await home.startInVain(env, args);
  const told = end.errors.map(({ msg, error }) => [msg, error].join(' '));
  const [said, beside] = code === 1 ? [told.at(-1), end.text] : [end.text, told.join('')];
  assert.equal(end.code, code, JSON.stringify(end));
  assert.match(said ?? '', says);
  assert.equal(beside, '');
  assert.doesNotMatch(JSON.stringify(end), /\bat [\w.<>]+ \(|node:internal|hunter2/, 'a stack or a secret');
}

test('a start on a port that is taken says which and by which setting to choose another', LIMIT, async () => {
  await using home = await RouterHome.make();
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const address = `127.0.0.1:${portOf(other)}`;
  await refused(home, 1, new RegExp(`${address}: the port is taken.*ROUTER_GRPC_LISTEN`), { ROUTER_GRPC_LISTEN: address });
  await refused(home, 1, new RegExp(`${address}: the port is taken.*ROUTER_HTTP_LISTEN`), { ROUTER_HTTP_LISTEN: address });
  other.close();
});

test('a start with a listener off loopback and no credentials is refused, and creates none', LIMIT, async () => {
  await using home = await RouterHome.make();
  await refused(home, 1, /no credentials.*ROUTER_CREDENTIALS.*127\.0\.0\.1/, { ROUTER_HTTP_LISTEN: '0.0.0.0:0' });
  await refused(home, 1, /no credentials/, { ROUTER_GRPC_LISTEN: '[::]:0' });
  const router = await home.start();
  assert.ok(router.lines.some(({ file }) => file === home.path('credentials.json')), 'they are created now');
});

test('a slip in a flag or an environment name is refused with the name that was meant', LIMIT, async () => {
  await using home = await RouterHome.make();
  await refused(home, 2, /--grpc-listne is no setting; did you mean --grpc-listen\?/, {}, ['serve', '--grpc-listne', '127.0.0.1:0']);
  await refused(home, 2, /ROUTER_GRPC_LISTN is no setting; did you mean ROUTER_GRPC_LISTEN\?/, { ROUTER_GRPC_LISTN: '127.0.0.1:0' });
  await refused(home, 2, /ROUTER_PUSH_TIMEOUT_MS must be a whole number/, { ROUTER_PUSH_TIMEOUT_MS: 'soon' });
  await refused(home, 2, /unknown command .sevre.[^]*Did you mean serve/, {}, ['sevre']);
});

test('M10 a start with a store that cannot be used says what to change, without the password in its URI', LIMIT, async () => {
  await using home = await RouterHome.make();
  await refused(home, 2, /ROUTER_STORE must be sqlite:.*mongodb:\/\//, { ROUTER_STORE: 'postgres://user:hunter2@127.0.0.1/router' });
  await writeFile(home.path('text.db'), 'This is no database, but some text that somebody wrote into a file of this name. '.repeat(50));
  await refused(home, 1, /not a database.*ROUTER_STORE/, { ROUTER_STORE: `sqlite:${home.path('text.db')}` });
  await refused(home, 1, /cannot be made or written.*ROUTER_STORE/, { ROUTER_STORE: `sqlite:${home.path('text.db')}/router.db` });
  await refused(home, 2, /ROUTER_ENCRYPTION_KEY_FILE/, { ROUTER_STORE: 'mongodb://user:hunter2@127.0.0.1:1/router' });
  await writeFile(home.path('shared.key'), randomBytes(32).toString('base64'), { mode: 0o600 });
  const mongodb = { ROUTER_STORE: 'mongodb://user:hunter2@127.0.0.1:1/router', ROUTER_ENCRYPTION_KEY_FILE: home.path('shared.key') };
  await refused(home, 1, /no primary of the MongoDB replica set could be reached/, mongodb);
});

test('a start ends where the system cannot make the folder of the store, and where a data directory leads nowhere', { ...LIMIT, skip: process.platform !== 'linux' && 'needs /proc' }, async () => {
  await using home = await RouterHome.make();
  await refused(home, 1, /cannot be made or written by this user \(ENOENT\)/, { ROUTER_STORE: 'sqlite:/proc/nowhere/router.db' });
  await symlink(home.path('nowhere'), home.path('data'));
  await refused(home, 1, /credentials.*ENOENT/i, { ROUTER_DATA_DIR: home.path('data') });
  await mkdir(home.path('folder.db'));
  await refused(home, 1, /cannot be made or written by this user \(EISDIR\)/, { ROUTER_STORE: `sqlite:${home.path('folder.db')}` });
});

test('a second router on one SQLite file is refused, and the first goes on', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  const first = await home.start();
  await put(first.client('admin'), registrationYaml('irc', `${receiver.url}/irc`));
  await refused(home, 1, /router\.db .*another (router|process)/i);
  const { ids } = await submit(first.client('homeserver'), 'after', 3);
  await receiver.until(() => receiver.taken('irc').length === 3);
  assert.deepEqual(receiver.taken('irc'), ids);
});

test('M10 R65 a start with another encryption key is refused and says which key is missing; with the right one nothing is lost', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  receiver.answer = () => 'error';
  const first = await home.start();
  await put(first.client('admin'), registrationYaml('irc', `${receiver.url}/irc`));
  const { ids } = await submit(first.client('homeserver'), 'kept', 5);
  assert.equal(await first.terminate(), 0);
  await writeFile(home.path('other.key'), randomBytes(32).toString('base64'), { mode: 0o600 });
  await refused(home, 1, /appservice "irc" is sealed with the key \w+, and the encryption key file holds \w+/, { ROUTER_ENCRYPTION_KEY_FILE: home.path('other.key') });
  await writeFile(home.path('no.key'), 'not a key', { mode: 0o600 });
  await refused(home, 1, /no\.key/, { ROUTER_ENCRYPTION_KEY_FILE: home.path('no.key') });
  receiver.answer = () => 'ok';
  await home.start();
  await receiver.until(() => receiver.taken('irc').length === 5);
  assert.deepEqual(receiver.taken('irc'), ids);
});

test('a store that a newer release wrote is refused and stays as it is', LIMIT, async () => {
  await using home = await RouterHome.make();
  const first = await home.start();
  await put(first.client('admin'), registrationYaml('irc', 'http://127.0.0.1:1'));
  await first.terminate();
  const version = (set?: number): unknown => {
    using database = new DatabaseSync(home.path('router.db'));
    if (set !== undefined) database.exec(`PRAGMA user_version = ${set}`);
    return database.prepare('PRAGMA user_version').get()?.['user_version'];
  };
  const known = Number(version());
  version(known + 1);
  await refused(home, 1, new RegExp(`schema version ${known + 1}, written by a newer release`));
  assert.equal(version(known), known, 'nobody wrote another version');
  const again = await home.start();
  assert.equal((await statusOf(again.client('admin'), 'irc')).appserviceId, 'irc');
});
