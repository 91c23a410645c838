/**
 * Who may cut a transaction that is not full, and when.
 *
 * A transaction costs the same whether it carries one event or a hundred. While there is time for all of them, each
 * leaves at once. When more small ones want to leave than there is time for, they queue here, and what is routed
 * meanwhile joins them: the busier the router, the fuller its transactions. A full one never waits.
 *
 *   tokens flow in at `cutsPerSecond`, up to `burstMax` are kept; a cut takes one
 *   open     tokens are left: a cut is admitted at once
 *   paced    none are left: senders wait in turn, each woken when its token is there
 *
 * A wait here is bounded by the number of appservices over `cutsPerSecond`. One that hangs holds no place.
 */
import type { Clock } from '../clock.ts';

export interface PacerLimits {
  readonly cutsPerSecond: number;
  readonly burstMax: number;
  /** How often tokens are handed out while senders wait. */
  readonly turnMs: number;
}

export const PACER_DEFAULTS: PacerLimits = { cutsPerSecond: 2_000, burstMax: 100, turnMs: 2 };

/** Who waits: told when it may look again. */
export interface PacedSender {
  wake(): void;
}

export class Pacer {
  readonly #clock: Clock;
  readonly #limits: PacerLimits;
  readonly #waiting = new Set<PacedSender>();
  /** Woken, and not yet back for their token. */
  readonly #called = new Set<PacedSender>();
  #tokens: number;
  #filledMs: number;
  #isTurning = false;

  constructor(clock: Clock, limits: PacerLimits) {
    this.#clock = clock;
    this.#limits = limits;
    this.#tokens = limits.burstMax;
    this.#filledMs = clock.monotonicMs();
  }

  /** True: cut now. False: the sender is woken when it is its turn. */
  admits(sender: PacedSender): boolean {
    if (this.#called.delete(sender)) return true;
    if (this.#waiting.has(sender)) return false;
    this.#fill();
    if (this.#waiting.size === 0 && this.#tokens >= 1) {
      this.#tokens -= 1;
      return true;
    }
    this.#waiting.add(sender);
    if (!this.#isTurning) void this.#turn();
    return false;
  }

  async #turn(): Promise<void> {
    this.#isTurning = true;
    while (this.#waiting.size > 0) {
      await this.#clock.sleep(this.#limits.turnMs);
      this.#fill();
      for (const sender of this.#waiting) {
        if (this.#tokens < 1) break;
        this.#tokens -= 1;
        this.#waiting.delete(sender);
        this.#called.add(sender);
        sender.wake();
      }
    }
    this.#isTurning = false;
  }

  #fill(): void {
    const nowMs = this.#clock.monotonicMs();
    const { cutsPerSecond, burstMax } = this.#limits;
    this.#tokens = Math.min(burstMax, this.#tokens + ((nowMs - this.#filledMs) / 1000) * cutsPerSecond);
    this.#filledMs = nowMs;
  }
}
