/**
 * A homeserver's questions whether a user or an alias exists, answered from the appservices whose namespaces match.
 *
 *   nobody's namespace ──▶ 404 at once
 *   known from before  ──▶ the same answer, for a while
 *   asked              ──▶ 200 or 404 as they say; no answer in time ──▶ the error of the query, and it is known so for a while
 *
 * Synapse asks for a user before each event that names one without an account, and sends nothing to anybody meanwhile. So
 * the wait is bounded in seconds, and an appservice that hangs costs that wait once in a while and not for every event. The
 * question itself goes on to its own end: an appservice that is slow in creating a user still does, and what it says in the
 * end is known the next time.
 */
import type { ProvisionSubject } from '../appservice/provisioning.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { IngressAnswer } from '../rpc/ports.ts';
import { answerFor, DONE, matrixError } from './answers.ts';
import type { IngressHomeserver } from './ports.ts';

export interface QueriesOptions {
  readonly homeserver: Pick<IngressHomeserver, 'query' | 'registrationsVersion'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** All in milliseconds. */
interface Times {
  /** How long a homeserver waits. */
  readonly waitMs: number;
  /** How long an answer is known. */
  readonly yesMs: number;
  readonly noMs: number;
  readonly failedMs: number;
}

/** Nobody but the client that joins waits for an alias; everybody waits for a user. */
const TIMES: Readonly<Record<ProvisionSubject['kind'], Times>> = {
  users: { waitMs: 5_000, yesMs: 5_000, noMs: 30_000, failedMs: 60_000 },
  aliases: { waitMs: 30_000, yesMs: 5_000, noMs: 5_000, failedMs: 5_000 },
};
const KNOWN_MAX = 10_000;

interface Known {
  readonly answer: IngressAnswer;
  readonly untilMs: number;
}

export class Queries {
  readonly #options: QueriesOptions;
  readonly #known = new Map<string, Known>();
  /** Registrations that the answers come from. */
  #version = -1;

  constructor(options: QueriesOptions) {
    this.#options = options;
  }

  /** Never rejects. */
  async answer(subject: ProvisionSubject): Promise<IngressAnswer> {
    const { clock } = this.#options;
    const { waitMs } = TIMES[subject.kind];
    const known = this.#find(subject);
    if (known !== null) return known;
    const waited = new AbortController();
    const late = clock.sleep(waitMs, waited.signal).then(() => null);
    const answer = await Promise.race([this.#ask(subject), late]);
    waited.abort();
    if (answer !== null) return answer;
    const timedOut = matrixError(408, 'M_UNKNOWN', 'An application service gave no answer in time.');
    this.#remember(subject, timedOut, TIMES[subject.kind].failedMs);
    return timedOut;
  }

  async #ask(subject: ProvisionSubject): Promise<IngressAnswer> {
    const { homeserver, logger } = this.#options;
    const version = homeserver.registrationsVersion;
    const { yesMs, noMs, failedMs } = TIMES[subject.kind];
    let answer: IngressAnswer;
    let knownMs: number;
    try {
      const { exists } = await homeserver.query(subject);
      answer = exists ? DONE : notFound();
      knownMs = exists ? yesMs : noMs;
    } catch (cause) {
      answer = cause instanceof RefusalError && cause.reason === 'INVALID_FIELD' ? notFound() : answerFor(cause, logger);
      knownMs = failedMs;
    }
    if (version === homeserver.registrationsVersion) this.#remember(subject, answer, knownMs);
    return answer;
  }

  #find(subject: ProvisionSubject): IngressAnswer | null {
    const { clock, homeserver } = this.#options;
    if (this.#version !== homeserver.registrationsVersion) {
      this.#known.clear();
      this.#version = homeserver.registrationsVersion;
    }
    const known = this.#known.get(keyOf(subject));
    return known !== undefined && known.untilMs > clock.monotonicMs() ? known.answer : null;
  }

  #remember(subject: ProvisionSubject, answer: IngressAnswer, knownMs: number): void {
    const key = keyOf(subject);
    this.#known.delete(key);
    this.#known.set(key, { answer, untilMs: this.#options.clock.monotonicMs() + knownMs });
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= KNOWN_MAX) break;
      this.#known.delete(oldest);
    }
  }
}

function keyOf({ kind, identifier }: ProvisionSubject): string {
  return `${kind} ${identifier}`;
}

function notFound(): IngressAnswer {
  return matrixError(404, 'M_NOT_FOUND', 'No application service has it.');
}
