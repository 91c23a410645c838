/**
 * Asks appservices for encryption keys of users that are theirs alone (MSC3983, MSC3984; requirements R100 to R102). Every
 * failure is no keys: the homeserver goes on with its own. A claim uses keys up, so none is repeated or shared.
 *
 *   awake ──unknown route──▶ resting ──its time is over, or the registration changes──▶ awake
 *
 * An appservice that does not know an endpoint rests from it, twice as long after each such answer in a row; any other
 * answer makes it fully awake.
 */
import { backoffMs } from '../appservice/backoff.ts';
import { acceptedClaim, acceptedQuery, mergedClaim, mergedQuery, ofUsers, requestJsonOf, shortfallOf } from '../appservice/key-request.ts';
import type { Accepted, ClaimedKeys, KeyClaim, KeyOwners, KeyQuery, KeysResult } from '../appservice/key-request.ts';
import type { JsonObject } from '../appservice/json.ts';
import type { Registration } from '../appservice/registration.ts';
import type { Random } from '../clock.ts';
import { Questions } from './question.ts';
import type { Question, QuestionLimits, QuestionOptions, QuestionOutcome, Reading } from './question.ts';
import { isUnknownRoute } from './unknown-route.ts';

export interface KeysOptions extends QuestionOptions {
  readonly random: Random;
}

export const KEY_LIMITS: QuestionLimits = {
  purpose: 'keys',
  callsMax: 128,
  callQuestionsMax: 8,
  appserviceQuestionsMax: 16,
  callTimeoutMs: 10_000,
  answerBytesMax: 1024 * 1024,
};

/** Of all answers of one call together; what comes after is left out. */
const ANSWERS_BYTES_MAX = 2 * 1024 * 1024;
const REST = { firstMs: 60_000, maxMs: 3_600_000 } as const;
/** The MSCs are not merged, and so are their paths not. */
const PATHS = {
  claim: '/_matrix/app/unstable/org.matrix.msc3983/keys/claim',
  query: '/_matrix/app/unstable/org.matrix.msc3984/keys/query',
} as const;

type Endpoint = keyof typeof PATHS;

interface Rest {
  readonly count: number;
  /** Monotonic. */
  readonly untilMs: number;
}

interface Answer<Keys> {
  readonly keys: Keys;
  readonly bytes: number;
}

export class Keys implements AsyncDisposable {
  readonly #options: KeysOptions;
  readonly #questions: Questions;
  /** By the registration as it is: a change wakes. */
  readonly #rests: Readonly<Record<Endpoint, WeakMap<Registration, Rest>>> = { claim: new WeakMap(), query: new WeakMap() };

  constructor(options: KeysOptions, limits: QuestionLimits = KEY_LIMITS) {
    this.#options = options;
    this.#questions = new Questions(options, limits);
  }

  /** Keys for what `held` falls short of. Rejects with a RefusalError if too many calls are under way, or the router ends. */
  async claim(serverName: string, wanted: KeyClaim, held: ClaimedKeys, ownersOf: KeyOwners): Promise<KeysResult> {
    const missing = shortfallOf(wanted, held);
    const { answers, failedAppserviceIds } = await this.#ask(serverName, 'claim', missing, ownersOf, acceptedClaim);
    return { json: mergedClaim(wanted, held, answers), failedAppserviceIds };
  }

  /** Rejects as {@link claim} does. */
  async query(serverName: string, wanted: KeyQuery, held: JsonObject, ownersOf: KeyOwners): Promise<KeysResult> {
    const { answers, failedAppserviceIds } = await this.#ask(serverName, 'query', wanted, ownersOf, acceptedQuery);
    return { json: mergedQuery(held, answers), failedAppserviceIds };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#questions[Symbol.asyncDispose]();
  }

  async #ask<Wanted, Keys>(
    serverName: string,
    endpoint: Endpoint,
    wanted: ReadonlyMap<string, Wanted>,
    ownersOf: KeyOwners,
    accept: (text: string, asked: ReadonlyMap<string, Wanted>) => Accepted<Keys> | null,
  ): Promise<{ answers: readonly Keys[]; failedAppserviceIds: readonly string[] }> {
    const owned = [...ownersOf(wanted.keys())].filter(([registration]) => !this.#isResting(endpoint, registration));
    const questions = owned.map(([registration, userIds]) => {
      const asked = ofUsers(wanted, userIds);
      return question(registration, PATHS[endpoint], asked, (text) => accept(text, asked), (isUnknown) => this.#answered(endpoint, registration, isUnknown));
    });
    const outcomes = await this.#questions.askEach(serverName, questions);
    const answers: Keys[] = [];
    const failed: string[] = [];
    let bytes = 0;
    for (const [at, [{ id }]] of owned.entries()) {
      const outcome: QuestionOutcome<Answer<Keys>> | undefined = outcomes[at];
      if (outcome?.kind === 'none') continue;
      bytes += outcome?.kind === 'value' ? outcome.value.bytes : 0;
      if (outcome?.kind === 'value' && bytes <= ANSWERS_BYTES_MAX) answers.push(outcome.value.keys);
      else failed.push(id);
    }
    return { answers, failedAppserviceIds: failed };
  }

  #isResting(endpoint: Endpoint, registration: Registration): boolean {
    const rest = this.#rests[endpoint].get(registration);
    return rest !== undefined && this.#options.clock.monotonicMs() < rest.untilMs;
  }

  #answered(endpoint: Endpoint, registration: Registration, isUnknown: boolean): void {
    const rests = this.#rests[endpoint];
    if (!isUnknown) return void rests.delete(registration);
    const { clock, random } = this.#options;
    const before = rests.get(registration);
    // Several that were under way together count once.
    if (before !== undefined && clock.monotonicMs() < before.untilMs) return;
    const count = (before?.count ?? 0) + 1;
    rests.set(registration, { count, untilMs: clock.monotonicMs() + backoffMs(count, null, REST, random.next()) });
  }
}

function question<Keys>(
  registration: Registration,
  path: string,
  asked: ReadonlyMap<string, unknown>,
  accept: (text: string) => Accepted<Keys> | null,
  answered: (isUnknown: boolean) => void,
): Question<Answer<Keys>> {
  return {
    registration,
    path,
    body: requestJsonOf(asked),
    read({ status, text }): Reading<Answer<Keys>> {
      const isUnknown = isUnknownRoute(status, text);
      answered(isUnknown);
      if (isUnknown) return { kind: 'none' };
      const accepted = status === 200 ? accept(text) : null;
      if (accepted === null) return { kind: 'failed', failure: status === 200 ? 'answer_malformed' : `http_${status}` };
      return { kind: 'value', value: { keys: accepted.keys, bytes: Buffer.byteLength(text) }, droppedCount: accepted.droppedCount };
    },
  };
}
