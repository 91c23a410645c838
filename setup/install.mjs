// Packages from the lock file, and re2, the one that has to be compiled.
//
// A stamp in node_modules says for which lock file the packages are there and for which Node re2 was built. While it
// agrees, nothing is done. Where there is none (someone ran npm by hand), what npm recorded is compared with the lock.
// re2's own install script is the only one that runs. What it built is kept in .cache/, so that only a new re2 or a new
// Node compiles again.
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { headersFor, major } from './choose-node.mjs';
import { environmentFor, npm } from './npm.mjs';
import { capture } from './processes.mjs';
import { SetupError, say, step } from './progress.mjs';

/** True if nothing is to be done for `node`. `dev` is whether the development packages are needed too. */
export function isInstalled(root, node, dev) {
  const stamp = readStamp(root);
  return stamp !== undefined && stamp.lock === lockHash(root) && stamp.built === buildKey(node) && (stamp.dev || !dev);
}

/** Makes node_modules agree with the lock file and re2 load in `node`. To be called under the lock of the set-up. */
export async function install(root, node, dev) {
  const stamp = readStamp(root);
  const lock = lockHash(root);
  const packagesThere = stamp === undefined ? agreesWithLock(root, dev) : stamp.lock === lock && (stamp.dev || !dev);
  if (!packagesThere) {
    await step('installing packages from package-lock.json (about half a minute)', () =>
      npm(['ci', '--ignore-scripts', ...(dev ? ['--include=dev'] : [])], {
        folder: root,
        env: environmentFor(node),
        advice: 'Check that the npm registry can be reached and that package-lock.json is the committed one, then run this again.',
      }),
    );
  }
  await provideRe2(root, node);
  const hasDev = dev || existsSync(join(root, 'node_modules', 'typescript'));
  writeFileSync(stampPath(root), JSON.stringify({ lock, built: buildKey(node), dev: hasDev }));
}

async function provideRe2(root, node) {
  const built = join(root, 'node_modules', 're2', 'build', 'Release', 're2.node');
  const kept = join(root, '.cache', 're2', `${re2Key(root)}-${buildKey(node)}.node`);
  if ((await re2Problem(root, node)) !== undefined) {
    if (existsSync(kept)) copy(kept, built);
    if ((await re2Problem(root, node)) !== undefined) await buildRe2(root, node);
  }
  copy(built, kept);
}

async function buildRe2(root, node) {
  const headers = await headersFor(node);
  await step(`building re2 for Node ${node.version}, once (2 to 5 minutes: it compiles C++)`, () =>
    npm(['rebuild', 're2', '--ignore-scripts=false', ...(headers === undefined ? ['--nodedir='] : [])], {
      folder: root,
      env: environmentFor(node, headers),
      advice: 're2 needs a C++20 compiler, make and Python 3 (Debian: `apt-get install g++ make python3`). With these there, run this again.',
    }),
  );
  const problem = await re2Problem(root, node);
  if (problem !== undefined) throw new SetupError(re2Advice(node, headers, problem));
}

function copy(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
}

/** Loads re2 once in the Node that will use it; the words of the failure, or undefined if it works. */
async function re2Problem(root, node) {
  const program = "const RE2 = require('re2'); if (!new RE2('^@a.*').test('@ab')) throw new Error('re2 matches wrongly');";
  const { code, output } = await capture(node.path, ['-e', program], { cwd: root, env: environmentFor(node) });
  return code === 0 ? undefined : output.trim();
}

function re2Advice(node, headers, problem) {
  const first = problem.split('\n').find((line) => /error/i.test(line)) ?? problem.split('\n')[0];
  const against = headers === undefined ? 'headers that the build fetched' : `the headers in ${headers}`;
  return (
    `re2 was built but does not load in Node ${node.version} (${node.path}):\n  ${first}\n` +
    `It was built against ${against}. If it speaks of NODE_MODULE_VERSION or an undefined symbol, those headers belong to another Node:\n` +
    'remove node_modules and .cache, look for `nodedir` in `npm config list`, and run this again.'
  );
}

/** Whether what npm recorded of its last run is what the lock file asks for. */
function agreesWithLock(root, dev) {
  const recorded = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(recorded)) return false;
  const there = JSON.parse(readFileSync(recorded, 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(lockPath(root), 'utf8')).packages;
  const missing = Object.entries(wanted).filter(([path, entry]) => {
    if (path === '' || entry.optional === true || (entry.dev === true && !dev)) return false;
    return there[path]?.version !== entry.version;
  });
  const stale = Object.entries(there).filter(([path, entry]) => wanted[path]?.version !== entry.version);
  if (missing.length > 0 || stale.length > 0) say('» node_modules is not what package-lock.json asks for');
  return missing.length === 0 && stale.length === 0;
}

function buildKey(node) {
  return `${process.platform}-${process.arch}-node${major(node.version)}`;
}

function re2Key(root) {
  const { version, integrity } = JSON.parse(readFileSync(lockPath(root), 'utf8')).packages['node_modules/re2'];
  return `${version}-${createHash('sha256').update(integrity).digest('hex').slice(0, 12)}`;
}

function lockPath(root) {
  return join(root, 'package-lock.json');
}

function lockHash(root) {
  return createHash('sha256').update(readFileSync(lockPath(root))).digest('hex');
}

function stampPath(root) {
  return join(root, 'node_modules', '.setup-stamp.json');
}

function readStamp(root) {
  try {
    return JSON.parse(readFileSync(stampPath(root), 'utf8'));
  } catch {
    return undefined;
  }
}
