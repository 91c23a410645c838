/**
 * What a homeserver's transactions do not say of rooms, looked up at the homeserver: who was joined before the router came,
 * and the local aliases.
 *
 *   unheard ─event─▶ all known, or nobody's namespace makes it matter ─▶ settled, until the registrations change
 *              └───▶ pending ─look-up─▶ found, told to the log ─▶ settled
 *                       ▲  │ refused: again after a minute, at last after an hour
 *                       └──┘ the homeserver is away, or limits: all look-ups wait until then
 *
 * The events of a room that is pending wait for its first look-up, within a bound, and not at all while the homeserver is
 * known to be away; then they are routed with what is known. A room whose creation is seen is known without asking. An
 * event that may tell of other aliases has them looked up again; those that nothing tells of are found when the room has
 * been quiet about them for a while and is heard of. Memberships are followed by the events; what comes by them while a
 * look-up is under way counts more than what it finds (see SubmittedRoom).
 *
 * Rooms that are listed (room-list.ts) are pending before their first event. Rooms pending, look-ups side by side and their
 * rate are limited. What is forgotten comes back with its next event.
 */
import { isLocalAlias, isLocalUser } from '../appservice/identifier.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { StoreError } from '../store/errors.ts';
import { RefusalError } from '../appservice/refusal.ts';
import { isCreation, roomsOf, tellsOfAliases } from './piece-rooms.ts';
import { RoomList } from './room-list.ts';
import type { IngressMeter, RoomAnswer, RoomFacts, RoomFinding, RoomHomeserver, RoomSource, TransactionPiece } from './ports.ts';

export interface RoomLookupsOptions {
  readonly homeserver: RoomHomeserver;
  readonly source: RoomSource;
  readonly meter: Pick<IngressMeter, 'roomLookup'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long events of a room that is not known wait for it. */
  readonly waitMs: number;
}

interface Pending {
  readonly roomId: string;
  /** Nothing is known of it yet, so its events wait. */
  isUnknown: boolean;
  /** Aliases are to be asked for whether they are known or not. */
  isAliasDue: boolean;
  /** No event of it has come yet. */
  isListed: boolean;
  /** Its events wait for the look-up under way, or for the next one. */
  isAwaited: boolean;
  isUnderWay: boolean;
  /** Look-ups refused in a row. */
  refusals: number;
  /** Monotonic. */
  dueMs: number;
  /** Of the look-up under way, or of the next one. */
  ended: PromiseWithResolvers<void>;
}

/** What one look-up came to. */
type Outcome = 'found' | 'not_wanted' | 'refused' | 'away' | 'limited' | 'unknown_token' | 'aborted';

const SETTLED_MAX = 100_000;
const PENDING_MAX = 10_000;
const LOOKUPS_MAX = 4;
const INTERVAL_MS = 20;
const REFUSED_MS = { first: 60_000, max: 3_600_000 } as const;
const AWAY_MS = { first: 1_000, max: 60_000 } as const;
const UNKNOWN_TOKEN_MS = 60_000;
/** Aliases that nothing told of are found after this long. */
const ALIASES_AGE_MS = 600_000;
const SLEEP_MS_MAX = 60_000;
const SHOWN_ROOMS_MAX = 100;
/** Beyond this none is listed; the rest is for events. */
const LISTED_PENDING_MAX = PENDING_MAX / 2;
/** Listed rooms whose facts are read at once. */
const LISTED_AT_ONCE = 100;

export class RoomLookups implements AsyncDisposable {
  readonly #options: RoomLookupsOptions;
  readonly #stop = new AbortController();
  /** Room → when its aliases were last looked at; monotonic. Least recently heard of first. */
  readonly #settled = new Map<string, number>();
  readonly #pending = new Map<string, Pending>();
  readonly #underWay = new Set<Promise<void>>();
  readonly #list: RoomList;
  #isListing = false;
  #version = -1;
  #pausedUntilMs = -Infinity;
  #lastStartMs = -Infinity;
  #failures = 0;
  #problem: string | null = null;
  #wake: (() => void) | null = null;
  #running: Promise<void> = Promise.resolve();

  constructor(options: RoomLookupsOptions) {
    this.#options = options;
    this.#list = new RoomList(options.homeserver, options.source);
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Rooms of which something is not known that matters, and why they cannot be looked up; null if they can. */
  get status(): { readonly unknownRoomCount: number; readonly unknownRoomIds: readonly string[]; readonly problem: string | null } {
    const unknown = [...this.#pending.values()].filter(({ isUnknown }) => isUnknown);
    return { unknownRoomCount: unknown.length, unknownRoomIds: unknown.slice(0, SHOWN_ROOMS_MAX).map(({ roomId }) => roomId), problem: this.#problem };
  }

  /** Resolves when the piece's rooms are known as far as they are to be waited for. Rejects with a StoreError or a RefusalError. */
  async prepare(piece: TransactionPiece): Promise<void> {
    const { homeserver, clock, waitMs } = this.#options;
    this.#forgetOld();
    const created = piece.events.filter(isCreation).map(({ roomId }) => roomId);
    const unheard = new Set<string>();
    for (const roomId of roomsOf(piece)) if (!this.#isSettled(roomId)) unheard.add(roomId);
    if (unheard.size > 0) await this.#hear(unheard, new Set(created));
    if (homeserver.hasAliasNamespaces) for (const event of piece.events) if (tellsOfAliases(event) && !created.includes(event.roomId)) this.#askForAliases(event.roomId);
    if (this.#pending.size === 0 || this.#pausedUntilMs > clock.monotonicMs()) return;
    const waits = [...roomsOf(piece)].flatMap((roomId) => {
      const pending = this.#pending.get(roomId);
      return pending?.isAwaited === true ? [pending.ended.promise] : [];
    });
    if (waits.length === 0) return;
    this.#wake?.();
    const over = new AbortController();
    await Promise.race([Promise.all(waits), clock.sleep(waitMs, AbortSignal.any([over.signal, this.#stop.signal]))]);
    over.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#wake?.();
    await this.#running;
    await Promise.all(this.#underWay);
  }

  /** A change of registrations may make matter what did not. */
  #forgetOld(): void {
    const { registrationsVersion } = this.#options.homeserver;
    if (this.#version === registrationsVersion) return;
    this.#version = registrationsVersion;
    this.#settled.clear();
    this.#wake?.();
  }

  #isSettled(roomId: string): boolean {
    const { clock, homeserver } = this.#options;
    const checkedMs = this.#settled.get(roomId);
    if (checkedMs === undefined) return false;
    this.#settled.delete(roomId);
    this.#settled.set(roomId, checkedMs);
    if (homeserver.hasAliasNamespaces && clock.monotonicMs() - checkedMs > ALIASES_AGE_MS) {
      this.#settle(roomId, this.#version);
      this.#add(roomId).isAliasDue = true;
    }
    return true;
  }

  async #hear(roomIds: ReadonlySet<string>, created: ReadonlySet<string>): Promise<void> {
    const { homeserver } = this.#options;
    const version = this.#version;
    const facts = await homeserver.roomFacts([...roomIds]);
    const findings: RoomFinding[] = [];
    for (const { roomId, wantsMembers, wantsAliases, partialMembers } of facts) {
      if (!wantsMembers && !wantsAliases) this.#settle(roomId, version);
      // One that was heard of before was not created just now.
      else if (created.has(roomId) && Object.keys(partialMembers).length === 0) {
        findings.push({ roomId, localMembers: wantsMembers ? [] : undefined, localAliases: wantsAliases ? [] : undefined, partialMembers });
        this.#settle(roomId, version);
      } else this.#await(roomId).isUnknown = true;
    }
    if (findings.length > 0) await homeserver.tellRooms(findings);
  }

  /** A look-up under way may have asked before. */
  #askForAliases(roomId: string): void {
    const pending = this.#await(roomId);
    pending.isAwaited = true;
    pending.isAliasDue = true;
    pending.dueMs = Math.min(pending.dueMs, this.#options.clock.monotonicMs());
    if (pending.isUnderWay) pending.ended = Promise.withResolvers<void>();
  }

  /** Events wait for the first look-up of a room, and for no other. */
  #await(roomId: string): Pending {
    const isFirst = !this.#pending.has(roomId);
    const pending = this.#add(roomId);
    pending.isAwaited ||= isFirst || pending.isListed;
    pending.isListed = false;
    return pending;
  }

  #add(roomId: string): Pending {
    const known = this.#pending.get(roomId);
    if (known !== undefined) return known;
    const pending: Pending = {
      roomId,
      isUnknown: false,
      isAliasDue: false,
      isListed: false,
      isAwaited: false,
      isUnderWay: false,
      refusals: 0,
      dueMs: this.#options.clock.monotonicMs(),
      ended: Promise.withResolvers<void>(),
    };
    this.#pending.set(roomId, pending);
    for (const [oldest, { isUnderWay, ended }] of this.#pending) {
      if (this.#pending.size <= PENDING_MAX) break;
      if (isUnderWay || oldest === roomId) continue;
      this.#pending.delete(oldest);
      ended.resolve();
    }
    return pending;
  }

  /** False if what was found out was found out under other registrations, for which something else may have mattered. */
  #settle(roomId: string, version: number): boolean {
    if (version !== this.#version) return false;
    this.#settled.delete(roomId);
    this.#settled.set(roomId, this.#options.clock.monotonicMs());
    for (const oldest of this.#settled.keys()) {
      if (this.#settled.size <= SETTLED_MAX) break;
      this.#settled.delete(oldest);
    }
    return true;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const isFree = this.#underWay.size < LOOKUPS_MAX;
      const next = isFree ? this.#next() : null;
      const isListDue = isFree && !this.#isListing && this.#list.isDue && next?.isAwaited !== true;
      const dueMs = isListDue ? -Infinity : (next?.dueMs ?? Infinity);
      const waitMs = Math.max(dueMs, this.#pausedUntilMs, this.#lastStartMs + INTERVAL_MS) - this.#options.clock.monotonicMs();
      if (waitMs > 0) await this.#sleep(Math.min(waitMs, SLEEP_MS_MAX));
      else if (isListDue) this.#start(this.#listRooms());
      else if (next !== null) this.#begin(next);
    }
    for (const { ended } of this.#pending.values()) ended.resolve();
  }

  /** What is due first; of what is due alike, that for which events wait. */
  #next(): Pending | null {
    let first: Pending | null = null;
    for (const pending of this.#pending.values()) {
      if (pending.isUnderWay) continue;
      if (first === null || pending.dueMs < first.dueMs || (pending.isAwaited && !first.isAwaited && pending.dueMs <= this.#options.clock.monotonicMs())) first = pending;
    }
    return first;
  }

  async #sleep(delayMs: number): Promise<void> {
    const woken = new AbortController();
    this.#wake = () => woken.abort();
    await this.#options.clock.sleep(delayMs, AbortSignal.any([woken.signal, this.#stop.signal]));
    this.#wake = null;
  }

  #begin(pending: Pending): void {
    pending.isUnderWay = true;
    this.#start(this.#lookUp(pending));
  }

  #start(work: Promise<void>): void {
    this.#lastStartMs = this.#options.clock.monotonicMs();
    const started = work.finally(() => {
      this.#underWay.delete(started);
      this.#wake?.();
    });
    this.#underWay.add(started);
  }

  /** Of one user. */
  async #listRooms(): Promise<void> {
    this.#isListing = true;
    try {
      const listed = await this.#list.next(this.#stop.signal);
      if (listed === null) return;
      const { userId, answer } = listed;
      const outcome = answer.kind === 'found' ? 'found' : this.#failed(answer);
      this.#options.meter.roomLookup(outcome);
      this.#pauseAfter(outcome);
      if (answer.kind === 'found') await this.#hearListed(answer.identifiers);
      if (outcome === 'found' || outcome === 'refused') this.#list.done(userId);
    } catch (error) {
      if (!(error instanceof StoreError || error instanceof RefusalError)) throw error;
      this.#pauseAfter('away');
    } finally {
      this.#isListing = false;
    }
  }

  async #hearListed(roomIds: readonly string[]): Promise<void> {
    for (let at = 0; at < roomIds.length && this.#pending.size < LISTED_PENDING_MAX; at += LISTED_AT_ONCE) {
      const facts = await this.#options.homeserver.roomFacts(roomIds.slice(at, at + LISTED_AT_ONCE));
      for (const { roomId, wantsMembers, wantsAliases } of facts) {
        if (this.#pending.has(roomId) || this.#settled.has(roomId) || !(wantsMembers || wantsAliases)) continue;
        const pending = this.#add(roomId);
        pending.isUnknown = true;
        pending.isListed = true;
      }
    }
  }

  async #lookUp(pending: Pending): Promise<void> {
    const { ended, isAliasDue } = pending;
    pending.isAliasDue = false;
    const version = this.#version;
    const outcome = await this.#outcomeOf(pending, isAliasDue);
    if (outcome !== 'found' && outcome !== 'not_wanted') pending.isAliasDue ||= isAliasDue;
    this.#options.meter.roomLookup(outcome);
    this.#after(pending, outcome, version);
    pending.isUnderWay = false;
    ended.resolve();
    if (pending.ended !== ended) return;
    pending.isAwaited = false;
    pending.ended = Promise.withResolvers<void>();
  }

  #after(pending: Pending, outcome: Outcome, version: number): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (outcome === 'found' || outcome === 'not_wanted') {
      pending.refusals = 0;
      pending.isUnknown = !this.#settle(pending.roomId, version);
      if (pending.isUnknown) pending.dueMs = nowMs;
      else if (!pending.isAliasDue) this.#pending.delete(pending.roomId);
    } else if (outcome === 'refused') {
      pending.dueMs = nowMs + Math.min(REFUSED_MS.first * 2 ** pending.refusals, REFUSED_MS.max);
      pending.refusals++;
    } else this.#pauseAfter(outcome);
    if (outcome === 'found' || outcome === 'refused') {
      this.#failures = 0;
      this.#setProblem(null);
    }
  }

  #pauseAfter(outcome: Outcome): void {
    const nowMs = this.#options.clock.monotonicMs();
    if (outcome === 'unknown_token') this.#pausedUntilMs = nowMs + UNKNOWN_TOKEN_MS;
    if (outcome !== 'away') return;
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, nowMs + Math.min(AWAY_MS.first * 2 ** this.#failures, AWAY_MS.max));
    this.#failures++;
  }

  async #outcomeOf({ roomId }: Pending, isAliasDue: boolean): Promise<Outcome> {
    try {
      const [facts] = await this.#options.homeserver.roomFacts([roomId]);
      return facts === undefined ? 'not_wanted' : await this.#find(facts, isAliasDue);
    } catch (error) {
      // The store is away, or the router ends: it is tried again like a homeserver that is away.
      if (error instanceof StoreError || error instanceof RefusalError) return 'away';
      throw error;
    }
  }

  async #find({ roomId, wantsMembers, wantsAliases, localUser, partialMembers }: RoomFacts, isAliasDue: boolean): Promise<Outcome> {
    const { homeserver, source } = this.#options;
    const { signal } = this.#stop;
    const mustAskAliases = (wantsAliases || isAliasDue) && homeserver.hasAliasNamespaces;
    if (!wantsMembers && !mustAskAliases) return 'not_wanted';
    const members = wantsMembers ? await source.joinedMembers(roomId, signal) : null;
    if (members !== null && members.kind !== 'found') return this.#failed(members);
    const localMembers = members?.identifiers.filter((userId) => isLocalUser(userId, homeserver.serverName));
    const actingAs = localUser ?? localMembers?.[0] ?? null;
    const aliases = mustAskAliases && actingAs !== null ? await source.roomAliases(roomId, actingAs, signal) : null;
    const localAliases = aliases?.kind === 'found' ? aliases.identifiers.filter((alias) => isLocalAlias(alias, homeserver.serverName)) : undefined;
    if (localMembers !== undefined || localAliases !== undefined) await homeserver.tellRooms([{ roomId, localMembers, localAliases, partialMembers }]);
    if (aliases !== null && aliases.kind !== 'found') return this.#failed(aliases);
    // Nobody is there to act as; whoever joins makes it possible.
    return mustAskAliases && aliases === null ? 'refused' : 'found';
  }

  #failed(answer: Exclude<RoomAnswer, { readonly kind: 'found' }>): Outcome {
    if (answer.kind === 'away') this.#setProblem(`The homeserver cannot be asked about rooms: ${answer.reason}.`);
    if (answer.kind === 'unknown_token') this.#setProblem('The homeserver does not know the as_token of the ingress token file. Let its catch-all registration have the same, and restart it.');
    if (answer.kind === 'limited') {
      this.#setProblem('The homeserver limits the rate of look-ups. Its catch-all registration should say "rate_limited: false".');
      this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.#options.clock.monotonicMs() + answer.waitMs);
    }
    return answer.kind;
  }

  #setProblem(problem: string | null): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    const { logger, homeserver } = this.#options;
    const fields = { server_name: homeserver.serverName, pending_rooms: this.#pending.size };
    if (problem === null) logger.info(fields, 'rooms can be looked up again');
    else logger.warn({ ...fields, problem }, 'rooms cannot be looked up; events are routed with what is known of them');
  }
}
