// Two promises about the contract: what callers were given still holds, and the generated code is what buf generates.
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { capture } from './processes.mjs';

const CONTRACT_PATHS = ['buf.yaml', 'proto', 'third_party'];

/** Compares proto/ with the latest tag, else with where this branch left the main one. The first version passes. */
export async function checkBreaking(buf, root, scratch) {
  const base = await baseRevision(root);
  if (base === undefined) return { code: 0, output: '', note: 'nothing to compare with: no tag and no other branch' };
  const listed = await git(root, ['ls-tree', '--name-only', base.revision, ...CONTRACT_PATHS]);
  const paths = listed.output.split('\n').filter((path) => path !== '');
  if (!paths.includes('buf.yaml') || !paths.includes('proto')) {
    return { code: 0, output: '', note: `the first version: ${base.name} has no contract` };
  }
  const archive = join(scratch, 'base.tar');
  const before = join(scratch, 'base');
  mkdirSync(before);
  const packed = await git(root, ['archive', '--output', archive, base.revision, ...paths]);
  if (packed.code !== 0) return packed;
  const unpacked = await capture('tar', ['-xf', archive, '-C', before]);
  if (unpacked.code !== 0) return unpacked;
  return { ...(await buf(['breaking', '--against', before])), note: `against ${base.name}` };
}

async function baseRevision(root) {
  const tag = await git(root, ['describe', '--tags', '--abbrev=0']);
  if (tag.code === 0) return { revision: tag.output.trim(), name: `tag ${tag.output.trim()}` };
  const head = (await git(root, ['rev-parse', 'HEAD'])).output.trim();
  for (const branch of ['origin/HEAD', 'origin/main', 'main']) {
    const { code, output } = await git(root, ['merge-base', 'HEAD', branch]);
    const revision = output.trim();
    if (code === 0 && revision !== head) return { revision, name: `${revision.slice(0, 10)}, shared with ${branch}` };
  }
  return undefined;
}

function git(root, args) {
  return capture('git', args, { cwd: root });
}

/** Generates into a scratch folder and compares file by file. */
export async function checkGenerated(buf, root, scratch) {
  const made = await buf(['generate', '--output', scratch]);
  if (made.code !== 0) return made;
  const fresh = filesUnder(join(scratch, 'gen'));
  const checkedIn = filesUnder(join(root, 'gen'));
  const different = [...new Set([...fresh.keys(), ...checkedIn.keys()])].filter((path) => fresh.get(path) !== checkedIn.get(path)).sort();
  if (different.length === 0) return { code: 0, output: '', note: `${fresh.size} files` };
  const lines = different.map((path) => `gen/${path}: ${fresh.has(path) ? (checkedIn.has(path) ? 'differs' : 'is missing') : 'is no longer generated'}`);
  return { code: 1, output: `${lines.join('\n')}\nRun \`npm run generate\` and commit gen/.` };
}

function filesUnder(folder) {
  let entries;
  try {
    entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  } catch (error) {
    if (error.code === 'ENOENT') return new Map();
    throw error;
  }
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(files.map((path) => [relative(folder, path), readFileSync(path, 'utf8')]));
}
