/**
 * Matrix identifiers, Matrix specification appendix "Identifier grammar". Judged leniently: old and foreign ones exist.
 */
import type { NamespaceKind } from './registration.ts';

/** Bytes of an identifier, sigil and domain included, as the specification has it. */
const IDENTIFIER_BYTES_MAX = 255;

/** An identifier that namespaces of one kind may claim. */
export interface Subject {
  readonly kind: NamespaceKind;
  readonly identifier: string;
}

/** True if the user belongs to this homeserver: exactly its name after the first colon (R26). */
export function isLocalUser(userId: string, serverName: string): boolean {
  return isLocal(userId, '@', serverName);
}

export function isLocalAlias(roomAlias: string, serverName: string): boolean {
  return isLocal(roomAlias, '#', serverName);
}

function isLocal(identifier: string, sigil: string, serverName: string): boolean {
  if (!identifier.startsWith(sigil)) return false;
  const colon = identifier.indexOf(':');
  return colon > 0 && identifier.length === colon + 1 + serverName.length && identifier.endsWith(serverName);
}

/** What is wrong with the identifier; null if nothing is. Room ids need no domain (R28). */
export function identifierProblem({ kind, identifier }: Subject): string | null {
  if (Buffer.byteLength(identifier) > IDENTIFIER_BYTES_MAX) return `An identifier has at most ${IDENTIFIER_BYTES_MAX} bytes.`;
  if (kind === 'rooms') return /^!./su.test(identifier) ? null : 'A room ID begins with "!" and goes on.';
  const [what, sigil, example] = kind === 'users' ? ['user ID', '@', '@name:server'] : ['room alias', '#', '#name:server'];
  const colon = identifier.indexOf(':');
  if (identifier.startsWith(sigil) && colon > 0 && colon < identifier.length - 1) return null;
  return `A ${what} has the form ${example}.`;
}
