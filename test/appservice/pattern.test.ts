/** What a pattern's text tells, and that one set of RE2 says what one expression after the other says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { patternProblem } from '../../src/appservice/namespaces.ts';
import { literalPrefix, patternWeight } from '../../src/appservice/pattern.ts';
import { compile } from '../support/routed-world.ts';
import { registration } from '../support/routing.ts';

test('the literal beginning ends before anything that may not be there as it stands', () => {
  const told: readonly (readonly [string, string])[] = [
    ['@_irc_.*', '@_irc_'],
    ['^@_irc_.*', '@_irc_'],
    ['@irc-bot:hs\\.test', '@irc-bot:hs'],
    ['@irc', '@irc'],
    ['@irc?x', '@ir'],
    ['@irc*', '@ir'],
    ['@irc+', '@ir'],
    ['@irc{0,2}', '@ir'],
    ['@irc{,2}', '@ir'],
    ['@(irc|xmpp)', ''],
    ['@irc|#x', ''],
    ['@[ab]', '@'],
    ['@a\\|b', ''],
    ['(?i)@irc', ''],
    ['\\Q@irc', ''],
    ['.*', ''],
    ['', ''],
    ['@ä*', '@'],
    ['@a$', '@a'],
    ['@a^b', '@a'],
  ];
  for (const [regex, prefix] of told) assert.equal(literalPrefix(regex, 100), prefix, regex);
  assert.equal(literalPrefix('#abcdefgh', 4), '#abc');
});

test('a pattern weighs what it comes to with its repetitions and Unicode classes written out', () => {
  assert.equal(patternWeight('@irc_.*'), 7);
  for (const [heavy, light] of [['a{2}', 'a'], ['a{1,50}', 'a{5}'], ['a{50,}', 'a{5}'], ['\\pL', '[a-z]'], ['[\\p{L}]{9}', '[\\p{L}]']] as const) assert.ok(patternWeight(heavy) > patternWeight(light), heavy);
  assert.equal(patternWeight('a{,5}'), 5);
});

const piece = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('#', 'a', 'b', 'ab', ':', '_', '#a', '#ab', '#ab_') },
  { weight: 3, arbitrary: fc.constantFrom('.', '.*', 'a*', 'b+', 'a?', '[ab]', '[^a]', 'a{2}', 'b{0,2}', '\\.', '\\d', '\\w+', 'ä', '😀', '\\b', '$', '^') },
  { weight: 1, arbitrary: fc.constantFrom('(a|b)', '(?:ab)?', '(#a|b)+', '|', '|#') },
);
const pattern = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join('')).filter((regex) => {
  try {
    new RegExp(regex, 'u');
    return patternProblem(regex) === null;
  } catch {
    return false;
  }
});
const identifier = fc.array(fc.constantFrom('#', '#ab', 'a', 'b', 'A', '_', ':', 'ab', '.', '1', 'ä', '😀', '\0'), { maxLength: 8 }).map((parts) => `#${parts.join('')}`);

function comparison(expression: (regex: string) => RegExp): fc.IAsyncProperty<[string[], string[]]> {
  return fc.asyncProperty(fc.array(pattern, { minLength: 1, maxLength: 12 }), fc.array(identifier, { minLength: 1, maxLength: 12 }), async (regexes, identifiers) => {
    const namespaces = { users: [], rooms: [], aliases: regexes.map((regex) => ({ regex, exclusive: false })) };
    const index = await compile([registration('as', { namespaces })]);
    for (const each of identifiers) {
      const expected = regexes.filter((regex) => expression(regex).test(each));
      assert.deepEqual(index.matches('aliases', each).map(({ regex }) => regex), expected);
    }
  });
}

test('R21 R22 R23 I9 sets found by literal beginnings match what each expression alone matches', async () => {
  await fc.assert(comparison((regex) => new RegExp(`^(?:${regex})`, 'u')), { numRuns: 1000, seed: 21 });
});

for (const [what, expression] of [
  ['case', (regex: string) => new RegExp(`^(?:${regex})`, 'iu')],
  ['the anchor', (regex: string) => new RegExp(regex, 'u')],
  ['the anchor of later branches', (regex: string) => new RegExp(`^${regex}`, 'u')],
  ['the open end', (regex: string) => new RegExp(`^(?:${regex})$`, 'u')],
] as const) {
  test(`R21 R22 R23 control: the comparison notices a mistake in ${what}`, async () => {
    const { failed } = await fc.check(comparison(expression), { numRuns: 1000, seed: 21, endOnFailure: true });
    assert.equal(failed, true);
  });
}
