/**
 * Deliberate bugs, each in one or two fragments of src. The simulation must find each; one that it does not find tells that
 * the simulation is too tame, or the checker blind.
 */
export interface MutantChange {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export interface Mutant {
  readonly name: string;
  readonly changes: readonly MutantChange[];
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'a holder is judged gone by a list of replicas that is older than its state',
    changes: [{ file: 'src/delivery/roster.ts', find: 'if (this.#hasStrangers()) await presence.refresh();', replace: '' }],
  },
  {
    name: 'a new txn id on each retry',
    changes: [{ file: 'src/delivery/transitions.ts', find: 'transaction: { ...transaction, attemptCount: attemptsBefore + 1, nextAttemptTimeMs },', replace: 'lastTxnId: nextTxnId(state.lastTxnId, nextAttemptTimeMs), transaction: { ...transaction, txnId: nextTxnId(state.lastTxnId, nextAttemptTimeMs), attemptCount: attemptsBefore + 1, nextAttemptTimeMs },' }],
  },
];
