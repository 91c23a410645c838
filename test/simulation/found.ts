/** Bugs that were found, each with a seed that finds it if it is built in again. */
export interface Found {
  /** The name of the mutant. */
  readonly mutant: string;
  readonly seed: number;
  readonly invariant: string;
}

export const FOUND: readonly Found[] = [];
