// From whatever this machine has to a Node and packages that run the project. Costs a few milliseconds when all is there.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chooseNode, installPinned } from './choose-node.mjs';
import { environmentFor } from './npm.mjs';
import { install, isInstalled } from './install.mjs';
import { takeLock } from './lock.mjs';
import { endOnSignals } from './processes.mjs';
import { say } from './progress.mjs';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** {path, version, env}: the Node to run, and the environment to run it in. */
export async function prepare({ dev }) {
  let node = chooseNode();
  if (!node.ready || !isInstalled(root, node, dev)) {
    const release = await takeLock(join(root, '.cache', 'setup.lock'));
    const restoreSignals = endOnSignals(release);
    try {
      // Another process may have done all of it while we waited.
      node = chooseNode();
      if (!node.ready) await installPinned();
      if (!isInstalled(root, node, dev)) {
        await install(root, node, dev);
        say('✔ ready');
      }
    } finally {
      restoreSignals();
      release();
    }
  }
  return { ...node, env: environmentFor(node) };
}
