/**
 * Questions to several appservices at a time whose answers are read: each sent once (once to either path where the
 * registration has legacy ones tried), bounded in time, in number and in what is read of the answer. One that fails,
 * hangs or answers nonsense spoils nobody else's answer.
 *
 *   call ──▶ so many questions at a time ──▶ request ──▶ whole answer ──▶ read ──▶ value
 *                                             │             │            └──────▶ none       it has nothing to say
 *                                             └─────────────┴───────────────────▶ failed     one log line says why
 *
 * Each purpose has connections of its own, so its questions hold up neither transactions nor those of another purpose.
 */
import { RefusalError } from '../appservice/refusal.ts';
import type { OperationSink } from '../appservice/operation.ts';
import type { Registration } from '../appservice/registration.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { AppserviceClient } from './appservice-client.ts';
import { AppserviceTargets } from './appservice-target.ts';
import type { HttpClient, OutboundResult, OutboundTarget } from './http-client.ts';

export interface QuestionOptions {
  readonly client: Pick<HttpClient, 'request'>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly operations?: OperationSink;
  /** For one question, where the registration names no `query_timeout_ms`. */
  readonly queryTimeoutMs: number;
}

export interface QuestionLimits {
  /** Names the connections; in the log too. */
  readonly purpose: string;
  /** Calls under way together. */
  readonly callsMax: number;
  /** Of one call, under way together. */
  readonly callQuestionsMax: number;
  /** Of one appservice, under way together. */
  readonly appserviceQuestionsMax: number;
  /** For one call; a question that has not begun by then is not asked. */
  readonly callTimeoutMs: number;
  /** Of one answer; a longer one counts as none. */
  readonly answerBytesMax: number;
}

export interface Question<Value> {
  readonly registration: Registration;
  /** With its query. A body makes it a POST of JSON, no body a GET. */
  readonly path: string;
  readonly body: Uint8Array | null;
  /** What a whole answer comes to. Never throws. */
  readonly read: (answer: { readonly status: number; readonly text: string }) => Reading<Value>;
}

export type Reading<Value> =
  | { readonly kind: 'value'; readonly value: Value; readonly droppedCount: number }
  /** A definite answer without a value. */
  | { readonly kind: 'none' }
  | { readonly kind: 'failed'; readonly failure: string };

/** What a question came to. `busy`: not asked, because so many others of its appservice are under way. */
export type QuestionOutcome<Value> = Reading<Value> | { readonly kind: 'busy' };

const RETRY_DELAY_MS = 1_000;

export class Questions implements AsyncDisposable {
  readonly #options: QuestionOptions;
  readonly #limits: QuestionLimits;
  readonly #appservices: AppserviceClient;
  readonly #targets = new AppserviceTargets();
  readonly #ending = new AbortController();
  /** By the owner of the connections. */
  readonly #asked = new Map<string, number>();
  readonly #calls = new Set<Promise<unknown>>();

  constructor(options: QuestionOptions, limits: QuestionLimits) {
    this.#options = options;
    this.#limits = limits;
    this.#appservices = new AppserviceClient(options);
  }

  get callCount(): number {
    return this.#calls.size;
  }

  /**
   * Asks all of them; the outcomes are in the order of the questions. Rejects with a RefusalError if too many calls are
   * under way, or the router ends.
   */
  async askEach<Value>(serverName: string, questions: readonly Question<Value>[]): Promise<readonly QuestionOutcome<Value>[]> {
    if (questions.length === 0) return [];
    if (this.#calls.size >= this.#limits.callsMax) throw tooManyLookups();
    const call = this.#call(serverName, questions);
    this.#calls.add(call);
    try {
      return await call;
    } finally {
      this.#calls.delete(call);
    }
  }

  /** What is under way is refused as one that came too late. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await Promise.allSettled(this.#calls);
  }

  async #call<Value>(serverName: string, questions: readonly Question<Value>[]): Promise<QuestionOutcome<Value>[]> {
    const { callQuestionsMax, callTimeoutMs } = this.#limits;
    const deadlineMs = this.#options.clock.monotonicMs() + callTimeoutMs;
    const outcomes: QuestionOutcome<Value>[] = questions.map(() => ({ kind: 'failed', failure: 'timeout' }));
    const waiting = questions.entries();
    // All take from the one row of those that wait.
    const askNext = async (): Promise<void> => {
      for (const [at, question] of waiting) outcomes[at] = await this.#ask(serverName, question, deadlineMs);
    };
    await Promise.all(Array.from({ length: Math.min(callQuestionsMax, questions.length) }, askNext));
    return outcomes;
  }

  async #ask<Value>(serverName: string, question: Question<Value>, deadlineMs: number): Promise<QuestionOutcome<Value>> {
    const { clock } = this.#options;
    const beganMs = clock.monotonicMs();
    const outcome = await this.#outcome(serverName, question, deadlineMs);
    this.#tell(serverName, question, outcome, Math.max(0, Math.round(clock.monotonicMs() - beganMs)));
    return outcome;
  }

  async #outcome<Value>(serverName: string, question: Question<Value>, deadlineMs: number): Promise<QuestionOutcome<Value>> {
    const { registration, read } = question;
    const target = this.#targets.of(serverName, registration);
    if (target === null) return { kind: 'failed', failure: 'address_refused' };
    const leftMs = deadlineMs - this.#options.clock.monotonicMs();
    if (leftMs <= 0) return { kind: 'failed', failure: 'timeout' };
    if (!this.#begin(target.owner)) return { kind: 'busy' };
    try {
      const result = await this.#send(target, question, leftMs);
      if (result.kind === 'aborted') throw draining();
      if (result.kind === 'failed') return { kind: 'failed', failure: result.failure };
      if (!result.bodyComplete) return { kind: 'failed', failure: 'answer_cut_short' };
      return read({ status: result.status, text: result.body.toString('utf8') });
    } finally {
      this.#end(target.owner);
    }
  }

  /** The one place where a request leaves. */
  async #send<Value>(target: OutboundTarget, { registration, path, body }: Question<Value>, leftMs: number): Promise<OutboundResult> {
    const { purpose, answerBytesMax } = this.#limits;
    const timeoutMs = Math.min(leftMs, registration.delivery_options.query_timeout_ms ?? this.#options.queryTimeoutMs);
    const request = { method: body === null ? 'GET' : 'POST', path, body, timeoutMs, bodyTimeoutMs: timeoutMs, responseBytesMax: answerBytesMax } as const;
    const { result } = await this.#appservices.request({ ...target, owner: `${target.owner}|${purpose}` }, registration, request, this.#ending.signal);
    return result;
  }

  #tell<Value>(serverName: string, { registration, path }: Question<Value>, outcome: QuestionOutcome<Value>, durationMs: number): void {
    const { logger, operations } = this.#options;
    if (outcome.kind !== 'busy') operations?.operated({ serverName, appserviceId: registration.id, kind: 'lookup', failed: outcome.kind === 'failed' });
    const fields = {
      server_name: serverName,
      appservice_id: registration.id,
      purpose: this.#limits.purpose,
      // Without the query: what is looked for is somebody's private matter.
      path: path.split('?')[0] ?? '',
      outcome: outcome.kind,
      ...(outcome.kind === 'failed' ? { failure: outcome.failure } : {}),
      ...(outcome.kind === 'value' && outcome.droppedCount > 0 ? { dropped_count: outcome.droppedCount } : {}),
      duration_ms: durationMs,
    };
    if (outcome.kind === 'failed' || outcome.kind === 'busy') logger.warn(fields, 'look-up failed');
    else if (outcome.kind === 'value' && outcome.droppedCount > 0) logger.warn(fields, 'look-up answered in part with what is malformed');
    else logger.debug(fields, 'look-up');
  }

  #begin(owner: string): boolean {
    const count = this.#asked.get(owner) ?? 0;
    if (count >= this.#limits.appserviceQuestionsMax) return false;
    this.#asked.set(owner, count + 1);
    return true;
  }

  #end(owner: string): void {
    const count = this.#asked.get(owner) ?? 0;
    if (count > 1) this.#asked.set(owner, count - 1);
    else this.#asked.delete(owner);
  }
}

export function tooManyLookups(): RefusalError {
  return new RefusalError('TOO_MANY_LOOKUPS', 'Too many look-ups are under way. Call again when some of them have ended.', { retryDelayMs: RETRY_DELAY_MS });
}

function draining(): RefusalError {
  return new RefusalError('DRAINING', 'The router is shutting down. Call again in a second.', { retryDelayMs: RETRY_DELAY_MS });
}
