/** As whom an appservice's request acts: R138 to R143, R146, M7. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authenticate } from '../../src/appservice/authenticate.ts';
import type { AppserviceIdentity, AuthenticateRequest } from '../../src/appservice/authenticate.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { compile } from '../support/routed-world.ts';
import { registration } from '../support/routing.ts';

const users = (regex: string, exclusive: boolean): ReturnType<typeof registration>['namespaces'] => ({ users: [{ regex, exclusive }], aliases: [{ regex: '#.*', exclusive: false }], rooms: [] });
const irc = registration('irc', { sender_localpart: 'ircbot', namespaces: users('@irc_', true), rate_limited: true });
const log = registration('log', { sender_localpart: 'logbot', namespaces: users('@log_', false), rate_limited: false });
const wide = registration('wide', { sender_localpart: 'widebot', namespaces: users('@.*', false), rate_limited: false });
const silent = registration('silent', { url: null, sender_localpart: 'silentbot', namespaces: users('@silent_', true) });
const index = await compile([irc, log, wide, silent]);
const TOKENS = new Map([irc, log, wide, silent].map(({ id }) => [`as-${id}`, id]));

function ask(asToken: string, userId?: string, more: Partial<AuthenticateRequest> = {}): AppserviceIdentity {
  return authenticate(index, { asToken, userId, deviceId: undefined, userRegistered: undefined, ...more }, (token) => TOKENS.get(token));
}

function refusalOf(...request: Parameters<typeof ask>): readonly (string | undefined)[] {
  let refusal: unknown;
  assert.throws(() => ask(...request), (error) => ((refusal = error), true), String(request[1]));
  assert.ok(refusal instanceof RefusalError);
  const { metadata = {} } = refusal.details;
  return [refusal.reason, metadata['errcode'], metadata['http_status'], metadata['appservice_ids']];
}

const UNKNOWN = ['APPSERVICE_UNKNOWN_TOKEN', 'M_UNKNOWN_TOKEN', '401', undefined];
const MISSING = ['APPSERVICE_UNKNOWN_TOKEN', 'M_MISSING_TOKEN', '401', undefined];
const denied = (appserviceId: string): readonly string[] => ['APPSERVICE_MASQUERADE_DENIED', 'M_FORBIDDEN', '403', appserviceId];

test('R138 R139 M7 a known token alone acts as the sender user of its appservice, with a url or without', () => {
  assert.deepEqual(ask('as-irc'), { appserviceId: 'irc', userId: '@ircbot:hs.test', deviceId: undefined, isRateLimited: false, isSenderUser: true });
  assert.equal(ask('as-silent').userId, '@silentbot:hs.test');
});

test('R138 an unknown token and a missing one are told apart, and neither is told back', () => {
  assert.deepEqual(refusalOf('as-secret'), UNKNOWN);
  assert.deepEqual(refusalOf(''), MISSING);
  assert.throws(() => ask('as-secret', '@as-secret:hs.test'), (error: unknown) => error instanceof RefusalError && !JSON.stringify([error.message, error.details]).includes('as-secret'));
});

test('R138 a token whose registration is not in the index is unknown', () => {
  assert.throws(
    () => authenticate(index, { asToken: 't', userId: undefined, deviceId: undefined, userRegistered: undefined }, () => 'removed'),
    (error: unknown) => error instanceof RefusalError && error.reason === 'APPSERVICE_UNKNOWN_TOKEN',
  );
});

test('R143 what is asserted means nothing with a token that is no appservice’s', () => {
  for (const userId of ['@ircbot:hs.test', '@irc_ann:hs.test', '@alice:other.test', 'no user', '']) {
    assert.deepEqual(refusalOf('a-person', userId, { deviceId: 'DEVICE', userRegistered: false }), UNKNOWN);
    assert.deepEqual(refusalOf('', userId, { deviceId: 'DEVICE', userRegistered: false }), MISSING);
  }
});

test('R140 M7 an appservice acts as the users of its namespace, with its rate limits', () => {
  assert.deepEqual(ask('as-irc', '@irc_ann:hs.test', { userRegistered: true }), { appserviceId: 'irc', userId: '@irc_ann:hs.test', deviceId: undefined, isRateLimited: true, isSenderUser: false });
  assert.equal(ask('as-irc', '@irc_ann:hs.test').userId, '@irc_ann:hs.test', 'a homeserver that does not say whether it knows the account');
  assert.equal(ask('as-silent', '@silent_ann:hs.test').userId, '@silent_ann:hs.test');
});

test('R141 a non-exclusive namespace is enough, even where another’s is exclusive', () => {
  assert.deepEqual(ask('as-log', '@log_ann:hs.test', { userRegistered: true }), { appserviceId: 'log', userId: '@log_ann:hs.test', deviceId: undefined, isRateLimited: false, isSenderUser: false });
  assert.equal(ask('as-wide', '@alice:hs.test').userId, '@alice:hs.test');
  assert.equal(ask('as-wide', '@irc_ann:hs.test').userId, '@irc_ann:hs.test');
});

test('R140 a user outside of the namespaces, remote or malformed is denied', () => {
  for (const userId of ['@alice:hs.test', '@log_ann:hs.test', '@IRC_ann:hs.test', '#irc_ann:hs.test']) assert.deepEqual(refusalOf('as-irc', userId), denied('irc'));
  for (const userId of ['@irc_ann:other.test', '@irc_ann:hs.test:8448', '@irc_ann:xhs.test', '@ircbot:other.test', '@widebot:other.test']) {
    assert.deepEqual(refusalOf('as-irc', userId, { userRegistered: true }), denied('irc'));
    assert.deepEqual(refusalOf('as-wide', userId, { userRegistered: true }), denied('wide'));
  }
  for (const userId of ['', '@', 'alice', 'alice:hs.test', '@alice', '@alice:', `@${'x'.repeat(250)}:hs.test`]) assert.deepEqual(refusalOf('as-wide', userId), denied('wide'));
});

test('R140 a user without an account is denied', () => {
  assert.deepEqual(refusalOf('as-irc', '@irc_ann:hs.test', { userRegistered: false }), denied('irc'));
});

test('R140 the sender user is allowed by name as well, outside of the namespaces and without an account, and never rate-limited', () => {
  for (const userRegistered of [true, false, undefined]) {
    assert.deepEqual(ask('as-irc', '@ircbot:hs.test', { userRegistered }), { appserviceId: 'irc', userId: '@ircbot:hs.test', deviceId: undefined, isRateLimited: false, isSenderUser: true });
  }
});

test('R146 another’s sender user is denied, whatever the namespaces say; two that share one both have it', async () => {
  assert.deepEqual(refusalOf('as-wide', '@ircbot:hs.test'), denied('wide'));
  const twins = ['one', 'two'].map((id) => registration(id, { sender_localpart: 'shared' }));
  const shared = await compile(twins);
  for (const { id } of twins) {
    const identity = authenticate(shared, { asToken: 't', userId: '@shared:hs.test', deviceId: undefined, userRegistered: undefined }, () => id);
    assert.deepEqual([identity.appserviceId, identity.isSenderUser], [id, true]);
  }
});

test('R142 an asserted device comes back as it is, for the homeserver to judge', () => {
  assert.equal(ask('as-irc', '@irc_ann:hs.test', { deviceId: 'DEVICE' }).deviceId, 'DEVICE');
  assert.equal(ask('as-irc', undefined, { deviceId: '' }).deviceId, '');
});
