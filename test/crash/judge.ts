/**
 * Judges what the appservices got between two quiet moments, by the checker of the delivery tests. What the log held is
 * known from the first appservice, which gets everything: its order is held against that of each stream, and all others
 * against it.
 */
import { eventsOf } from '../support/delivery-world.ts';
import type { PushRecord } from '../support/delivery-world.ts';
import { pushViolations } from '../support/delivery-checker.ts';
import { APPSERVICES } from './traffic.ts';
import type { AppserviceUnderTest, TrafficEvent } from './traffic.ts';

export interface Verdict {
  readonly violations: readonly string[];
  readonly eventCount: number;
  readonly pushCount: number;
  /** Transactions that an appservice took more than once. */
  readonly repeats: number;
  /** Of these, the ones that came after a newer transaction. */
  readonly lateRepeats: number;
}

/** Transactions of each appservice that are remembered beyond a quiet moment, since a repetition may come late. */
const REMEMBERED = 3;

export class Judge {
  readonly #appservices: readonly AppserviceUnderTest[];
  #events: TrafficEvent[] = [];
  /** Events that each appservice must get. */
  readonly #wanted = new Map<string, Set<string>>();
  readonly #missing = new Map<string, Set<string>>();
  readonly #remembered = new Map<string, PushRecord[]>();

  constructor(appservices: readonly AppserviceUnderTest[] = APPSERVICES) {
    this.#appservices = appservices;
    for (const { id } of appservices) this.#forget(id);
  }

  submitting(event: TrafficEvent): void {
    this.#events.push(event);
    for (const appservice of this.#appservices) {
      if (!appservice.wants(event)) continue;
      this.#wanted.get(appservice.id)?.add(event.text);
      this.#missing.get(appservice.id)?.add(event.text);
    }
  }

  /** How many of the events are still to arrive somewhere, given further pushes. */
  missing(pushes: readonly PushRecord[]): number {
    for (const { answered, appserviceId, text } of pushes) {
      if (answered === 'delivered') for (const event of eventsOf(text)) this.#missing.get(appserviceId)?.delete(event);
    }
    return [...this.#missing.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** `failovers`: by appservice, how often a transaction may have come again. */
  verdict(pushes: readonly PushRecord[], failovers: (appserviceId: string) => number, isDrained: boolean): Verdict {
    const violations: string[] = [];
    let repeats = 0;
    let lateRepeats = 0;
    const [first] = this.#appservices;
    const inLogOrder = firstTaken(pushes.filter(({ appserviceId }) => appserviceId === first?.id));
    violations.push(...this.#streamViolations(inLogOrder, first?.id ?? ''));
    for (const { id } of this.#appservices) {
      const wanted = this.#wanted.get(id) ?? new Set<string>();
      const came = pushes.filter(({ appserviceId }) => appserviceId === id);
      const { inTurn, late } = withoutLateRepeats([...(this.#remembered.get(id) ?? []), ...came]);
      const known = new Set((this.#remembered.get(id) ?? []).flatMap(({ text }) => eventsOf(text)));
      const expected = [...known, ...inLogOrder.filter((text) => wanted.has(text) && !known.has(text))];
      const ids = inTurn.filter(({ answered }) => answered === 'delivered').map(({ txnId }) => txnId);
      const again = ids.length - new Set(ids).size + late;
      repeats += again;
      lateRepeats += late;
      violations.push(...pushViolations(expected, inTurn, { failovers: failovers(id) - late, isDrained }).map((text) => `${text} (${id})`));
      if (isDrained) for (const text of this.#missing.get(id) ?? []) violations.push(`I1 NoLoss: ${text} never arrived (${id})`);
      this.#remembered.set(id, lastTaken(inTurn));
    }
    const eventCount = this.#events.length;
    this.#events = [];
    for (const { id } of this.#appservices) this.#forget(id);
    return { violations, eventCount, pushCount: pushes.length, repeats, lateRepeats };
  }

  /** The events of each stream come in its order. */
  #streamViolations(taken: readonly string[], id: string): string[] {
    const placeOf = new Map(this.#events.map(({ text, stream }, at) => [text, { stream, at }]));
    const last = new Map<string, number>();
    return taken.flatMap((text) => {
      const place = placeOf.get(text);
      if (place === undefined) return [];
      const before = last.get(place.stream) ?? -1;
      last.set(place.stream, Math.max(before, place.at));
      return place.at < before ? [`I2 Order: ${text} came after a later one of its stream (${id})`] : [];
    });
  }

  #forget(id: string): void {
    this.#wanted.set(id, new Set());
    this.#missing.set(id, new Set());
  }
}

function firstTaken(pushes: readonly PushRecord[]): string[] {
  return [...new Set(pushes.flatMap(({ answered, text }) => (answered === 'delivered' ? eventsOf(text) : [])))];
}

/** A transaction that was taken before and comes once more behind a newer one repeats, and skips nothing. */
function withoutLateRepeats(pushes: readonly PushRecord[]): { inTurn: PushRecord[]; late: number } {
  const taken = new Map<string, string>();
  const inTurn: PushRecord[] = [];
  let newest = 0n;
  let late = 0;
  for (const push of pushes) {
    const { txnId, text, answered } = push;
    const isLate = BigInt(txnId) < newest && taken.get(txnId) === text;
    if (isLate && answered === 'delivered') late++;
    if (!isLate) inTurn.push(push);
    if (answered === 'delivered') taken.set(txnId, text);
    if (BigInt(txnId) > newest) newest = BigInt(txnId);
  }
  return { inTurn, late };
}

/** The newest transactions that were taken, each once, as settled. */
function lastTaken(pushes: readonly PushRecord[]): PushRecord[] {
  const taken = new Map<string, PushRecord>();
  for (const push of pushes) if (push.answered === 'delivered') taken.set(push.txnId, { ...push, answeredAt: 0, beganAt: 0 });
  return [...taken.values()].slice(-REMEMBERED);
}
