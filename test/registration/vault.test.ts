import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { systemRandom } from '../../src/clock.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { encryptionKeyFrom, encryptionKeysFrom } from '../../src/registration/encryption-key.ts';
import type { EncryptionKeys } from '../../src/registration/encryption-key.ts';
import { originOf, Vault } from '../../src/registration/vault.ts';
import { StoreError } from '../../src/store/errors.ts';
import type { StoredRegistration } from '../../src/store/segment.ts';
import { REGISTRATION } from './rules.ts';

const SERVER = 'example.org';

function key(fill: number): string {
  return Buffer.alloc(32, fill).toString('base64');
}

function keysOf(...lines: string[]): EncryptionKeys {
  const keys = encryptionKeysFrom(lines.join('\n'));
  return typeof keys === 'string' ? assert.fail(keys) : keys;
}

const vault = new Vault(keysOf(key(1)), systemRandom);

function unreadable(open: () => unknown, message: RegExp, secrets: readonly string[] = [REGISTRATION.as_token, REGISTRATION.hs_token]): void {
  assert.throws(open, (error) => {
    assert.ok(error instanceof StoreError, String(error));
    assert.equal(error.kind, 'unreadable');
    assert.match(error.message, message);
    assert.equal(error.cause, undefined);
    for (const secret of secrets) assert.ok(!error.message.includes(secret) && !(error.stack ?? '').includes(secret));
    return true;
  });
}

const options = fc.record(
  {
    legacy_paths: fc.constantFrom('off' as const, 'unrecognized' as const, 'any_error' as const),
    legacy_auth: fc.constantFrom('off' as const, 'both' as const, 'query_only' as const),
    push_timeout_ms: fc.integer({ min: 1000, max: 600_000 }),
    query_timeout_ms: fc.integer({ min: 100, max: 120_000 }),
    proxy: fc.string(),
    ca_file: fc.string(),
  },
  { requiredKeys: [] },
);
const namespaces = fc.array(fc.record({ regex: fc.string({ unit: 'binary' }), exclusive: fc.boolean() }), { maxLength: 4 });
const registrations: fc.Arbitrary<Registration> = fc.record({
  id: fc.string({ unit: 'binary', minLength: 1 }).filter((id) => id.isWellFormed()),
  url: fc.option(fc.string()),
  as_token: fc.string({ unit: 'binary', minLength: 20 }).filter((token) => token.isWellFormed()),
  hs_token: fc.string({ unit: 'binary', minLength: 20 }).filter((token) => token.isWellFormed()),
  sender_localpart: fc.string(),
  namespaces: fc.record({ users: namespaces, aliases: namespaces, rooms: namespaces }),
  protocols: fc.array(fc.string(), { maxLength: 3 }),
  rate_limited: fc.boolean(),
  receive_ephemeral: fc.boolean(),
  push_ephemeral_unstable: fc.boolean(),
  device_extensions: fc.boolean(),
  delivery_options: options,
});

test('M10 I12 what seal gives, open returns, and no token is in it', () => {
  fc.assert(
    fc.property(registrations, fc.constantFrom('api' as const, 'files' as const), (registration, origin) => {
      const stored = vault.seal(SERVER, registration, origin);
      const travelled = JSON.parse(JSON.stringify(stored)) as StoredRegistration;
      assert.deepEqual(JSON.parse(JSON.stringify(vault.open(SERVER, registration.id, travelled))), JSON.parse(JSON.stringify(registration)));
      assert.equal(originOf(registration.id, travelled), origin);
      for (const token of [registration.as_token, registration.hs_token]) {
        assert.ok(!Object.values(stored).some((text: string) => text.includes(token)));
      }
    }),
    { numRuns: 300 },
  );
});

test('M10 sealed text moved to another homeserver, appservice or field does not open', () => {
  fc.assert(
    fc.property(registrations, registrations, (one, two) => {
      fc.pre(one.id !== two.id);
      const stored = vault.seal(SERVER, one, 'api');
      const other = vault.seal(SERVER, two, 'api');
      unreadable(() => vault.open('example.com', one.id, stored), /damaged, or was sealed for another/, [one.as_token, one.hs_token]);
      unreadable(() => vault.open(SERVER, two.id, { ...other, asTokenSealed: stored.asTokenSealed }), /as_token .*damaged, or was sealed for another/s, [one.as_token]);
      unreadable(() => vault.open(SERVER, one.id, { ...stored, asTokenSealed: stored.hsTokenSealed }), /as_token .*damaged/s, [one.hs_token]);
      unreadable(() => vault.open(SERVER, one.id, { ...stored, hsTokenSealed: stored.asTokenSealed }), /hs_token .*damaged/s, [one.as_token]);
    }),
    { numRuns: 100 },
  );
});

test('M10 any change of any character of sealed text is found', () => {
  const stored = vault.seal(SERVER, REGISTRATION, 'api');
  const { asTokenSealed: sealed } = stored;
  for (let at = 0; at < sealed.length; at++) {
    const changed = sealed.slice(0, at) + (sealed[at] === 'A' ? 'B' : 'A') + sealed.slice(at + 1);
    // The last character of a part may carry bits that base64url passes over.
    if (Buffer.from(changed.split('.').join(''), 'base64url').equals(Buffer.from(sealed.split('.').join(''), 'base64url'))) continue;
    const same = changed.split('.').every((part, index) => Buffer.from(part, 'base64url').equals(Buffer.from(sealed.split('.')[index] ?? '', 'base64url')));
    if (same) continue;
    unreadable(() => vault.open(SERVER, 'irc', { ...stored, asTokenSealed: changed }), /damaged|form|sealed with the key/);
  }
  for (const text of ['', 'v1', 'v1.a.b.c.d', 'v2' + sealed.slice(2), `${sealed}.x`, REGISTRATION.as_token]) {
    unreadable(() => vault.open(SERVER, 'irc', { ...stored, asTokenSealed: text }), /form that this release does not know/);
  }
});

test('another key is refused with the ids of both and what to do', () => {
  const stored = vault.seal(SERVER, REGISTRATION, 'files');
  const other = new Vault(keysOf(key(2)), systemRandom);
  const id = encryptionKeyFrom(Buffer.alloc(32, 1)).id;
  const otherId = encryptionKeyFrom(Buffer.alloc(32, 2)).id;
  unreadable(() => other.open(SERVER, 'irc', stored), new RegExp(`key ${id}, and the encryption key file holds ${otherId}\\. Add the key`));
});

test('a new first key seals, the old one still opens, and look-ups go on', () => {
  const stored = vault.seal(SERVER, REGISTRATION, 'files');
  const turned = new Vault(keysOf(key(2), key(1)), systemRandom);
  assert.deepEqual(turned.open(SERVER, 'irc', stored), REGISTRATION);
  assert.equal(turned.tokenHash(REGISTRATION.as_token), stored.asTokenHash);
  assert.equal(turned.isCurrent(stored), false);
  const again = turned.seal(SERVER, REGISTRATION, 'files');
  assert.equal(turned.isCurrent(again), true);
  assert.equal(again.asTokenHash, stored.asTokenHash);
  unreadable(() => vault.open(SERVER, 'irc', again), /Add the key/);
  const second = new Vault(keysOf(key(1), key(2), `lookup ${key(1)}`), systemRandom);
  assert.deepEqual([second.open(SERVER, 'irc', again), second.tokenHash(REGISTRATION.as_token), second.isCurrent(stored)], [REGISTRATION, stored.asTokenHash, true]);
  const without = new Vault(keysOf(key(2)), systemRandom);
  assert.deepEqual([without.open(SERVER, 'irc', again), without.isCurrent(again)], [REGISTRATION, false]);
});

test('equal registrations of one origin have equal JSON and hashes and differ in sealed text', () => {
  const reordered: Registration = { ...REGISTRATION, namespaces: { rooms: [], aliases: REGISTRATION.namespaces.aliases, users: [{ exclusive: true, regex: '@irc_.*:example\\.org' }] } };
  const [one, two] = [vault.seal(SERVER, REGISTRATION, 'api'), vault.seal(SERVER, reordered, 'api')];
  assert.deepEqual([one.json, one.asTokenHash, one.hsTokenHash], [two.json, two.asTokenHash, two.hsTokenHash]);
  assert.notEqual(one.asTokenSealed, two.asTokenSealed);
  assert.notEqual(one.json, vault.seal(SERVER, REGISTRATION, 'files').json);
});

test('R19 different tokens have different hashes, under another key other ones', () => {
  assert.notEqual(vault.tokenHash('a'), vault.tokenHash('b'));
  assert.equal(vault.tokenHash('a'), vault.tokenHash('a'));
  assert.notEqual(vault.tokenHash('a'), new Vault(keysOf(key(2)), systemRandom).tokenHash('a'));
});

test('stored JSON that is damaged or of another appservice is unreadable', () => {
  const stored = vault.seal(SERVER, REGISTRATION, 'api');
  for (const json of ['', '{', 'null', '[]', stored.json.replace('"irc"', '"xmpp"'), stored.json.replace('true', '1'), stored.json.replace('"api"', '"elsewhere"')]) {
    unreadable(() => vault.open(SERVER, 'irc', { ...stored, json }), /damaged, or a newer release/);
  }
  assert.deepEqual(vault.open(SERVER, 'irc', { ...stored, json: stored.json.replace('{', '{"of_a_newer_release":1,') }), REGISTRATION);
});

test('a random source that gives no bytes stops the sealing', () => {
  assert.throws(() => new Vault(keysOf(key(1)), { hex: () => 'no hex' }).seal(SERVER, REGISTRATION, 'api'), /random bytes/);
});

test('keys are read in base64, base64url and hex, and everything else is refused without being shown', () => {
  const bytes = randomBytes(32);
  const id = encryptionKeyFrom(bytes).id;
  for (const text of [bytes.toString('base64'), bytes.toString('base64url'), bytes.toString('hex'), bytes.toString('hex').toUpperCase(), `\ufeff# comment\r\n\r\n  ${bytes.toString('base64')}  \r\n`]) {
    assert.equal(keysOf(text).sealing[0]?.id, id);
  }
  assert.deepEqual(keysOf(key(1), key(2), key(1)).sealing.map((one) => one.id), [encryptionKeyFrom(Buffer.alloc(32, 1)).id, encryptionKeyFrom(Buffer.alloc(32, 2)).id]);
  for (const text of ['', '# only', 'SECRETSECRET', bytes.toString('hex').slice(2), `${key(1)} ${key(2)}`, `lookup ${key(1)}`, `${key(1)}\nlookup ${key(1)}\nlookup ${key(2)}`]) {
    const problem = encryptionKeysFrom(text);
    assert.equal(typeof problem, 'string', text);
    assert.ok(typeof problem === 'string' && !problem.includes('SECRET') && !problem.includes(key(1)));
  }
});
