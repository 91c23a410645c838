/**
 * What the router asks of an appservice passes here: it shows the hs_token as the registration wants it, and asks by the
 * paths that the appservice knows (Application Service API, "Legacy routes"; requirements R55, R56, R103 to R109).
 *
 *                     no success that the policy      2xx: legacy first for an hour
 *   v1 first ─────────── takes for a wrong path ──▶ legacy ──────────┐
 *     ▲                                                              ▼
 *     ├──────── the hour is over, or the registration put anew ── legacy first ──▶ legacy
 *     ├──────── no answer there, or one of 5xx: v1 first from the next attempt ───────┤
 *     └──────── nothing is served there: v1, in the same attempt ─────────────────────┘
 *
 * One attempt is one or two requests with the same method, headers and bytes, within the one time-out, and comes to one
 * result. What is remembered goes with the registration object: there is no more of it than registrations in force.
 */
import type { Registration } from '../appservice/registration.ts';
import type { Clock } from '../clock.ts';
import type { HttpClient, OutboundRequest, OutboundResult, OutboundTarget } from './http-client.ts';
import { callsForLegacy, isLegacyDecisive, isNotServed, isSuccess, legacyPathOf } from './legacy-paths.ts';
import type { LegacyEndpoint } from './legacy-paths.ts';

/** A body is JSON. */
export interface AppserviceRequest extends Omit<OutboundRequest, 'headers'> {
  /** Of version 1. The time-out is for the whole attempt. */
  readonly path: string;
}

/** `path`: which of the two paths the result came from. */
export interface AppserviceResult {
  readonly path: 'v1' | 'legacy';
  readonly result: OutboundResult;
}

export interface AppserviceClientOptions {
  readonly client: Pick<HttpClient, 'request'>;
  readonly clock: Clock;
}

/** For how long an appservice that took a legacy path is asked there first. */
export const LEGACY_FIRST_MS = 3_600_000;

export class AppserviceClient {
  readonly #options: AppserviceClientOptions;
  /** By endpoint, the monotonic time until which the legacy path goes first. */
  readonly #legacyUntilMs = new WeakMap<Registration, Map<LegacyEndpoint, number>>();

  constructor(options: AppserviceClientOptions) {
    this.#options = options;
  }

  /** Never rejects. `aborted` when `signal` is aborted or the client is disposed of. */
  async request(target: OutboundTarget, registration: Registration, request: AppserviceRequest, signal: AbortSignal): Promise<AppserviceResult> {
    const { legacy_paths: policy = 'off' } = registration.delivery_options;
    const legacy = policy === 'off' ? null : legacyPathOf(request.path);
    if (legacy === null) return { path: 'v1', result: await this.#send(target, registration, request, signal) };
    const deadlineMs = this.#options.clock.monotonicMs() + request.timeoutMs;
    const send = (path: string): Promise<OutboundResult> => this.#send(target, registration, { ...request, path, timeoutMs: this.#leftMs(deadlineMs) }, signal);

    if (this.#isLegacyFirst(registration, legacy.endpoint)) {
      const result = await send(legacy.path);
      const isServed = !isNotServed(result);
      // An appservice that fails may have been replaced by one that knows version 1.
      if (!isServed || result.kind !== 'answered' || result.status >= 500) this.#legacyUntilMs.get(registration)?.delete(legacy.endpoint);
      return isServed || this.#leftMs(deadlineMs) === 0 ? { path: 'legacy', result } : { path: 'v1', result: await send(request.path) };
    }
    const v1 = await send(request.path);
    if (!callsForLegacy(policy, v1) || this.#leftMs(deadlineMs) === 0) return { path: 'v1', result: v1 };
    const result = await send(legacy.path);
    if (isSuccess(result)) this.#remember(registration, legacy.endpoint);
    return isLegacyDecisive(v1, result) ? { path: 'legacy', result } : { path: 'v1', result: v1 };
  }

  #send(target: OutboundTarget, registration: Registration, request: AppserviceRequest, signal: AbortSignal): Promise<OutboundResult> {
    const { hs_token, delivery_options } = registration;
    const { legacy_auth: auth = 'off' } = delivery_options;
    const path = auth === 'off' ? request.path : `${request.path}${request.path.includes('?') ? '&' : '?'}access_token=${encodeURIComponent(hs_token)}`;
    const type = request.body === null ? {} : { 'content-type': 'application/json' };
    const headers = auth === 'query_only' ? type : { ...type, authorization: `Bearer ${hs_token}` };
    return this.#options.client.request(target, { ...request, path, headers }, signal);
  }

  #leftMs(deadlineMs: number): number {
    return Math.max(0, deadlineMs - this.#options.clock.monotonicMs());
  }

  #isLegacyFirst(registration: Registration, endpoint: LegacyEndpoint): boolean {
    const untilMs = this.#legacyUntilMs.get(registration)?.get(endpoint);
    return untilMs !== undefined && this.#options.clock.monotonicMs() < untilMs;
  }

  #remember(registration: Registration, endpoint: LegacyEndpoint): void {
    const untilMs = this.#legacyUntilMs.get(registration) ?? new Map<LegacyEndpoint, number>();
    untilMs.set(endpoint, this.#options.clock.monotonicMs() + LEGACY_FIRST_MS);
    this.#legacyUntilMs.set(registration, untilMs);
  }
}
