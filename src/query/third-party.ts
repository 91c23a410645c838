/**
 * Looks up third-party protocols, users and locations at the appservices (Application Service API, "Third-party
 * networks"; requirements R122 to R130). Look-ups of the same that overlap are one. What one appservice answers wrongly, or
 * not at all, is left out and named; what the others answer stands.
 */
import type { Registration } from '../appservice/registration.ts';
import { matchesFrom, mergedProtocol, protocolMetadataFrom, queryOf } from '../appservice/third-party.ts';
import type { ProtocolMetadata, ThirdPartyKind, ThirdPartyMatch, ThirdPartyMatches, ThirdPartyProtocol, ThirdPartyProtocols, ThirdPartyQuestion } from '../appservice/third-party.ts';
import { pathSegment } from './path-segment.ts';
import { ProtocolCache, PROTOCOL_CACHE_LIMITS } from './protocol-cache.ts';
import type { CachedMetadata, ProtocolCacheLimits } from './protocol-cache.ts';
import { Questions, tooManyLookups } from './question.ts';
import type { Question, QuestionLimits, QuestionOptions, Reading } from './question.ts';

export interface ThirdPartyLimits extends QuestionLimits {
  readonly cache: ProtocolCacheLimits;
  /** Pairs of a protocol and an appservice that one list is made of. */
  readonly protocolAnswersMax: number;
  /** Users or locations of one look-up. */
  readonly matchesMax: number;
  /** JSON of all results of one look-up, or of all protocols of one list. */
  readonly resultBytesMax: number;
}

export const THIRD_PARTY_LIMITS: ThirdPartyLimits = {
  purpose: 'third_party',
  callsMax: 64,
  callQuestionsMax: 16,
  appserviceQuestionsMax: 8,
  callTimeoutMs: 10_000,
  answerBytesMax: 256 * 1024,
  cache: PROTOCOL_CACHE_LIMITS,
  protocolAnswersMax: 1_000,
  matchesMax: 1_000,
  resultBytesMax: 2 * 1024 * 1024,
};

const ROOT = '/_matrix/app/v1/thirdparty';
const PATHS = { users: 'user', locations: 'location' } as const;
const REVERSE = { users: 'userid', locations: 'alias' } as const;

interface UnderWay<Result> {
  readonly candidates: readonly Registration[];
  readonly result: Promise<Result>;
}

interface ProtocolOwner {
  readonly protocol: string;
  readonly registration: Registration;
}

export class ThirdParty implements AsyncDisposable {
  readonly #options: QuestionOptions;
  readonly #limits: ThirdPartyLimits;
  readonly #questions: Questions;
  readonly #cache: ProtocolCache;
  readonly #lists = new Map<string, UnderWay<ThirdPartyProtocols>>();
  readonly #lookups = new Map<string, UnderWay<ThirdPartyMatches>>();

  constructor(options: QuestionOptions, limits: ThirdPartyLimits = THIRD_PARTY_LIMITS) {
    this.#options = options;
    this.#limits = limits;
    this.#questions = new Questions(options, limits);
    this.#cache = new ProtocolCache(options.clock, limits.cache);
  }

  /**
   * The protocols with the appservices that list them, in that order, as far as any answered validly (R125). Rejects with a
   * RefusalError if too many look-ups are under way, or the router ends.
   */
  protocols(serverName: string, owners: ReadonlyMap<string, readonly Registration[]>): Promise<ThirdPartyProtocols> {
    const all = [...owners].flatMap(([protocol, registrations]) => registrations.map((registration): ProtocolOwner => ({ protocol, registration })));
    const candidates = all.map(({ registration }) => registration);
    return joined(this.#lists, JSON.stringify([serverName, ...owners.keys()]), candidates, () => this.#list(serverName, all));
  }

  /** What the candidates answer, in their order (R127). Rejects as {@link protocols} does. */
  lookUp(serverName: string, kind: ThirdPartyKind, question: ThirdPartyQuestion, candidates: readonly Registration[]): Promise<ThirdPartyMatches> {
    const path = lookupPath(kind, question);
    return joined(this.#lookups, JSON.stringify([serverName, path]), candidates, () => this.#find(serverName, kind, path, candidates));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#questions[Symbol.asyncDispose]();
  }

  async #list(serverName: string, all: readonly ProtocolOwner[]): Promise<ThirdPartyProtocols> {
    const owners = all.slice(0, this.#limits.protocolAnswersMax);
    const knowledge = owners.map(({ protocol, registration }) => this.#cache.known(serverName, registration, protocol));
    const unasked = owners.flatMap((owner, at) => (knowledge[at]?.ask === true ? [{ owner, at }] : []));
    const outcomes = await this.#questions.askEach(serverName, unasked.map(({ owner }) => protocolQuestion(owner)));
    for (const [nth, { owner, at }] of unasked.entries()) {
      const outcome = outcomes[nth];
      if (outcome !== undefined) knowledge[at] = this.#cache.learn(serverName, owner.registration, owner.protocol, outcome);
    }
    const failed = new Set<string>();
    const answers = new Map<string, { appserviceId: string; metadata: ProtocolMetadata }[]>();
    for (const [at, { protocol, registration }] of owners.entries()) {
      const known = knowledge[at];
      if (known?.hasFailed === true) failed.add(registration.id);
      if (known !== undefined && known.metadata !== null) answers.set(protocol, [...(answers.get(protocol) ?? []), { appserviceId: registration.id, metadata: known.metadata }]);
    }
    const merged = [...answers].flatMap(([protocol, of]) => mergedProtocol(protocol, of) ?? []);
    const protocols = this.#bounded(serverName, merged, merged.length, all.length - owners.length);
    return { protocols, failedAppserviceIds: [...failed] };
  }

  async #find(serverName: string, kind: ThirdPartyKind, path: string, candidates: readonly Registration[]): Promise<ThirdPartyMatches> {
    const questions = candidates.map((registration) => matchQuestion(registration, path, kind));
    const outcomes = await this.#questions.askEach(serverName, questions);
    if (outcomes.length > 0 && outcomes.every(({ kind: outcome }) => outcome === 'busy')) throw tooManyLookups();
    const found = outcomes.flatMap((outcome) => (outcome.kind === 'value' ? outcome.value : []));
    const failedAppserviceIds = candidates.filter((_, at) => outcomes[at]?.kind === 'failed' || outcomes[at]?.kind === 'busy').map(({ id }) => id);
    return { matches: this.#bounded(serverName, found, this.#limits.matchesMax, 0), failedAppserviceIds };
  }

  /** As many as the bounds allow, from the first on; what is left out is told once. */
  #bounded<Result extends ThirdPartyMatch | ThirdPartyProtocol>(serverName: string, results: readonly Result[], countMax: number, omittedCount: number): readonly Result[] {
    const kept: Result[] = [];
    let bytes = 0;
    for (const result of results) {
      bytes += Buffer.byteLength(result.json);
      if (kept.length >= countMax || bytes > this.#limits.resultBytesMax) break;
      kept.push(result);
    }
    const droppedCount = omittedCount + results.length - kept.length;
    if (droppedCount > 0) this.#options.logger.warn({ server_name: serverName, dropped_count: droppedCount }, 'a look-up has more results than an answer may have');
    return kept;
  }
}

/** The result of the one that is under way with the same candidates, or of a new one. */
function joined<Result>(
  underWay: Map<string, UnderWay<Result>>,
  key: string,
  candidates: readonly Registration[],
  begin: () => Promise<Result>,
): Promise<Result> {
  const known = underWay.get(key);
  if (known?.candidates.length === candidates.length && known.candidates.every((candidate, at) => candidate === candidates[at])) return known.result;
  const entry: UnderWay<Result> = {
    candidates,
    result: begin().finally(() => {
      if (underWay.get(key) === entry) underWay.delete(key);
    }),
  };
  underWay.set(key, entry);
  return entry.result;
}

function lookupPath(kind: ThirdPartyKind, question: ThirdPartyQuestion): string {
  if (question.by === 'fields') return `${ROOT}/${PATHS[kind]}/${pathSegment(question.protocol)}${queryOf(question.fields)}`;
  return `${ROOT}/${PATHS[kind]}?${REVERSE[kind]}=${encodeURIComponent(question.identifier)}`;
}

function protocolQuestion({ protocol, registration }: ProtocolOwner): Question<CachedMetadata> {
  return {
    registration,
    path: `${ROOT}/protocol/${pathSegment(protocol)}`,
    body: null,
    read: ({ status, text }) =>
      reading(status, () => {
        const metadata = protocolMetadataFrom(text);
        return metadata === null ? null : { value: { metadata, bytes: Buffer.byteLength(text) }, droppedCount: metadata.droppedCount };
      }),
  };
}

function matchQuestion(registration: Registration, path: string, kind: ThirdPartyKind): Question<readonly ThirdPartyMatch[]> {
  return {
    registration,
    path,
    body: null,
    read: ({ status, text }) =>
      reading(status, () => {
        const found = matchesFrom(text, kind, registration.id);
        return found === null ? null : { value: found.matches, droppedCount: found.droppedCount };
      }),
  };
}

/** 200 with what was asked for, 404 for nothing; all else is a failure. */
function reading<Value>(status: number, parse: () => { readonly value: Value; readonly droppedCount: number } | null): Reading<Value> {
  if (status === 404) return { kind: 'none' };
  if (status !== 200) return { kind: 'failed', failure: `http_${status}` };
  const parsed = parse();
  return parsed === null ? { kind: 'failed', failure: 'answer_malformed' } : { kind: 'value', ...parsed };
}
