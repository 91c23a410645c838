/** Who may create, delete and log in as what: R145 to R149, M13. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authorize, checkNamespace } from '../../src/appservice/authorize.ts';
import type { Actor, AuthorizeRequest } from '../../src/appservice/authorize.ts';
import type { Subject } from '../../src/appservice/identifier.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { compile } from '../support/routed-world.ts';
import { registration } from '../support/routing.ts';

const namespaces = (name: string, exclusive: boolean): ReturnType<typeof registration>['namespaces'] => ({
  users: [{ regex: `@${name}_`, exclusive }],
  aliases: [{ regex: `#${name}_`, exclusive }],
  rooms: [{ regex: `!${name}_`, exclusive }],
});
const irc = registration('irc', { sender_localpart: 'ircbot', namespaces: namespaces('irc', true) });
const log = registration('log', { sender_localpart: 'logbot', namespaces: namespaces('log', false) });
const wide = registration('wide', { sender_localpart: 'widebot', namespaces: namespaces('(irc|log|both)', false) });
const one = registration('one', { sender_localpart: 'onebot', namespaces: namespaces('both', true) });
const two = registration('two', { sender_localpart: 'twobot', namespaces: namespaces('both', true) });
const silent = registration('silent', { url: null, sender_localpart: 'silentbot', namespaces: namespaces('silent', true) });
const index = await compile([irc, log, wide, one, two, silent]);

const user = (localpart: string, server = 'hs.test'): Subject => ({ kind: 'users', identifier: `@${localpart}:${server}` });
const alias = (localpart: string): Subject => ({ kind: 'aliases', identifier: `#${localpart}:hs.test` });
const as = (appserviceId: string): Actor => ({ kind: 'appservice_id', appserviceId });
const person: Actor = { kind: 'person', userId: '@alice:hs.test' };

const TOKENS = new Map([['as-irc', 'irc']]);
function ask(actor: Actor, subject: Subject, action: AuthorizeRequest['action'] = 'create', userRegistered?: boolean): string | undefined {
  return authorize(index, { actor, subject, action, userRegistered }, (token) => TOKENS.get(token));
}

function assertRefused(run: () => unknown, reason: string, errcode: string, httpStatus: string): RefusalError {
  let refusal: unknown;
  assert.throws(run, (error) => ((refusal = error), true));
  assert.ok(refusal instanceof RefusalError);
  const { metadata = {} } = refusal.details;
  assert.deepEqual([refusal.reason, metadata['errcode'], metadata['http_status']], [reason, errcode, httpStatus]);
  return refusal;
}
const assertReserved = (run: () => unknown): RefusalError => assertRefused(run, 'APPSERVICE_NAMESPACE_CONFLICT', 'M_EXCLUSIVE', '400');

for (const [kind, make] of [['user ID', user], ['alias', alias]] as const) {
  const R = kind === 'user ID' ? 'R145' : 'R147';
  for (const action of ['create', 'delete'] as const) {
    test(`${R} an appservice may ${action} the ${kind} inside its own namespace, exclusive or not`, () => {
      assert.equal(ask(as('irc'), make('irc_ann'), action), 'irc');
      assert.equal(ask(as('log'), make('log_ann'), action), 'log');
      assert.equal(ask(as('wide'), make('log_ann'), action), 'wide');
      assert.equal(ask(as('silent'), make('silent_ann'), action), 'silent');
    });
    test(`${R} M13 an appservice may not ${action} the ${kind} outside its namespaces, or inside another’s exclusive one`, () => {
      assertReserved(() => ask(as('irc'), make('alice'), action));
      assertReserved(() => ask(as('irc'), make('log_ann'), action));
      assertReserved(() => ask(as('wide'), make('irc_ann'), action));
      assertReserved(() => ask(as('one'), make('both_ann'), action));
    });
    test(`${R} M13 M9 a person may ${action} the ${kind} that is in no exclusive namespace`, () => {
      assert.equal(ask(person, make('alice'), action), undefined);
      assert.equal(ask(person, make('log_ann'), action), undefined);
      const refusal = assertReserved(() => ask(person, make('irc_ann'), action));
      assert.equal(refusal.message, 'This alias or user ID is reserved by a registered application service');
      assert.equal(refusal.details.metadata?.['appservice_ids'], 'irc');
      assertReserved(() => ask(person, make('silent_ann'), action));
    });
  }
}

test('R146 M13 a sender user is its appservice’s own, whatever namespaces say', () => {
  assert.equal(ask(as('irc'), user('ircbot')), 'irc');
  assertReserved(() => ask(person, user('ircbot')));
  assertReserved(() => ask(as('log'), user('ircbot')));
  assert.equal(ask(person, user('ircbot', 'other.test')), undefined);
  assert.equal(ask(person, alias('ircbot')), undefined);
});

test('R146 an own user inside another’s exclusive namespace stays its appservice’s, and two may share one', async () => {
  const inside = registration('inside', { sender_localpart: 'irc_bot', namespaces: namespaces('inside', true) });
  const twin = registration('twin', { sender_localpart: 'irc_bot', namespaces: namespaces('twin', true) });
  const crowded = await compile([irc, inside, twin]);
  const create = (id: string): string | undefined => authorize(crowded, { actor: as(id), subject: user('irc_bot'), action: 'create', userRegistered: undefined }, () => undefined);
  assert.equal(create('inside'), 'inside');
  assert.equal(create('twin'), 'twin');
  assertReserved(() => create('irc'));
});

test('R148 a name-availability check by a person says exclusive', () => {
  assertReserved(() => ask(person, user('irc_newcomer'), 'create', false));
  assert.equal(checkNamespace(index, user('irc_newcomer')).exclusive, true);
});

test('R149 an appservice logs in as its own users only, and only if they are registered', () => {
  assert.equal(ask(as('irc'), user('irc_ann'), 'login', true), 'irc');
  assert.equal(ask(as('irc'), user('irc_ann'), 'login'), 'irc');
  assert.equal(ask(as('irc'), user('ircbot'), 'login', true), 'irc');
  assertReserved(() => ask(as('irc'), user('alice'), 'login', true));
  assertReserved(() => ask(as('irc'), user('alice'), 'login', false));
  assertReserved(() => ask(as('wide'), user('irc_ann'), 'login', true));
  assertRefused(() => ask(as('irc'), user('irc_ann'), 'login', false), 'APPSERVICE_USER_NOT_REGISTERED', 'M_FORBIDDEN', '403');
});

test('R138 an actor is found by its token; an unknown token is refused without being told', () => {
  assert.equal(ask({ kind: 'as_token', asToken: 'as-irc' }, user('irc_ann')), 'irc');
  const refusal = assertRefused(() => ask({ kind: 'as_token', asToken: 'as-secret' }, user('irc_ann')), 'APPSERVICE_UNKNOWN_TOKEN', 'M_UNKNOWN_TOKEN', '401');
  assert.doesNotMatch(JSON.stringify([refusal.message, refusal.details]), /as-secret/);
});

test('an actor by an unknown appservice id is not found', () => {
  assert.throws(() => ask(as('nobody'), user('alice')), (error: unknown) => error instanceof RefusalError && error.reason === 'APPSERVICE_NOT_FOUND');
});

test('R25 R43 M13 a look-up tells all claims, who claims exclusively, and whether it is a sender user', () => {
  assert.deepEqual(checkNamespace(index, user('irc_ann')), {
    matches: [
      { appserviceId: 'irc', regex: '@irc_', exclusive: true },
      { appserviceId: 'wide', regex: '@(irc|log|both)_', exclusive: false },
    ],
    exclusive: true,
    exclusiveAppserviceIds: ['irc'],
    senderUser: false,
  });
  assert.deepEqual(checkNamespace(index, user('logbot')), { matches: [], exclusive: true, exclusiveAppserviceIds: ['log'], senderUser: true });
  assert.deepEqual(checkNamespace(index, alias('both_x')).exclusiveAppserviceIds, ['one', 'two']);
  assert.deepEqual(checkNamespace(index, { kind: 'rooms', identifier: '!log_v12' }).matches.map(({ appserviceId }) => appserviceId), ['log', 'wide']);
});

test('R26 R28 a look-up never fails for a well-formed identifier, remote and without a domain included', () => {
  const nothing = { matches: [], exclusive: false, exclusiveAppserviceIds: [], senderUser: false };
  for (const subject of [user('irc_ann', 'other.test'), user('', 'x'), user('Ümläut 😀/+', '[::1]:8448'), alias('x'), { kind: 'rooms', identifier: '!v12' } as const]) assert.deepEqual(checkNamespace(index, subject), nothing);
});

test('R27 a malformed identifier is refused by the name of its field', () => {
  const malformed: readonly (readonly [Subject['kind'], string, string])[] = [
    ...['', '@', 'irc_ann:hs.test', '@irc_ann', '@irc_ann:', '#irc_ann:hs.test', `@${'x'.repeat(247)}:hs.test`, `@${'ä'.repeat(124)}:hs.test`].map((identifier) => ['users', identifier, 'user_id'] as const),
    ...['', '#x', '#x:', '@x:hs.test'].map((identifier) => ['aliases', identifier, 'room_alias'] as const),
    ...['', '!', 'x:hs.test', `!${'x'.repeat(255)}`].map((identifier) => ['rooms', identifier, 'room_id'] as const),
  ];
  for (const [kind, identifier, field] of malformed) {
    const isNamed = (error: unknown): boolean => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === field;
    assert.throws(() => checkNamespace(index, { kind, identifier }), isNamed, identifier);
    assert.throws(() => ask(person, { kind, identifier }), isNamed, identifier);
  }
  assert.equal(checkNamespace(index, user('x'.repeat(246))).exclusive, false);
});
