// Which Node runs the project: the one that runs this if it is new enough, else the pinned one in setup/node.
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { capture } from './processes.mjs';
import { environmentFor, npm } from './npm.mjs';
import { SetupError, step } from './progress.mjs';

export const NODE_MAJOR_MIN = 24;
const folder = join(dirname(fileURLToPath(import.meta.url)), 'node');
const pinnedName = `node-${process.platform}-${process.arch}`;
const pinnedRoot = join(folder, 'node_modules', pinnedName);

/** {path, version, ready}: the chosen Node, and whether it is there already. Costs two small reads. */
export function chooseNode() {
  if (major(process.versions.node) >= NODE_MAJOR_MIN) {
    return { path: process.execPath, version: process.versions.node, ready: true, pinned: false };
  }
  const version = pinnedVersion();
  if (version === undefined) {
    throw new SetupError(
      `This project needs Node ${NODE_MAJOR_MIN} or newer; this is ${process.version}, and there is no pinned one for ` +
        `${process.platform} on ${process.arch}.\nInstall Node ${NODE_MAJOR_MIN} (https://nodejs.org) and run this again.`,
    );
  }
  return { path: join(pinnedRoot, 'bin', 'node'), version, ready: installedVersion() === version, pinned: true };
}

export function major(version) {
  return Number.parseInt(version, 10);
}

/** Installs the pinned Node from the lock file beside it. */
export async function installPinned() {
  await step(`installing Node ${pinnedVersion()} for this project, once (50 MB; yours is ${process.version} and stays as it is)`, async () => {
    await npm(['ci', '--ignore-scripts', '--include=optional'], {
      folder,
      env: environmentFor({ path: process.execPath }),
      advice: `Check that the npm registry can be reached, or install Node ${NODE_MAJOR_MIN} yourself.`,
    });
    const { code, output } = await capture(join(pinnedRoot, 'bin', 'node'), ['--version']);
    if (code !== 0) {
      throw new SetupError(`The pinned Node does not start on this machine:\n${output.trim()}\nInstall Node ${NODE_MAJOR_MIN} (https://nodejs.org) and run this again.`);
    }
  });
}

/**
 * The folder with the headers to compile addons for `node` against, or undefined if the build has to fetch them: those
 * beside it if they are its own, else the pinned ones if they are of the same major version, whose binary interface is one.
 */
export async function headersFor(node) {
  const beside = dirname(dirname(realpathSync(node.path)));
  if (headersVersion(beside) === node.version) return beside;
  const version = pinnedVersion();
  if (version === undefined || major(version) !== major(node.version)) return undefined;
  if (installedVersion() !== version) await installPinned();
  return pinnedRoot;
}

function headersVersion(root) {
  const path = join(root, 'include', 'node', 'node_version.h');
  if (!existsSync(path)) return undefined;
  const text = readFileSync(path, 'utf8');
  return ['MAJOR', 'MINOR', 'PATCH'].map((part) => new RegExp(`#define NODE_${part}_VERSION (\\d+)`).exec(text)?.[1]).join('.');
}

function pinnedVersion() {
  return readJson(join(folder, 'package.json')).optionalDependencies[pinnedName];
}

function installedVersion() {
  const path = join(pinnedRoot, 'package.json');
  return existsSync(path) ? readJson(path).version : undefined;
}

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}
