import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { planFiles } from '../../src/registration/file-plan.ts';
import type { FileReading, InForce } from '../../src/registration/file-plan.ts';
import type { RegistrationReading } from '../../src/registration/registration-yaml.ts';
import { REGISTRATION } from './rules.ts';

const ids = fc.constantFrom('a', 'b', 'c', 'd');
const tokens = fc.constantFrom('t1', 't2', 't3', 't4', 't5');
const reading: fc.Arbitrary<RegistrationReading> = fc.oneof(
  fc.record({ id: ids, token: tokens }).map(({ id, token }): RegistrationReading => ({ kind: 'valid', registration: { ...REGISTRATION, id, as_token: token }, warnings: [] })),
  fc.option(ids).map((id): RegistrationReading => ({ kind: 'invalid', problems: [{ field: 'yaml', message: 'broken' }], appserviceId: id })),
);
const files: fc.Arbitrary<FileReading[]> = fc
  .array(reading, { maxLength: 5 })
  .map((readings) => readings.map((one, at) => ({ path: `/${at}.yaml`, digest: JSON.stringify(one), reading: one })));
const inForce: fc.Arbitrary<InForce[]> = fc
  .uniqueArray(fc.record({ id: ids, origin: fc.constantFrom('api' as const, 'files' as const), token: tokens }), { selector: ({ id }) => id, maxLength: 4 })
  .map((all) => all.map(({ id, origin, token }) => ({ appserviceId: id, origin, registration: { ...REGISTRATION, id, as_token: token } })));
const lost = fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.constant([{ path: '/volume', message: 'away' }]));
const before = fc.dictionary(fc.constantFrom('/0.yaml', '/1.yaml', '/2.yaml'), ids).map((known) => new Map(Object.entries(known)));

test('R6 R7 R11 whatever the files hold, a doubt removes and replaces nothing', () => {
  let removals = 0;
  let puts = 0;
  fc.assert(
    fc.property(files, lost, inForce, before, (all, gone, present, idsByFile) => {
      const plan = planFiles({ files: all, lost: gone, inForce: present, idsByFile });
      removals += plan.removals.length;
      puts += plan.wanted.length;
      const doubts = all.filter((file) => file.reading.kind === 'invalid');
      const named = all.flatMap(({ path, reading: one }) => [one.kind === 'valid' ? one.registration.id : one.appserviceId, one.kind === 'invalid' ? idsByFile.get(path) : null]);
      for (const id of plan.removals) {
        assert.equal(present.find(({ appserviceId }) => appserviceId === id)?.origin, 'files');
        assert.ok(!named.includes(id), 'a file still means it');
        assert.deepEqual(gone, []);
        assert.ok(doubts.every(({ path, reading: one }) => one.kind === 'invalid' && (one.appserviceId !== null || idsByFile.has(path))), 'every broken file is known to mean another');
      }
      assert.equal(new Set(plan.wanted.map(({ registration }) => registration.id)).size, plan.wanted.length);
      assert.equal(new Set(plan.wanted.map(({ registration }) => registration.as_token)).size, plan.wanted.length);
      const applied = new Set(plan.wanted.map(({ file }) => file));
      const told = new Set(plan.problems.map(({ file }) => file));
      for (const { path } of [...all, ...gone]) assert.ok(applied.has(path) !== told.has(path), 'a path is applied or reported, never both or neither');
    }),
    { numRuns: 2000 },
  );
  assert.ok(removals > 50 && puts > 500, 'the property was put to the test');
});
