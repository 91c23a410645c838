/** A small disk of its own for a store, so that it can be full: a tmpfs, where the system lets us mount one. */
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const SIZE_MB = 96;
const PIECE_BYTES = 256 * 1024;

export class SmallDisk implements AsyncDisposable {
  readonly #folder: string;
  /** False: it is a folder of the machine's own disk, which is never filled. */
  readonly isMounted: boolean;

  private constructor(folder: string, isMounted: boolean) {
    this.#folder = folder;
    this.isMounted = isMounted;
  }

  static async mount(): Promise<SmallDisk> {
    const folder = await mkdtemp(join(tmpdir(), `router-disk-${process.pid}-`));
    const isMounted = await run('mount', ['-t', 'tmpfs', '-o', `size=${SIZE_MB}m`, 'router-crash', folder]).then(
      () => true,
      () => false,
    );
    return new SmallDisk(folder, isMounted);
  }

  path(name: string): string {
    return join(this.#folder, name);
  }

  /** Takes all the room that is left. */
  async fill(): Promise<void> {
    const file = await open(this.path('ballast'), 'a');
    try {
      for (let size = PIECE_BYTES; size >= 512; ) {
        const { bytesWritten } = await file.write(Buffer.alloc(size)).catch(() => ({ bytesWritten: 0 }));
        if (bytesWritten < size) size /= 2;
      }
    } finally {
      await file.close();
    }
  }

  async free(): Promise<void> {
    await rm(this.path('ballast'), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isMounted) await run('umount', ['-l', this.#folder]);
    await rm(this.#folder, { recursive: true, force: true });
  }
}
