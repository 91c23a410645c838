import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NamespaceIndex } from '../../src/appservice/namespaces.ts';
import { provisioners, unknownUsers } from '../../src/appservice/provisioning.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { registration, SERVER } from '../support/routing.ts';

async function asked(registrations: readonly Registration[], kind: 'users' | 'aliases', identifier: string): Promise<string[]> {
  const index = await NamespaceIndex.compile(SERVER, registrations, () => Promise.resolve());
  return provisioners(index, { kind, identifier }).map(({ id }) => id);
}

const claims = (users: string, exclusive = true): Partial<Registration> => ({
  namespaces: { users: [{ regex: users, exclusive }], aliases: [{ regex: users.replace('@', '#'), exclusive }], rooms: [] },
});

test('R112 R113 R118 those whose namespace has the identifier are asked, exclusive or not, in registration order, each once', async () => {
  const twice = { users: [{ regex: '@x_', exclusive: true }, { regex: '@x_.*', exclusive: false }], aliases: [{ regex: '#x_', exclusive: true }, { regex: '#x', exclusive: false }], rooms: [] };
  const registrations = [registration('z', claims('@x_.*')), registration('other', claims('@y_.*')), registration('a', claims('@x_.*', false)), registration('m', { namespaces: twice })];
  assert.deepEqual(await asked(registrations, 'users', '@x_1:hs.test'), ['z', 'a', 'm']);
  assert.deepEqual(await asked(registrations, 'aliases', '#x_1:hs.test'), ['z', 'a', 'm']);
  assert.deepEqual(await asked(registrations, 'aliases', '#y_1:hs.test'), ['other']);
  assert.deepEqual(await asked(registrations, 'users', '@nobodys:hs.test'), []);
});

test('R111 nobody is asked about what is remote, or about the own user of an appservice', async () => {
  const registrations = [registration('all', claims('@.*')), registration('irc')];
  assert.deepEqual(await asked(registrations, 'users', '@x:hs.test'), ['all']);
  assert.deepEqual(await asked(registrations, 'aliases', '#x:hs.test'), ['all']);
  for (const server of ['other.test', 'hs.test:8448', 'evil.hs.test']) {
    assert.deepEqual(await asked(registrations, 'users', `@x:${server}`), []);
    assert.deepEqual(await asked(registrations, 'aliases', `#x:${server}`), []);
  }
  for (const own of ['@_irc_bot:hs.test', '@_all_bot:hs.test']) assert.deepEqual(await asked(registrations, 'users', own), []);
});

test('R3 an appservice without a url is not asked', async () => {
  assert.deepEqual(await asked([registration('silent', { ...claims('@.*'), url: null }), registration('all', claims('@.*'))], 'users', '@x:hs.test'), ['all']);
});

test('M5 R111 unknown users are users of this homeserver, and what is none is refused by its place', () => {
  assert.deepEqual([...unknownUsers(['@x:hs.test', '@ü/%2F\n:hs.test', '@x:hs.test'], SERVER)], ['@x:hs.test', '@ü/%2F\n:hs.test']);
  assert.equal(unknownUsers([`@${'x'.repeat(246)}:hs.test`], SERVER).size, 1);
  const wrong = ['', '@', 'x:hs.test', '#x:hs.test', '@x', '@x:', '@x:other.test', '@x:hs.test:8448', '@x:hs.test\n', '@\ud800:hs.test', `@${'x'.repeat(247)}:hs.test`, `@${'x'.repeat(10_000)}:hs.test`];
  for (const userId of wrong) {
    assert.throws(() => unknownUsers(['@x:hs.test', userId], SERVER), (error) => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === 'unknown_user_ids[1]' && !error.message.includes('xxx'), userId);
  }
});

test('what is no user ID, or no room alias, is refused by the name of its field', async () => {
  for (const [kind, field, identifiers] of [
    ['users', 'user_id', ['', '@x', '#x:hs.test', 'x:hs.test', '@x:', '@\ud800:hs.test', `@${'x'.repeat(255)}:hs.test`]],
    ['aliases', 'room_alias', ['', '#x', '@x:hs.test', '!x:hs.test', '#\udfff:hs.test']],
  ] as const) {
    for (const identifier of identifiers) {
      await assert.rejects(asked([], kind, identifier), (error) => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === field, identifier);
    }
  }
});
