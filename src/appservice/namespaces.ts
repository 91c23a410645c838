/**
 * Which appservices claim an identifier: all namespaces of all registrations compiled into sets of RE2, whose time is
 * linear in the identifier (R27), with the verdicts remembered. The only importer of re2.
 *
 * A pattern is anchored at the first character in each of its branches and need not reach the end (R21, R22); case
 * counts (R23). `.` matches anything but a line feed, as it does in the homeservers that namespaces are written for;
 * `$` is the very end, so unlike there it does not match before a last line feed. Text that is not well-formed Unicode
 * is judged with U+FFFD for each lone surrogate.
 *
 *   registrations ──hash of id──▶ shards ──▶ sets, taken over from the index before where the shard is unchanged
 *   identifier ──first characters──▶ the sets that may match ──▶ verdict, remembered
 */
import RE2 from 're2';
import { wantsDeviceExtensions, wantsEphemeral } from './body-keys.ts';
import { isLocalUser } from './identifier.ts';
import { explainRefusal, literalPrefix, patternWeight } from './pattern.ts';
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

/** A namespace and its place among those of its kind in its registration. */
interface Claim {
  readonly match: NamespaceMatch;
  readonly at: number;
}

interface CompiledSet {
  readonly set: { match(text: Uint8Array): number[] };
  readonly claims: readonly Claim[];
  /** Whatever the set matches begins with one of these; null if nothing is known. */
  readonly prefixes: readonly string[] | null;
}

interface Shard {
  /** Tells whether a shard of another index is the same. */
  readonly key: string;
  readonly sets: Readonly<Record<NamespaceKind, readonly CompiledSet[]>>;
}

const KINDS: readonly NamespaceKind[] = ['users', 'aliases', 'rooms'];
const SHARDS = 16;
/**
 * Memory for one set and for one pattern, in RE2's count; a set that needs more is divided. It bounds what is held for
 * hostile identifiers, and how long one compilation holds the thread.
 */
const SET_BYTES_MAX = 2 * 1024 * 1024;
/** For a pattern alone in its set that passed another release's check. */
const LAST_RESORT_BYTES_MAX = 64 * 1024 * 1024;
/** Patterns in one set, and their weight together unless it is one, so that its compilation takes a few milliseconds. */
const SET_PATTERNS_MAX = 256;
const SET_WEIGHT_MAX = 32_768;
export const PATTERN_LENGTH_MAX = 4096;
/** Shorter literal beginnings (the sigil) tell nothing, longer ones no more. */
const PREFIX_LENGTH_MIN = 2;
const PREFIX_LENGTH_MAX = 8;
/** Verdicts remembered per generation; there are two generations. Aliases and rooms are remembered by the rooms too. */
const VERDICTS_MAX: Readonly<Record<NamespaceKind, number>> = { users: 32_768, aliases: 4_096, rooms: 4_096 };
/** Longer identifiers are judged each time. */
const REMEMBERED_LENGTH_MAX = 255;
const NOBODY: Verdict = { matches: [], interested: [] };

/** What is wrong with a pattern and what to write instead, as part of a sentence; null if nothing is. */
export function patternProblem(regex: string): string | null {
  if (regex.length > PATTERN_LENGTH_MAX) return `it has ${regex.length} characters, at most ${PATTERN_LENGTH_MAX} are allowed; split it into several namespaces`;
  try {
    newSet([regex], SET_BYTES_MAX);
    return null;
  } catch (error) {
    return explainRefusal(error instanceof Error ? error.message : '');
  }
}

export class NamespaceIndex {
  readonly serverName: string;
  readonly registrations: readonly Registration[];
  /** Some appservice with a URL wants device lists and counts of keys. */
  readonly hasDeviceExtensions: boolean;
  /** Appservices with a URL that opted in to ephemeral data. */
  readonly ephemeralCount: number;
  readonly #shards: readonly Shard[];
  readonly #order: ReadonlyMap<string, number>;
  readonly #senders: ReadonlyMap<string, readonly string[]>;
  readonly #withUrl: ReadonlySet<string>;
  readonly #kindsInUse: ReadonlySet<NamespaceKind>;
  readonly #candidates: Readonly<Record<NamespaceKind, Candidates>>;
  readonly #verdicts: Readonly<Record<NamespaceKind, Verdicts>> = {
    users: new Verdicts(VERDICTS_MAX.users),
    aliases: new Verdicts(VERDICTS_MAX.aliases),
    rooms: new Verdicts(VERDICTS_MAX.rooms),
  };

  private constructor(serverName: string, registrations: readonly Registration[], shards: readonly Shard[]) {
    this.serverName = serverName;
    this.registrations = registrations;
    this.#shards = shards;
    this.#order = new Map(registrations.map(({ id }, at) => [id, at]));
    this.#withUrl = new Set(registrations.filter(({ url }) => url !== null).map(({ id }) => id));
    this.hasDeviceExtensions = registrations.some((registration) => registration.url !== null && wantsDeviceExtensions(registration));
    this.ephemeralCount = registrations.filter((registration) => registration.url !== null && wantsEphemeral(registration)).length;
    this.#kindsInUse = new Set(KINDS.filter((kind) => registrations.some(({ url, namespaces }) => url !== null && namespaces[kind].length > 0)));
    const senders = new Map<string, string[]>();
    for (const registration of registrations) {
      const userId = senderUserId(registration, serverName);
      senders.set(userId, [...(senders.get(userId) ?? []), registration.id]);
    }
    this.#senders = senders;
    this.#candidates = { users: new Candidates(shards, 'users'), aliases: new Candidates(shards, 'aliases'), rooms: new Candidates(shards, 'rooms') };
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

  /** All namespaces of a kind that match, in the order of the registrations and in each of its list; for users only if the user is local (R26). */
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

  get hasEphemeral(): boolean {
    return this.ephemeralCount > 0;
  }

  /** The registration with this id. */
  registration(appserviceId: string): Registration | undefined {
    const at = this.#order.get(appserviceId);
    return at === undefined ? undefined : this.registrations[at];
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
    const claims = this.#candidates[kind].claims(identifier);
    const owners = kind === 'users' ? this.senderOwners(identifier) : [];
    if (claims.length === 0 && owners.length === 0) return NOBODY;
    claims.sort((a, b) => this.#orderOf(a.match.appserviceId) - this.#orderOf(b.match.appserviceId) || a.at - b.at);
    const matches = claims.map(({ match }) => match);
    const claiming = [...matches.map(({ appserviceId }) => appserviceId), ...owners];
    return { matches, interested: this.inOrder(claiming.filter((id) => this.#withUrl.has(id))) };
  }

  #orderOf(appserviceId: string): number {
    return this.#order.get(appserviceId) ?? 0;
  }
}

/** Finds the sets that an identifier may match by its first characters, so that most identifiers ask no set at all. */
class Candidates {
  readonly #always: readonly CompiledSet[];
  readonly #byPrefix: ReadonlyMap<string, readonly CompiledSet[]>;
  readonly #lengths: readonly number[];

  constructor(shards: readonly Shard[], kind: NamespaceKind) {
    const sets = shards.flatMap((shard) => shard.sets[kind]);
    const byPrefix = new Map<string, CompiledSet[]>();
    for (const set of sets) {
      for (const prefix of set.prefixes ?? []) {
        const known = byPrefix.get(prefix);
        if (known === undefined) byPrefix.set(prefix, [set]);
        else known.push(set);
      }
    }
    this.#always = sets.filter(({ prefixes }) => prefixes === null);
    this.#byPrefix = byPrefix;
    this.#lengths = [...new Set([...byPrefix.keys()].map(({ length }) => length))];
  }

  /** The namespaces that match, in no order. */
  claims(identifier: string): Claim[] {
    const claims: Claim[] = [];
    const sets = this.#setsFor(identifier);
    if (sets.length === 0) return claims;
    const text = Buffer.from(identifier.toWellFormed());
    for (const { set, claims: all } of sets) {
      for (const at of set.match(text)) {
        const claim = all[at];
        if (claim !== undefined) claims.push(claim);
      }
    }
    return claims;
  }

  #setsFor(identifier: string): readonly CompiledSet[] {
    let found = this.#always;
    for (const length of this.#lengths) {
      const sets = this.#byPrefix.get(identifier.slice(0, length));
      if (sets !== undefined) found = [...found, ...sets.filter((set) => !found.includes(set))];
    }
    return found;
  }
}

/** Remembers verdicts in two generations: what is not asked for while the young one fills is forgotten. */
class Verdicts {
  readonly #max: number;
  #young = new Map<string, Verdict>();
  #old = new Map<string, Verdict>();

  constructor(max: number) {
    this.#max = max;
  }

  get(identifier: string): Verdict | undefined {
    const young = this.#young.get(identifier);
    if (young !== undefined) return young;
    const old = this.#old.get(identifier);
    if (old !== undefined) this.set(identifier, old);
    return old;
  }

  set(identifier: string, verdict: Verdict): void {
    if (this.#young.size >= this.#max) {
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
    const claims = registrations.flatMap(({ id, namespaces }) =>
      namespaces[kind].map(({ regex, exclusive }, at): Claim => ({ match: { appserviceId: id, regex, exclusive }, at })),
    );
    const isTold = ({ match }: Claim): boolean => prefixOf(match).length >= PREFIX_LENGTH_MIN;
    for (const group of [...grouped(claims.filter(isTold)), ...grouped(claims.filter((claim) => !isTold(claim)))]) {
      sets[kind].push(...(await compileSets(group, pause)));
    }
  }
  return { key, sets };
}

function grouped(claims: readonly Claim[]): Claim[][] {
  const groups: Claim[][] = [];
  let group: Claim[] = [];
  let weight = 0;
  for (const claim of claims) {
    const added = patternWeight(claim.match.regex);
    if (group.length === 0 || group.length >= SET_PATTERNS_MAX || weight + added > SET_WEIGHT_MAX) {
      groups.push((group = []));
      weight = 0;
    }
    group.push(claim);
    weight += added;
  }
  return groups;
}

/** One set, or more of half the size where one would take more memory than a set may. */
async function compileSets(claims: readonly Claim[], pause: () => Promise<void>): Promise<CompiledSet[]> {
  const compiled = compileSet(claims);
  await pause();
  if (compiled !== null) return [compiled];
  const middle = claims.length >>> 1;
  return [...(await compileSets(claims.slice(0, middle), pause)), ...(await compileSets(claims.slice(middle), pause))];
}

/** Null if it takes too much memory for one set. */
function compileSet(claims: readonly Claim[]): CompiledSet | null {
  const patterns = claims.map(({ match }) => match.regex);
  const prefixes = [...new Set(claims.map(({ match }) => prefixOf(match)))];
  const told = prefixes.every(({ length }) => length >= PREFIX_LENGTH_MIN) ? prefixes : null;
  try {
    return { set: newSet(patterns, SET_BYTES_MAX), claims, prefixes: told };
  } catch {
    return claims.length > 1 ? null : { set: newSet(patterns, LAST_RESORT_BYTES_MAX), claims, prefixes: told };
  }
}

function prefixOf({ regex }: NamespaceMatch): string {
  return literalPrefix(regex, PREFIX_LENGTH_MAX);
}

function newSet(patterns: readonly string[], maxMem: number): { match(text: Uint8Array): number[] } {
  return new RE2.Set(patterns.map((regex) => regex.toWellFormed()), 'u', { anchor: 'start', maxMem });
}
