/**
 * Remembers beside the store how far the log of each homeserver had come, so that a store that has gone back is noticed:
 * one that was restored from an older copy, or that lost its end with the disk's last writes.
 *
 * The file is a hint and is written every few seconds: what it remembers was durable once. It is of no use where it is
 * restored together with the store, and one that cannot be read or written only costs the notice.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { Clock } from './clock.ts';
import type { Logger } from './logger.ts';

export interface TailWitnessOptions {
  /** Null: nothing is remembered. */
  readonly file: string | null;
  /** Which store is meant, without secrets. */
  readonly store: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

const SAVE_INTERVAL_MS = 5_000;
const WENT_BACK =
  'the store has gone back: the log once had more than it has now. It was restored from an older copy, or lost its end. What it lacks is delivered only if the homeserver submits it again from the position that GetStreamPosition tells; what was delivered since the copy was made may come again, under new txn ids';

export class TailWitness implements AsyncDisposable {
  readonly #options: TailWitnessOptions;
  readonly #stop = new AbortController();
  #known: Map<string, number>;
  #tails: () => Iterable<readonly [serverName: string, tail: number]> = () => [];
  #running: Promise<void> = Promise.resolve();

  private constructor(options: TailWitnessOptions, known: Map<string, number>) {
    this.#options = options;
    this.#known = known;
  }

  static async open(options: TailWitnessOptions): Promise<TailWitness> {
    const { file, store } = options;
    const text = file === null ? '' : await readFile(file, 'utf8').catch(() => '');
    return new TailWitness(options, knownFrom(text, store));
  }

  /** Says of each log that has gone back that it has, then remembers them from time to time. */
  async watch(tails: () => Iterable<readonly [serverName: string, tail: number]>): Promise<void> {
    const { logger } = this.#options;
    for (const [serverName, tail] of tails()) {
      const known = this.#known.get(serverName) ?? 0;
      if (tail < known) logger.warn({ server_name: serverName, log_position: tail, known_log_position: known }, WENT_BACK);
    }
    this.#known = new Map();
    this.#tails = tails;
    await this.#save();
    this.#running = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.#save();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#options.clock.sleep(SAVE_INTERVAL_MS, signal);
      await this.#save();
    }
  }

  async #save(): Promise<void> {
    const { file, store, logger } = this.#options;
    const tails = new Map(this.#tails());
    if (file === null || [...tails].every(([serverName, tail]) => this.#known.get(serverName) === tail)) return;
    try {
      await writeFile(`${file}.new`, `${JSON.stringify({ store, log_positions: Object.fromEntries(tails) })}\n`, { mode: 0o600 });
      await rename(`${file}.new`, file);
      this.#known = tails;
    } catch (error) {
      logger.debug({ file, error: String(error) }, 'how far the log has come could not be written down');
    }
  }
}

/** What a file that can be read says of this store. */
function knownFrom(text: string, store: string): Map<string, number> {
  const known = new Map<string, number>();
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== 'object' || parsed === null || Reflect.get(parsed, 'store') !== store) return known;
    const positions: unknown = Reflect.get(parsed, 'log_positions');
    if (typeof positions !== 'object' || positions === null) return known;
    for (const [serverName, position] of Object.entries(positions)) if (Number.isSafeInteger(position)) known.set(serverName, Number(position));
  } catch {
    // A file that is not there, or was cut short: nothing is known.
  }
  return known;
}
