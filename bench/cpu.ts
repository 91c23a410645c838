/** CPU time of processes, from /proc; where there is none (not Linux) everything is null. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Linux counts CPU time for programs in hundredths of a second, on every machine. */
const TICK_MS = 10;
/** Fields of a stat line after the name: utime is the 12th, stime the 13th. */
const UTIME_AT = 11;

export const processorCount = availableParallelism();

export interface CpuReading {
  readonly wholeMs: number;
  /** Of the first thread alone, where a Node program's JavaScript runs. */
  readonly mainThreadMs: number;
}

export function cpuOf(processId: number): CpuReading | null {
  const wholeMs = statMs(`/proc/${processId}/stat`);
  const mainThreadMs = statMs(`/proc/${processId}/task/${processId}/stat`);
  return wholeMs === null || mainThreadMs === null ? null : { wholeMs, mainThreadMs };
}

/** Resident memory in bytes. */
export function memoryOf(processId: number): number | null {
  try {
    const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${processId}/status`, 'utf8'))?.[1];
    return kilobytes === undefined ? null : Number(kilobytes) * 1024;
  } catch {
    return null;
  }
}

function statMs(path: string): number | null {
  try {
    const stat = readFileSync(path, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[UTIME_AT]) + Number(fields[UTIME_AT + 1])) * TICK_MS;
  } catch {
    return null;
  }
}

/** What a process used between the making of this and `shares`. */
export class CpuWatch {
  readonly #startMs = performance.now();
  readonly #before: ReadonlyMap<string, readonly { readonly processId: number; readonly reading: CpuReading | null }[]>;

  /** Process ids by the part they play. */
  constructor(parts: Readonly<Record<string, readonly number[]>>) {
    this.#before = new Map(Object.entries(parts).map(([part, ids]) => [part, ids.map((processId) => ({ processId, reading: cpuOf(processId) }))]));
  }

  /** Per part, the share of all processors that it used; `NAME main thread` is the share of one processor. Empty where nothing can be told. */
  shares(): Record<string, number> {
    const elapsedMs = performance.now() - this.#startMs;
    const shares: Record<string, number> = {};
    for (const [part, members] of this.#before) {
      let wholeMs = 0;
      let mainThreadMs = 0;
      for (const { processId, reading } of members) {
        const now = cpuOf(processId);
        if (now === null || reading === null) return {};
        wholeMs += now.wholeMs - reading.wholeMs;
        mainThreadMs += now.mainThreadMs - reading.mainThreadMs;
      }
      shares[part] = wholeMs / elapsedMs / processorCount;
      if (part === 'router' || part === 'echo') shares[`${part} main thread`] = mainThreadMs / elapsedMs;
    }
    return shares;
  }
}
