/**
 * What a registration must be, however it arrived (Matrix Application Service API, "Registration"; contract section 6).
 * Pure: what patterns and addresses may be is injected.
 */
import type { Namespace, NamespaceKind, Registration } from '../appservice/registration.ts';
import { senderUserId } from '../appservice/registration.ts';
import type { FieldProblem } from './yaml-fields.ts';

export interface RegistrationRules {
  readonly serverName: string;
  /** What `rate_limited` is where a registration does not say (R15). */
  readonly rateLimitedDefault: boolean;
  /** What is wrong with a pattern, as a clause without a full stop; null if nothing is. */
  readonly patternProblem: (regex: string) => string | null;
  /** Why the router could never push to this well-formed url, as a sentence; null if it may. */
  readonly urlProblem: (url: string) => string | null;
}

export const NAMESPACE_KINDS: readonly NamespaceKind[] = ['users', 'aliases', 'rooms'];
const ID_LENGTH_MAX = 255;
const TOKEN_LENGTH_MAX = 1024;
const URL_LENGTH_MAX = 2048;
const NAMESPACES_MAX = 10_000;
const PROTOCOLS_MAX = 100;
const PUSH_TIMEOUT_MS = { min: 1_000, max: 600_000 } as const;
const QUERY_TIMEOUT_MS = { min: 100, max: 120_000 } as const;
/** Matrix appendix "Identifier grammar". */
const USER_ID_BYTES_MAX = 255;
const SHOWN_LENGTH_MAX = 200;
const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028\u2029]/;

/** Everything that is wrong with the registration, by field; empty if nothing is. No message quotes a token (R18). */
export function registrationProblems(registration: Registration, rules: RegistrationRules): FieldProblem[] {
  const problems: FieldProblem[] = [];
  const note = (field: string, message: string | null): void => {
    if (message !== null) problems.push({ field, message });
  };
  note('id', idProblem(registration.id));
  if (registration.url !== null) note('url', registrationUrlProblem(registration.url) ?? rules.urlProblem(registration.url));
  note('as_token', tokenProblem('as_token', registration.as_token));
  note('hs_token', tokenProblem('hs_token', registration.hs_token));
  note('sender_localpart', senderProblem(registration, rules.serverName));
  noteNamespaces(registration, rules, note);
  if (registration.protocols.length > PROTOCOLS_MAX) note('protocols', `protocols has ${registration.protocols.length} entries; at most ${PROTOCOLS_MAX} are taken.`);
  for (const [at, protocol] of registration.protocols.entries()) {
    if (protocol === '' || CONTROL.test(protocol)) note(`protocols[${at}]`, 'A protocol is a name such as irc; this one is empty or holds control characters.');
  }
  noteDeliveryOptions(registration, rules, note);
  return problems;
}

function idProblem(id: string): string | null {
  if (id === '') return 'id must not be empty; write a name that no other appservice has.';
  if (id.length > ID_LENGTH_MAX) return `id has ${id.length} characters; at most ${ID_LENGTH_MAX} are taken.`;
  if (id.includes('|')) return 'id must not hold "|"; write "-" or "_" instead.';
  return CONTROL.test(id) || !id.isWellFormed() ? 'id must not hold control characters or broken Unicode.' : null;
}

function tokenProblem(name: string, token: string): string | null {
  if (token === '') return `${name} must not be empty; write a long random string, such as openssl rand -hex 32 prints.`;
  if (token.length > TOKEN_LENGTH_MAX) return `${name} has ${token.length} characters; at most ${TOKEN_LENGTH_MAX} are taken.`;
  if (/^[\x21-\x7e]+$/.test(token)) return null;
  return `${name} travels in an HTTP header, so it may hold visible ASCII characters only, without spaces; write another one.`;
}

function senderProblem(registration: Registration, serverName: string): string | null {
  const { sender_localpart: localpart } = registration;
  if (localpart.startsWith('@') || localpart.includes(':')) return 'sender_localpart is the part between "@" and ":" alone; take the rest away.';
  if (!/^[a-z0-9._=/+-]+$/.test(localpart)) return 'sender_localpart may hold a-z, 0-9 and . _ = / + - only, and must not be empty.';
  const bytes = Buffer.byteLength(senderUserId(registration, serverName));
  return bytes > USER_ID_BYTES_MAX ? `sender_localpart makes a user ID of ${bytes} bytes; a user ID has at most ${USER_ID_BYTES_MAX}.` : null;
}

/** What is wrong with a `url` as such, before anything is known of its address. */
function registrationUrlProblem(url: string): string | null {
  if (url.length > URL_LENGTH_MAX) return `url has ${url.length} characters; at most ${URL_LENGTH_MAX} are taken.`;
  if (CONTROL.test(url) || /\s/.test(url)) return 'url must not hold spaces or control characters.';
  if (url.startsWith('unix:')) return /^unix:\/+[^/]/.test(url) ? null : 'url must name a unix socket by its absolute path, such as unix:/run/appservice.sock.';
  if (!/^https?:\/\/[^/\\]/i.test(url)) return 'url must begin with http:// or https:// and a host; write url: null for an appservice that wants no traffic.';
  const parsed = URL.parse(url);
  if (parsed === null) return 'url is no valid URL; check its host and port.';
  if (parsed.username !== '' || parsed.password !== '' || /^[^/]*\/\/[^/?#]*@/.test(url)) return 'url must not hold a user name or password; the hs_token says who calls.';
  if (url.includes('?')) return 'url must not hold a query; the router appends its paths to it.';
  return url.includes('#') ? 'url must not hold a fragment; the router appends its paths to it.' : null;
}

function noteNamespaces({ id, namespaces }: Registration, rules: RegistrationRules, note: (field: string, message: string | null) => void): void {
  const count = NAMESPACE_KINDS.reduce((sum, kind) => sum + namespaces[kind].length, 0);
  if (count > NAMESPACES_MAX) return note('namespaces', `namespaces has ${count} entries; at most ${NAMESPACES_MAX} are taken. Join patterns with "|".`);
  for (const kind of NAMESPACE_KINDS) {
    for (const [at, { regex }] of namespaces[kind].entries()) {
      const problem = rules.patternProblem(regex);
      if (problem !== null) note(`namespaces.${kind}[${at}].regex`, `The pattern ${shown({ regex })} of the appservice "${id}" cannot be used: ${problem}.`);
    }
  }
}

function shown({ regex }: Pick<Namespace, 'regex'>): string {
  return JSON.stringify(regex.length > SHOWN_LENGTH_MAX ? `${regex.slice(0, SHOWN_LENGTH_MAX)}…` : regex);
}

function noteDeliveryOptions({ url, delivery_options: options }: Registration, rules: RegistrationRules, note: (field: string, message: string | null) => void): void {
  note('delivery_options.push_timeout_ms', boundsProblem('push_timeout_ms', options.push_timeout_ms, PUSH_TIMEOUT_MS));
  note('delivery_options.query_timeout_ms', boundsProblem('query_timeout_ms', options.query_timeout_ms, QUERY_TIMEOUT_MS));
  if (options.proxy !== undefined) note('delivery_options.proxy', proxyProblem(options.proxy, url, rules));
  if (options.ca_file !== undefined && (!options.ca_file.startsWith('/') || CONTROL.test(options.ca_file))) {
    note('delivery_options.ca_file', 'ca_file must be the absolute path of a file of PEM certificates.');
  }
}

function boundsProblem(name: string, value: number | undefined, { min, max }: { readonly min: number; readonly max: number }): string | null {
  if (value === undefined || (Number.isSafeInteger(value) && value >= min && value <= max)) return null;
  return `${name} must be a whole number of milliseconds from ${min} to ${max}.`;
}

function proxyProblem(proxy: string, url: string | null, rules: RegistrationRules): string | null {
  if (!/^http:\/\/[^/\\?#@\s]+\/?$/i.test(proxy) || URL.parse(proxy) === null) return 'proxy must be a URL such as http://proxy.example:3128, without user name, path and query.';
  if (url?.startsWith('unix:') === true) return 'proxy cannot lead to a unix socket; take it out.';
  return rules.urlProblem(proxy);
}
