/**
 * Asks appservices whether a user or an alias exists, which lets them bring it into being first (Application Service
 * API, "Querying"; requirements R113 to R121).
 *
 *   candidates, one after the other ──▶ attempts, at most so many ──▶ 200         yes: nobody else is asked
 *                                                                 ├─▶ 404         no: the next one
 *                                                                 ├─▶ other       failed: the next one
 *                                                                 └─▶ no answer   again after a pause, then the next one
 *
 * "No" is told only if all candidates said it: one that failed, or gave no answer, could have said yes. Nothing is
 * remembered once a query has ended. Queries for the same identifier and candidates that overlap are one, and where they
 * have some candidates in common, each of those is asked once and its answer is for both (R121). They have connections of
 * their own, and so many of one appservice at a time, so one that hangs holds up neither its transactions nor others.
 */
import { backoffMs } from '../appservice/backoff.ts';
import type { DomainEvent, DomainEventSink } from '../appservice/domain-event.ts';
import type { Provision, ProvisionSubject } from '../appservice/provisioning.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { OperationSink } from '../appservice/operation.ts';
import type { Registration } from '../appservice/registration.ts';
import type { Clock, Random } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { AppserviceClient } from './appservice-client.ts';
import type { AppserviceResult } from './appservice-client.ts';
import { AppserviceTargets } from './appservice-target.ts';
import type { OutboundFailure } from './connect.ts';
import type { HttpClient, OutboundTarget } from './http-client.ts';
import { pathSegment } from './path-segment.ts';

export interface ProvisioningOptions {
  readonly client: Pick<HttpClient, 'request'>;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly events: DomainEventSink;
  readonly operations?: OperationSink;
  /** For one attempt, where the registration names no `query_timeout_ms`. */
  readonly queryTimeoutMs: number;
  /** Of one appservice that gives no answer. */
  readonly attemptsMax: number;
  /** For one query, all attempts of all candidates included. */
  readonly totalTimeoutMs: number;
  /** Queries under way together; one that joins another is not counted. */
  readonly queriesMax: number;
  /** Of one appservice. */
  readonly appserviceQueriesMax: number;
}

/** Dozens of appservices that hang, each with as many queries as it may have, leave room for those of the others. */
export const PROVISIONING_LIMITS = { totalTimeoutMs: 120_000, queriesMax: 2_048, appserviceQueriesMax: 32 } as const;

const PATHS = { users: '/_matrix/app/v1/users/', aliases: '/_matrix/app/v1/rooms/' } as const;
const BODY_TIMEOUT_MS = 1_000;
const PAUSE = { firstMs: 200, maxMs: 1_000 } as const;
const RETRY_DELAY_MS = 1_000;
/** After answers that were failures: what is wrong there takes longer than a full queue. */
const FAILED_RETRY_DELAY_MS = 5_000;

/** What one candidate came to. */
type Verdict =
  | { readonly kind: 'yes' | 'no' | 'failed'; readonly path: AppserviceResult['path']; readonly httpStatus: number }
  | { readonly kind: 'no_answer'; readonly failure: OutboundFailure };

/** One candidate that is being asked. */
interface Asking {
  readonly registration: Registration;
  readonly verdict: Promise<Verdict>;
}

interface Query {
  readonly serverName: string;
  readonly subject: ProvisionSubject;
  /** Monotonic. */
  readonly deadlineMs: number;
}

export class Provisioning implements AsyncDisposable {
  readonly #options: ProvisioningOptions;
  readonly #appservices: AppserviceClient;
  readonly #targets = new AppserviceTargets();
  readonly #ending = new AbortController();
  readonly #underWay = new Map<string, Promise<Provision>>();
  readonly #asking = new Map<string, Asking>();
  /** By the owner of the connections. */
  readonly #asked = new Map<string, number>();

  constructor(options: ProvisioningOptions) {
    this.#options = options;
    this.#appservices = new AppserviceClient(options);
  }

  get underWayCount(): number {
    return this.#underWay.size;
  }

  /**
   * Asks the candidates in their order until one says yes. Rejects with a RefusalError if none did and not all said no,
   * if too many queries are under way, or the router ends.
   */
  query(serverName: string, subject: ProvisionSubject, candidates: readonly Registration[]): Promise<Provision> {
    if (candidates.length === 0) return Promise.resolve({ exists: false, appserviceId: undefined });
    const key = JSON.stringify([serverName, subject.kind, subject.identifier, ...candidates.map(({ id }) => id)]);
    const known = this.#underWay.get(key);
    if (known !== undefined) return known;
    const { clock, queriesMax, totalTimeoutMs } = this.#options;
    if (this.#underWay.size >= queriesMax) return Promise.reject(tooMany());
    const asking = this.#askAll({ serverName, subject, deadlineMs: clock.monotonicMs() + totalTimeoutMs }, candidates).finally(() => this.#underWay.delete(key));
    this.#underWay.set(key, asking);
    return asking;
  }

  /** What is under way is refused as one that came too late. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await Promise.allSettled(this.#underWay.values());
  }

  async #askAll(query: Query, candidates: readonly Registration[]): Promise<Provision> {
    const silent: string[] = [];
    const failed: string[] = [];
    for (const registration of candidates) {
      const verdict = await this.#askOnce(query, registration);
      if (verdict.kind === 'yes') return { exists: true, appserviceId: registration.id };
      if (verdict.kind === 'no_answer') silent.push(registration.id);
      if (verdict.kind === 'failed') failed.push(registration.id);
    }
    if (silent.length > 0) throw timedOut(silent);
    if (failed.length > 0) throw unavailable(failed);
    return { exists: false, appserviceId: undefined };
  }

  #askOnce(query: Query, registration: Registration): Promise<Verdict> {
    const { serverName, subject } = query;
    const key = JSON.stringify([serverName, subject.kind, subject.identifier, registration.id]);
    const known = this.#asking.get(key);
    if (known?.registration === registration) return known.verdict;
    const verdict = this.#ask(query, registration).finally(() => {
      if (this.#asking.get(key)?.verdict === verdict) this.#asking.delete(key);
    });
    this.#asking.set(key, { registration, verdict });
    return verdict;
  }

  async #ask(query: Query, registration: Registration): Promise<Verdict> {
    const { clock } = this.#options;
    const beganMs = clock.monotonicMs();
    const target = this.#targets.of(query.serverName, registration);
    if (target === null) return this.#told(query, registration, { kind: 'no_answer', failure: 'address_refused' }, 0, beganMs);
    this.#begin(target.owner);
    try {
      for (let attempt = 1; ; attempt++) {
        const verdict = await this.#attempt(query, target, registration);
        if (verdict.kind !== 'no_answer' || !(await this.#mayRepeat(query, verdict.failure, attempt))) return this.#told(query, registration, verdict, attempt, beganMs);
      }
    } finally {
      this.#end(target.owner);
    }
  }

  async #attempt({ subject: { kind, identifier }, deadlineMs }: Query, target: OutboundTarget, registration: Registration): Promise<Verdict> {
    const { clock, queryTimeoutMs } = this.#options;
    const leftMs = deadlineMs - clock.monotonicMs();
    if (leftMs <= 0) return { kind: 'no_answer', failure: 'timeout' };
    const timeoutMs = Math.min(leftMs, registration.delivery_options.query_timeout_ms ?? queryTimeoutMs);
    const request = { method: 'GET', path: PATHS[kind] + pathSegment(identifier), body: null, timeoutMs, bodyTimeoutMs: BODY_TIMEOUT_MS } as const;
    const { path, result } = await this.#appservices.request({ ...target, owner: `${target.owner}|query` }, registration, request, this.#ending.signal);
    if (result.kind === 'aborted') throw draining();
    if (result.kind === 'failed') return { kind: 'no_answer', failure: result.failure };
    const { status: httpStatus } = result;
    return { kind: httpStatus === 200 ? 'yes' : httpStatus === 404 ? 'no' : 'failed', path, httpStatus };
  }

  /** Pauses before it says yes. An address that is refused stays so. */
  async #mayRepeat({ deadlineMs }: Query, failure: OutboundFailure, attempt: number): Promise<boolean> {
    const { clock, random, attemptsMax } = this.#options;
    if (attempt >= attemptsMax || failure === 'address_refused') return false;
    const pauseMs = backoffMs(attempt, null, PAUSE, random.next());
    if (clock.monotonicMs() + pauseMs >= deadlineMs) return false;
    await clock.sleep(pauseMs, this.#ending.signal);
    return true;
  }

  #told({ serverName, subject }: Query, { id }: Registration, verdict: Verdict, attemptCount: number, beganMs: number): Verdict {
    const { clock, logger, events, operations } = this.#options;
    operations?.operated({ serverName, appserviceId: id, kind: 'query', failed: verdict.kind === 'failed' || verdict.kind === 'no_answer' });
    const fields = {
      server_name: serverName,
      appservice_id: id,
      [subject.kind === 'users' ? 'user_id' : 'alias']: subject.identifier,
      outcome: verdict.kind,
      ...(verdict.kind === 'no_answer' ? { failure: verdict.failure } : { path: verdict.path, http_status: verdict.httpStatus }),
      attempt_count: attemptCount,
      duration_ms: Math.max(0, Math.round(clock.monotonicMs() - beganMs)),
    };
    if (verdict.kind === 'yes' || verdict.kind === 'no') logger.info(fields, 'query');
    else logger.warn(fields, 'query failed');
    if (verdict.kind === 'yes') events.emit({ serverName, timeMs: clock.nowMs(), event: provisionedEvent(subject, id) });
    return verdict;
  }

  #begin(owner: string): void {
    const count = this.#asked.get(owner) ?? 0;
    if (count >= this.#options.appserviceQueriesMax) throw tooMany();
    this.#asked.set(owner, count + 1);
  }

  #end(owner: string): void {
    const count = this.#asked.get(owner) ?? 0;
    if (count > 1) this.#asked.set(owner, count - 1);
    else this.#asked.delete(owner);
  }
}

function provisionedEvent({ kind, identifier }: ProvisionSubject, appserviceId: string): DomainEvent {
  if (kind === 'users') return { kind: 'user_provisioned', service_id: appserviceId, user_id: identifier };
  return { kind: 'alias_provisioned', service_id: appserviceId, alias: identifier };
}

function tooMany(): RefusalError {
  return new RefusalError('QUEUE_FULL', 'Too many queries are under way. Call again when some of them have ended.', { retryDelayMs: RETRY_DELAY_MS });
}

function draining(): RefusalError {
  return new RefusalError('DRAINING', 'The router is shutting down. Call again in a second.', { retryDelayMs: RETRY_DELAY_MS });
}

/** The metadata says what a homeserver answers its client. */
function timedOut(appserviceIds: readonly string[]): RefusalError {
  const message = 'An application service gave no answer in time. Answer that the request timed out, or call again later.';
  return new RefusalError('APPSERVICE_QUERY_TIMEOUT', message, { metadata: { errcode: 'M_UNKNOWN', http_status: '408', appservice_ids: appserviceIds.join(',') } });
}

function unavailable(appserviceIds: readonly string[]): RefusalError {
  const metadata = { errcode: 'M_UNKNOWN', http_status: '503', appservice_ids: appserviceIds.join(',') };
  return new RefusalError('APPSERVICE_SERVICE_UNAVAILABLE', 'Application service is currently unavailable', { metadata, retryDelayMs: FAILED_RETRY_DELAY_MS });
}
