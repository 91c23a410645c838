/**
 * As which user an appservice's request acts (Application Service API, section "Identity assertion"; requirements R138
 * to R143, R146, M7).
 */
import { refused } from './authorize.ts';
import { identifierProblem, isLocalUser } from './identifier.ts';
import type { NamespaceIndex } from './namespaces.ts';
import type { RefusalError } from './refusal.ts';
import type { Registration } from './registration.ts';
import { senderUserId } from './registration.ts';

export interface AuthenticateRequest {
  /** Empty if the request came without a token. */
  readonly asToken: string;
  /** The user that the request asserts to act as; undefined: the appservice's own user. */
  readonly userId: string | undefined;
  readonly deviceId: string | undefined;
  /** Whether the homeserver knows the account of `userId`; undefined if it does not say. */
  readonly userRegistered: boolean | undefined;
}

/** The appservice, and the user that its request acts as. */
export interface AppserviceIdentity {
  readonly appserviceId: string;
  readonly userId: string;
  /** As it was asserted: only the homeserver knows devices (R142). */
  readonly deviceId: string | undefined;
  /** False for the appservice's own user, whatever its registration says. */
  readonly isRateLimited: boolean;
  readonly isSenderUser: boolean;
}

/**
 * Throws a RefusalError with the Matrix `errcode` and `http_status` in its metadata if the request may not act so. What
 * is asserted counts only once the token is known (R143).
 *
 *   asserted user                                      answer
 *   none                                               the appservice's own user (R139)
 *   the appservice's own user                          allowed, registered or not (R140)
 *   malformed, remote, or outside of its namespaces    M_FORBIDDEN (R140)
 *   another appservice's own user                      M_FORBIDDEN (R146)
 *   inside, but without an account                     M_FORBIDDEN (R140)
 *   inside, exclusive or not                           allowed (R141)
 */
export function authenticate(index: NamespaceIndex, request: AuthenticateRequest, findByToken: (asToken: string) => string | undefined): AppserviceIdentity {
  const { asToken, deviceId, userRegistered } = request;
  if (asToken === '') throw refused('APPSERVICE_UNKNOWN_TOKEN', 'The request came without a token. Answer that one is missing.', 'M_MISSING_TOKEN', 401, []);
  const appserviceId = findByToken(asToken);
  const registration = index.registrations.find(({ id }) => id === appserviceId);
  if (registration === undefined) throw refused('APPSERVICE_UNKNOWN_TOKEN', 'No registered application service has this as_token', 'M_UNKNOWN_TOKEN', 401, []);
  const { id, rate_limited } = registration;
  const senderUser = senderUserId(registration, index.serverName);
  const userId = request.userId ?? senderUser;
  if (userId === senderUser) return { appserviceId: id, userId, deviceId, isRateLimited: false, isSenderUser: true };
  if (!mayActAs(index, registration, userId)) throw denied(id, 'The application service may not act as this user. It may as its own user, and as the local users in its namespaces.');
  if (userRegistered === false) throw denied(id, 'The user has no account yet. The application service must register it before it acts as it.');
  return { appserviceId: id, userId, deviceId, isRateLimited: rate_limited, isSenderUser: false };
}

function mayActAs(index: NamespaceIndex, { id }: Registration, userId: string): boolean {
  if (identifierProblem({ kind: 'users', identifier: userId }) !== null || !isLocalUser(userId, index.serverName)) return false;
  if (index.senderOwners(userId).length > 0) return false;
  return index.matches('users', userId).some(({ appserviceId }) => appserviceId === id);
}

function denied(appserviceId: string, message: string): RefusalError {
  return refused('APPSERVICE_MASQUERADE_DENIED', message, 'M_FORBIDDEN', 403, [appserviceId]);
}
