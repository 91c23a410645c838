/**
 * From a shared store to whoever wants to hear what other processes do there. The store is opened before there is
 * anybody to tell, so it tells this; what comes while nobody listens is of no use to anybody.
 */

/** Hints: each may be lost, late or doubled, or tell of this process's own doings. A poll stands behind all of them. Must not throw. */
export interface StoreWakes {
  /** A segment was appended whose first entry has this log position. */
  appended(serverName: string, firstPosition: number): void;
  /** The lease of an appservice has another holder than before; null = none. */
  leaseChanged(serverName: string, appserviceId: string, holder: string | null): void;
  /** A replica came or took leave. */
  replicasChanged(): void;
}

export class WakeRelay implements StoreWakes {
  #listener: StoreWakes | null = null;
  #isWanted: () => boolean = () => false;

  /** `isWanted`: whether there are others to hear of; a store need not look while there are none. */
  connect(listener: StoreWakes, isWanted: () => boolean): void {
    this.#listener = listener;
    this.#isWanted = isWanted;
  }

  get isWanted(): boolean {
    return this.#isWanted();
  }

  appended(serverName: string, firstPosition: number): void {
    this.#listener?.appended(serverName, firstPosition);
  }

  leaseChanged(serverName: string, appserviceId: string, holder: string | null): void {
    this.#listener?.leaseChanged(serverName, appserviceId, holder);
  }

  replicasChanged(): void {
    this.#listener?.replicasChanged();
  }
}
