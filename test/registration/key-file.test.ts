import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemRandom } from '../../src/clock.ts';
import { encryptionKeysFrom } from '../../src/registration/encryption-key.ts';
import type { EncryptionKeys } from '../../src/registration/encryption-key.ts';
import { KeyFile } from '../../src/registration/key-file.ts';
import { Vault } from '../../src/registration/vault.ts';
import { StoreError } from '../../src/store/errors.ts';
import { REGISTRATION } from './rules.ts';

const root = await mkdtemp(join(tmpdir(), 'router-key-file-'));
after(() => rm(root, { recursive: true }));
let count = 0;

const key = (fill: number): string => Buffer.alloc(32, fill).toString('base64');

function keysOf(text: string): EncryptionKeys {
  const keys = encryptionKeysFrom(text);
  return typeof keys === 'string' ? assert.fail(keys) : keys;
}

async function fileOf(text: string): Promise<{ path: string; open: () => KeyFile }> {
  const path = join(root, `${++count}`, 'encryption.key');
  await mkdir(join(path, '..'));
  await writeFile(path, text, { mode: 0o600 });
  return { path, open: () => new KeyFile({ path, random: systemRandom, keys: keysOf(text) }) };
}

const idsIn = async (path: string): Promise<string[]> => keysOf(await readFile(path, 'utf8')).sealing.map(({ id }) => id);

test('a new key comes first and those before stay, with their comments, for the owner alone', async () => {
  const { path, open } = await fileOf(`# keep\n\n${key(1)}\n# older\n${key(2)}\n`);
  const before = keysOf(await readFile(path, 'utf8'));
  const added = await open().addSealingKey();
  assert.ok(added.kind === 'added');
  const text = await readFile(path, 'utf8');
  assert.match(text, new RegExp(`^# keep\n\n(\\S+)\n${key(1).replaceAll('+', '\\+')}\n# older\n`));
  assert.deepEqual(added.keys, keysOf(text));
  assert.deepEqual(added.keys.sealing.slice(1), before.sealing);
  assert.equal(added.keys.lookup.id, before.lookup.id);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(join(path, '..')), ['encryption.key']);
});

test('a lookup line stays what it is, wherever it stands', async () => {
  const { path, open } = await fileOf(`lookup ${key(9)}\n${key(1)}`);
  assert.equal((await open().addSealingKey()).kind, 'added');
  const keys = keysOf(await readFile(path, 'utf8'));
  assert.deepEqual([keys.lookup.id, keys.sealing.length, keys.sealing[1]?.id], [keysOf(key(9)).lookup.id, 2, keysOf(key(1)).sealing[0]?.id]);
});

test('of several that add a key at once each adds its own or is told to ask again, and none is lost', async () => {
  const { path, open } = await fileOf(key(1));
  const added = await Promise.all(Array.from({ length: 6 }, () => open().addSealingKey()));
  const made = added.flatMap((one) => (one.kind === 'added' ? [one.keys.sealing[0]?.id] : []));
  const ids = await idsIn(path);
  assert.ok(made.length >= 1);
  for (const id of made) assert.ok(id !== undefined && ids.includes(id));
  assert.equal(ids.length, made.length + 1);
  for (const one of added) if (one.kind === 'refused') assert.match(one.message, /being changed by somebody else/);
});

test('a lock that was left behind is told with its name, and nothing is changed', async () => {
  const { path, open } = await fileOf(key(1));
  await writeFile(`${path}.lock`, '');
  const refused = await open().addSealingKey();
  assert.ok(refused.kind === 'refused' && refused.message.includes(`${path}.lock`));
  assert.equal(await readFile(path, 'utf8'), key(1));
});

test('a file that cannot be replaced, is full or has another lookup key is refused without a key in the message', async () => {
  const broken = await fileOf(key(1));
  await writeFile(broken.path, 'nonsense');
  const full = await fileOf(Array.from({ length: 100 }, (_, at) => key(at)).join('\n'));
  const other = await fileOf(key(1));
  await writeFile(other.path, `${key(1)}\n${key(2)}`);
  const missing = new KeyFile({ path: join(root, 'none', 'encryption.key'), random: systemRandom, keys: keysOf(key(1)) });
  for (const [file, message] of [[broken.open(), /cannot be used/], [full.open(), /as many keys as it may/], [other.open(), /another lookup key/], [missing, /cannot be replaced \(ENOENT\)/]] as const) {
    const refused = await file.addSealingKey();
    assert.ok(refused.kind === 'refused' && message.test(refused.message) && !refused.message.includes(key(1)), JSON.stringify(refused));
  }
});

test('a file behind a symbolic link is replaced where it is', async () => {
  const { path } = await fileOf(key(1));
  const link = join(root, `${++count}.key`);
  await symlink(path, link);
  assert.equal((await new KeyFile({ path: link, random: systemRandom, keys: keysOf(key(1)) }).addSealingKey()).kind, 'added');
  assert.equal((await idsIn(path)).length, 2);
});

test('what others put into the file is learnt once, and what cannot be used is left alone', async () => {
  const { path, open } = await fileOf(key(1));
  const file = open();
  assert.equal(file.reread()?.sealing.length, 1);
  assert.equal(file.reread(), null);
  await open().addSealingKey();
  assert.equal(file.reread()?.sealing.length, 2);
  assert.equal(file.reread(), null);
  await writeFile(path, 'nonsense');
  assert.equal(file.reread(), null);
  await writeFile(path, key(7));
  assert.equal(file.reread(), null);
  await rm(path);
  assert.equal(file.reread(), null);
});

test('M10 a vault learns a key when it meets it and before it seals; one that is nowhere stays unreadable', async () => {
  const { open } = await fileOf(key(1));
  const vaultOf = (file: KeyFile): Vault => new Vault(keysOf(key(1)), systemRandom, () => file.reread());
  const [one, other] = [vaultOf(open()), vaultOf(open())];
  const old = one.seal('hs', REGISTRATION, 'api');
  const rotating = open();
  const added = await rotating.addSealingKey();
  assert.ok(added.kind === 'added');
  const anew = one.seal('hs', REGISTRATION, 'api');
  assert.deepEqual(one.sealedWith(anew), [added.keys.sealing[0]?.id]);
  assert.deepEqual([one.isSealedAnew(anew), one.isSealedAnew(old), other.isSealedAnew(anew)], [true, false, false]);
  assert.deepEqual(other.open('hs', REGISTRATION.id, anew), REGISTRATION);
  assert.deepEqual(other.open('hs', REGISTRATION.id, old), REGISTRATION);
  assert.equal(other.sealingKeyId, one.sealingKeyId);
  assert.equal(one.tokenHash('token'), vaultOf(open()).tokenHash('token'));
  const stranger = new Vault(keysOf(key(1)), systemRandom);
  assert.throws(() => stranger.open('hs', REGISTRATION.id, anew), (error) => error instanceof StoreError && error.kind === 'unreadable');
});
