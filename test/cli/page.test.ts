import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { cliPage } from '../support/cli-page.ts';

test('docs/cli.md tells what the commands take', () => {
  const page = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
  assert.equal(page, cliPage(), "write it anew: node -e \"import('./test/support/cli-page.ts').then((m) => fs.writeFileSync('docs/cli.md', m.cliPage()))\"");
});
