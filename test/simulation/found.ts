/** Bugs that were found, each with a seed that finds it if it is built in again. */
export interface Found {
  /** The name of the mutant. */
  readonly mutant: string;
  readonly seed: number;
  readonly invariant: string;
}

export const FOUND: readonly Found[] = [
  { mutant: 'a holder is judged gone by a list of replicas that is older than its state', seed: 9, invariant: 'I5 Fenced' },
  { mutant: 'GetStreamPosition without a look at the log', seed: 3, invariant: 'I11 Monotone' },
];
