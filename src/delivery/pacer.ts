/**
 * Who may cut a transaction that is not full, and when.
 *
 * A transaction costs the same whether it carries one event or a hundred. While there is time for all of them, each
 * leaves at once. When more small ones want to leave than there is time for, they queue here, and what is routed
 * meanwhile joins them: the busier the router, the fuller its transactions. A full one never waits.
 *
 *   tokens flow in at a rate, up to `burstMax` are kept; a cut takes one
 *   open     tokens are left: a cut is admitted at once
 *   paced    none are left: senders wait in turn, each woken when its token is there
 *
 * The rate follows the event loop: while it is nearly always busy, the rate falls step by step towards `cutsPerSecondMin`,
 * so that there is time to take in events; while it is not, the rate rises again towards `cutsPerSecondMax`.
 *
 * A wait here is bounded by the number of appservices over `cutsPerSecondMin`. One that hangs holds no place.
 */
import type { Clock } from '../clock.ts';

export interface PacerLimits {
  readonly cutsPerSecondMin: number;
  readonly cutsPerSecondMax: number;
  readonly burstMax: number;
  /** The event loop counts as busy above this share of the time. */
  readonly busyLoad: number;
  /** How often the rate is judged, while anything is cut. */
  readonly judgeMs: number;
  /** How often tokens are handed out while senders wait. */
  readonly turnMs: number;
}

export const PACER_DEFAULTS: PacerLimits = { cutsPerSecondMin: 300, cutsPerSecondMax: 4_000, burstMax: 100, busyLoad: 0.75, judgeMs: 50, turnMs: 2 };

const SLOWER = 0.7;
const FASTER = 1.3;

/** Who waits: told when it may look again. */
export interface PacedSender {
  wake(): void;
}

export class Pacer {
  readonly #clock: Clock;
  readonly #limits: PacerLimits;
  /** See eventLoopLoad of clock.ts. */
  readonly #load: () => number;
  readonly #waiting = new Set<PacedSender>();
  /** Woken, and not yet back for their token. */
  readonly #called = new Set<PacedSender>();
  #tokens: number;
  #filledMs: number;
  #cutsPerSecond: number;
  #judgedMs: number;
  #isTurning = false;

  constructor(clock: Clock, load: () => number, limits: PacerLimits) {
    this.#clock = clock;
    this.#load = load;
    this.#limits = limits;
    this.#cutsPerSecond = limits.cutsPerSecondMax;
    this.#tokens = limits.burstMax;
    this.#filledMs = clock.monotonicMs();
    this.#judgedMs = this.#filledMs;
  }

  /** Transactions that are not full that may be cut in a second, now. */
  get cutsPerSecond(): number {
    return this.#cutsPerSecond;
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
    this.#judge(nowMs);
    this.#tokens = Math.min(this.#limits.burstMax, this.#tokens + ((nowMs - this.#filledMs) / 1000) * this.#cutsPerSecond);
    this.#filledMs = nowMs;
  }

  #judge(nowMs: number): void {
    const { judgeMs, busyLoad, cutsPerSecondMin, cutsPerSecondMax } = this.#limits;
    if (nowMs - this.#judgedMs < judgeMs) return;
    this.#judgedMs = nowMs;
    const step = this.#load() > busyLoad ? SLOWER : FASTER;
    this.#cutsPerSecond = Math.min(cutsPerSecondMax, Math.max(cutsPerSecondMin, this.#cutsPerSecond * step));
  }
}
