/** Processes of the crash loop: each ends with this process, however that ends. */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';

/** util-linux's way to have the kernel end a child whose parent is gone. */
const DIES_WITH_PARENT = hasSetpriv() ? ['setpriv', '--pdeathsig', 'KILL'] : [];

export function spawnBound(program: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const [command = program, ...rest] = [...DIES_WITH_PARENT, program, ...args];
  return spawn(command, rest, options);
}

export function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

/** Sends the signal and waits for the end; the exit code. */
export async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (hasEnded(child)) return child.exitCode;
  const exited = once(child, 'exit');
  child.kill(signal);
  if (signal === 'SIGKILL') child.kill('SIGCONT');
  await exited;
  return child.exitCode;
}

export function pause(delayMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, delayMs));
}

function hasSetpriv(): boolean {
  try {
    execFileSync('setpriv', ['--pdeathsig', 'KILL', 'true'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
