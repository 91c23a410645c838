import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Registration } from '../../src/appservice/registration.ts';
import { patternSamples, topLevelBranches } from '../../src/appservice/pattern-samples.ts';
import { compile } from '../support/routed-world.ts';
import { registration } from '../support/routing.ts';

test('samples follow each branch, the fewest turns and one more, and one character of a class', () => {
  assert.deepEqual(patternSamples('@irc_.*:hs\\.test'), ['@irc_:hs.test', '@irc_x:hs.test']);
  assert.deepEqual(patternSamples('^@(irc|xmpp)_[a-z]+$').sort(), ['@irc_a', '@irc_aa', '@xmpp_a', '@xmpp_aa']);
  assert.deepEqual(patternSamples('#(?:a|b)?\\d{2}').sort(), ['#77', '#a77', '#b77']);
  assert.deepEqual(patternSamples('a|b|'), ['a', 'b', '']);
  assert.deepEqual(patternSamples('[^_x]\\w'), ['qx']);
  assert.deepEqual(patternSamples(''), ['']);
});

test('what is not understood gives no samples, and neither size nor depth of a pattern matters', () => {
  for (const regex of ['\\p{L}', '(?i)@a', 'a{999}b{9}', '[[:alpha:]]', ')', '(', '[', '*', '(a', `${'('.repeat(5_000)}a${')'.repeat(5_000)}`, '((a{90}){90})']) assert.deepEqual(patternSamples(regex), [], regex);
  assert.equal(patternSamples('(a|b)'.repeat(500)).length, 0);
  assert.equal(patternSamples('(a|b)'.repeat(100)).length, 16);
});

const atom: fc.Arbitrary<string> = fc.constantFrom('a', 'b', '@', '_', ':', '.', '\\.', '\\w', '\\d', '\\S', '[a-c]', '[^a-c]', '[x_]', '[\\w-]', '[\\d]');
const pattern = fc.letrec<{ pattern: string; piece: string }>((tie) => ({
  piece: fc.tuple(fc.oneof({ maxDepth: 3 }, atom, tie('pattern').map((inner) => `(${inner})`), tie('pattern').map((inner) => `(?:${inner})`)), fc.constantFrom('', '', '*', '+', '?', '{2}', '{1,3}', '+?')).map(([one, turns]) => one + turns),
  pattern: fc.array(fc.array(tie('piece'), { maxLength: 4 }).map((pieces) => pieces.join('')), { minLength: 1, maxLength: 3 }).map((branches) => branches.join('|')),
})).pattern;

test('every sample is matched by its pattern, to its end, and there are few', async () => {
  const whole = (regex: string): Registration => registration('a', { namespaces: { users: [], aliases: [], rooms: [{ regex: `(?:${regex})$`, exclusive: true }] } });
  await fc.assert(
    fc.asyncProperty(pattern, async (regex) => {
      const samples = patternSamples(regex);
      assert.ok(samples.length <= 16);
      const index = await compile([whole(regex)]);
      for (const sample of samples) assert.equal(index.matches('rooms', sample).length, 1, `${regex} ${sample}`);
    }),
    { numRuns: 1_000, seed: 4 },
  );
});

test('any text whatever gives samples or none', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (regex) => void patternSamples(regex)), { numRuns: 3_000 });
});

test('branches outside of groups and classes are told apart', () => {
  assert.deepEqual(topLevelBranches('@a|b(c|d)|[|]|\\|e|[]|]'), ['@a', 'b(c|d)', '[|]', '\\|e', '[]|]']);
  assert.deepEqual(topLevelBranches(''), ['']);
});
