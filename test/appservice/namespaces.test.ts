/** Who claims an identifier. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NamespaceIndex, patternProblem, PATTERN_LENGTH_MAX } from '../../src/appservice/namespaces.ts';
import type { Namespace, NamespaceKind, Registration } from '../../src/appservice/registration.ts';
import { compile } from '../support/routed-world.ts';
import { registration, SERVER } from '../support/routing.ts';

const NONE: Registration['namespaces'] = { users: [], aliases: [], rooms: [] };
const entry = (regex: string, exclusive = false): Namespace => ({ regex, exclusive });

function of(kind: NamespaceKind, ...regexes: string[]): Registration {
  return registration('as', { namespaces: { ...NONE, [kind]: regexes.map((regex) => entry(regex)) } });
}

async function matched(kind: NamespaceKind, regex: string, identifier: string): Promise<boolean> {
  return (await compile([of(kind, regex)])).matches(kind, identifier).length > 0;
}

test('R21 a pattern matches from the first character and need not reach the end', async () => {
  assert.equal(await matched('aliases', '#irc_', '#irc_ann:hs.test'), true);
  assert.equal(await matched('aliases', 'irc_', '#irc_ann:hs.test'), false);
  assert.equal(await matched('aliases', '.*ann', '#irc_ann:hs.test'), true);
  assert.equal(await matched('aliases', '#irc_$', '#irc_ann:hs.test'), false);
  assert.equal(await matched('aliases', '#irc_\\z', '#irc_'), true);
  assert.equal(await matched('aliases', '^#irc_', '#irc_ann:hs.test'), true);
});

test('R22 every branch of an alternative is anchored', async () => {
  assert.equal(await matched('users', '@zed|ann', '@irc_ann:hs.test'), false);
  assert.equal(await matched('users', '@zed|.*ann', '@irc_ann:hs.test'), true);
  assert.equal(await matched('users', 'ann|@irc', '@irc_ann:hs.test'), true);
  assert.equal(await matched('users', '^@zed|@irc', '@irc_ann:hs.test'), true);
  assert.equal(await matched('users', '@(zed|irc)_', '@irc_ann:hs.test'), true);
});

test('R23 matching is case-sensitive unless the pattern says otherwise', async () => {
  assert.equal(await matched('users', '@IRC_', '@irc_ann:hs.test'), false);
  assert.equal(await matched('users', '@irc_', '@IRC_ann:hs.test'), false);
  assert.equal(await matched('users', '(?i)@IRC_', '@irc_ann:hs.test'), true);
});

test('R24 users and aliases are matched with sigil and domain', async () => {
  assert.equal(await matched('users', '@irc_ann:hs\\.test$', '@irc_ann:hs.test'), true);
  assert.equal(await matched('users', 'irc_ann', '@irc_ann:hs.test'), false);
  assert.equal(await matched('aliases', '#irc:hs\\.test$', '#irc:hs.test'), true);
});

test('R25 one list is one claim: any matching entry counts, and any exclusive one', async () => {
  const index = await compile([registration('as', { namespaces: { ...NONE, users: [entry('@a'), entry('@ab'), entry('@abc', true), entry('@x')] } })]);
  assert.deepEqual(index.matches('users', '@abcd:hs.test'), [
    { appserviceId: 'as', regex: '@a', exclusive: false },
    { appserviceId: 'as', regex: '@ab', exclusive: false },
    { appserviceId: 'as', regex: '@abc', exclusive: true },
  ]);
  assert.deepEqual(index.interested('users', '@abcd:hs.test'), ['as']);
});

test('R26 only users with exactly this server name after the first colon count', async () => {
  const index = await compile([of('users', '@a')]);
  for (const local of ['@a:hs.test', '@ann:hs.test']) assert.equal(index.matches('users', local).length, 1);
  for (const remote of ['@a:other.test', '@a:evilhs.test', '@a:x:hs.test', '@a:hs.test:8448', '@a:HS.TEST', '@a:hs.test.', '@a:hs.test\n', '@ahs.test', '@a:', '@a', 'a:hs.test', '']) {
    assert.deepEqual(index.matches('users', remote), [], remote);
    assert.deepEqual(index.interested('users', remote), [], remote);
  }
  const withPort = await compile([of('users', '@a')], 'hs.test:8448');
  assert.equal(withPort.matches('users', '@a:hs.test:8448').length, 1);
  assert.equal(withPort.matches('users', '@a:hs.test').length, 0);
});

test('R26 a server name that is also an expression is only text', async () => {
  const index = await compile([of('users', '@a')], 'h.\\');
  assert.equal(index.matches('users', '@a:h.\\').length, 1);
  assert.equal(index.matches('users', '@a:hx\\').length, 0);
});

test('R27 patterns that make other engines take for ever, on identifiers of any length, are judged at once', async () => {
  const index = await compile([of('aliases', '#(a+)+$', '#(a|a)*b', '#(.*)(.*)(.*)(.*)x$', '#(a?){50}a{50}')]);
  assert.deepEqual(index.matches('aliases', `#${'a'.repeat(50)}!`).map(({ regex }) => regex), ['#(a?){50}a{50}']);
  assert.equal(index.matches('aliases', `#${'a'.repeat(100_000)}x`).length, 2);
});

test('R28 room ids without a domain match like others', async () => {
  assert.equal(await matched('rooms', '!f-8c6mpzp', '!f-8c6mpzp_eoj5irpsMbHoByYWg3zNtLrzs7LKdvBqU'), true);
  assert.equal(await matched('rooms', '!.*:hs\\.test', '!f-8c6mpzp_eoj5irpsMbHoByYWg3zNtLrzs7LKdvBqU'), false);
});

test('R30 R32 R17 the sender user is its appservice’s, by its full id and without a namespace', async () => {
  const bots = [registration('a', { sender_localpart: 'bot', namespaces: NONE }), registration('b', { sender_localpart: 'bot', namespaces: NONE })];
  const index = await compile(bots);
  assert.deepEqual(index.interested('users', '@bot:hs.test'), ['a', 'b']);
  assert.deepEqual(index.senderOwners('@bot:hs.test'), ['a', 'b']);
  assert.deepEqual(index.matches('users', '@bot:hs.test'), []);
  assert.deepEqual(index.interested('users', '@bot:other.test'), []);
  assert.deepEqual(index.senderOwners('@bot:other.test'), []);
});

test('R46 R3 without a URL an appservice still claims, and wants no events', async () => {
  const index = await compile([registration('silent', { url: null, namespaces: { ...NONE, users: [entry('@a', true)] } })]);
  assert.deepEqual(index.matches('users', '@a:hs.test'), [{ appserviceId: 'silent', regex: '@a', exclusive: true }]);
  assert.deepEqual(index.interested('users', '@a:hs.test'), []);
  assert.deepEqual(index.interested('users', '@_silent_bot:hs.test'), []);
  assert.deepEqual(index.senderOwners('@_silent_bot:hs.test'), ['silent']);
});

test('every answer is in registration order', async () => {
  const all = ['z', 'm', 'a', 'q', 'b'].map((id) => registration(id, { namespaces: { ...NONE, aliases: [entry('#.*x'), entry('#irc_ann'), entry('#irc')] } }));
  const index = await compile(all);
  assert.deepEqual(index.interested('aliases', '#irc_annx'), ['z', 'm', 'a', 'q', 'b']);
  assert.deepEqual(index.matches('aliases', '#irc_annx').map(({ appserviceId, regex }) => `${appserviceId} ${regex}`), ['z', 'm', 'a', 'q', 'b'].flatMap((id) => [`${id} #.*x`, `${id} #irc_ann`, `${id} #irc`]));
});

test('the empty pattern matches everything, and $ is the end of the whole identifier', async () => {
  assert.equal(await matched('aliases', '', '#anything:hs.test'), true);
  assert.equal(await matched('rooms', '', ''), true);
  assert.equal(await matched('aliases', '#a$', '#a\nb'), false);
  assert.equal(await matched('aliases', '#a$', '#a\n'), false);
});

test('a dot does not match a line feed, and matches every other character', async () => {
  assert.equal(await matched('aliases', '#a.b', '#a\nb'), false);
  for (const odd of ['\r', '\u2028', '\0', '\u{1f600}', 'ä', ' ']) assert.equal(await matched('aliases', '#a.b$', `#a${odd}b`), true, JSON.stringify(odd));
  assert.equal(await matched('users', '@irc_.*:hs\\.test$', '@irc_a\nb:hs.test'), false);
  assert.equal(await matched('users', '@irc_.*', '@irc_\nb:hs.test'), true);
});

test('text that is not well-formed Unicode neither throws nor matches by accident', async () => {
  const index = await compile([of('aliases', '#a\\x{d7ff}', '#a\\x{fffd}b', '#ab')]);
  assert.deepEqual(index.matches('aliases', '#a\ud800b').map(({ regex }) => regex), ['#a\\x{fffd}b']);
  assert.deepEqual(index.matches('aliases', '#a\udfff'), []);
  assert.equal(await matched('aliases', '#a\ud800', '#a\ud800'), true);
});

test('an identifier asked for again, and thousands of others later, is judged the same', async () => {
  const index = await compile([of('users', '@irc_.*7')]);
  const ask = (): number => [...Array(70_000).keys()].filter((at) => index.interested('users', `@irc_${at}:hs.test`).length > 0).length;
  const first = ask();
  assert.equal(first, [...Array(70_000).keys()].filter((at) => String(at).includes('7')).length);
  assert.equal(ask(), first);
  assert.equal(index.interested('users', `@irc_${'x'.repeat(300)}7:hs.test`).length, 1);
});

const REFUSED: readonly (readonly [string, string, RegExp])[] = [
  ['look-ahead', '@(?!admin).*', /look-around/],
  ['look-ahead', '@(?=a).*', /look-around/],
  ['look-behind', '@.*(?<!bot):', /look-around/],
  ['a back-reference', '@(a)\\1', /back-references.*alternatives/],
  ['a named back-reference', '@(?P<n>a)(?P=n)', /back-references/],
  ['a long repetition', '@a{1001}', /1000/],
  ['nested repetitions', '@(a{100}){100}', /1000/],
  ['\\Z', '@a\\Z', /\\z/],
  ['a possessive repetition', '@a++', /possessive/],
  ['an atomic group', '@(?>a)', /atomic/],
  ['a comment', '@(?#c)a', /comments/],
  ['a conditional', '@(a)(?(1)b)', /\(\?/],
  ['a class left open', '@[a', /missing \].*\[a/],
  ['a group left open', '@(a', /missing \)/],
  ['a lone quantifier', '*', /RE2 does not take it/],
  ['a trailing backslash', '@a\\', /trailing/],
  ['a pattern that multiplies out', '@[\\p{L}\\p{N}]{1,900}', /too large/],
  ['a long pattern', 'a'.repeat(PATTERN_LENGTH_MAX + 1), /at most 4096/],
];
for (const [what, regex, hint] of REFUSED) {
  test(`R11 ${what} is refused with what to write instead: ${regex.slice(0, 30)}`, () => assert.match(patternProblem(regex) ?? 'taken', hint));
}

test('R10 R11 what RE2 knows is taken', () => {
  for (const regex of ['', '@_irc_.*:hs\\.test', '#(a|b){1,1000}', '(?i)@A', '@[[:alpha:]]+\\pL', '(?P<n>a)', 'a{,3}', '\\Qa.b\\E', '\\Aa\\z', 'a'.repeat(PATTERN_LENGTH_MAX)]) assert.equal(patternProblem(regex), null, regex);
});

test('no set is refused for its size: what passes alone passes in any number', async () => {
  const regexes = [...Array(400).keys()].map((at) => `@h${at}_[^:]{1,${600 + at}}x.{0,300}`);
  for (const regex of regexes.slice(0, 3)) assert.equal(patternProblem(regex), null);
  const index = await compile([of('users', ...regexes, '@.*y.{0,1000}')]);
  assert.deepEqual(index.matches('users', '@h399_axb:hs.test').map(({ regex }) => regex), ['@h399_[^:]{1,999}x.{0,300}']);
  assert.deepEqual(index.matches('users', '@h1_axy:hs.test').length, 2);
});

test('a change of one registration compiles its shard anew and takes over the others; the answers are those of a whole compilation', async () => {
  const many = [...Array(100).keys()].map((at) => registration(`as${at}`, { namespaces: { ...NONE, users: [...Array(50).keys()].map((n) => entry(`@_${at}_${n}_.*`)) } }));
  let pauses = 0;
  const pause = (): Promise<void> => {
    pauses++;
    return Promise.resolve();
  };
  const first = await NamespaceIndex.compile(SERVER, many, pause);
  const whole = pauses;
  pauses = 0;
  await NamespaceIndex.compile(SERVER, many.toReversed(), pause, first);
  const reordered = pauses;
  pauses = 0;
  await NamespaceIndex.compile(SERVER, many.map((one) => ({ ...one, url: 'http://127.0.0.1:2' })), pause, first);
  assert.equal(pauses, 0);
  const changed = many.map((one) => (one.id === 'as7' ? registration('as7', { namespaces: { ...NONE, users: [entry('@_8_8_')] } }) : one));
  const second = await NamespaceIndex.compile(SERVER, changed, pause, first);
  assert.ok(pauses > 0 && pauses * 4 <= whole, `${pauses} of ${whole} pieces`);
  assert.ok(reordered <= whole);
  assert.deepEqual(second.interested('users', '@_7_1_x:hs.test'), []);
  assert.deepEqual(second.interested('users', '@_8_8_x:hs.test'), ['as7', 'as8']);
  assert.deepEqual(first.interested('users', '@_8_8_x:hs.test'), ['as8']);
  assert.deepEqual((await NamespaceIndex.compile(SERVER, many.toReversed(), pause, second)).interested('users', '@_8_8_x:hs.test'), ['as8']);
});
