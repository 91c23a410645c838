/**
 * What is allowed in a registration and yet seldom meant. A warning changes nothing; it is shown to who puts the registration.
 */
import { topLevelBranches } from '../appservice/pattern-samples.ts';
import type { Namespace, NamespaceKind, Registration } from '../appservice/registration.ts';
import { NAMESPACE_KINDS } from './registration-rules.ts';

export type WarningCode =
  | 'PATTERN_MATCHES_ALL'
  | 'PATTERN_WITHOUT_SIGIL'
  | 'PATTERN_WITHOUT_SERVER'
  | 'PATTERN_OPEN_ENDED'
  | 'RATE_LIMITED'
  | 'SENDER_SHARED'
  | 'EXCLUSIVE_OVERLAP'
  | 'SENDER_CLAIMED'
  | 'TOKENS_EQUAL'
  | 'TOKEN_SHORT'
  | 'UNKNOWN_KEY';

export interface RegistrationWarning {
  readonly code: WarningCode;
  readonly message: string;
}

const TOKEN_LENGTH_MIN = 16;
/** More warnings than these are counted only. */
const PATTERN_WARNINGS_MAX = 20;
const SIGILS: Readonly<Record<NamespaceKind, string>> = { users: '@', aliases: '#', rooms: '!' };
const SHOWN_LENGTH_MAX = 100;

/** What can be said of the registration alone. */
export function registrationWarnings(registration: Registration): RegistrationWarning[] {
  return [...tokenWarnings(registration), ...patternWarnings(registration), ...rateWarnings(registration)];
}

/** What can be said of it beside those in force; one with the same id is about to be replaced and does not count. */
export function rivalWarnings(registration: Registration, others: readonly Registration[]): RegistrationWarning[] {
  const rivals = others.filter(({ id }) => id !== registration.id);
  return [...overlapWarnings(registration, rivals), ...senderWarnings(registration, rivals)];
}

function tokenWarnings({ as_token, hs_token }: Registration): RegistrationWarning[] {
  const warnings: RegistrationWarning[] = [];
  if (as_token === hs_token) warnings.push({ code: 'TOKENS_EQUAL', message: 'as_token and hs_token are the same, so who learns one can play both sides; give each its own.' });
  for (const [name, token] of Object.entries({ as_token, hs_token })) {
    if (token.length < TOKEN_LENGTH_MIN) {
      warnings.push({ code: 'TOKEN_SHORT', message: `${name} has fewer than ${TOKEN_LENGTH_MIN} characters and can be guessed; openssl rand -hex 32 prints a good one.` });
    }
  }
  return warnings;
}

function patternWarnings({ namespaces }: Registration): RegistrationWarning[] {
  const warnings: RegistrationWarning[] = [];
  let further = 0;
  for (const kind of NAMESPACE_KINDS) {
    for (const [at, namespace] of namespaces[kind].entries()) {
      const warning = mostTelling(kind, `namespaces.${kind}[${at}]`, namespace);
      if (warning !== null && warnings.length < PATTERN_WARNINGS_MAX) warnings.push(warning);
      else if (warning !== null) further++;
    }
  }
  const last = warnings.at(-1);
  if (further > 0 && last !== undefined) warnings.push({ code: last.code, message: `${further} further patterns deserve a look.` });
  return warnings;
}

/** Of a pattern with several branches, the first thing that is odd about one: each is anchored by itself (R22). */
function mostTelling(kind: NamespaceKind, field: string, namespace: Namespace): RegistrationWarning | null {
  const branches = topLevelBranches(namespace.regex);
  const [only] = branches;
  if (branches.length === 1 && only !== undefined) return patternWarning(kind, field, namespace);
  for (const [at, regex] of branches.entries()) {
    const warning = patternWarning(kind, `${field}, branch ${at + 1}`, { ...namespace, regex });
    if (warning !== null) return warning;
  }
  return null;
}

/** The one most telling thing about a pattern, or a branch of one. */
function patternWarning(kind: NamespaceKind, field: string, { regex }: Namespace): RegistrationWarning | null {
  const sigil = SIGILS[kind];
  const name = `${field}, ${JSON.stringify(regex.slice(0, SHOWN_LENGTH_MAX))},`;
  const bare = regex.replace(/^(?:\(\?[a-zA-Z]+\)|\^|\\A|\((?:\?:)?)+/, '');
  if (/^(?:\.[*+])?\$?$/.test(bare)) return { code: 'PATTERN_MATCHES_ALL', message: `${name} matches every identifier of its kind.` };
  if (/^\.[*+]/.test(bare)) {
    return { code: 'PATTERN_MATCHES_ALL', message: `${name} begins with ${bare.slice(0, 2)}, so it matches wherever the rest occurs; begin with "${sigil}" and what the names begin with.` };
  }
  if (/^[A-Za-z0-9_]/.test(bare)) {
    return { code: 'PATTERN_WITHOUT_SIGIL', message: `${name} matches nothing, because it is held against the whole identifier from its first character; begin with "${sigil}".` };
  }
  if (kind === 'rooms') return null;
  if (/[A-Za-z0-9_]\)?$/.test(bare) && !bare.includes(':') && !/\\z$/.test(bare)) {
    return { code: 'PATTERN_OPEN_ENDED', message: `${name} need not reach the end of the identifier, so it matches longer names too; end with ":" and the server name if only this name is meant.` };
  }
  if (!bare.includes(':') && !/\[\^?[^\]]*:/.test(bare)) {
    const effect = kind === 'users' ? 'only users of this homeserver are ever matched, but readers must know that' : 'it claims aliases of every server';
    return { code: 'PATTERN_WITHOUT_SERVER', message: `${name} names no server: ${effect}; end with ":" and the server name to be plain.` };
  }
  return null;
}

function overlapWarnings(registration: Registration, rivals: readonly Registration[]): RegistrationWarning[] {
  const warnings: RegistrationWarning[] = [];
  for (const kind of NAMESPACE_KINDS) {
    const own = new Set(exclusivePatterns(registration, kind));
    if (own.size === 0) continue;
    for (const rival of rivals) {
      const shared = exclusivePatterns(rival, kind).find((regex) => own.has(regex));
      if (shared === undefined) continue;
      const pattern = JSON.stringify(shared.slice(0, SHOWN_LENGTH_MAX));
      warnings.push({ code: 'EXCLUSIVE_OVERLAP', message: `${pattern} in ${kind} is exclusive to "${rival.id}" too; neither may create what both claim.` });
    }
  }
  return warnings;
}

function exclusivePatterns({ namespaces }: Registration, kind: NamespaceKind): string[] {
  return namespaces[kind].filter(({ exclusive }) => exclusive).map(({ regex }) => regex);
}

function senderWarnings({ sender_localpart: localpart }: Registration, rivals: readonly Registration[]): RegistrationWarning[] {
  return rivals
    .filter((rival) => rival.sender_localpart === localpart)
    .map(({ id }) => ({ code: 'SENDER_SHARED', message: `sender_localpart is that of "${id}" too, so both act as one user and both get its events.` }));
}

function rateWarnings({ rate_limited: rateLimited }: Registration): RegistrationWarning[] {
  if (!rateLimited) return [];
  return [{ code: 'RATE_LIMITED', message: 'Users of this appservice count as rate limited; write rate_limited: false if it speaks for many people.' }];
}
