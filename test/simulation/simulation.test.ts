/**
 * The whole of three routers under a simulated store, network and clock: test/simulation/simulation.ts says how. More of
 * it: npm run sim -- --seeds 10000.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { huntMutant, runSeeds } from './campaign.ts';
import { excerptOf } from './excerpt.ts';
import { FOUND } from './found.ts';
import { mutated, sourceOf } from './mutant-hook.ts';
import { MUTANTS } from './mutants.ts';
import { runSeed, traceOf } from './run-seed.ts';

const SEEDS = 300;
/** Of one test, so that each is well within its time on a busy machine. */
const PART = 100;

for (let from = 1; from <= SEEDS; from += PART) {
  test(`I1 I2 I3 I4 I5 I6 I7 I8 I9 I10 I11 R57 R59 R61 R62 R65 R71 R76 M1 M2 M4 M5 seeds ${from} to ${from + PART - 1} of three routers, everything failing, hold every invariant`, async () => {
    const hashes = new Set<string>();
    const failed: string[] = [];
    await runSeeds({ from, count: PART, pace: 'compressed' }, ({ hash, report }) => {
      hashes.add(hash);
      if (report !== null) failed.push(report);
    });
    assert.deepEqual(failed, []);
    assert.equal(hashes.size, PART);
  });
}

test('the same seed has the same history, another seed another one', async () => {
  const first = await runSeed(7);
  assert.equal((await runSeed(7)).hash, first.hash);
  assert.notEqual((await runSeed(8)).hash, first.hash);
  assert.deepEqual(await traceOf(7), await traceOf(7));
});

test('an excerpt has the lines that name what is broken', () => {
  const line = (timeMs: number, kind: string, subject: string, detail: string) => ({ timeMs, kind, subject, detail });
  const trace = [line(1, 'push', 'as1', '1700000000000001 by p1: $e5'), line(2, 'push', 'as2', '1700000000000002 by p1: $e55'), line(9_000, 'kill', 'p1', ''), line(9_500, 'push', 'as1', '1700000000000003 by p2: $e5')];
  const shown = excerptOf(trace, { text: 'I6 BoundedDuplicates: $e5 was taken twice', about: ['as1'] });
  assert.deepEqual(shown.map((text) => text.trim().split('  ')[1]), ['push as1 1700000000000001 by p1: $e5', 'kill p1', 'push as1 1700000000000003 by p2: $e5']);
});

test('every mutant still finds the code that it breaks', () => {
  for (const mutant of MUTANTS) for (const { file } of mutant.changes) assert.notEqual(mutated(mutant, file, sourceOf(file)), sourceOf(file), mutant.name);
});

test('control: a mutant is found', async () => {
  const found = await huntMutant('a new txn id on each retry', { from: 1, count: 20, pace: 'compressed' });
  assert.match(found?.breach ?? 'nothing', /^I4 NoGapSkip/);
});

/** What a seed holds changes with the code; what it found is found again by it or by one of the next. */
const SEEDS_NEAR = 60;

for (const { mutant, seed, invariant } of FOUND) {
  test(`${invariant} seed ${seed} or one of the next finds it again: ${mutant}`, async () => {
    const found = await huntMutant(mutant, { from: seed, count: SEEDS_NEAR, pace: 'compressed' });
    assert.match(found?.breach ?? 'nothing', new RegExp(`^${invariant}:`));
    assert.deepEqual((await runSeed(seed)).breaches, []);
  });
}
