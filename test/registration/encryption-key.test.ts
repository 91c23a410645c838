import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemRandom } from '../../src/clock.ts';
import { loadEncryptionKeys } from '../../src/registration/encryption-key.ts';
import type { EncryptionKeysLoading } from '../../src/registration/encryption-key.ts';

const root = await mkdtemp(join(tmpdir(), 'router-key-'));
after(() => rm(root, { recursive: true }));
let count = 0;

function load(path: string, mayCreate = false): Promise<EncryptionKeysLoading> {
  return loadEncryptionKeys({ path, mayCreate, random: systemRandom });
}

function fresh(): string {
  return join(root, `${++count}`, 'encryption.key');
}

async function written(text: string, mode: number): Promise<string> {
  const path = fresh();
  await mkdir(join(path, '..'));
  await writeFile(path, text);
  await chmod(path, mode);
  return path;
}

function idOf(loading: EncryptionKeysLoading): string | undefined {
  return loading.kind === 'loaded' ? loading.keys.sealing[0]?.id : assert.fail(loading.message);
}

test('the first use creates a key for its owner alone, the next one finds it', async () => {
  const path = fresh();
  const first = await load(path, true);
  assert.deepEqual(first.kind === 'loaded' && [first.created, first.warnings], [true, []]);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const second = await load(path, true);
  assert.deepEqual([idOf(second), second.kind === 'loaded' && second.created], [idOf(first), false]);
  assert.deepEqual(await readdir(join(path, '..')), ['encryption.key']);
  assert.notEqual(idOf(await load(fresh(), true)), idOf(first));
});

test('processes that create the key at once agree on one', async () => {
  const path = fresh();
  const ids = (await Promise.all(Array.from({ length: 8 }, () => load(path, true)))).map(idOf);
  assert.equal(new Set(ids).size, 1);
  assert.deepEqual(await readdir(join(path, '..')), ['encryption.key']);
});

test('where it may not create one, a missing key is refused with what to do and nothing is written', async () => {
  const path = fresh();
  const loading = await load(path);
  assert.match(loading.kind === 'invalid' ? loading.message : '', /no encryption key file .*openssl rand -base64 32.*the same on every router/);
  await assert.rejects(stat(path));
});

test('a key that others may write is refused, one that others may read is used with a warning', async () => {
  const text = Buffer.alloc(32, 7).toString('base64');
  const loose = await load(await written(text, 0o620));
  assert.match(loose.kind === 'invalid' ? loose.message : '', /may write.*chmod 600/);
  const open = await load(await written(text, 0o644));
  assert.match(open.kind === 'loaded' ? open.warnings.join() : '', /may read.*chmod 600/);
  const right = await load(await written(text, 0o400));
  assert.deepEqual(right.kind === 'loaded' && right.warnings, []);
});

test('I12 a file that holds no key is refused by line, without showing it', async () => {
  const loading = await load(await written('# a\nTOPSECRET\n', 0o600));
  assert.match(loading.kind === 'invalid' ? loading.message : '', /line 2 is no key of 32 bytes/);
  assert.ok(!JSON.stringify(loading).includes('TOPSECRET'));
  const large = await load(await written('#'.repeat(100_000), 0o600));
  assert.match(large.kind === 'invalid' ? large.message : '', /too large/);
  const directory = await load(root);
  assert.match(directory.kind === 'invalid' ? directory.message : '', /cannot be read \(EISDIR\)/);
});

test('a place where nothing can be created is refused with the reason', async () => {
  const file = await written('x', 0o600);
  const loading = await load(join(file, 'below', 'encryption.key'), true);
  assert.equal(loading.kind, 'invalid');
  assert.match(loading.kind === 'invalid' ? loading.message : '', /ENOTDIR/);
  assert.equal(await readFile(file, 'utf8'), 'x');
});
