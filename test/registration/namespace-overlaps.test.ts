import assert from 'node:assert/strict';
import { test } from 'node:test';
import { overlapWarnings } from '../../src/registration/namespace-overlaps.ts';
import type { Namespaces, Registration } from '../../src/appservice/registration.ts';
import { compile, noPause } from '../support/routed-world.ts';
import { registration } from '../support/routing.ts';

const NONE: Namespaces = { users: [], aliases: [], rooms: [] };

function users(id: string, ...patterns: string[]): Registration {
  return registration(id, { namespaces: { ...NONE, users: patterns.map((regex) => ({ regex, exclusive: true })) } });
}

async function warned(one: Registration, ...others: Registration[]): Promise<string[]> {
  return (await overlapWarnings(one, await compile(others), noPause)).map(({ code, message }) => `${code} ${message}`);
}

test('patterns that overlap without being equal are told with an identifier that both match', async () => {
  const found = await warned(users('mine', '@_irc_.*:hs\\.test'), users('theirs', '@_irc_admin.*'));
  assert.deepEqual(found, ['EXCLUSIVE_OVERLAP "@_irc_.*:hs\\\\.test" in users overlaps "@_irc_admin.*", which is exclusive to "theirs": both match "@_irc_admin:hs.test", so neither may create it.']);
  // Whichever of the two comes second.
  assert.equal((await warned(users('theirs', '@_irc_admin.*'), users('mine', '@_irc_.*:hs\\.test'))).length, 1);
  assert.equal((await warned(users('mine', '@_[a-z]+_ann:hs'), users('theirs', '@(_irc|_xmpp)_.*'))).length, 0, 'they meet in @_irc_ann:hs, which is no sample of either');
  assert.equal((await warned(users('mine', '@_[a-z]+:hs'), users('theirs', '@_a.*bot|@_aa'))).length, 1);
});

test('what is not exclusive, of another server, equal or its own is not told', async () => {
  const shared = registration('theirs', { namespaces: { ...NONE, users: [{ regex: '@_irc_.*', exclusive: false }] } });
  assert.deepEqual(await warned(users('mine', '@_irc_a'), shared), []);
  assert.deepEqual(await warned(users('mine', '@_irc_.*:else\\.test'), users('theirs', '@_irc_b.*:else\\.test')), [], 'users of other servers are nobody\'s (R26)');
  assert.deepEqual(await warned(users('mine', '@_irc_.*'), users('theirs', '@_irc_.*')), [], 'equal patterns are told without a witness');
  assert.deepEqual(await warned(users('mine', '@_irc_.*'), users('mine', '@_irc_a.*')), []);
  assert.deepEqual(await warned(users('mine', '@_irc_.*'), users('theirs', '@_xmpp_.*')), []);
});

test('aliases and rooms are looked at as users are, each other appservice once for each kind', async () => {
  const of = (id: string, text: string): Registration => registration(id, { namespaces: { users: [], aliases: [{ regex: `#${text}.*`, exclusive: true }, { regex: `#${text}`, exclusive: true }], rooms: [{ regex: `!${text}.*`, exclusive: true }] } });
  const found = await warned(of('mine', 'a'), of('theirs', 'ab'), of('further', 'ac'));
  assert.deepEqual(found.map((line) => / in (\w+) .* to "(\w+)"/.exec(line)?.slice(1)), [['aliases', 'theirs'], ['rooms', 'theirs'], ['aliases', 'further'], ['rooms', 'further']]);
});

test('R146 an own user in an exclusive namespace of another is told, from both sides', async () => {
  const bot = registration('bot', { sender_localpart: '_irc_bot', namespaces: NONE });
  const [claimed] = await warned(users('mine', '@_irc_.*'), bot);
  assert.match(claimed ?? '', /^SENDER_CLAIMED .* matches @_irc_bot:hs\.test, the own user of "bot"/);
  const [within] = await warned(bot, users('theirs', '@_irc_.*'));
  assert.match(within ?? '', /^SENDER_CLAIMED Its own user @_irc_bot:hs\.test is in .* exclusive to "theirs"/);
});

test('very many patterns are looked at with bounded work and told in part', async () => {
  const others = Array.from({ length: 300 }, (_, at) => users(`as${at}`, ...Array.from({ length: 20 }, (__, n) => `@_p${at}_${n}_.*`)));
  let pauses = 0;
  const warnings = await overlapWarnings(users('mine', '@_p.*'), await compile(others), () => (pauses++, Promise.resolve()));
  assert.equal(warnings.length, 20);
  assert.ok(pauses > 0);
});
