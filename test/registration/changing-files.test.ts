import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { registrationDisk } from '../../src/registration/registration-disk.ts';
import type { DiskSnapshot, RegistrationDisk } from '../../src/registration/registration-disk.ts';
import { VirtualClock } from '../support/clock.ts';
import { HOUR_MS, newDirectory, world, yaml } from './files-world.ts';

/** A disk that shows one scripted text after the other, one for each reading. */
function scriptedDisk(texts: readonly string[]): { disk: RegistrationDisk; hint(): void; readings(): number; change(): void } {
  let at = 0;
  let revision = 0;
  let hint = (): void => undefined;
  const disk: RegistrationDisk = {
    async read(): Promise<DiskSnapshot> {
      const text = texts[Math.min(at++, texts.length - 1)] ?? '';
      return { files: [{ path: '/a.yaml', digest: text, content: { kind: 'text', text } }], lost: [], digest: text };
    },
    signature: async () => `${revision}`,
    watch: (changed) => {
      hint = changed;
      return { [Symbol.dispose]: () => undefined };
    },
  };
  return { disk, hint: () => hint(), readings: () => at, change: () => { revision++; } };
}

test('a half-written file is read again until it stays the same', async () => {
  const clock = new VirtualClock();
  const half = yaml('irc', 'as-secret-new').slice(0, 120);
  const { disk, hint } = scriptedDisk([yaml('irc'), half, yaml('irc', 'as-secret-new')]);
  await using one = await world({}, { disk, clock, settleMs: 250, pollMs: 5_000 });
  one.target.takeCalls();
  hint();
  await clock.advance(249);
  assert.deepEqual([one.target.takeCalls(), one.files.problems()], [[], []]);
  await clock.advance(251);
  assert.deepEqual([one.target.takeCalls(), one.files.problems()], [['put irc'], []]);
  assert.equal(one.target.inForce.get('irc')?.registration.as_token, 'as-secret-new');
});

test('a change without a hint is found by the poll, and nothing is read while nothing changes', async () => {
  const clock = new VirtualClock();
  const { disk, readings, change } = scriptedDisk([yaml('irc'), yaml('irc', 'as-secret-new')]);
  await using one = await world({}, { disk, clock, settleMs: 250, pollMs: 5_000 });
  await clock.advance(20_000);
  assert.equal(readings(), 1);
  change();
  await clock.advance(5_300);
  assert.deepEqual(one.target.takeCalls(), ['put irc', 'put irc']);
});

test('files that never rest are reported and change nothing', async () => {
  const clock = new VirtualClock();
  const texts = Array.from({ length: 200 }, (_, at) => yaml('irc', `as-secret-${at}`));
  const { disk, hint } = scriptedDisk(texts);
  await using one = await world({}, { disk, clock, settleMs: 250, pollMs: HOUR_MS });
  one.target.takeCalls();
  hint();
  await clock.advance(60_000);
  assert.deepEqual(one.target.takeCalls(), []);
  assert.match(one.files.problems()[0]?.message ?? '', /change all the time/);
});

test('a change on the disk is noticed by itself', async () => {
  const directory = await newDirectory();
  await writeFile(join(directory, 'a.yaml'), yaml('irc'));
  const noticed = Promise.withResolvers();
  await using one = await world({}, { disk: registrationDisk([directory]), settleMs: 1, pollMs: 50 });
  const put = one.target.put.bind(one.target);
  one.target.put = async (...args) => {
    await put(...args);
    noticed.resolve(null);
  };
  await writeFile(join(directory, 'b.yaml'), yaml('xmpp'));
  await noticed.promise;
  assert.deepEqual([...one.target.inForce.keys()], ['irc', 'xmpp']);
});

test('disposing ends a wait for files, and settled resolves', async () => {
  const clock = new VirtualClock();
  const { disk } = scriptedDisk([yaml('irc'), yaml('irc', 'as-secret-new')]);
  const one = await world({}, { disk, clock, settleMs: 250, pollMs: 5_000 });
  const settled = one.files.settled();
  await one.files[Symbol.asyncDispose]();
  await settled;
  await one.files.settled();
  assert.deepEqual(one.target.takeCalls(), ['put irc']);
});
