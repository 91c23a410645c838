/** How long the disk takes to make a small write durable: what no store can go below. */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { median } from './scenario.ts';

const WRITES = 30;
const WRITE_BYTES = 64 * 1024;

/** The median of some writes in `folder`, in milliseconds. */
export function syncMs(folder: string): number {
  const file = join(folder, 'sync-test');
  const handle = openSync(file, 'w');
  const bytes = Buffer.alloc(WRITE_BYTES, 1);
  try {
    const times = Array.from({ length: WRITES }, () => {
      const startMs = performance.now();
      writeSync(handle, bytes);
      fdatasyncSync(handle);
      return performance.now() - startMs;
    });
    return median(times);
  } finally {
    closeSync(handle);
    rmSync(file);
  }
}
