/**
 * The processes of a bench run. Each is started here and ended here: at its time, at the end of the run, on Ctrl-C; and
 * should this process be killed, its channel to them breaks and they end by themselves.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const END_TIMEOUT_MS = 12_000;
const START_TIMEOUT_MS = 60_000;
const OUTPUT_CHARS_MAX = 2_000;

export interface ProcessOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly nodeArguments?: readonly string[];
}

/** A Node program that was started. */
export interface RunningProcess extends AsyncDisposable {
  readonly name: string;
  readonly processId: number;
  readonly child: ChildProcess;
  /** What it wrote so far. */
  output(): string;
  readonly exited: Promise<unknown>;
}

export class Processes implements AsyncDisposable {
  readonly signal: AbortSignal;
  readonly #folder: string;
  readonly #running = new Set<RunningProcess>();
  #count = 0;

  /** Once `signal` aborts everything ends, and whatever waits here rejects. Output goes to files in `folder`. */
  constructor(folder: string, signal: AbortSignal) {
    this.#folder = folder;
    this.signal = signal;
    signal.addEventListener('abort', () => {
      for (const { child } of this.#running) child.kill('SIGTERM');
    });
  }

  /** Begins a program in Node. */
  start(name: string, file: string, args: readonly string[], options: ProcessOptions = {}): RunningProcess {
    return this.#start(name, process.execPath, ['--disable-warning=ExperimentalWarning', ...(options.nodeArguments ?? []), file, ...args], options, true);
  }

  /** Begins any program; it gets no channel. */
  startProgram(name: string, program: string, args: readonly string[], options: ProcessOptions = {}): RunningProcess {
    return this.#start(name, program, args, options, false);
  }

  /** The first complete line that it writes and that `fits`, parsed. Rejects if it ends before, or does not write it in time. */
  async line(of: RunningProcess, fits: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> {
    for (const untilMs = performance.now() + START_TIMEOUT_MS; performance.now() < untilMs; ) {
      this.signal.throwIfAborted();
      const ended = hasEnded(of.child);
      const found = of.output().split('\n').slice(0, -1).map(objectFrom).find((line) => line !== null && fits(line));
      if (found !== undefined && found !== null) return found;
      if (ended) throw new Error(`${of.name} ended: ${of.output().slice(-OUTPUT_CHARS_MAX)}`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    throw new Error(`${of.name} did not answer in time: ${of.output().slice(-OUTPUT_CHARS_MAX)}`);
  }

  /** Everything it wrote, once it has ended by itself. Rejects if it failed or was interrupted. */
  async finish(of: RunningProcess): Promise<string> {
    await of.exited;
    this.signal.throwIfAborted();
    if (of.child.exitCode !== 0) throw new Error(`${of.name} failed: ${of.output().slice(-OUTPUT_CHARS_MAX)}`);
    return of.output();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#running].map((running) => running[Symbol.asyncDispose]()));
  }

  #start(name: string, program: string, args: readonly string[], { env = {}, cwd }: ProcessOptions, hasChannel: boolean): RunningProcess {
    this.signal.throwIfAborted();
    const file = join(this.#folder, `${++this.#count}-${name}.log`);
    const log = openSync(file, 'w');
    const child = spawn(program, args, {
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'], NODE_COMPILE_CACHE: process.env['NODE_COMPILE_CACHE'], ...env },
      cwd,
      stdio: ['ignore', log, log, ...(hasChannel ? (['ipc'] as const) : [])],
    });
    closeSync(log);
    const exited = Promise.race([once(child, 'exit'), once(child, 'error')]);
    const running: RunningProcess = {
      name,
      processId: child.pid ?? 0,
      child,
      exited,
      output: () => readFileSync(file, 'utf8'),
      async [Symbol.asyncDispose]() {
        if (hasEnded(child)) return;
        child.kill('SIGTERM');
        const timer = setTimeout(() => child.kill('SIGKILL'), END_TIMEOUT_MS);
        await exited;
        clearTimeout(timer);
      },
    };
    this.#running.add(running);
    void exited.then(() => this.#running.delete(running));
    return running;
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}

function objectFrom(line: string): Record<string, unknown> | null {
  if (!line.startsWith('{')) return null;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return null;
  }
}
