import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DUTIES, requirementNumbers, requirementsPage, shownRequirements } from './support/requirements-page.ts';

test('every requirement has a test that names it, or a line that says whose duty it is', () => {
  const shown = shownRequirements();
  assert.deepEqual(requirementNumbers().filter((number) => !shown.has(number) && !(number in DUTIES)), []);
  assert.deepEqual([...shown.keys()].filter((number) => !requirementNumbers().includes(number)), [], 'no test names what there is not');
});

test('docs/requirements.md is current', () => {
  const page = readFileSync(new URL('../docs/requirements.md', import.meta.url), 'utf8');
  assert.equal(page, requirementsPage(), "write it anew: node -e \"import('./test/support/requirements-page.ts').then((m) => fs.writeFileSync('docs/requirements.md', m.requirementsPage()))\"");
});
