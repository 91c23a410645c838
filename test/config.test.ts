import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { loadConfig } from '../src/config.ts';
import type { Config, ConfigInput } from '../src/config.ts';
import { configJsonSchema, configurationPage, settingsHelp } from '../src/config-page.ts';
import { isLoopbackListen, SETTINGS, storeLabel } from '../src/config-schema.ts';
import { editDistance, nearestName } from '../src/nearest-name.ts';

const root = await mkdtemp(join(tmpdir(), 'router-config-'));
after(() => rm(root, { recursive: true }));
let count = 0;

async function fileOf(text: string): Promise<string> {
  const path = join(root, `${++count}.yaml`);
  await writeFile(path, text);
  return path;
}

function load(argv: readonly string[], env: Record<string, string> = {}, more: Partial<ConfigInput> = {}): Config {
  const loading = loadConfig({ argv, env, ...more });
  return loading.kind === 'ok' ? loading.config : assert.fail(JSON.stringify(loading));
}

function problems(argv: readonly string[], env: Record<string, string> = {}): readonly string[] {
  const loading = loadConfig({ argv, env });
  return loading.kind === 'invalid' ? loading.problems : assert.fail(JSON.stringify(loading));
}

const DEFAULTS: Config = {
  serverName: 'localhost',
  grpcListen: '127.0.0.1:50051',
  httpListen: '127.0.0.1:8080',
  dataDir: 'data',
  store: { kind: 'sqlite', path: 'data/router.db' },
  registrations: [],
  credentials: null,
  encryptionKeyFile: 'data/encryption.key',
  ingressTokenFile: null,
  homeserverUrl: null,
  homeserverTimeoutMs: 5_000,
  roomWaitMs: 2_000,
  logLevel: 'info',
  logFormat: 'json',
  rateLimitedDefault: true,
  pushTimeoutMs: 60_000,
  queryTimeoutMs: 5_000,
  queryAttemptsMax: 3,
  pingTimeoutMs: 10_000,
  escalationWindowMs: 300_000,
  backoffFirstMs: 2_000,
  backoffMaxMs: 512_000,
  transactionEventsMax: 100,
  transactionEphemeralMax: 100,
  transactionToDeviceMax: 100,
  ephemeralAgeMaxMs: 300_000,
  transactionBytesMax: 1_000_000,
  outboundPolicy: 'default',
  outboundAllow: [],
  workers: 1,
  logRetentionMs: 0,
};

test('M3 R15 R70 R75 with nothing given, the defaults of the contract hold', () => {
  assert.deepEqual(load([]), DEFAULTS);
  assert.equal(load([], {}, { isTerminal: true }).logFormat, 'pretty');
});

test('what lives in the data directory follows it', () => {
  const config = load(['--data-dir', '/var/lib/router']);
  assert.deepEqual([config.store, config.encryptionKeyFile], [{ kind: 'sqlite', path: '/var/lib/router/router.db' }, '/var/lib/router/encryption.key']);
});

test('a flag goes before the environment, that before the file, that before the default', async () => {
  const file = await fileOf('push_timeout_ms: 11000\nquery_timeout_ms: 12000\nping_timeout_ms: 13000\nrate_limited_default: false\n');
  const loading = loadConfig({ argv: ['--config', file, '--push-timeout-ms=31000'], env: { ROUTER_PUSH_TIMEOUT_MS: '21000', ROUTER_QUERY_TIMEOUT_MS: '22000' } });
  assert.ok(loading.kind === 'ok');
  const { pushTimeoutMs, queryTimeoutMs, pingTimeoutMs, backoffFirstMs, rateLimitedDefault } = loading.config;
  assert.deepEqual([pushTimeoutMs, queryTimeoutMs, pingTimeoutMs, backoffFirstMs, rateLimitedDefault], [31_000, 22_000, 13_000, 2_000, false]);
  assert.deepEqual(Object.fromEntries(loading.sources), { pushTimeoutMs: 'flag', queryTimeoutMs: 'environment', pingTimeoutMs: 'file', rateLimitedDefault: 'file' });
});

test('every setting can be given in each of the three ways, with the same effect', async () => {
  const texts: Record<string, string> = {
    serverName: 'example.org:8448', grpcListen: '[::1]:0', httpListen: 'localhost:0', dataDir: 'd', store: 'sqlite:x.db', registrations: 'a,b', credentials: 'c.yaml',
    encryptionKeyFile: 'k', ingressTokenFile: 't.json', homeserverUrl: 'http://hs:8008', homeserverTimeoutMs: '700', roomWaitMs: '800', logLevel: 'debug', logFormat: 'pretty', rateLimitedDefault: 'false', pushTimeoutMs: '5000', queryTimeoutMs: '500', queryAttemptsMax: '4', pingTimeoutMs: '600', escalationWindowMs: '20000',
    backoffFirstMs: '100', backoffMaxMs: '600000', transactionEventsMax: '7', transactionEphemeralMax: '8', transactionToDeviceMax: '9', ephemeralAgeMaxMs: '700', transactionBytesMax: '7000', outboundPolicy: 'strict', outboundAllow: '10.0.0.0/8,unix:/run/a.sock', workers: '4', logRetentionMs: '9',
  };
  for (const { key, flag, environmentName, yamlName, kind } of SETTINGS) {
    const text = texts[key] ?? assert.fail(key);
    const byFlag = load([flag, text])[key];
    assert.notDeepEqual(byFlag, DEFAULTS[key], key);
    assert.deepEqual(load([], { [environmentName]: text })[key], byFlag);
    const value = kind === 'list' ? `[${text}]` : kind === 'text' ? JSON.stringify(text) : text;
    assert.deepEqual(load(['--config', await fileOf(`${yamlName}: ${value}\n`)])[key], byFlag);
    if (kind === 'list') assert.deepEqual(load(['--config', await fileOf(`${yamlName}: ${text}\n`)])[key], byFlag);
  }
});

test('stores are told apart, and a label shows no password', () => {
  const store = (text: string): Config['store'] => load(['--store', text, '--encryption-key-file', 'k']).store;
  assert.deepEqual(store('sqlite::memory:'), { kind: 'memory' });
  assert.deepEqual(store('sqlite:/var/lib/x.db'), { kind: 'sqlite', path: '/var/lib/x.db' });
  assert.deepEqual(store('sqlite:///var/lib/x.db'), { kind: 'sqlite', path: '/var/lib/x.db' });
  const uri = 'mongodb://user:pw-secret@a:1,b:2/router?replicaSet=rs&authSource=pw-secret';
  assert.deepEqual(store(uri), { kind: 'mongodb', uri });
  assert.equal(storeLabel(store(uri)), 'mongodb://a:1,b:2');
  assert.equal(storeLabel(store('mongodb+srv://user:p@ss/w@cluster.example/x')), 'mongodb+srv://cluster.example');
  assert.equal(storeLabel(store('sqlite:x.db')), 'sqlite:x.db');
});

test('I12 a store that is none is refused without being shown', () => {
  for (const text of ['mongo://user:pw-secret@host', 'pw-secret', 'sqlite:', 'sqlite::pw-secret:', 'mongodb://']) {
    const [problem, ...more] = problems(['--store', text]);
    assert.match(problem ?? '', /^--store must be sqlite: and a path/);
    assert.deepEqual(more, []);
    assert.ok(!problem?.includes('pw-secret'));
  }
});

test('with MongoDB the key file must be named', () => {
  assert.match(problems(['--store', 'mongodb://127.0.0.1/router']).join(), /ROUTER_ENCRYPTION_KEY_FILE must name the key file that all routers share/);
});

test('all problems are told at once, each with its place', async () => {
  const file = await fileOf('log_level: loud\npush_timeout: 5\nbackoff_max_ms: "9"\nregistrations: {a: b}\nserver_name: 5\n');
  assert.deepEqual(problems(['--config', file, '--grpc-lisen', 'x', '--http-listen'], { ROUTER_TRANSACTION_EVENTS_MAX: '0', ROUTER_RATE_LIMITED_DEFAULT: 'yes', ROUTER_STROE: 'x' }), [
    '--grpc-lisen is no setting; did you mean --grpc-listen? --help lists all.',
    '--http-listen needs a value.',
    `${file}, line 2: push_timeout is no setting; did you mean push_timeout_ms?`,
    'ROUTER_STROE is no setting; did you mean ROUTER_STORE?',
    `${file}, line 5: server_name must be a string; put it in quotes.`,
    `${file}, line 4: registrations must be a list of strings.`,
    `${file}, line 1: log_level must be one of debug, info, warn, error.`,
    'ROUTER_RATE_LIMITED_DEFAULT must be true or false.',
    `${file}, line 3: backoff_max_ms must be a whole number from 10 to 86400000.`,
    'ROUTER_TRANSACTION_EVENTS_MAX must be a whole number from 1 to 10000.',
  ]);
});

test('an address that cannot be listened on is refused with what to write', () => {
  const cases: [string, RegExp][] = [
    ['8080', /must be a host and a port/],
    [':8080', /write 0\.0\.0\.0 for all addresses/],
    ['127.0.0.1:99999', /port from 0 to 65535/],
    ['::1:8080', /such as 127\.0\.0\.1:8080 or \[::1\]:8080/],
    ['http://x:80', /must be a host and a port/],
    ['', /must be a host and a port/],
  ];
  for (const [text, message] of cases) assert.match(problems([`--http-listen=${text}`]).join(), message, text);
  assert.match(problems(['--grpc-listen', '127.0.0.1:9', '--http-listen', '127.0.0.1:9']).join(), /same address/);
  assert.equal(load(['--grpc-listen', '127.0.0.1:0', '--http-listen', '127.0.0.1:0']).grpcListen, '127.0.0.1:0');
});

test('settings that contradict each other, or name nothing that can be, are refused', () => {
  assert.match(problems(['--backoff-first-ms', '600000']).join(), /backoff_first_ms must not be above backoff_max_ms/);
  assert.match(problems(['--server-name', 'https://example.org']).join(), /must be a Matrix server name/);
  assert.match(problems(['--outbound-allow', '10.0.0.0/99']).join(), /10\.0\.0\.0\/99: this is no CIDR/);
  assert.match(problems(['--push-timeout-ms', '1e4']).join(), /whole number/);
  assert.match(problems(['--push-timeout-ms', '60000', '--push-timeout-ms', '60000']).join(), /given twice/);
  assert.match(problems(['serve']).join(), /stands alone/);
});

test('a file that cannot be read as settings is refused', async () => {
  assert.match(problems(['--config', join(root, 'nowhere.yaml')]).join(), /cannot be read \(ENOENT\)/);
  assert.match(problems(['--config', root]).join(), /cannot be read \(EISDIR\)/);
  assert.match(problems(['--config', await fileOf('- a\n')]).join(), /Settings are a mapping/);
  assert.match(problems(['--config', await fileOf('log_level: info\nlog_level: warn\n')]).join(), /line 2, column 1: This key was given already/);
  assert.match(problems(['--config', await fileOf('')]).join(), /empty/);
  assert.match(problems(['--config']).join(), /--config needs a value/);
});

test('names that service discovery injects are ignored, slips are not', () => {
  const injected = {
    ROUTER_PORT: 'tcp://10.0.0.1:50051', ROUTER_SERVICE_HOST: '10.0.0.1', ROUTER_SERVICE_PORT: '50051', ROUTER_PORT_50051_TCP: 'x', ROUTER_PORT_50051_TCP_ADDR: 'x', ROUTER_SERVICE_PORT_GRPC: '1',
    ROUTER_STORE_SERVICE_HOST: 'x', ROUTER_STORE_PORT: 'x', ROUTER_TEST_MONGODB_URI: 'x', ROUTER_NAME: '/x/router', ROUTER_ENV_NODE_VERSION: '24', PATH: '/bin',
  };
  assert.deepEqual(load([], injected), DEFAULTS);
  for (const [slip, meant] of Object.entries({ ROUTER_REGISTRATION: 'ROUTER_REGISTRATIONS', ROUTER_PUSH_TIMEOUT: 'ROUTER_PUSH_TIMEOUT_MS', ROUTER_ENCRYPTION_KEY: 'ROUTER_ENCRYPTION_KEY_FILE', ROUTER_GRPC_LISTNE: 'ROUTER_GRPC_LISTEN' })) {
    assert.deepEqual(problems([], { [slip]: 'x' }), [`${slip} is no setting; did you mean ${meant}?`]);
  }
});

test('an empty environment variable says nothing', () => {
  assert.deepEqual(load([], { ROUTER_STORE: '', ROUTER_PUSH_TIMEOUT_MS: '', ROUTER_STROE: '' }), DEFAULTS);
});

test('help is shown before anything is checked, and names every setting with its default', () => {
  const loading = loadConfig({ argv: ['--nonsense', '--help'], env: { ROUTER_STORE: 'nonsense' } });
  assert.deepEqual(loading, { kind: 'help', text: settingsHelp() });
  for (const { flag, environmentName, defaultText } of SETTINGS) {
    const entry = settingsHelp().replace(/\n {8}/g, ' ').split('\n').find((line) => line.startsWith(`  ${flag} `));
    assert.ok(entry?.includes(environmentName) && entry.includes(`[${defaultText}]`), flag);
  }
});

test('docs/configuration.md is what the schema says', async () => {
  const path = new URL('../docs/configuration.md', import.meta.url);
  assert.equal(await readFile(path, 'utf8'), configurationPage(), "write it anew: node -e \"import('./src/config-page.ts').then((m) => fs.writeFileSync('docs/configuration.md', m.configurationPage()))\"");
});

test('the JSON Schema has every setting by its YAML name, with bounds', () => {
  const schema = configJsonSchema() as { properties: Record<string, object>; additionalProperties: boolean };
  assert.deepEqual(Object.keys(schema.properties), SETTINGS.map(({ yamlName }) => yamlName));
  assert.equal(schema.additionalProperties, false);
  assert.deepEqual(schema.properties['push_timeout_ms'], { default: 60_000, type: 'integer', minimum: 1_000, maximum: 600_000, description: 'Time for one attempt to push a transaction, from the call to the answer.' });
  assert.ok(!JSON.stringify(schema).includes('"shown"'));
});

test('loopback is told from everything else', () => {
  for (const listen of ['127.0.0.1:1', '127.9.8.7:1', 'localhost:1', '[::1]:1', '[0:0:0:0:0:0:0:1]:1']) assert.equal(isLoopbackListen(listen), true, listen);
  for (const listen of ['0.0.0.0:1', '[::]:1', '10.0.0.1:1', 'example.org:1', '[::ffff:10.0.0.1]:1', '127.example.org:1', '[fe80::1]:1', 'localhost.example:1']) assert.equal(isLoopbackListen(listen), false, listen);
});

test('any arguments and environment give a configuration, problems or help', () => {
  const words = fc.oneof(fc.constantFrom(...SETTINGS.map(({ flag }) => flag), '--', '-', '=', '--store=', 'true', '5', '[::1]:1', 'a,b'), fc.string({ maxLength: 12 }));
  const names = fc.oneof(fc.constantFrom(...SETTINGS.map(({ environmentName }) => environmentName)), fc.string({ maxLength: 12 }).map((name) => `ROUTER_${name}`));
  fc.assert(
    fc.property(fc.array(words, { maxLength: 6 }), fc.dictionary(names, fc.string({ maxLength: 12 }), { maxKeys: 4 }), (argv, env) => {
      const loading = loadConfig({ argv, env });
      if (loading.kind === 'invalid') assert.ok(loading.problems.length > 0);
    }),
    { numRuns: 1000 },
  );
});

test('the nearest name is found by insertions, deletions, replacements and swaps', () => {
  assert.deepEqual([editDistance('', 'abc'), editDistance('abc', ''), editDistance('abc', 'abc'), editDistance('acb', 'abc'), editDistance('kitten', 'sitting')], [3, 3, 0, 1, 3]);
  assert.equal(nearestName('stroe', ['listen', 'store'], 2), 'store');
  assert.equal(nearestName('other', ['listen', 'store'], 2), null);
  fc.assert(fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (one, two) => editDistance(one, two) === editDistance(two, one) && (editDistance(one, two) === 0) === (one === two)));
});
