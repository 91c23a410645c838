/** The examples in other languages, each against a router of its own, built and run as their READMEs say. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { RouterProcess } from '../test/support/router-process.ts';

const run = promisify(execFile);
const ROOT = join(import.meta.dirname, '..');
const CACHE = join(ROOT, '.cache');
const BUILD_TIMEOUT_MS = 280_000;
const RUN_TIMEOUT_MS = 60_000;
/** The last line of every example. */
const DONE = /^done: 5 of 5 events received in order, 5 seen delivered, 5 duplicates recognised$/m;

class ExampleWorld implements AsyncDisposable {
  readonly folder: string;
  readonly router: RouterProcess;

  private constructor(folder: string, router: RouterProcess) {
    this.folder = folder;
    this.router = router;
  }

  static async open(): Promise<ExampleWorld> {
    const folder = mkdtempSync(join(tmpdir(), 'router-example-'));
    return new ExampleWorld(folder, await RouterProcess.start(folder, { ROUTER_SERVER_NAME: 'localhost' }));
  }

  /** What the example wrote; rejects if it fails. */
  async run(command: string, args: readonly string[], options: { readonly cwd: string; readonly env?: Readonly<Record<string, string>> }): Promise<string> {
    const { homeserver, admin } = this.router.tokens();
    const env = { ...process.env, ROUTER_ADDRESS: this.router.grpcAddress, ROUTER_HTTP_ADDRESS: this.router.httpAddress, ROUTER_HOMESERVER_TOKEN: homeserver, ROUTER_ADMIN_TOKEN: admin, ...options.env };
    const { stdout } = await run(command, args, { cwd: options.cwd, env, timeout: RUN_TIMEOUT_MS });
    return stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.router[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** What every example shows, whatever its language. */
function assertShown(output: string): void {
  assert.match(output, /^submitted: 5 accepted, 5 routed, stream position 5$/m);
  assert.match(output, /^submitted again: 5 duplicates$/m);
  assert.match(output, /may not create #example_new:localhost: APPSERVICE_NAMESPACE_CONFLICT, answer 400 M_EXCLUSIVE$/m);
  assert.match(output, /^an event that is none: events\[0\]\.json: \S/m);
  assert.match(output, DONE);
}

test('the TypeScript example runs against a live router', async () => {
  await using world = await ExampleWorld.open();
  assertShown(await world.run(process.execPath, ['--disable-warning=ExperimentalWarning', join(ROOT, 'examples', 'typescript', 'main.ts')], { cwd: ROOT }));
});

test('the Python example runs against a live router', async (context) => {
  const python = '/usr/bin/python3';
  if (!(await works(python, ['-c', 'import venv, ensurepip']))) return context.skip('PYTHON WITH venv IS NOT HERE: ITS EXAMPLE WAS NOT RUN');
  const folder = join(ROOT, 'examples', 'python');
  const home = join(CACHE, 'example-python');
  const venvPython = join(home, 'bin', 'python');
  await run(python, ['-m', 'venv', home], { timeout: BUILD_TIMEOUT_MS });
  await run(venvPython, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', 'requirements.txt'], { cwd: folder, timeout: BUILD_TIMEOUT_MS });
  await run('sh', ['generate.sh', venvPython], { cwd: folder, timeout: BUILD_TIMEOUT_MS });
  await using world = await ExampleWorld.open();
  assertShown(await world.run(venvPython, ['main.py'], { cwd: folder, env: { PYTHONDONTWRITEBYTECODE: '1' } }));
});

async function works(command: string, args: readonly string[]): Promise<boolean> {
  try {
    await run(command, args, { timeout: RUN_TIMEOUT_MS });
    return true;
  } catch {
    return false;
  }
}
