/**
 * The order of the submissions of one call. Once one is refused, none behind it is taken over: the stream would pass the
 * refused one, and count it as a duplicate when it is sent again. Those before it are not concerned.
 */
export class CallOrder {
  #count = 0;
  #brokenAt = Infinity;
  #reason: unknown = null;

  /** The place of the next submission. */
  nextPlace(): CallPlace {
    const at = this.#count++;
    return {
      order: this,
      refuse: (reason) => {
        if (at >= this.#brokenAt) return;
        this.#brokenAt = at;
        this.#reason = reason;
      },
      refusal: () => (at > this.#brokenAt ? this.#reason : null),
    };
  }
}

export interface CallPlace {
  readonly order: CallOrder;
  /** The submission at this place is refused for this reason. */
  refuse(reason: unknown): void;
  /** The refusal of one before it; null as long as there is none. */
  refusal(): unknown;
}
