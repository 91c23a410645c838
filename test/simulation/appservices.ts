/**
 * Appservices on a network, as they are met (docs of the receivers: time-outs, failures of every class, throttling, wrong
 * tokens, too large, answers that get lost on the way, work that is finished although nobody waits any more).
 *
 * Each has a mood, which changes; what it refuses as too large it always refuses, since that is a matter of the content.
 */
import type { OutboundFailure } from '../../src/query/connect.ts';
import type { Chance } from './chance.ts';
import type { History, PushRecord } from './history.ts';
import type { Kernel } from './kernel.ts';
import type { RouterProcess } from './router-process.ts';

export type Mood = 'well' | 'slow' | 'flaky' | 'down' | 'hanging' | 'throttling' | 'misconfigured' | 'poisoned' | 'losing answers';

export const MOODS: readonly Mood[] = ['well', 'slow', 'flaky', 'down', 'hanging', 'throttling', 'misconfigured', 'poisoned', 'losing answers'];

/** What is heard of an exchange, and when after its arrival. */
export type Reply =
  | { readonly kind: 'answer'; readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly body: string; readonly afterMs: number }
  | { readonly kind: 'failure'; readonly failure: OutboundFailure; readonly afterMs: number }
  | { readonly kind: 'silence' };

interface Judged {
  readonly reply: Reply;
  /** When the transaction is taken for good, after its arrival; null: never. */
  readonly acceptsMs: number | null;
}

const REJECTIONS: readonly { readonly status: number; readonly body: string }[] = [
  { status: 500, body: '<html>Internal Server Error</html>' },
  { status: 502, body: '' },
  { status: 400, body: '{"errcode":"M_BAD_JSON"}' },
  { status: 418, body: 'garbage' },
  { status: 308, body: '' },
];
const MISCONFIGURED = [401, 403, 404, 405] as const;
const BROKEN: readonly OutboundFailure[] = ['connection_reset', 'timeout', 'bad_response', 'tls', 'dns'];

export class Appservice {
  readonly id: string;
  mood: Mood = 'well';
  /** What was sent and not heard of, as far as it is known. */
  underWay: readonly { readonly sender: RouterProcess; readonly push: PushRecord }[] = [];
  /** More events than this are too many. */
  readonly eventsMax: number;
  /** Events whose number is a multiple of this are too large, even alone; 0: none are. */
  readonly tooLargeEvery: number;
  readonly #chance: Chance;
  /** In mood `poisoned`: 500 for ever for these. */
  readonly #poisoned = new Set<string>();
  readonly #accepted = new Set<string>();

  constructor(id: string, chance: Chance) {
    this.id = id;
    this.#chance = chance;
    this.eventsMax = chance.is(0.2) ? 2 : Infinity;
    this.tooLargeEvery = chance.is(0.15) ? 19 : 0;
  }

  judge(push: PushRecord): Judged {
    const chance = this.#chance;
    const { mood } = this;
    if (mood === 'down') return { reply: { kind: 'failure', failure: 'connection_refused', afterMs: 0 }, acceptsMs: null };
    if (mood === 'hanging') return { reply: { kind: 'silence' }, acceptsMs: !this.#isTooLarge(push) && chance.is(0.2) ? chance.between(0, 30_000) : null };
    if (mood === 'misconfigured') return answer(chance.pick(MISCONFIGURED), '{"errcode":"M_FORBIDDEN"}', 5);
    if (mood === 'throttling' && chance.is(0.7)) return answer(chance.pick([429, 503]), '', 5, chance.is(0.7) ? { 'retry-after': String(1 + chance.below(40)) } : {});
    if (this.#isTooLarge(push)) return answer(413, '<html>Too Large</html>', 5);
    if (mood === 'poisoned' && (this.#poisoned.has(push.txnId) || chance.is(0.1))) {
      this.#poisoned.add(push.txnId);
      return answer(500, '', 5);
    }
    if (mood === 'flaky' && chance.is(0.5)) {
      if (chance.is(0.5)) return { reply: { kind: 'failure', failure: chance.pick(BROKEN), afterMs: chance.between(0, 2_000) }, acceptsMs: null };
      const { status, body } = chance.pick(REJECTIONS);
      return answer(status, body, chance.between(1, 500));
    }
    return this.#accepts(mood);
  }

  #accepts(mood: Mood): Judged {
    const chance = this.#chance;
    const takesMs = mood === 'slow' ? chance.between(500, 70_000) : chance.between(1, 80);
    const acceptsMs = chance.is(0.5) ? 0 : takesMs;
    if (mood === 'losing answers' && chance.is(0.6)) {
      if (chance.is(0.3)) return { ...answer(500, '', takesMs), acceptsMs };
      return { reply: chance.is(0.5) ? { kind: 'silence' } : { kind: 'failure', failure: 'connection_reset', afterMs: takesMs }, acceptsMs };
    }
    return { ...answer(chance.pick([200, 200, 200, 201, 204]), chance.pick(['{}', '', '<html>', '{"errcode":"M_UNKNOWN"}']), takesMs), acceptsMs };
  }

  /** False: it had it before. */
  accept(txnId: string): boolean {
    if (this.#accepted.has(txnId)) return false;
    this.#accepted.add(txnId);
    return true;
  }

  #isTooLarge({ events }: PushRecord): boolean {
    if (events.length > this.eventsMax) return true;
    return this.tooLargeEvery > 0 && events.some((id) => Number(/\d+$/.exec(id)?.[0] ?? 1) % this.tooLargeEvery === 0);
  }

  /** Of a question about a user. */
  answerQuery(): Reply {
    const chance = this.#chance;
    if (this.mood === 'down') return { kind: 'failure', failure: 'connection_refused', afterMs: 0 };
    if (this.mood === 'hanging') return { kind: 'silence' };
    const status = this.mood === 'well' || chance.is(0.5) ? chance.pick([200, 404]) : chance.pick([200, 404, 401, 500]);
    return answer(status, '{}', this.mood === 'slow' ? chance.between(500, 20_000) : chance.between(1, 100)).reply;
  }
}

function answer(status: number, body: string, afterMs: number, headers: Readonly<Record<string, string>> = {}): Judged {
  return { reply: { kind: 'answer', status, headers, body, afterMs }, acceptsMs: null };
}

/** All appservices, and the way of a request from its arrival to what is heard of it. */
export class Appservices {
  readonly all: ReadonlyMap<string, Appservice>;
  readonly #kernel: Kernel;
  readonly #history: History;

  constructor(ids: readonly string[], kernel: Kernel, history: History, chance: Chance) {
    this.all = new Map(ids.map((id) => [id, new Appservice(id, chance.fork(`appservice ${id}`))]));
    this.#kernel = kernel;
    this.#history = history;
  }

  get(id: string): Appservice {
    const found = this.all.get(id);
    if (found === undefined) throw new Error(`there is no appservice ${id}`);
    return found;
  }

  /** The request is there. `reply` is called once, or never. */
  arrived(push: PushRecord, reply: (reply: Reply) => void): void {
    const appservice = this.get(push.appserviceId);
    const judged = appservice.judge(push);
    if (judged.acceptsMs !== null) this.#kernel.after(judged.acceptsMs, () => this.#accept(appservice, push));
    this.#reply(judged.reply, reply);
  }

  asked(appserviceId: string, reply: (reply: Reply) => void): void {
    this.#reply(this.get(appserviceId).answerQuery(), reply);
  }

  #accept(appservice: Appservice, push: PushRecord): void {
    const isNew = appservice.accept(push.txnId);
    push.acceptedOrder = this.#history.next();
    push.acceptedMs = this.#history.nowMs;
    this.#history.note(isNew ? 'accepted' : 'accepted again', push.appserviceId, push.txnId);
  }

  #reply(judged: Reply, reply: (reply: Reply) => void): void {
    if (judged.kind === 'silence') return;
    this.#kernel.after(judged.afterMs, () => reply(judged));
  }
}
