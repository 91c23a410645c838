// npm, run by the Node it came with, while the scripts it starts find the chosen Node first.
import { existsSync, realpathSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { capture } from './processes.mjs';
import { SetupError } from './progress.mjs';

const OUTPUT_LINES_SHOWN = 40;

/** Runs npm in `folder`; throws with the end of its output when it fails. `advice` says what a person can do then. */
export async function npm(args, { folder, env, advice }) {
  const [command, ...before] = npmCommand();
  const { code, output } = await capture(command, [...before, ...args, '--no-audit', '--no-fund', '--loglevel=error'], { cwd: folder, env });
  if (code === 0) return;
  const end = output.trimEnd().split('\n').slice(-OUTPUT_LINES_SHOWN).join('\n');
  throw new SetupError(`${end}\n\n\`npm ${args[0]}\` in ${folder} ended with exit code ${code}.\n${advice}`);
}

function npmCommand() {
  const started = process.env.npm_execpath ?? '';
  if (started.endsWith('npm-cli.js')) return [process.execPath, started];
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, 'npm');
    if (folder === '' || !existsSync(path)) continue;
    const real = realpathSync(path);
    return real.endsWith('.js') ? [process.execPath, real] : [real];
  }
  throw new SetupError('npm was not found. Install it beside Node (it comes with the downloads of nodejs.org) and run this again.');
}

/**
 * The environment for npm and for the command that follows: the chosen Node is the `node` of every script.
 * What a user-level .npmrc says about `nodedir` reaches us as a variable of any letter case, and none of it may stay.
 */
export function environmentFor(node, nodedir) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_(?:package_)?config_(?:node_gyp_)?nodedir$/i.test(name)));
  env.PATH = [dirname(node.path), process.env.PATH ?? ''].join(delimiter);
  if (nodedir !== undefined) env.npm_config_nodedir = nodedir;
  return env;
}
