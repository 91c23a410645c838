// `npm run check`: all that can be judged without running the router. Each step says how it ended; any failure makes the
// exit code 1. Arguments choose steps by name.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkBreaking, checkGenerated } from './check-contract.mjs';
import { capture } from './processes.mjs';
import { root } from './prepare.mjs';

const tool = (path, args) => () => capture(process.execPath, [join(root, 'node_modules', ...path), ...args], { cwd: root });
const buf = (args) => capture(process.execPath, [join(root, 'node_modules', '@bufbuild', 'buf', 'bin', 'buf'), ...args], { cwd: root });

/** In two lanes, since the two slow steps need a processor each. A step resolves with {code, output, note?}. */
const lanes = [
  [['lint', tool(['eslint', 'bin', 'eslint.js'], ['.'])]],
  [
    ['types', tool(['typescript', 'bin', 'tsc'], ['-p', root])],
    ['buf lint', () => buf(['lint'])],
    ['buf format', () => buf(['format', '--diff', '--exit-code'])],
    ['buf breaking', () => inScratch((scratch) => checkBreaking(buf, root, scratch))],
    ['generated code', () => inScratch((scratch) => checkGenerated(buf, root, scratch))],
  ],
];

async function inScratch(work) {
  const scratch = mkdtempSync(join(tmpdir(), 'appservice-router-check-'));
  try {
    return await work(scratch);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function runLane(steps, chosen) {
  const failed = [];
  for (const [name, run] of steps) {
    if (chosen.length > 0 && !chosen.includes(name)) continue;
    const startedMs = Date.now();
    const { code, output, note } = await run();
    const seconds = ((Date.now() - startedMs) / 1000).toFixed(1);
    process.stdout.write(`${code === 0 ? '✔' : '✖'} ${name}${note === undefined ? '' : ` (${note})`} ${seconds} s\n`);
    if (code === 0) continue;
    process.stdout.write(`${output.trimEnd().replaceAll(/^/gm, '    ')}\n`);
    failed.push(name);
  }
  return failed;
}

const chosen = process.argv.slice(2);
const failed = (await Promise.all(lanes.map((steps) => runLane(steps, chosen)))).flat();
process.stdout.write(failed.length === 0 ? 'All checks passed.\n' : `FAILED: ${failed.join(', ')}\n`);
process.exitCode = failed.length === 0 ? 0 : 1;
