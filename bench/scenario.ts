/** What every scenario is given, and the rows that it makes. */
import type { Processes } from './processes.ts';

export const STORES = ['sqlite', 'mongodb'] as const;
export type StoreKind = (typeof STORES)[number];

export interface BenchOptions {
  readonly scenarios: readonly number[];
  readonly stores: readonly StoreKind[];
  /** Length of one measurement. */
  readonly seconds: number;
  /** Measurements of each side; the median counts. */
  readonly rounds: number;
  readonly jsonFile: string;
  /** Stores and messages go into a folder of their own in here. */
  readonly folder: string;
  /** Where profiles of the router go; null = none are made. */
  readonly profileFolder: string | null;
  /** Another checkout of the router, to be measured beside this one and nothing else; null = none. */
  readonly againstFolder: string | null;
}

export interface BenchStore {
  readonly kind: StoreKind;
  /** A URI with a database of its own, or null for SQLite. */
  readonly newUri: () => string | null;
  readonly processIds: readonly number[];
}

export interface Bench {
  readonly processes: Processes;
  /** For everything that the run writes; removed at its end. */
  readonly folder: string;
  readonly options: BenchOptions;
  readonly say: (text: string) => void;
}

/** One line of the table. */
export interface Row {
  readonly scenario: number;
  readonly name: string;
  readonly store: StoreKind;
  /** Who called: `lean`, `ghz`, or nobody. */
  readonly load: 'lean' | 'ghz' | '';
  /** What it is held against. */
  readonly baseline: Figure | null;
  readonly router: Figure;
  /** Router over baseline. */
  readonly ratio: number | null;
  readonly target: string;
  /** Null where nothing was asked for. */
  readonly met: boolean | null;
  /** Shares of all processors while the router was measured. */
  readonly cpu: Readonly<Record<string, number>>;
  /** Everything else worth knowing, in the JSON and below the table. */
  readonly details: Readonly<Record<string, number | string | readonly number[]>>;
}

export interface Figure {
  readonly value: number;
  readonly unit: string;
}

export interface Scenario {
  readonly number: number;
  readonly title: string;
  readonly run: (bench: Bench, store: BenchStore) => Promise<Row[]>;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

export function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const interrupted = (): void => {
      clearTimeout(timer);
      reject(signal.reason instanceof Error ? signal.reason : new Error('interrupted'));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', interrupted);
      resolve();
    }, delayMs);
    if (signal.aborted) interrupted();
    else signal.addEventListener('abort', interrupted, { once: true });
  });
}
