/**
 * What appservices said of their protocols, for a while (R130).
 *
 *   unknown ──answer──▶ fresh ──an hour──▶ old ──answer──▶ fresh
 *      └──failure──▶ resting ──seconds──▶ unknown    old ──failure──▶ old, resting ──seconds──▶ old
 *
 * A fresh answer, and one that rests, is not asked for. An old answer stands in for one that fails now, a day long at
 * most; a definite "no such protocol" ends it. An answer belongs to the registration as it was when it came: once that has
 * changed it counts as unknown. Beyond the limits the least recently used is forgotten.
 */
import type { Registration } from '../appservice/registration.ts';
import type { ProtocolMetadata } from '../appservice/third-party.ts';
import type { Clock } from '../clock.ts';
import type { QuestionOutcome } from './question.ts';

export interface ProtocolCacheLimits {
  readonly freshMs: number;
  /** How long an old answer stands in for one that fails. */
  readonly staleMs: number;
  /** How long an appservice is not asked again after a failure. */
  readonly failureMs: number;
  readonly entriesMax: number;
  /** Of the answers' texts together. */
  readonly bytesMax: number;
}

export const PROTOCOL_CACHE_LIMITS: ProtocolCacheLimits = {
  freshMs: 3_600_000,
  staleMs: 86_400_000,
  failureMs: 10_000,
  entriesMax: 2_000,
  bytesMax: 8 * 1024 * 1024,
};

export interface CachedMetadata {
  readonly metadata: ProtocolMetadata;
  readonly bytes: number;
}

interface Entry {
  readonly registration: Registration;
  /** Monotonic; until then it is not asked for. */
  readonly untilMs: number;
  readonly answer: (CachedMetadata & { readonly beganMs: number }) | null;
  readonly hasFailed: boolean;
}

/** What is known without asking: `ask` is true if there is reason to. */
export interface Known {
  readonly ask: boolean;
  readonly metadata: ProtocolMetadata | null;
  /** The last that was asked failed, and nothing older stands in. */
  readonly hasFailed: boolean;
}

export class ProtocolCache {
  readonly #clock: Clock;
  readonly #limits: ProtocolCacheLimits;
  /** Least recently used first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;

  constructor(clock: Clock, limits: ProtocolCacheLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  get size(): number {
    return this.#entries.size;
  }

  known(serverName: string, registration: Registration, protocol: string): Known {
    const key = keyOf(serverName, registration, protocol);
    const entry = this.#take(key);
    if (entry === null || entry.registration !== registration) return { ask: true, metadata: null, hasFailed: false };
    this.#put(key, entry);
    return this.#knownOf(entry);
  }

  /** Gives back what is known now. */
  learn(serverName: string, registration: Registration, protocol: string, outcome: QuestionOutcome<CachedMetadata>): Known {
    const { freshMs, failureMs } = this.#limits;
    const key = keyOf(serverName, registration, protocol);
    const before = this.#take(key);
    const nowMs = this.#clock.monotonicMs();
    const stale = before?.registration === registration ? before.answer : null;
    // One that was too busy to be asked may be asked at once.
    const restMs = outcome.kind === 'value' ? freshMs : outcome.kind === 'busy' ? 0 : failureMs;
    const answer = outcome.kind === 'value' ? { ...outcome.value, beganMs: nowMs } : outcome.kind === 'none' ? null : stale;
    const entry: Entry = { registration, untilMs: nowMs + restMs, answer, hasFailed: outcome.kind === 'failed' || outcome.kind === 'busy' };
    this.#put(key, entry);
    return this.#knownOf(entry);
  }

  #knownOf(entry: Entry): Known {
    const metadata = this.#answerOf(entry)?.metadata ?? null;
    return { ask: this.#clock.monotonicMs() >= entry.untilMs, metadata, hasFailed: entry.hasFailed && metadata === null };
  }

  #answerOf({ answer }: Entry): Entry['answer'] {
    const { freshMs, staleMs } = this.#limits;
    return answer !== null && this.#clock.monotonicMs() - answer.beganMs < freshMs + staleMs ? answer : null;
  }

  #take(key: string): Entry | null {
    const entry = this.#entries.get(key);
    if (entry === undefined) return null;
    this.#entries.delete(key);
    this.#bytes -= entry.answer?.bytes ?? 0;
    return entry;
  }

  #put(key: string, entry: Entry): void {
    const { entriesMax, bytesMax } = this.#limits;
    this.#entries.set(key, entry);
    this.#bytes += entry.answer?.bytes ?? 0;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= entriesMax && this.#bytes <= bytesMax) break;
      this.#take(oldest);
    }
  }
}

function keyOf(serverName: string, { id }: Registration, protocol: string): string {
  return JSON.stringify([serverName, id, protocol]);
}
