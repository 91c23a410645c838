/** The command line as its users run it: a process of its own. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
const TIMEOUT_MS = 30_000;

export interface CliResult {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface CliOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
}

/** A command under way. */
export class CliProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  out = '';
  err = '';
  readonly #closed: Promise<unknown>;

  constructor(args: readonly string[], { cwd, env = {}, input = '' }: CliOptions) {
    this.child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], { cwd, env: { PATH: process.env['PATH'], ...env }, timeout: TIMEOUT_MS, killSignal: 'SIGKILL' });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.out += text;
      this.child.emit('written');
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.err += text;
    });
    this.child.stdin?.end(input);
    this.#closed = once(this.child, 'close');
  }

  /** Resolves once the standard output fits; rejects if the command ends before. */
  async until(fits: (out: string) => boolean): Promise<void> {
    const closed = this.#closed.then(() => 'closed');
    while (!fits(this.out)) {
      if ((await Promise.race([once(this.child, 'written'), closed])) === 'closed') throw new Error(`the command ended before: ${this.out}${this.err}`);
    }
  }

  async result(): Promise<CliResult> {
    await this.#closed;
    return { code: this.child.exitCode, out: this.out, err: this.err };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.#closed;
  }
}

export async function cli(args: readonly string[], options: CliOptions): Promise<CliResult> {
  await using process = new CliProcess(args, options);
  return await process.result();
}
