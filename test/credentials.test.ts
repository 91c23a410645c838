import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemRandom } from '../src/clock.ts';
import { loadCredentials } from '../src/credentials.ts';
import type { Credential, CredentialsLoading, CredentialsSource } from '../src/credentials.ts';

const root = await mkdtemp(join(tmpdir(), 'router-credentials-'));
after(() => rm(root, { recursive: true }));
let count = 0;
const HASH = 'a'.repeat(64);

function load(source: Partial<CredentialsSource>): Promise<CredentialsLoading> {
  return loadCredentials({ file: null, dataDir: join(root, `${++count}`), serverName: 'example.org', allLoopback: true, random: systemRandom, ...source });
}

async function loadText(text: string): Promise<CredentialsLoading> {
  const file = join(root, `${++count}.yaml`);
  await writeFile(file, text);
  return load({ file });
}

function loaded(loading: CredentialsLoading): readonly Credential[] {
  return loading.kind === 'loaded' ? loading.credentials : assert.fail(JSON.stringify(loading.problems));
}

function refused(loading: CredentialsLoading): string {
  return loading.kind === 'invalid' ? loading.problems.join('\n') : assert.fail('accepted');
}

function sha256(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

test('the credentials of a file are read, and a homeserver that names no server gets the default', async () => {
  const text = `- {name: hs, role: homeserver, token_sha256: ${HASH}}
- {name: other, role: homeserver, server_name: example.com, token_sha256: ${'b'.repeat(64)}}
- {name: op, role: admin, token_sha256: ${'c'.repeat(64)}}
- {name: look, role: monitor, server_name: example.com, token_sha256: "${'1'.repeat(64)}"}
`;
  assert.deepEqual(loaded(await loadText(text)), [
    { name: 'hs', role: 'homeserver', serverName: 'example.org', tokenSha256: HASH },
    { name: 'other', role: 'homeserver', serverName: 'example.com', tokenSha256: 'b'.repeat(64) },
    { name: 'op', role: 'admin', serverName: null, tokenSha256: 'c'.repeat(64) },
    { name: 'look', role: 'monitor', serverName: 'example.com', tokenSha256: '1'.repeat(64) },
  ]);
});

test('M10 I12 a file that cannot be used is refused by line, without showing hash or token', async () => {
  const cases: [string, RegExp][] = [
    ['', /empty/],
    ['name: hs\n', /line 1: Credentials are a list/],
    ['[]\n', /line 1: Credentials are a list/],
    ['- hs\n', /line 1: a credential is a mapping/],
    [`- {name: hs, role: root, token_sha256: ${HASH}}\n`, /line 1: role must be homeserver, admin or monitor/],
    [`- {name: hs, role: admin}\n`, /line 1: token_sha256 must be a string/],
    [`- {name: hs, role: admin, token_sha256: TOPSECRET}\n`, /line 1: token_sha256 must be 64 digits of lower-case hex/],
    [`- {name: hs, role: admin, token_sha256: ${HASH.toUpperCase()}}\n`, /lower-case hex/],
    [`- {name: hs, role: admin, token_sha256: ${'1'.repeat(64)}}\n`, /quote it/],
    [`- {name: hs, role: admin, token: TOPSECRET, token_sha256: ${HASH}}\n`, /only name, role, server_name and token_sha256 are known/],
    [`- {name: '', role: admin, token_sha256: ${HASH}}\n`, /name must have/],
    [`- {name: a, role: admin, token_sha256: ${HASH}}\n- {name: a, role: admin, token_sha256: ${'b'.repeat(64)}}\n`, /line 2: the name is that of the entry of line 1/],
    [`- {name: a, role: admin, token_sha256: ${HASH}}\n- {name: b, role: admin, token_sha256: ${HASH}}\n`, /line 2: the token is that of the entry of line 1/],
    ['- name: [\n', /line \d+, column \d+/],
  ];
  for (const [text, message] of cases) {
    const problem = refused(await loadText(text));
    assert.match(problem, message);
    assert.ok(!problem.includes('TOPSECRET') && !problem.includes(HASH));
  }
  assert.match(refused(await load({ file: join(root, 'nowhere.yaml') })), /cannot be read \(ENOENT\)\. Check ROUTER_CREDENTIALS/);
});

test('on loopback the first start makes two credentials for their owner alone, the next one uses them', async () => {
  const dataDir = join(root, 'fresh', 'data');
  const first = await load({ dataDir });
  const file = join(dataDir, 'credentials.json');
  assert.deepEqual(first.kind === 'loaded' && [first.createdFile, first.warnings], [file, []]);
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const tokens = JSON.parse(await readFile(file, 'utf8')) as { homeserver: string; admin: string };
  assert.deepEqual(Object.keys(tokens), ['homeserver', 'admin']);
  assert.notEqual(tokens.homeserver, tokens.admin);
  assert.deepEqual(loaded(first), [
    { name: 'homeserver', role: 'homeserver', serverName: 'example.org', tokenSha256: sha256(tokens.homeserver) },
    { name: 'admin', role: 'admin', serverName: null, tokenSha256: sha256(tokens.admin) },
  ]);
  assert.ok(!JSON.stringify(first).includes(tokens.admin));
  const second = await load({ dataDir });
  assert.deepEqual([loaded(second), second.kind === 'loaded' && second.createdFile], [loaded(first), null]);
  assert.deepEqual(await readdir(dataDir), ['credentials.json']);
});

test('starts that happen at once agree on the tokens', async () => {
  const dataDir = join(root, 'at-once');
  const all = await Promise.all(Array.from({ length: 6 }, () => load({ dataDir })));
  for (const one of all) assert.deepEqual(loaded(one), loaded(await load({ dataDir })));
  assert.equal(all.filter((one) => one.kind === 'loaded' && one.createdFile !== null).length, 1);
});

test('M10 a listener that others reach, without credentials, is refused with what to do, and nothing is written', async () => {
  const dataDir = join(root, 'exposed');
  assert.match(refused(await load({ dataDir, allLoopback: false })), /reached from other machines.*Name a file by ROUTER_CREDENTIALS.*127\.0\.0\.1/);
  await assert.rejects(stat(dataDir));
});

test('a damaged credentials.json is refused and left as it is', async () => {
  const dataDir = join(root, 'damaged');
  loaded(await load({ dataDir }));
  const file = join(dataDir, 'credentials.json');
  for (const text of ['', '{', '[]', '{"homeserver":"TOPSECRET"}', '{"homeserver":"","admin":""}']) {
    await writeFile(file, text);
    const problem = refused(await load({ dataDir }));
    assert.match(problem, /Delete it to have new ones made/);
    assert.ok(!problem.includes('TOPSECRET'));
    assert.equal(await readFile(file, 'utf8'), text);
  }
});

test('a credentials.json that others can open is warned of', async () => {
  const dataDir = join(root, 'open');
  loaded(await load({ dataDir }));
  await chmod(join(dataDir, 'credentials.json'), 0o644);
  const loading = await load({ dataDir });
  assert.match(loading.kind === 'loaded' ? loading.warnings.join() : '', /chmod 600/);
});

test('a data directory that cannot be made is refused with the reason', async () => {
  const file = join(root, 'a-file');
  await writeFile(file, '');
  assert.match(refused(await load({ dataDir: join(file, 'data') })), /cannot be created or read \(ENOTDIR\)/);
});
