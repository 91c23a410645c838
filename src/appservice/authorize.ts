/**
 * Who owns an identifier, and who may create, delete or log in as it (Application Service API, section "Server admin
 * style permissions"; requirements R145 to R149, M13).
 */
import type { Subject } from './identifier.ts';
import { identifierProblem } from './identifier.ts';
import type { NamespaceIndex, NamespaceMatch } from './namespaces.ts';
import { RefusalError } from './refusal.ts';
import type { RefusalReason } from './refusal.ts';

export interface NamespaceVerdict {
  readonly matches: readonly NamespaceMatch[];
  readonly exclusive: boolean;
  readonly exclusiveAppserviceIds: readonly string[];
  /** It is some appservice's own user, which that appservice owns exclusively (R146). */
  readonly senderUser: boolean;
}

export type Actor =
  | { readonly kind: 'as_token'; readonly asToken: string }
  | { readonly kind: 'appservice_id'; readonly appserviceId: string }
  | { readonly kind: 'person'; readonly userId: string };

export interface AuthorizeRequest {
  readonly subject: Subject;
  readonly action: 'create' | 'delete' | 'login';
  readonly actor: Actor;
  /** For a login: whether the homeserver knows the account; undefined if it does not say. */
  readonly userRegistered: boolean | undefined;
}

const RESERVED = 'This alias or user ID is reserved by a registered application service';

/** Throws a RefusalError for a malformed identifier only. */
export function checkNamespace(index: NamespaceIndex, subject: Subject): NamespaceVerdict {
  const problem = identifierProblem(subject);
  if (problem !== null) throw new RefusalError('INVALID_FIELD', problem, { field: fieldOf(subject) });
  const matches = index.matches(subject.kind, subject.identifier);
  const owners = subject.kind === 'users' ? index.senderOwners(subject.identifier) : [];
  const exclusive = new Set(matches.filter((match) => match.exclusive).map(({ appserviceId }) => appserviceId));
  for (const id of owners) exclusive.add(id);
  return { matches, exclusive: exclusive.size > 0, exclusiveAppserviceIds: index.inOrder(exclusive), senderUser: owners.length > 0 };
}

/**
 * Returns the id of the appservice by whose namespace or own user the actor may do it; undefined where nobody's
 * namespace has a say. Throws a RefusalError with the Matrix `errcode` and `http_status` in its metadata otherwise.
 *
 *   actor        identifier                                               answer
 *   person       in an exclusive namespace, or some appservice's own user M_EXCLUSIVE
 *   person       anything else                                            nobody's say
 *   appservice   its own user                                             allowed
 *   appservice   outside of its namespaces                                M_EXCLUSIVE
 *   appservice   inside, but exclusive to another or another's own user   M_EXCLUSIVE, even if exclusive to itself too
 *   appservice   inside                                                   allowed
 *
 * A login that is allowed so far needs an account: M_FORBIDDEN if the homeserver says that there is none (R149).
 */
export function authorize(index: NamespaceIndex, request: AuthorizeRequest, findByToken: (asToken: string) => string | undefined): string | undefined {
  const { subject, action } = request;
  const verdict = checkNamespace(index, subject);
  const actor = actingAppservice(index, request.actor, findByToken);
  if (actor === undefined) {
    if (verdict.exclusive) throw reserved(verdict.exclusiveAppserviceIds);
    return undefined;
  }
  const isOwnUser = subject.kind === 'users' && index.senderOwners(subject.identifier).includes(actor);
  const isInside = verdict.matches.some(({ appserviceId }) => appserviceId === actor);
  const others = verdict.exclusiveAppserviceIds.filter((id) => id !== actor);
  if (!isOwnUser && (!isInside || others.length > 0)) throw reserved(others);
  if (action === 'login' && request.userRegistered === false) {
    throw refused('APPSERVICE_USER_NOT_REGISTERED', 'The user has no account yet. Register it before it logs in.', 'M_FORBIDDEN', 403, [actor]);
  }
  return actor;
}

function actingAppservice(index: NamespaceIndex, actor: Actor, findByToken: (asToken: string) => string | undefined): string | undefined {
  switch (actor.kind) {
    case 'person':
      return undefined;
    case 'as_token': {
      const id = findByToken(actor.asToken);
      if (id === undefined) throw refused('APPSERVICE_UNKNOWN_TOKEN', 'No registered application service has this as_token', 'M_UNKNOWN_TOKEN', 401, []);
      return id;
    }
    case 'appservice_id': {
      const known = index.registrations.some(({ id }) => id === actor.appserviceId);
      if (known) return actor.appserviceId;
      throw unknownAppservice(actor.appserviceId);
    }
  }
}

export function unknownAppservice(appserviceId: string): RefusalError {
  return new RefusalError('APPSERVICE_NOT_FOUND', `There is no appservice "${appserviceId}". ListAppservices tells which there are.`, { metadata: { appservice_id: appserviceId } });
}

function reserved(appserviceIds: readonly string[]): RefusalError {
  return refused('APPSERVICE_NAMESPACE_CONFLICT', RESERVED, 'M_EXCLUSIVE', 400, appserviceIds);
}

/** `errcode` and `httpStatus`: what the homeserver answers on the Matrix wire. */
export function refused(reason: RefusalReason, message: string, errcode: string, httpStatus: number, appserviceIds: readonly string[]): RefusalError {
  const owners: Record<string, string> = appserviceIds.length === 0 ? {} : { appservice_ids: appserviceIds.join(',') };
  return new RefusalError(reason, message, { metadata: { errcode, http_status: String(httpStatus), ...owners } });
}

function fieldOf({ kind }: Subject): string {
  return kind === 'users' ? 'user_id' : kind === 'aliases' ? 'room_alias' : 'room_id';
}
