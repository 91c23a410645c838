/**
 * The newest transactions that were acknowledged here, so that it can be told in which one an event went. In memory only:
 * a ring that forgets the oldest, empty after a start, one for all appservices of a homeserver.
 */

export interface DeliveredTransaction {
  readonly appserviceId: string;
  readonly txnId: string;
  /** It dealt with what is routed to the appservice above `after`, up to and including `through`. */
  readonly after: number;
  readonly through: number;
}

const REMEMBERED_MAX = 4_096;

export class DeliveredTransactions {
  readonly #ring: DeliveredTransaction[] = [];
  readonly #max: number;
  #next = 0;

  constructor(max = REMEMBERED_MAX) {
    this.#max = max;
  }

  add(transaction: DeliveredTransaction): void {
    this.#ring[this.#next] = transaction;
    this.#next = (this.#next + 1) % this.#max;
  }

  /** The newest one that took the entry at `position` to the appservice; undefined if none is remembered. */
  find(appserviceId: string, position: number): DeliveredTransaction | undefined {
    for (let back = 1; back <= this.#ring.length; back++) {
      const one = this.#ring[(this.#next - back + this.#max) % this.#max];
      if (one !== undefined && one.appserviceId === appserviceId && position > one.after && position <= one.through) return one;
    }
    return undefined;
  }
}
