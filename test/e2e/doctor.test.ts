/** doctor against real set-ups: a sound one, and some that are broken on purpose in many ways at once. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MongoMemoryServer } from 'mongodb-memory-server-core';
import { cli } from '../support/cli.ts';
import { MONGODB_MISSING, startMongod } from '../support/mongod.ts';
import { findMongod } from '../support/mongod-binary.ts';
import { MongoTestDatabase } from '../store/mongo-world.ts';
import { answer, Receiver, unusedPort } from '../support/receiver.ts';
import { failedAttempt, put, RouterHome, submit } from '../support/router-home.ts';

interface Report {
  readonly checks: number;
  readonly findings: readonly { readonly code: string; readonly subject: string; readonly message: string }[];
}

/** Long enough, and to be found in no output. */
const SECRET = 'never-to-be-shown-anywhere';

function yaml(id: string, url: string | null, more: Readonly<Record<string, string>> = {}): string {
  const { asToken = `${SECRET}-as-${id}`, hsToken = `${SECRET}-hs-${id}`, sender = `_${id}_bot`, regex = `#${id}_.*:hs\\\\.test`, exclusive = 'true' } = more;
  return `id: ${id}
url: ${url}
as_token: ${asToken}
hs_token: ${hsToken}
sender_localpart: ${sender}
rate_limited: false
namespaces:
  rooms: [{ regex: "!.*", exclusive: false }]
  aliases: [{ regex: "${regex}", exclusive: ${exclusive} }]
`;
}

async function doctor(home: RouterHome, env: Readonly<Record<string, string>>, ...args: string[]): Promise<{ code: number | null; codes: string[]; report: Report; text: string }> {
  const { code, out, err } = await cli(['--json', ...args, 'doctor'], { cwd: home.dir, env });
  assert.equal(err, '');
  assert.doesNotMatch(out, new RegExp(SECRET));
  const report = JSON.parse(out) as Report;
  return { code, codes: report.findings.map((found) => found.code), report, text: out };
}

test('doctor finds nothing on a sound set-up and says how much it looked at', async () => {
  await using home = await RouterHome.make();
  await using receiver = await Receiver.start(answer(200));
  const router = await home.start();
  await put(router.client('admin'), yaml('irc', receiver.url).replace('"!.*"', '"!never:hs\\\\.test"'));
  await submit(router.client('homeserver'), 'one', 1);
  const env = { ROUTER_DATA_DIR: home.dir, ROUTER_ADDRESS: router.grpcAddress };
  const { code, report } = await doctor(home, env, '--http-address', router.httpAddress);
  assert.deepEqual([code, report.findings], [0, []]);
  assert.ok(report.checks >= 15);
  const { out } = await cli(['--http-address', router.httpAddress, 'doctor'], { cwd: home.dir, env });
  assert.equal(out, `✔ ${report.checks} checks found nothing wrong\n`);
});

test('doctor finds every fault of an embedded router that is broken in many ways, and its appservices too', async () => {
  await using home = await RouterHome.make();
  await using denying = await Receiver.start(answer(403, '{"errcode":"M_FORBIDDEN"}'));
  await using misplaced = await Receiver.start(answer(404, '<html></html>'));
  await using moved = await Receiver.start(answer(302, '', { location: 'http://127.0.0.1:1/' }));
  const router = await home.start({ ROUTER_BACKOFF_FIRST_MS: '3600000', ROUTER_BACKOFF_MAX_MS: '3600000' });
  const admin = router.client('admin');
  await put(admin, yaml('denying', denying.url));
  await put(admin, yaml('misplaced', misplaced.url));
  await put(admin, yaml('moved', moved.url));
  await put(admin, yaml('away', `http://127.0.0.1:${await unusedPort()}`, { regex: '#twice_.*:hs\\\\.test', sender: 'shared' }));
  await put(admin, yaml('rival', denying.url, { regex: '#twice_.*:hs\\\\.test', sender: 'shared' }));
  await put(admin, yaml('prefix', denying.url, { regex: '#twice_a' }));
  await cli(['pause', 'rival'], { cwd: home.dir, env: { ROUTER_DATA_DIR: home.dir, ROUTER_ADDRESS: router.grpcAddress } });
  await submit(router.client('homeserver'), 'one', 1);
  for (const id of ['prefix', 'denying', 'misplaced', 'moved', 'away']) await failedAttempt(router, id);

  mkdirSync(home.path('registrations'));
  const write = (name: string, text: string): void => writeFileSync(home.path('registrations', name), text);
  write('a.yaml', yaml('a', 'http://127.0.0.1:1', { regex: '#a_.*' }));
  write('b.yaml', yaml('a', 'http://127.0.0.1:1'));
  write('c.yaml', yaml('c', null, { hsToken: `${SECRET}-as-a` }));
  write('e.yaml', yaml('e', 'http://127.0.0.1:1', { regex: '#c_left.*' }));
  write('d.yaml', 'id: d\nurl: [not, a, url]\n');
  chmodSync(home.path('credentials.json'), 0o644);
  chmodSync(home.path('encryption.key'), 0o640);
  const env = { ROUTER_DATA_DIR: home.dir, ROUTER_SERVER_NAME: 'hs.test', ROUTER_ADDRESS: router.grpcAddress, ROUTER_REGISTRATIONS: `${home.path('registrations')},${home.path('none')}` };
  const { code, report } = await doctor(home, env, '--http-address', router.httpAddress);
  assert.equal(code, 5);
  const planted = [
    'CREDENTIALS_READABLE', 'ENCRYPTION_KEY_READABLE', 'REGISTRATION_PATH_LOST', 'REGISTRATION_FILE_INVALID', 'REGISTRATION_ID_TWICE', 'AS_TOKEN_TWICE',
    'HS_TOKEN_IS_AS_TOKEN', 'REGISTRATION_WITHOUT_TRAFFIC', 'PATTERN_WITHOUT_SERVER', 'EXCLUSIVE_OVERLAP', 'EXCLUSIVE_OVERLAP_IN_FORCE', 'SENDER_SHARED_IN_FORCE',
    'APPSERVICE_UNREACHABLE', 'HS_TOKEN_REFUSED', 'URL_WRONG', 'URL_REDIRECTS', 'PAUSED_WITH_BACKLOG',
  ];
  const found = new Set(report.findings.map((finding) => finding.code));
  assert.deepEqual(planted.filter((one) => !found.has(one)), []);
  const of = (wanted: string): string[] => report.findings.filter((finding) => finding.code === wanted).map(({ subject }) => subject);
  assert.deepEqual([of('APPSERVICE_UNREACHABLE'), of('URL_WRONG'), of('URL_REDIRECTS'), of('PAUSED_WITH_BACKLOG')], [['away'], ['misplaced'], ['moved'], ['rival']]);
  assert.deepEqual(of('HS_TOKEN_REFUSED').sort(), ['denying', 'prefix', 'rival']);
  assert.ok(of('EXCLUSIVE_OVERLAP_IN_FORCE').includes('rival') || of('EXCLUSIVE_OVERLAP_IN_FORCE').includes('away'), 'equal patterns');
  assert.ok(report.findings.some(({ code, message }) => code === 'EXCLUSIVE_OVERLAP_IN_FORCE' && message.includes('"#twice_a"') && message.includes('both match')), 'patterns that only overlap');
  assert.ok(of('EXCLUSIVE_OVERLAP').some((subject) => subject.endsWith('e.yaml')));
});

test('doctor needs no router and no sound configuration to say what is wrong', async () => {
  await using home = await RouterHome.make();
  const away = await doctor(home, { ROUTER_DATA_DIR: home.dir });
  assert.deepEqual([away.code, away.codes], [5, ['ROUTER_NOT_ASKED']]);
  const broken = await doctor(home, { ROUTER_DATA_DIR: home.dir, ROUTER_BACKOFF_FIRST_MS: 'soon', ROUTER_STORE: `mongodb://user:${SECRET}@h/x` });
  assert.deepEqual([broken.code, broken.codes.filter((code) => code === 'CONFIG_INVALID').length], [5, 1]);
  const open = await doctor(home, { ROUTER_DATA_DIR: home.dir, ROUTER_GRPC_LISTEN: '0.0.0.0:50051' });
  assert.ok(open.codes.includes('CREDENTIALS_MISSING'));
});

test('doctor tells a standalone MongoDB, one that is away, and indexes that are missing', async (context) => {
  await using set = await startMongod();
  const binary = await findMongod();
  if (set === null || binary === null) return context.skip(MONGODB_MISSING);
  await using home = await RouterHome.make();
  writeFileSync(home.path('key'), `${Buffer.alloc(32, 7).toString('base64')}\n`, { mode: 0o600 });
  const env = (uri: string): Record<string, string> => ({ ROUTER_DATA_DIR: home.dir, ROUTER_ENCRYPTION_KEY_FILE: home.path('key'), ROUTER_STORE: uri });
  const away = await doctor(home, env(`mongodb://user:${SECRET}@127.0.0.1:${await unusedPort()}/x?replicaSet=rs0`));
  assert.ok(away.codes.includes('MONGODB_UNREACHABLE'), away.text);

  const dbPath = mkdtempSync(join(tmpdir(), 'standalone-'));
  const standalone = await MongoMemoryServer.create({ binary: { systemBinary: binary.path, version: binary.version }, instance: { dbPath, storageEngine: 'wiredTiger', args: ['--wiredTigerCacheSizeGB', '0.25'] } });
  try {
    const { codes, text } = await doctor(home, env(standalone.getUri()));
    assert.ok(codes.includes('MONGODB_UNSUITABLE'), text);
    assert.match(text, /standalone.*rs\.initiate/);
  } finally {
    await standalone.stop({ doCleanup: false });
    rmSync(dbPath, { recursive: true });
  }

  await using database = new MongoTestDatabase(set.uri);
  const router = await home.start(env(database.uri));
  const sound = await doctor(home, { ...env(database.uri), ROUTER_ADDRESS: router.grpcAddress });
  assert.deepEqual(sound.codes, []);
  await database.collection('segments').dropIndex('routes_by_appservice');
  const { codes } = await doctor(home, { ...env(database.uri), ROUTER_ADDRESS: router.grpcAddress });
  assert.deepEqual(codes, ['MONGODB_INDEX_MISSING']);
});
