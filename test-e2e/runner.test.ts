// `npm run test:e2e` itself: what it says of a test that leaves something behind.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const RUNNER = join(import.meta.dirname, 'support', 'run-tests.ts');
const TIMEOUT_MS = 60_000;

function run(source: string): { code: number | null; left: string[] } {
  const folder = mkdtempSync(join(tmpdir(), 'runner-'));
  try {
    const file = join(folder, 'left.test.mjs');
    writeFileSync(file, source);
    // A runner within a runner would be taken for a part of it.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const { status, stderr } = spawnSync(process.execPath, ['--disable-warning=ExperimentalWarning', RUNNER, file], { env, encoding: 'utf8', timeout: TIMEOUT_MS });
    return { code: status, left: [...stderr.matchAll(/^LEFT BEHIND: (\w+)/gm)].map(([, kind = '']) => kind) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test('the run fails if a test leaves a process or a file behind, and says which', { skip: process.platform !== 'linux' && 'PROCESSES ARE LISTED ON LINUX ONLY' }, () => {
  assert.deepEqual(run(`import { test } from 'node:test';\ntest('tidy', () => {});\n`), { code: 0, left: [] }, 'control');
  const process = `import { spawn } from 'node:child_process';\nimport { test } from 'node:test';\ntest('a process', () => spawn('sleep', ['60'], { detached: true, stdio: 'ignore', cwd: '/' }).unref());\n`;
  assert.deepEqual(run(process), { code: 1, left: ['process'] });
  const file = `import { mkdtempSync } from 'node:fs';\nimport { tmpdir } from 'node:os';\nimport { test } from 'node:test';\ntest('a file', () => void mkdtempSync(tmpdir() + '/left-'));\n`;
  assert.deepEqual(run(file), { code: 1, left: ['file'] });
});
