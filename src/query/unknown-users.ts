/**
 * Asks appservices about the users for whom events wait (ingest/holds.ts), and has what waits released.
 *
 *   a hold is opened, here or by another replica, or found at the start
 *        │ at once, if the appservice is this replica's; otherwise looked at again every second
 *        ▼
 *   followed ──▶ its users are asked about, each once ──▶ all settled ──▶ released ──▶ forgotten
 *        │ a further user comes to it: asked about too          ▲            │ the log cannot be written: again after a second
 *        └── its time is over ──────────────────────────────────┘ ◀──────────┘
 *
 * Each appservice is asked for itself: a hold waits for the answers of its own appservice and of nobody else. Whatever
 * the answer is, and if there is none, what waits is released: yes and no are remembered for a minute, anything else is
 * counted and asked again with the next event. An appservice is asked about so many users at a time; further ones wait
 * their turn, and no hold waits longer than its time from when it was first seen here. What another replica leaves undone
 * is done here after twice that time, whoever it belongs to.
 *
 * An appservice that gave no answer several times in a row is silent: libraries without a handler for these queries never
 * answer one. About nobody else is it asked then, and nothing waits for it any more, not for the questions on their way
 * either; after a while one question finds out whether it has come back.
 *
 *   asked ── no answer, so many times in a row ──▶ silent ── after a while, the next user ──▶ one question
 *     ▲                                              ▲                                        │       │
 *     └───────────────────────── any answer ─────────┼────────────────────────────────────────┘       │
 *                                                    └── no answer ───────────────────────────────────┘
 */
import type { UserAnswer } from '../appservice/provisioning.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { StoreError } from '../store/errors.ts';
import { Silence } from './silence.ts';

/** What waits for one appservice in one room; the same object as long as it is open. Users may come to it. */
export interface WaitingRoom {
  readonly appserviceId: string;
  readonly roomId: string;
  readonly userIds: ReadonlySet<string>;
}

export interface UnknownUsersMeter {
  /** Never throws. */
  asked(answer: UserAnswer): void;
}

export interface UnknownUsersOptions<Room extends WaitingRoom> {
  readonly serverName: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly meter: UnknownUsersMeter;
  /** What is open now. */
  readonly waitingRooms: () => Iterable<Room>;
  readonly isOpen: (room: Room) => boolean;
  /** Whether this replica asks; another one does otherwise. */
  readonly isMine: (appserviceId: string) => boolean;
  /** Rejects with a RefusalError or StoreError if it cannot be asked now: too many queries, the log unreachable, the router ending. */
  readonly ask: (appserviceId: string, userId: string) => Promise<UserAnswer>;
  /** Closes the room if `isDue` says so in its turn, when no user comes to it any more. Rejects with a RefusalError or StoreError. */
  readonly release: (room: Room, isDue: () => boolean) => Promise<void>;
  readonly limits: UnknownUsersLimits;
}

export interface UnknownUsersLimits {
  /** From when a room is first seen here to its release. */
  readonly waitTimeoutMs: number;
  /** Users that one appservice is asked about at a time. */
  readonly appserviceAsksMax: number;
  /** How long a yes or no is remembered, and how many are. */
  readonly answerKeptMs: number;
  readonly answersMax: number;
  /** Times in a row that an appservice gives no answer, after which it is silent, and for how long it then is not asked. */
  readonly silentAsksMax: number;
  readonly silenceMs: number;
  /** Between two looks at what belongs to others, and before what failed is tried again. */
  readonly intervalMs: number;
}

export const UNKNOWN_USERS_LIMITS: UnknownUsersLimits = { waitTimeoutMs: 30_000, appserviceAsksMax: 8, answerKeptMs: 60_000, answersMax: 10_000, silentAsksMax: 3, silenceMs: 30_000, intervalMs: 1_000 };

interface Followed {
  readonly asked: Set<string>;
  pendingCount: number;
  /** Its time is over. */
  isOver: boolean;
  /** When nothing is pending. */
  settled: PromiseWithResolvers<void>;
  ended: Promise<void>;
}

export class UnknownUsers<Room extends WaitingRoom> implements AsyncDisposable {
  readonly #options: UnknownUsersOptions<Room>;
  readonly #ending = new AbortController();
  readonly #followed = new Map<Room, Followed>();
  /** Monotonic time at which a room of another replica was first seen. */
  readonly #elsewhere = new Map<Room, number>();
  readonly #asking = new Map<string, Promise<UserAnswer>>();
  readonly #turns = new Map<string, Turns>();
  readonly #silence: Silence;
  /** Monotonic time until which an answer is remembered, oldest first. */
  readonly #answered = new Map<string, number>();
  #watching: Promise<void> | null = null;

  constructor(options: UnknownUsersOptions<Room>) {
    this.#options = options;
    const { clock, limits } = options;
    this.#silence = new Silence({ clock, asksMax: limits.silentAsksMax, silenceMs: limits.silenceMs });
  }

  /** Rooms that are followed here. */
  get followedCount(): number {
    return this.#followed.size;
  }

  /** True if the appservice need not be asked about the user: it has said yes or no a short while ago, or is silent. */
  isAnswered(appserviceId: string, userId: string): boolean {
    return this.#isRemembered(appserviceId, userId) || this.#silence.isSilent(appserviceId);
  }

  #isRemembered(appserviceId: string, userId: string): boolean {
    return (this.#answered.get(keyOf(appserviceId, userId)) ?? 0) > this.#options.clock.monotonicMs();
  }

  /** To be called when rooms were opened, got further users, or were closed. Never throws and does not wait. */
  look(): void {
    if (this.#ending.signal.aborted) return;
    const { waitingRooms, isMine, clock, limits, isOpen } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const room of this.#elsewhere.keys()) if (!isOpen(room)) this.#elsewhere.delete(room);
    for (const room of waitingRooms()) {
      const followed = this.#followed.get(room);
      if (followed !== undefined) {
        this.#askNew(room, followed);
        continue;
      }
      const sinceMs = this.#elsewhere.get(room) ?? nowMs;
      if (isMine(room.appserviceId) || nowMs - sinceMs >= 2 * limits.waitTimeoutMs) this.#follow(room);
      else this.#elsewhere.set(room, sinceMs);
    }
    if (this.#elsewhere.size > 0) this.#watching ??= this.#watch();
  }

  /** What is open stays open in the log: the next start asks. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    for (const turns of this.#turns.values()) turns.end();
    await Promise.all([...[...this.#followed.values()].map(({ ended }) => ended), this.#watching]);
  }

  async #watch(): Promise<void> {
    const { clock, limits } = this.#options;
    while (this.#elsewhere.size > 0) {
      await clock.sleep(limits.intervalMs, this.#ending.signal);
      if (this.#ending.signal.aborted) return;
      this.look();
    }
    this.#watching = null;
  }

  #follow(room: Room): void {
    this.#elsewhere.delete(room);
    const followed: Followed = { asked: new Set(), pendingCount: 0, isOver: false, settled: Promise.withResolvers(), ended: Promise.resolve() };
    this.#followed.set(room, followed);
    followed.ended = this.#settle(room, followed).finally(() => this.#followed.delete(room));
  }

  async #settle(room: Room, followed: Followed): Promise<void> {
    const { clock, limits, isOpen } = this.#options;
    const settled = new AbortController();
    const timeUp = clock.sleep(limits.waitTimeoutMs, AbortSignal.any([settled.signal, this.#ending.signal])).then(() => {
      followed.isOver = true;
    });
    try {
      // Further users may come until the release is in the log.
      while (isOpen(room) && !this.#ending.signal.aborted) {
        this.#askNew(room, followed);
        if (!followed.isOver && followed.pendingCount > 0) await Promise.race([timeUp, followed.settled.promise]);
        else await this.#release(room, () => followed.isOver || (followed.pendingCount === 0 && followed.asked.size === room.userIds.size));
      }
    } finally {
      settled.abort();
      await timeUp;
    }
  }

  #askNew(room: WaitingRoom, followed: Followed): void {
    if (followed.isOver || followed.asked.size === room.userIds.size) return;
    if (followed.pendingCount === 0) followed.settled = Promise.withResolvers();
    for (const userId of room.userIds) {
      if (followed.asked.has(userId)) continue;
      followed.asked.add(userId);
      followed.pendingCount += 1;
      const end = (): void => {
        followed.pendingCount -= 1;
        if (followed.pendingCount === 0) followed.settled.resolve();
      };
      // Nothing waits for questions to one that has become silent; they end by themselves.
      Promise.race([this.#askOnce(room.appserviceId, userId), this.#silence.becomesSilent(room.appserviceId)]).then(end, followed.settled.reject);
    }
  }

  async #release(room: Room, isDue: () => boolean): Promise<void> {
    const { clock, limits, release, logger, serverName } = this.#options;
    try {
      await release(room, isDue);
    } catch (error) {
      if (!(error instanceof StoreError) && !(error instanceof RefusalError)) throw error;
      if (this.#ending.signal.aborted) return;
      logger.warn({ server_name: serverName, appservice_id: room.appserviceId, error: error.message }, 'events that waited for an answer could not be released; tried again');
      await clock.sleep(limits.intervalMs, this.#ending.signal);
    }
  }

  #askOnce(appserviceId: string, userId: string): Promise<UserAnswer> {
    const key = keyOf(appserviceId, userId);
    const known = this.#asking.get(key);
    if (known !== undefined) return known;
    const asking = this.#ask(appserviceId, userId).finally(() => this.#asking.delete(key));
    this.#asking.set(key, asking);
    return asking;
  }

  async #ask(appserviceId: string, userId: string): Promise<UserAnswer> {
    if (this.#isRemembered(appserviceId, userId)) return 'yes';
    if (this.#silence.isSilent(appserviceId)) return this.#unasked();
    const { limits } = this.#options;
    const turns = this.#turns.get(appserviceId) ?? new Turns(limits.appserviceAsksMax);
    this.#turns.set(appserviceId, turns);
    await turns.begin();
    try {
      if (this.#ending.signal.aborted) return 'timeout';
      if (!this.#silence.mayAsk(appserviceId)) return this.#unasked();
      return await this.#asked(appserviceId, userId);
    } finally {
      this.#silence.asked(appserviceId);
      turns.next();
      if (turns.isIdle) this.#turns.delete(appserviceId);
    }
  }

  #unasked(): UserAnswer {
    this.#options.meter.asked('silent');
    return 'silent';
  }

  #tellSilence(appserviceId: string, answer: UserAnswer): void {
    const { logger, serverName, limits } = this.#options;
    const change = this.#silence.heard(appserviceId, answer !== 'timeout');
    const fields = { server_name: serverName, appservice_id: appserviceId };
    if (change === 'silent') logger.warn({ ...fields, silence_ms: limits.silenceMs }, 'the appservice answers no questions about users; events do not wait for it for a while');
    if (change === 'answers') logger.info(fields, 'the appservice answers questions about users again');
  }

  async #asked(appserviceId: string, userId: string): Promise<UserAnswer> {
    const { ask, clock, limits, meter } = this.#options;
    const untilMs = clock.monotonicMs() + limits.waitTimeoutMs;
    for (;;) {
      try {
        const answer = await ask(appserviceId, userId);
        meter.asked(answer);
        this.#tellSilence(appserviceId, answer);
        if (answer === 'yes' || answer === 'no') this.#remember(appserviceId, userId);
        return answer;
      } catch (error) {
        if (!(error instanceof StoreError) && !(error instanceof RefusalError)) throw error;
        await clock.sleep(limits.intervalMs, this.#ending.signal);
        if (this.#ending.signal.aborted) return 'timeout';
        if (clock.monotonicMs() < untilMs) continue;
        meter.asked('timeout');
        return 'timeout';
      }
    }
  }

  #remember(appserviceId: string, userId: string): void {
    const { clock, limits } = this.#options;
    const key = keyOf(appserviceId, userId);
    this.#answered.delete(key);
    this.#answered.set(key, clock.monotonicMs() + limits.answerKeptMs);
    for (const [oldest, untilMs] of this.#answered) {
      if (this.#answered.size <= limits.answersMax && untilMs > clock.monotonicMs()) break;
      this.#answered.delete(oldest);
    }
  }
}

function keyOf(appserviceId: string, userId: string): string {
  return JSON.stringify([appserviceId, userId]);
}

/** So many at a time, the others in the order in which they came. */
class Turns {
  readonly #countMax: number;
  readonly #waiting: (() => void)[] = [];
  #count = 0;

  constructor(countMax: number) {
    this.#countMax = countMax;
  }

  get isIdle(): boolean {
    return this.#count === 0 && this.#waiting.length === 0;
  }

  begin(): Promise<void> {
    if (this.#count < this.#countMax) {
      this.#count += 1;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** One has ended. */
  next(): void {
    const first = this.#waiting.shift();
    if (first === undefined) this.#count -= 1;
    else first();
  }

  /** All may go on, to find that it is over. */
  end(): void {
    for (const resolve of this.#waiting.splice(0)) {
      this.#count += 1;
      resolve();
    }
  }
}
