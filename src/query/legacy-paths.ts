/**
 * The paths from before the Application Service API had versions (section "Legacy routes"; requirements R104 to R108):
 * what they are, which answers send the router to them, and which of two answers counts. Pure.
 */
import type { DeliveryOptions } from '../appservice/registration.ts';
import type { OutboundResult } from './http-client.ts';
import { isUnknownRoute } from './unknown-route.ts';

export type LegacyPolicy = NonNullable<DeliveryOptions['legacy_paths']>;

type Answer = Extract<OutboundResult, { kind: 'answered' }>;

/** The endpoints that have one; each may be served elsewhere than the others. */
export const LEGACY_ENDPOINTS = ['transactions', 'users', 'rooms', 'thirdparty'] as const;
export type LegacyEndpoint = (typeof LEGACY_ENDPOINTS)[number];

export interface LegacyPath {
  readonly endpoint: LegacyEndpoint;
  readonly path: string;
}

const V1 = '/_matrix/app/v1/';
const ROOTS: Readonly<Record<LegacyEndpoint, string>> = { transactions: '/', users: '/', rooms: '/', thirdparty: '/_matrix/app/unstable/' };

/** The legacy path of a version 1 path, its query included; null where there is none, as for pings and keys (R107, R108). */
export function legacyPathOf(path: string): LegacyPath | null {
  if (!path.startsWith(V1)) return null;
  const rest = path.slice(V1.length);
  const endpoint = LEGACY_ENDPOINTS.find((name) => rest.startsWith(`${name}/`));
  return endpoint === undefined ? null : { endpoint, path: ROOTS[endpoint] + rest };
}

/** Whether this answer to the version 1 path sends the router to the legacy one. What is no answer never does (R104 to R106). */
export function callsForLegacy(policy: LegacyPolicy, result: OutboundResult): boolean {
  if (result.kind !== 'answered' || policy === 'off') return false;
  return policy === 'any_error' ? !isSuccess(result) : hasNoSuchRoute(result);
}

/** Nothing is served at the path that gave this answer: it is not known there, or points elsewhere. */
export function isNotServed(result: OutboundResult): boolean {
  return result.kind === 'answered' && (hasNoSuchRoute(result) || (result.status >= 300 && result.status < 400));
}

/**
 * Of two results of one attempt, the one that it came to. The legacy one, unless that is no success and either nothing
 * is served there, or version 1 said something that only an appservice says that serves it: that the body is too large,
 * which makes the transaction smaller, or that it wants to be left alone for a while.
 */
export function isLegacyDecisive(v1: OutboundResult, legacy: OutboundResult): boolean {
  if (legacy.kind === 'aborted' || isSuccess(legacy)) return true;
  return !isNotServed(legacy) && !(v1.kind === 'answered' && [413, 429, 503].includes(v1.status));
}

export function isSuccess(result: OutboundResult): boolean {
  return result.kind === 'answered' && result.status >= 200 && result.status < 300;
}

/** Of an answer that is not whole only its beginning can be told. */
function hasNoSuchRoute({ status, body, bodyComplete }: Answer): boolean {
  if (!bodyComplete && /^\s*[{[]/.test(body.toString('latin1', 0, 16))) return false;
  return isUnknownRoute(status, body.toString('utf8'));
}
