import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Registration } from '../../src/appservice/registration.ts';
import { readRegistration, registrationFromYaml } from '../../src/registration/registration-yaml.ts';
import type { FieldProblem } from '../../src/registration/yaml-fields.ts';
import { REGISTRATION, RULES, withLine, YAML } from './rules.ts';

function valid(text: string): Registration {
  const reading = registrationFromYaml(text, RULES);
  assert.deepEqual(reading.kind === 'invalid' ? reading.problems : [], []);
  assert.equal(reading.kind, 'valid');
  return reading.kind === 'valid' ? reading.registration : assert.fail();
}

function problems(text: string): readonly FieldProblem[] {
  const reading = registrationFromYaml(text, RULES);
  return reading.kind === 'invalid' ? reading.problems : assert.fail(`accepted: ${text}`);
}

function refused(text: string, field: string, message: RegExp, line?: number): void {
  const found = problems(text);
  const problem = found.find((one) => one.field === field && message.test(one.message));
  assert.ok(problem, JSON.stringify(found));
  if (line !== undefined) assert.equal(problem.line, line);
}

function options(lines: string): string {
  return `${YAML}appservice_router:\n${lines.replace(/^/gm, '  ')}\n`;
}

test('R1 R12 the six required fields make a registration, the others have their defaults', () => {
  assert.deepEqual(valid(YAML), REGISTRATION);
  const { warnings } = expectValid(YAML);
  assert.deepEqual(warnings, []);
});

function expectValid(text: string, others: readonly Registration[] = []): { registration: Registration; warnings: readonly { code: string; message: string }[] } {
  const reading = registrationFromYaml(text, RULES, others);
  return reading.kind === 'valid' ? reading : assert.fail(JSON.stringify(reading.problems));
}

test('every optional field is taken as it is written', () => {
  const text = `${withLine('rate_limited', 'rate_limited: true')}protocols: [irc, "x mpp"]
receive_ephemeral: true
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
appservice_router:
  legacy_paths: off
  legacy_auth: query_only
  push_timeout_ms: 30000
  query_timeout_ms: 2000
  proxy: http://proxy.example:3128
  ca_file: /etc/ssl/own.pem
`;
  assert.deepEqual(valid(text), {
    ...REGISTRATION,
    rate_limited: true,
    protocols: ['irc', 'x mpp'],
    receive_ephemeral: true,
    push_ephemeral_unstable: true,
    device_extensions: true,
    delivery_options: { legacy_paths: 'off', legacy_auth: 'query_only', push_timeout_ms: 30_000, query_timeout_ms: 2_000, proxy: 'http://proxy.example:3128', ca_file: '/etc/ssl/own.pem' },
  });
});

for (const field of ['id', 'as_token', 'hs_token', 'sender_localpart']) {
  test(`R2 R18 a missing, empty or mistyped ${field} is refused by its name, without its value`, () => {
    refused(withLine(field, ''), field, /is missing/);
    refused(withLine(field, `${field}: ''`), field, /empty/);
    refused(withLine(field, `${field}:`), field, /is empty/);
    refused(withLine(field, `${field}: #hash`), field, /quote one that begins with "#"/);
    refused(withLine(field, `${field}: [x]`), field, /must be a string/);
    refused(withLine(field, `${field}: {x: y}`), field, /must be a string/);
    for (const value of ['1234567', '12e9', '0x1f', 'true', 'Yes', 'off', '2024-01-31', '.inf']) {
      const text = withLine(field, `${field}: ${value}`);
      refused(text, field, /quote it/);
      if (field.endsWith('token')) assert.ok(!JSON.stringify(problems(text)).includes(value));
    }
  });
}

test('R3 a missing url is refused with what to write, a null url is no traffic', () => {
  refused(withLine('url', ''), 'url', /url is missing; write url: null/);
  assert.equal(valid(withLine('url', 'url: null')).url, null);
  assert.equal(valid(withLine('url', 'url:')).url, null);
  assert.equal(valid(withLine('url', 'url: ~')).url, null);
});

test('R4 an empty url is no traffic', () => {
  assert.equal(valid(withLine('url', 'url: ""')).url, null);
  const reading = readRegistration({ ...REGISTRATION, url: '' }, RULES);
  assert.equal(reading.kind === 'valid' ? reading.registration.url : '', null);
});

test('R5 a url with a path is kept as it is', () => {
  for (const url of ['http://irc.example:9000/base/', 'https://irc.example/a/b', 'HTTPS://irc.example', 'http://[::1]:80/', 'unix:/run/irc.sock']) {
    assert.equal(valid(withLine('url', `url: ${url}`)).url, url);
  }
});

test('a url that nothing can be pushed to is refused with the reason', () => {
  const cases: [string, RegExp][] = [
    ['ftp://irc.example', /http:\/\/ or https:\/\//],
    ['irc.example:9000', /http:\/\/ or https:\/\//],
    ['http:/irc.example', /http:\/\/ or https:\/\//],
    ['http:///path', /http:\/\/ or https:\/\//],
    ['http://user:pw-secret@irc.example', /user name or password/],
    ['http://@irc.example', /user name or password/],
    ['http://irc.example/?x=1', /query/],
    ['http://irc.example/?', /query/],
    ['"http://irc.example/#x"', /fragment/],
    ['http://irc.example:99999', /no valid URL/],
    ['"http://irc.example/a b"', /spaces/],
    ['"http://irc.example\\n"', /spaces/],
    ['http://169.254.169.254/latest', /cloud metadata|link-local/],
    ['http://[::ffff:169.254.169.254]/', /link-local/],
    ['http://0.0.0.0:8080', /unspecified/],
    ['unix:run/irc.sock', /absolute path/],
    [`http://irc.example/${'a'.repeat(3000)}`, /at most 2048/],
  ];
  for (const [url, message] of cases) {
    refused(withLine('url', `url: ${url}`), 'url', message, 2);
    assert.ok(!JSON.stringify(problems(withLine('url', `url: ${url}`))).includes('pw-secret'));
  }
});

test('R9 namespaces may be absent, empty or null each, but not null together', () => {
  const head = YAML.slice(0, YAML.indexOf('namespaces:'));
  for (const namespaces of ['{}', '{users: null}', '{users: [], aliases: ~}']) {
    assert.deepEqual(valid(`${head}namespaces: ${namespaces}\n`).namespaces, { users: [], aliases: [], rooms: [] });
  }
  refused(head, 'namespaces', /namespaces: {} for none/);
  refused(`${head}namespaces:\n`, 'namespaces', /must be a mapping/);
  refused(`${head}namespaces: []\n`, 'namespaces', /must be a mapping/);
  refused(`${head}namespaces: {users: {regex: x, exclusive: true}}\n`, 'namespaces.users', /must be a list/);
});

test('R10 a namespace without a string regex or a boolean exclusive is refused at its place', () => {
  const head = YAML.slice(0, YAML.indexOf('namespaces:'));
  const entry = (text: string): string => `${head}namespaces:\n  rooms:\n    - ${text}\n`;
  refused(entry('{exclusive: true}'), 'namespaces.rooms[0].regex', /is missing/, 9);
  refused(entry("{regex: '!x'}"), 'namespaces.rooms[0].exclusive', /is missing/, 9);
  refused(entry("{regex: '!x', exclusive: yes}"), 'namespaces.rooms[0].exclusive', /write exclusive: true\./, 9);
  refused(entry("{regex: '!x', exclusive: Off}"), 'namespaces.rooms[0].exclusive', /write exclusive: false\./, 9);
  refused(entry("{regex: '!x', exclusive: \"true\"}"), 'namespaces.rooms[0].exclusive', /write exclusive: true\./, 9);
  refused(entry("{regex: '!x', exclusive: 1}"), 'namespaces.rooms[0].exclusive', /write exclusive: true\./, 9);
  refused(entry("{regex: '!x', exclusive: null}"), 'namespaces.rooms[0].exclusive', /must be true or false/, 9);
  refused(entry('{regex: 5, exclusive: true}'), 'namespaces.rooms[0].regex', /quote it, as '5'/, 9);
  refused(entry("'!x.*'"), 'namespaces.rooms[0]', /mapping with regex and exclusive/, 9);
});

test('R11 R18 a pattern that does not compile is refused with the appservice, the pattern and what to write', () => {
  const text = YAML.replace("'@irc_.*:example\\.org'", "'@irc_(?!x).*'");
  refused(text, 'namespaces.users[0].regex', /"@irc_\(\?!x\)\.\*" of the appservice "irc" cannot be used: look-around/, 10);
  refused(YAML.replace("'#irc_.*:example\\.org'", "'#(a)\\1'"), 'namespaces.aliases[0].regex', /back-references/, 13);
  refused(YAML.replace("'#irc_.*:example\\.org'", "'#a\\Z'"), 'namespaces.aliases[0].regex', /\\z/, 13);
  refused(YAML.replace("'#irc_.*:example\\.org'", "'#a{2000}'"), 'namespaces.aliases[0].regex', /1000/, 13);
});

test('an unquoted pattern that YAML takes for something else is refused with "quote it"', () => {
  const regex = (text: string): string => YAML.replace("'@irc_.*:example\\.org'", text);
  refused(regex('!room.*'), 'yaml', /"!".*quote it/, 10);
  refused(regex('@irc_.*'), 'yaml', /"@".*quote it/, 10);
  refused(regex('*irc'), 'yaml', /"\*".*quote it/, 10);
  refused(regex('"@irc\\.*"'), 'yaml', /single quotes/, 10);
  refused(regex('#irc_.*'), 'namespaces.users[0].regex', /quote one that begins with "#"/, 10);
  refused(regex('!!binary aGVsbG8='), 'yaml', /quote it/, 10);
});

test('R13 the old spelling of the ephemeral wish is read beside the new one', () => {
  const both = valid(`${YAML}receive_ephemeral: false\nde.sorunome.msc2409.push_ephemeral: true\n`);
  assert.deepEqual([both.receive_ephemeral, both.push_ephemeral_unstable], [false, true]);
  refused(`${YAML}receive_ephemeral: on\n`, 'receive_ephemeral', /write receive_ephemeral: true/);
});

test('R14 unknown keys are ignored, and a near miss is warned of', () => {
  assert.deepEqual(valid(`${YAML}io.example.thing: {deep: [1, 2]}\n`), REGISTRATION);
  const { warnings } = expectValid(`${YAML}receive_ephemerals: true\n`);
  assert.deepEqual(warnings, [{ code: 'UNKNOWN_KEY', message: 'Line 15 has a key that is not known and is ignored; did you mean receive_ephemeral?' }]);
  assert.deepEqual(expectValid(YAML.replace('  users:', '  user:')).warnings.map(({ code }) => code), ['UNKNOWN_KEY']);
});

test('R15 the default of rate_limited is a setting', () => {
  const text = withLine('rate_limited', '');
  const read = (rateLimitedDefault: boolean): unknown => {
    const reading = registrationFromYaml(text, { ...RULES, rateLimitedDefault });
    return reading.kind === 'valid' && reading.registration.rate_limited;
  };
  assert.deepEqual([read(true), read(false)], [true, false]);
});

test('R16 protocols are a list of strings or none', () => {
  assert.deepEqual(valid(`${YAML}protocols: null\n`).protocols, []);
  assert.deepEqual(valid(`${YAML}protocols:\n`).protocols, []);
  refused(`${YAML}protocols: irc\n`, 'protocols', /must be a list/, 15);
  refused(`${YAML}protocols: [irc, 5]\n`, 'protocols[1]', /quote it, as '5'/, 15);
  refused(`${YAML}protocols: [irc, [x]]\n`, 'protocols[1]', /must be a string/, 15);
  refused(`${YAML}protocols: ['']\n`, 'protocols[0]', /empty/, 15);
});

test('R17 a sender_localpart that makes no user ID of this homeserver is refused', () => {
  for (const text of ['Ircbot', 'irc bot', 'irc|bot', 'ircböt']) refused(withLine('sender_localpart', `sender_localpart: ${text}`), 'sender_localpart', /a-z/, 5);
  refused(withLine('sender_localpart', `sender_localpart: '@irc:example.org'`), 'sender_localpart', /between "@" and ":"/, 5);
  refused(withLine('sender_localpart', `sender_localpart: ${'a'.repeat(250)}`), 'sender_localpart', /at most 255/, 5);
  assert.equal(valid(withLine('sender_localpart', 'sender_localpart: a.b_c=d/e+f-9')).sender_localpart, 'a.b_c=d/e+f-9');
});

test('an id with a bar, a control character or too many characters is refused', () => {
  refused(withLine('id', "id: 'a|b'"), 'id', /"\|"/, 1);
  refused(withLine('id', 'id: "a\\u0001b"'), 'id', /control/, 1);
  refused(withLine('id', `id: ${'a'.repeat(256)}`), 'id', /at most 255/, 1);
});

test('R18 a token that no header can carry is refused without being shown', () => {
  for (const token of ['"secret line\\n"', 'geheim-sécret', '"secret \\u0000"', `secret${'x'.repeat(2000)}`]) {
    const text = withLine('as_token', `as_token: ${token}`);
    refused(text, 'as_token', /visible ASCII|at most 1024/, 3);
    assert.ok(!/secret|sécret/.test(JSON.stringify(problems(text)).replaceAll('hs-secret', '')));
  }
});

test('options of this router are checked, and an unknown one is refused with the nearest', () => {
  refused(options('push_timeout: 5'), 'appservice_router', /known are legacy_paths/, 16);
  refused(options('push_timeout_sm: 5'), 'appservice_router', /did you mean push_timeout_ms\?/, 16);
  refused(options('push_timeout_ms: 5'), 'appservice_router.push_timeout_ms', /from 1000 to 600000/, 16);
  refused(options('push_timeout_ms: 1.5'), 'appservice_router.push_timeout_ms', /whole number/, 16);
  refused(options("query_timeout_ms: '5000'"), 'appservice_router.query_timeout_ms', /whole number without quotes/, 16);
  refused(options('legacy_paths: sometimes'), 'appservice_router.legacy_paths', /one of off, unrecognized, any_error/, 16);
  refused(options('legacy_auth: 1'), 'appservice_router.legacy_auth', /one of off, both, query_only/, 16);
  refused(options('proxy: http://user:pw-secret@proxy.example'), 'appservice_router.proxy', /without user name/, 16);
  refused(options('proxy: http://169.254.169.254'), 'appservice_router.proxy', /link-local/, 16);
  refused(options('proxy: https://proxy.example'), 'appservice_router.proxy', /such as http:/, 16);
  refused(options('proxy: http://proxy.example').replace('http://127.0.0.1:9000', 'unix:/run/irc.sock'), 'appservice_router.proxy', /unix socket/, 16);
  refused(options('ca_file: own.pem'), 'appservice_router.ca_file', /absolute path/, 16);
  refused(`${YAML}appservice_router: []\n`, 'appservice_router', /must be a mapping/, 15);
  assert.deepEqual(valid(`${YAML}appservice_router:\n`).delivery_options, {});
});

test('broken YAML is refused with line and column, and what to do', () => {
  refused('', 'yaml', /empty/, 1);
  refused('# only a comment\n', 'yaml', /empty/);
  refused('- a\n', 'yaml', /mapping/, 1);
  refused(`${YAML}id: other\n`, 'yaml', /given already, on line 1/, 15);
  refused(`${YAML}---\n${YAML}`, 'yaml', /Another document/, 15);
  refused(`%YAML 1.1\n---\n${YAML}`, 'yaml', /version 1\.2/);
  refused(`${YAML}\t x: 1\n`, 'yaml', /./, 15);
  refused(`${YAML}<<: {x: 1}\n`, 'yaml', /Merge keys/, 15);
  refused(`${YAML}x: [\n`, 'yaml', /bracket/);
  refused(`${YAML}? [a]\n: b\n`, 'yaml', /key must be/, 15);
  refused(`${YAML}# ${'x'.repeat(1 << 20)}\n`, 'yaml', /at most 1048576/, 1);
});

test('all problems of a file are told at once, in the order of the file', () => {
  const text = withLine('id', "id: 'a|b'").replace('exclusive: true', 'exclusive: yes').replace('sender_localpart: ircbot', 'sender_localpart: 5');
  assert.deepEqual(problems(text).map(({ field, line }) => [line, field]), [[5, 'sender_localpart'], [9, 'namespaces.users[0].exclusive']]);
  const later = withLine('id', "id: 'a|b'").replace('ircbot', 'Irc').replace(/\?!x/, '');
  assert.deepEqual(problems(later).map(({ field, line }) => [line, field]), [[1, 'id'], [5, 'sender_localpart']]);
});

test('an alias stands for its anchor, and aliases that multiply are refused', () => {
  const shared = YAML.replace("- exclusive: true\n      regex: '@irc_.*:example\\.org'", "- &one {exclusive: true, regex: '@irc_.*:example\\.org'}\n    - *one");
  assert.equal(valid(shared).namespaces.users.length, 2);
  const names = 'bcdefghijk';
  const bomb = names.split('').map((name, at) => `${name}: &${name} [${Array(9).fill(`*${'abcdefghij'[at]}`).join(', ')}]`).join('\n');
  refused(`${YAML}a: &a [x, x, x]\n${bomb}\n`, 'yaml', /more than 100000 values/);
  refused(`${YAML}a: &a [*a]\n`, 'yaml', /quote it/, 15);
});

test('the same rules hold for a registration that came as a message', () => {
  const reading = readRegistration({ ...REGISTRATION, id: '', as_token: 'a b', url: 'http://x/?q', namespaces: { ...REGISTRATION.namespaces, rooms: [{ regex: '(', exclusive: true }] }, delivery_options: { push_timeout_ms: 0 } }, RULES);
  assert.equal(reading.kind, 'invalid');
  assert.deepEqual(reading.kind === 'invalid' && reading.problems.map(({ field }) => field), ['id', 'url', 'as_token', 'namespaces.rooms[0].regex', 'delivery_options.push_timeout_ms']);
  assert.deepEqual(readRegistration(REGISTRATION, RULES), { kind: 'valid', registration: REGISTRATION, warnings: [] });
});

test('what is odd and allowed is warned of', () => {
  const codes = (text: string, others: readonly Registration[] = []): string[] => expectValid(text, others).warnings.map(({ code }) => code);
  const users = (regex: string): string => YAML.replace("'@irc_.*:example\\.org'", () => `'${regex}'`);
  const aliases = (regex: string): string => YAML.replace("'#irc_.*:example\\.org'", () => `'${regex}'`);
  assert.deepEqual(codes(users('')), ['PATTERN_MATCHES_ALL']);
  assert.deepEqual(codes(users('.*')), ['PATTERN_MATCHES_ALL']);
  assert.deepEqual(codes(users('.*irc:example\\.org')), ['PATTERN_MATCHES_ALL']);
  assert.deepEqual(codes(users('irc_.*:example\\.org')), ['PATTERN_WITHOUT_SIGIL']);
  assert.deepEqual(codes(users('^irc_.*:example\\.org')), ['PATTERN_WITHOUT_SIGIL']);
  assert.deepEqual(codes(users('@irc_.*:example\\.org|irc_.*:example\\.org')), ['PATTERN_WITHOUT_SIGIL']);
  assert.deepEqual(codes(users('@irc_.*:example\\.org|@xmpp_.*:example\\.org')), []);
  assert.deepEqual(codes(users('@ircbot')), ['PATTERN_OPEN_ENDED']);
  assert.deepEqual(codes(aliases('#logged_.*')), ['PATTERN_WITHOUT_SERVER']);
  assert.deepEqual(codes(users('^@irc_.*:example\\.org$')), []);
  assert.deepEqual(codes(users('(@irc_|@xmpp_).*:example\\.org')), []);
  assert.deepEqual(codes(withLine('rate_limited', 'rate_limited: true')), ['RATE_LIMITED']);
  assert.deepEqual(codes(withLine('as_token', 'as_token: short')), ['TOKEN_SHORT']);
  assert.deepEqual(codes(withLine('as_token', 'as_token: hs-secret-0123456789abcdef')), ['TOKENS_EQUAL']);
  const other: Registration = { ...REGISTRATION, id: 'other', sender_localpart: 'other', as_token: 'as-other-0123456789abcdef' };
  assert.deepEqual(codes(YAML, [other]), ['EXCLUSIVE_OVERLAP']);
  assert.deepEqual(codes(YAML, [{ ...other, namespaces: { users: [], aliases: [], rooms: [] }, sender_localpart: 'ircbot' }]), ['SENDER_SHARED']);
  assert.deepEqual(codes(YAML, [REGISTRATION]), [], 'its own older self is no rival');
});

test('R8 two registrations may share an hs_token without a word', () => {
  assert.deepEqual(expectValid(YAML, [{ ...REGISTRATION, id: 'other', sender_localpart: 'x', namespaces: { users: [], aliases: [], rooms: [] } }]).warnings, []);
});

const pieces = fc.constantFrom(
  'id', ':', ': ', '\n', '  ', '- ', '[', ']', '{', '}', ',', "'", '"', '&a', '*a', '!t', '!!str ', '|', '>', '#', '%YAML 1.1\n', '---\n', '...\n', '\t', '\\', '?', '@',
  'yes', 'null', '1', '.inf', '\u0000', '\ud800', '\ufeff', 'é', 'url: null\n', 'namespaces:\n', '  users:\n', '    - regex: ', 'exclusive: true\n', 'as_token: TOPSECRET', 'hs_token: "TOPSECRET"', 'protocols: ', '<<: ',
);

test('R18 I12 any text whatever gives a reading and never a token', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof({ weight: 4, arbitrary: pieces }, fc.string({ maxLength: 8 })), { maxLength: 60 }), (parts) => {
      const reading = registrationFromYaml(parts.join(''), RULES);
      if (reading.kind === 'valid') return;
      assert.ok(reading.problems.length > 0);
      assert.ok(!JSON.stringify(reading.problems).includes('TOPSECRET'), JSON.stringify(reading.problems));
      for (const { line, column } of reading.problems) assert.ok((line ?? 0) >= 1 && (column ?? 0) >= 1);
    }),
    { numRuns: 3000 },
  );
});

test('R18 a file with one mutation is read or refused, and shows no token', () => {
  fc.assert(
    fc.property(fc.nat(YAML.length - 1), fc.nat(6), fc.oneof(pieces, fc.string({ maxLength: 4 })), (at, length, text) => {
      const reading = registrationFromYaml(YAML.slice(0, at) + text + YAML.slice(at + length), RULES);
      if (reading.kind === 'invalid') assert.ok(!/secret-0123/.test(JSON.stringify(reading.problems)), JSON.stringify(reading.problems));
    }),
    { numRuns: 3000 },
  );
});

test('one mebibyte of any mark is read or refused with bounded work', () => {
  for (const mark of ['[', '{', '- ', 'a: ', '? ', '[a,', '"', '&a ', '*a ', 'a: *a\n', '- a\n', ']', '}', ': ', '- "\n', 'a: [\n', '%a\n', '---\n', '|\n ', '[a: b, ', '!a ', "'", '#\n', 'a: &a [*a]\n']) {
    assert.equal(registrationFromYaml(mark.repeat(Math.floor((1 << 20) / mark.length)), RULES).kind, 'invalid', mark);
  }
  const keys = Array.from({ length: 20_000 }, (_, at) => `k${at}: 1\n`).join('');
  assert.deepEqual(valid(YAML + keys), REGISTRATION);
});
