/**
 * Which appservices may bring a user or an alias into being that a homeserver does not know (Application Service API,
 * "Querying"; requirements R111 to R113, R118).
 */
import { identifierProblem, isLocalAlias, isLocalUser } from './identifier.ts';
import type { NamespaceIndex } from './namespaces.ts';
import { RefusalError } from './refusal.ts';
import type { Registration } from './registration.ts';

/** A user ID or a room alias. */
export interface ProvisionSubject {
  readonly kind: 'users' | 'aliases';
  readonly identifier: string;
}

/** `appserviceId`: the appservice that says so; undefined if none does. */
export interface Provision {
  readonly exists: boolean;
  readonly appserviceId: string | undefined;
}

/** What one appservice said of one user; `unclaimed`: it is not to be asked; `silent`: it was not, since it has answered nothing of late. */
export type UserAnswer = 'yes' | 'no' | 'failed' | 'timeout' | 'unclaimed' | 'silent';

/** Users that a submission names as unknown. Throws a RefusalError for what is no user of this homeserver. */
export function unknownUsers(userIds: readonly string[], serverName: string): ReadonlySet<string> {
  for (const [at, identifier] of userIds.entries()) {
    const problem = identifier.isWellFormed() ? identifierProblem({ kind: 'users', identifier }) : 'An identifier is well-formed Unicode text.';
    const refusal = problem ?? (isLocalUser(identifier, serverName) ? null : 'Name users of this homeserver only: of others it is not for its appservices to say.');
    if (refusal !== null) throw new RefusalError('INVALID_FIELD', refusal, { field: `unknown_user_ids[${at}]` });
  }
  return new Set(userIds);
}

/**
 * Those to ask, in registration order: the ones with a url whose namespace has the identifier, exclusively or not.
 * Nobody for what is remote, and for the own user of an appservice. Throws a RefusalError for a malformed identifier.
 */
export function provisioners(index: NamespaceIndex, { kind, identifier }: ProvisionSubject): readonly Registration[] {
  const problem = identifier.isWellFormed() ? identifierProblem({ kind, identifier }) : 'An identifier is well-formed Unicode text.';
  if (problem !== null) throw new RefusalError('INVALID_FIELD', problem, { field: kind === 'users' ? 'user_id' : 'room_alias' });
  const isLocal = kind === 'users' ? isLocalUser(identifier, index.serverName) : isLocalAlias(identifier, index.serverName);
  if (!isLocal || (kind === 'users' && index.senderOwners(identifier).length > 0)) return [];
  const claiming = new Set(index.matches(kind, identifier).map(({ appserviceId }) => appserviceId));
  return index.registrations.filter(({ id, url }) => url !== null && claiming.has(id));
}
