/**
 * Which appservices have given no answer several times in a row and are not asked for a while. Once that is over, one
 * question at a time goes out until one is answered. Bounded by the number of appservices that are silent or about to be.
 */
import type { Clock } from '../clock.ts';

export interface SilenceOptions {
  readonly clock: Clock;
  /** Questions in a row without an answer. */
  readonly asksMax: number;
  readonly silenceMs: number;
}

interface Unanswered {
  count: number;
  /** Monotonic time until which nothing is asked; null: fewer than so many in a row. */
  untilMs: number | null;
  /** A question after the silence is under way. */
  isProbed: boolean;
}

export class Silence {
  readonly #options: SilenceOptions;
  readonly #unanswered = new Map<string, Unanswered>();
  /** Of appservices that are being asked. */
  readonly #waiting = new Map<string, PromiseWithResolvers<'silent'>>();

  constructor(options: SilenceOptions) {
    this.#options = options;
  }

  /** True if it is not to be asked now. */
  isSilent(appserviceId: string): boolean {
    const known = this.#unanswered.get(appserviceId);
    if (known === undefined || known.untilMs === null) return false;
    return known.isProbed || this.#options.clock.monotonicMs() < known.untilMs;
  }

  /** Takes the turn to ask it; {@link asked} must follow, after {@link heard} if it came to that. False if it is not to be asked now. */
  mayAsk(appserviceId: string): boolean {
    if (this.isSilent(appserviceId)) return false;
    const known = this.#unanswered.get(appserviceId);
    if (known !== undefined && known.untilMs !== null) known.isProbed = true;
    return true;
  }

  /** Resolves once it becomes silent, if it does before it answers anything. */
  becomesSilent(appserviceId: string): Promise<'silent'> {
    const known = this.#waiting.get(appserviceId) ?? Promise.withResolvers<'silent'>();
    this.#waiting.set(appserviceId, known);
    return known.promise;
  }

  /** The turn is over. */
  asked(appserviceId: string): void {
    const known = this.#unanswered.get(appserviceId);
    if (known !== undefined) known.isProbed = false;
  }

  /** What became of a question. Tells if the appservice becomes silent with it, or answers again. */
  heard(appserviceId: string, isAnswer: boolean): 'silent' | 'answers' | null {
    const { asksMax, silenceMs, clock } = this.#options;
    const known = this.#unanswered.get(appserviceId);
    if (isAnswer) {
      this.#unanswered.delete(appserviceId);
      this.#waiting.delete(appserviceId);
      return known !== undefined && known.untilMs !== null ? 'answers' : null;
    }
    const count = (known?.count ?? 0) + 1;
    const untilMs = count < asksMax ? null : clock.monotonicMs() + silenceMs;
    this.#unanswered.set(appserviceId, { count, untilMs, isProbed: false });
    if (untilMs !== null) {
      this.#waiting.get(appserviceId)?.resolve('silent');
      this.#waiting.delete(appserviceId);
    }
    return untilMs !== null && (known?.untilMs ?? null) === null ? 'silent' : null;
  }
}
