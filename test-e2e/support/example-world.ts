/** A router of its own for one example, what the example is told of it, and what every example shows. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { RouterProcess } from '../../test/support/router-process.ts';
import { ReluctantRouter } from './reluctant-router.ts';

const run = promisify(execFile);
const BUILD_TIMEOUT_MS = 280_000;
const RUN_TIMEOUT_MS = 60_000;
const PROBE_TIMEOUT_MS = 30_000;

export const ROOT = join(import.meta.dirname, '..', '..');
/** Everything that is fetched or built for the examples stays in there, from one run to the next. */
export const CACHE = join(ROOT, '.cache');

export type Environment = Readonly<Record<string, string>>;

/** How to run an example that is built. */
export interface Example {
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env?: Environment;
}

export class ExampleWorld implements AsyncDisposable {
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

  /** What the example wrote; rejects if it fails. With `addresses` it calls there instead of the router itself. */
  async run({ command, args, cwd, env }: Example, addresses: Environment = {}): Promise<string> {
    const { homeserver, admin } = this.router.tokens();
    const told = { ROUTER_ADDRESS: this.router.grpcAddress, ROUTER_HTTP_ADDRESS: this.router.httpAddress, ROUTER_HOMESERVER_TOKEN: homeserver, ROUTER_ADMIN_TOKEN: admin };
    const { stdout } = await run(command, args, { cwd, env: { ...process.env, ...told, ...env, ...addresses }, timeout: RUN_TIMEOUT_MS });
    return stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.router[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** One step of a build, as a README says it. */
export async function build(command: string, args: readonly string[], options: { readonly cwd: string; readonly env?: Environment }): Promise<void> {
  mkdirSync(CACHE, { recursive: true });
  await run(command, args, { cwd: options.cwd, env: { ...process.env, ...options.env }, timeout: BUILD_TIMEOUT_MS });
}

/** Whether a toolchain is here. */
export async function works(command: string, args: readonly string[]): Promise<boolean> {
  try {
    await run(command, args, { timeout: PROBE_TIMEOUT_MS });
    return true;
  } catch {
    return false;
  }
}

/** What every example shows, whatever its language. */
export function assertShown(output: string): void {
  assert.match(output, /^submitted: 5 accepted, 5 routed, stream position 5$/m);
  assertEndShown(output);
}

/** The same without what the first submission was answered. */
export function assertEndShown(output: string): void {
  assert.match(output, /^submitted again: 5 duplicates$/m);
  assert.match(output, /^#example_tea:localhost is claimed by example-\w+, exclusively: true$/im);
  assert.match(output, /may not create #example_new:localhost: APPSERVICE_NAMESPACE_CONFLICT, answer 400 M_EXCLUSIVE$/m);
  assert.match(output, /^an event that is none: events\[0\]\.json: \S/m);
  assert.match(output, /^done: 5 of 5 events received in order, 5 seen delivered, 5 duplicates recognised$/m);
}

/** Runs the example against a router that refuses, and loses an answer. */
export async function assertRepeats(world: ExampleWorld, example: Example): Promise<void> {
  await using front = await ReluctantRouter.open(world.router.grpcAddress, 'SubmitEvents', [
    { kind: 'refuse', code: 'RESOURCE_EXHAUSTED', retryDelayMs: 250 },
    { kind: 'refuse', code: 'UNAVAILABLE', retryDelayMs: 150 },
    { kind: 'lose' },
  ]);
  const output = await world.run(example, { ROUTER_ADDRESS: front.address });
  assert.deepEqual([...output.matchAll(/: again in (\d+) ms$/gm)].map(([, delayMs]) => Number(delayMs)), [250, 150, 1_000]);
  assert.match(output, /^submitted: 0 accepted, 0 routed, stream position 5$/m);
  assertEndShown(output);
  // Three that it repeats, the one that tells of duplicates, the second submission, and the event that is none.
  assert.deepEqual(front.outcomes, ['refuse', 'refuse', 'lose', 'pass', 'pass', 'pass']);
}
