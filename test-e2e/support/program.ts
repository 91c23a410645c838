/**
 * A foreign program for as long as a test needs it: started here, ended here by its process id, its output in a file.
 *
 * It ends on `stop` or `kill`, at the end of this process however that comes about (the kernel tells it so on Linux; a
 * test that runs out of time is killed and cannot tidy up), and never by name.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';

const STOP_TIMEOUT_MS = 15_000;
const OUTPUT_CHARS_SHOWN = 4_000;
const POLL_MS = 25;

export interface ProgramOptions {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** What it writes, on both channels, is appended here. */
  readonly logFile: string;
}

/** Has the kernel end the program with its parent, then becomes it. Where that cannot be had (macOS) it just becomes it. */
const GUARD = `import ctypes, os, signal, sys
try: ctypes.CDLL(None).prctl(1, signal.SIGKILL)
except (AttributeError, OSError): pass
os.execvp(sys.argv[1], sys.argv[1:])`;

export class Program implements AsyncDisposable {
  readonly name: string;
  readonly exited: Promise<number | null>;
  readonly #child: ChildProcess;
  readonly #logFile: string;

  private constructor(name: string, child: ChildProcess, logFile: string) {
    this.name = name;
    this.#child = child;
    this.#logFile = logFile;
    this.exited = once(child, 'exit').then(([code]) => (typeof code === 'number' ? code : null));
  }

  static start({ name, command, args, cwd, env = {}, logFile }: ProgramOptions): Program {
    const log = openSync(logFile, 'a');
    const child = spawn('/usr/bin/python3', ['-c', GUARD, command, ...args], {
      cwd,
      env: { PATH: process.env['PATH'], HOME: cwd, LANG: 'C.UTF-8', ...env },
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    return new Program(name, child, logFile);
  }

  get processId(): number {
    return this.#child.pid ?? 0;
  }

  get hasEnded(): boolean {
    return this.#child.pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  output(): string {
    return readFileSync(this.#logFile, 'utf8');
  }

  /** Waits until `probe` gives something; rejects with what it wrote if it ends before, or after `timeoutMs`. */
  async until<T>(what: string, timeoutMs: number, probe: () => Promise<T | null>): Promise<T> {
    return until(`${this.name}: ${what}`, timeoutMs, async () => {
      if (this.hasEnded) throw new Error(`${this.name} has ended: ${this.output().slice(-OUTPUT_CHARS_SHOWN)}`);
      return probe();
    });
  }

  /** SIGTERM, and SIGKILL if that does not help in time. Resolves with the exit code. */
  async stop(): Promise<number | null> {
    if (this.hasEnded) return this.exited;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  async kill(): Promise<void> {
    if (this.hasEnded) return;
    this.#child.kill('SIGKILL');
    await this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Looks until `probe` gives something; rejects with `what` after `timeoutMs`. */
export async function until<T>(what: string, timeoutMs: number, probe: () => Promise<T | null> | T | null): Promise<T> {
  for (const endMs = performance.now() + timeoutMs; ; ) {
    const found = await probe();
    if (found !== null) return found;
    if (performance.now() > endMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
