/**
 * Which appservices claim an identifier: all namespaces of all registrations compiled into sets of RE2, whose time is
 * linear in the identifier (R27), with the verdicts remembered. The only importer of re2.
 *
 * A pattern is anchored at the first character in each of its branches and need not reach the end (R21, R22); case
 * counts (R23); `.` does not match a newline.
 *
 *   registrations ──hash of id──▶ shards ──▶ one RE2 set per shard and kind, taken over from the index before if unchanged
 */
import RE2 from 're2';
import { isLocalUser } from './identifier.ts';
import type { NamespaceKind, Registration } from './registration.ts';
import { senderUserId } from './registration.ts';

export interface NamespaceMatch {
  readonly appserviceId: string;
  readonly regex: string;
  readonly exclusive: boolean;
}

/** What is known of one identifier. */
interface Verdict {
  readonly matches: readonly NamespaceMatch[];
  /** Distinct ids of appservices with a URL, in registration order. */
  readonly interested: readonly string[];
}

interface Shard {
  /** Tells whether a shard of another index is the same. */
  readonly key: string;
  readonly sets: Readonly<Record<NamespaceKind, readonly CompiledSet[]>>;
}

interface CompiledSet {
  readonly set: { match(text: string): number[] };
  readonly matches: readonly NamespaceMatch[];
}

const KINDS: readonly NamespaceKind[] = ['users', 'aliases', 'rooms'];
const SHARDS = 16;
/** Memory that one set may use before it is divided. */
const SET_BYTES_MAX = 64 * 1024 * 1024;
/** Patterns in one set; more are divided, so that no compilation holds the thread for long. */
const SET_PATTERNS_MAX = 512;
export const PATTERN_LENGTH_MAX = 4096;
/** Verdicts remembered per kind and generation; there are two generations. */
const VERDICTS_MAX = 65_536;
/** Longer identifiers are judged each time. */
const REMEMBERED_LENGTH_MAX = 512;
const NOBODY: Verdict = { matches: [], interested: [] };

/** What is wrong with a pattern and what to write instead; null if nothing is. */
export function patternProblem(regex: string): string | null {
  if (regex.length > PATTERN_LENGTH_MAX) return `it has ${regex.length} characters, at most ${PATTERN_LENGTH_MAX} are allowed; split it into several namespaces`;
  try {
    new RE2(regex, 'u');
    return null;
  } catch (error) {
    return explainRefusal(error instanceof Error ? error.message : '');
  }
}

function explainRefusal(reason: string): string {
  if (/\(\?<?[=!]/.test(reason)) return 'look-around such as (?=…), (?!…) or (?<=…) is not linear-time; write what should match, or use several namespaces';
  if (/escape sequence: \\[1-9]/.test(reason)) return 'back-references such as \\1 are not linear-time; write the alternatives out';
  if (/escape sequence: \\Z/.test(reason)) return '\\Z is not known to RE2; write \\z for the end of the identifier';
  if (/repetition size/.test(reason)) return 'a repetition has at most 1000 turns; write * or + instead, or a smaller bound';
  if (/too large|too complex|memory/i.test(reason)) return 'it is too large once repetitions are multiplied out; use smaller bounds';
  const construct = /: (.{1,40})$/.exec(reason)?.[1];
  const what = reason.split(':')[0]?.trim() ?? '';
  return `RE2 does not take it (${what === '' ? 'syntax error' : what}${construct === undefined ? '' : `, at "${construct}"`}); see the syntax page of RE2 for what it knows`;
}

export class NamespaceIndex {
  readonly serverName: string;
  readonly registrations: readonly Registration[];
  readonly #shards: readonly Shard[];
  readonly #order: ReadonlyMap<string, number>;
  readonly #senders: ReadonlyMap<string, readonly string[]>;
  readonly #withUrl: ReadonlySet<string>;
  readonly #kindsInUse: ReadonlySet<NamespaceKind>;
  readonly #verdicts: Record<NamespaceKind, Verdicts> = { users: new Verdicts(), aliases: new Verdicts(), rooms: new Verdicts() };

  private constructor(serverName: string, registrations: readonly Registration[], shards: readonly Shard[]) {
    this.serverName = serverName;
    this.registrations = registrations;
    this.#shards = shards;
    this.#order = new Map(registrations.map(({ id }, at) => [id, at]));
    this.#withUrl = new Set(registrations.filter(({ url }) => url !== null).map(({ id }) => id));
    this.#kindsInUse = new Set(KINDS.filter((kind) => registrations.some(({ url, namespaces }) => url !== null && namespaces[kind].length > 0)));
    const senders = new Map<string, string[]>();
    for (const registration of registrations) {
      const userId = senderUserId(registration, serverName);
      senders.set(userId, [...(senders.get(userId) ?? []), registration.id]);
    }
    this.#senders = senders;
  }

  /**
   * Compiles all namespaces; the order of `registrations` is the order of every answer. Shards that are as in
   * `previous` are taken over. `pause` is awaited between pieces. Every pattern must have passed {@link patternProblem}.
   */
  static async compile(
    serverName: string,
    registrations: readonly Registration[],
    pause: () => Promise<void>,
    previous?: NamespaceIndex,
  ): Promise<NamespaceIndex> {
    const groups: Registration[][] = Array.from({ length: SHARDS }, () => []);
    for (const registration of registrations) groups[shardOf(registration.id)]?.push(registration);
    const shards: Shard[] = [];
    for (const [at, group] of groups.entries()) {
      const key = JSON.stringify(group.map(({ id, namespaces }) => [id, namespaces]));
      const known = previous === undefined ? undefined : previous.#shards[at];
      if (known?.key === key) shards.push(known);
      else shards.push(await compileShard(key, group, pause));
    }
    return new NamespaceIndex(serverName, registrations, shards);
  }

  /** All namespaces of a kind that match, in registration order; for users only if the user is local (R26). */
  matches(kind: NamespaceKind, identifier: string): readonly NamespaceMatch[] {
    return this.#verdict(kind, identifier).matches;
  }

  /** Ids of the appservices with a URL that want events because of this identifier: by a namespace, or as their own user. */
  interested(kind: NamespaceKind, identifier: string): readonly string[] {
    return this.#verdict(kind, identifier).interested;
  }

  /** Ids of the appservices whose own user this is (R17). */
  senderOwners(userId: string): readonly string[] {
    return this.#senders.get(userId) ?? [];
  }

  /** True if some appservice with a URL has a namespace of this kind. */
  hasNamespaces(kind: NamespaceKind): boolean {
    return this.#kindsInUse.has(kind);
  }

  /** True if some appservice has a URL: its own user alone makes members matter. */
  get wantsUsers(): boolean {
    return this.#withUrl.size > 0;
  }

  /** Known ids without repetition, in registration order. */
  inOrder(appserviceIds: Iterable<string>): string[] {
    return [...new Set(appserviceIds)].sort((a, b) => this.#orderOf(a) - this.#orderOf(b));
  }

  #verdict(kind: NamespaceKind, identifier: string): Verdict {
    const verdicts = this.#verdicts[kind];
    const known = verdicts.get(identifier);
    if (known !== undefined) return known;
    const verdict = this.#judge(kind, identifier);
    if (identifier.length <= REMEMBERED_LENGTH_MAX) verdicts.set(identifier, verdict);
    return verdict;
  }

  #judge(kind: NamespaceKind, identifier: string): Verdict {
    if (kind === 'users' && !isLocalUser(identifier, this.serverName)) return NOBODY;
    const text = identifier.toWellFormed();
    const matches: NamespaceMatch[] = [];
    for (const shard of this.#shards) {
      for (const { set, matches: all } of shard.sets[kind]) {
        for (const at of set.match(text).sort((a, b) => a - b)) {
          const match = all[at];
          if (match !== undefined) matches.push(match);
        }
      }
    }
    matches.sort((a, b) => this.#orderOf(a.appserviceId) - this.#orderOf(b.appserviceId));
    const interested = new Set(matches.map(({ appserviceId }) => appserviceId));
    if (kind === 'users') for (const id of this.senderOwners(identifier)) interested.add(id);
    if (interested.size === 0) return NOBODY;
    return { matches, interested: this.inOrder([...interested].filter((id) => this.#withUrl.has(id))) };
  }

  #orderOf(appserviceId: string): number {
    return this.#order.get(appserviceId) ?? 0;
  }
}

/** Remembers verdicts in two generations: what is not asked for while the young one fills is forgotten. */
class Verdicts {
  #young = new Map<string, Verdict>();
  #old = new Map<string, Verdict>();

  get(identifier: string): Verdict | undefined {
    const young = this.#young.get(identifier);
    if (young !== undefined) return young;
    const old = this.#old.get(identifier);
    if (old !== undefined) this.set(identifier, old);
    return old;
  }

  set(identifier: string, verdict: Verdict): void {
    if (this.#young.size >= VERDICTS_MAX) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(identifier, verdict);
  }
}

function shardOf(appserviceId: string): number {
  let hash = 0;
  for (let at = 0; at < appserviceId.length; at++) hash = (Math.imul(hash, 31) + appserviceId.charCodeAt(at)) | 0;
  return (hash >>> 0) % SHARDS;
}

async function compileShard(key: string, registrations: readonly Registration[], pause: () => Promise<void>): Promise<Shard> {
  const sets: Record<NamespaceKind, CompiledSet[]> = { users: [], aliases: [], rooms: [] };
  for (const kind of KINDS) {
    const matches = registrations.flatMap(({ id, namespaces }) =>
      namespaces[kind].map(({ regex, exclusive }): NamespaceMatch => ({ appserviceId: id, regex, exclusive })),
    );
    for (let start = 0; start < matches.length; start += SET_PATTERNS_MAX) {
      sets[kind].push(...compileSets(matches.slice(start, start + SET_PATTERNS_MAX)));
      await pause();
    }
  }
  return { key, sets };
}

/** One set, or two of half the size where RE2 has not the memory for one. */
function compileSets(matches: readonly NamespaceMatch[]): CompiledSet[] {
  try {
    const patterns = matches.map(({ regex }) => regex);
    return [{ set: new RE2.Set(patterns, 'u', { anchor: 'start', maxMem: SET_BYTES_MAX }), matches }];
  } catch (error) {
    if (matches.length === 1) throw error;
    const middle = matches.length >>> 1;
    return [...compileSets(matches.slice(0, middle)), ...compileSets(matches.slice(middle))];
  }
}
