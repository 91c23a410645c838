/**
 * What happened, as only the world outside the routers can know it: what the store accepted, what went over the wire and
 * what appservices made of it, what homeservers were told. The checker judges it; its hash tells two histories apart; the
 * trace is for people, and is kept only where a seed is run again to be looked at.
 */
import type { AppserviceState, QuarantinedTransaction } from '../../src/store/port.ts';
import type { Segment } from '../../src/store/segment.ts';
import type { Kernel } from './kernel.ts';

export interface AppendedSegment {
  readonly segment: Segment;
  readonly process: string;
  readonly order: number;
  readonly timeMs: number;
}

export interface StateWrite {
  readonly process: string;
  /** Of the writing process. */
  readonly replicaId: string;
  readonly before: AppserviceState | undefined;
  readonly after: AppserviceState;
  readonly order: number;
  readonly timeMs: number;
}

/** One PUT of a transaction. */
export interface PushRecord {
  readonly process: string;
  readonly replicaId: string;
  readonly appserviceId: string;
  readonly txnId: string;
  readonly body: Uint8Array;
  /** Ids of what is in it, by list. */
  readonly events: readonly string[];
  readonly toDevice: readonly string[];
  /** As stored when it was sent. */
  readonly state: AppserviceState | undefined;
  readonly sentOrder: number;
  readonly sentMs: number;
  /** When the appservice took it for good, whatever became of its answer. */
  acceptedOrder: number | null;
  acceptedMs: number | null;
  /** What the process was told: a status, or a word for its failure; null while it waits, or if it died before. */
  heard: string | null;
  heardOrder: number | null;
}

/** One question about a user. */
export interface QueryRecord {
  readonly appserviceId: string;
  readonly userId: string;
  readonly sentOrder: number;
}

export interface ShelvedRecord {
  readonly transaction: QuarantinedTransaction;
  readonly order: number;
}

export interface TraceLine {
  readonly timeMs: number;
  readonly kind: string;
  readonly subject: string;
  readonly detail: string;
}

export class History {
  readonly segments: AppendedSegment[] = [];
  readonly writes: StateWrite[] = [];
  readonly pushes: PushRecord[] = [];
  readonly queries: QueryRecord[] = [];
  readonly shelved: ShelvedRecord[] = [];
  /** Appservices whose registration operators changed, or tried to. */
  readonly reregistered = new Set<string>();
  /** Appservices that gave no answer to a question: they are not asked for a while, and what waits for them waits no longer than its room does. */
  readonly silent = new Set<string>();
  /** Breaches that were seen as they happened. */
  readonly breaches: { readonly text: string; readonly about: readonly string[] }[] = [];
  /** Null: nobody looks. */
  readonly trace: TraceLine[] | null;
  readonly #kernel: Kernel;
  #order = 0;
  #hash = 0x811c9dc5;

  constructor(kernel: Kernel, traced: boolean) {
    this.#kernel = kernel;
    this.trace = traced ? [] : null;
  }

  /** A place in the order of all that happens. */
  next(): number {
    return ++this.#order;
  }

  get nowMs(): number {
    return this.#kernel.nowMs;
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0');
  }

  /** The log has this event. */
  isLogged(id: string): boolean {
    const text = Buffer.from(`{"event_id":"${id}"`);
    return this.segments.some(({ segment }) => segment.entries.some(({ json }) => Buffer.compare(json.subarray(0, text.length), text) === 0));
  }

  note(kind: string, subject: string, detail: string): void {
    this.#mix(kind);
    this.#mix(subject);
    this.#mix(detail);
    this.#hash = Math.imul(this.#hash ^ Math.floor(this.#kernel.nowMs * 1000), 0x01000193);
    this.trace?.push({ timeMs: this.#kernel.nowMs, kind, subject, detail });
  }

  breach(text: string, about: readonly string[]): void {
    this.breaches.push({ text, about });
  }

  #mix(text: string): void {
    let hash = this.#hash;
    for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
    this.#hash = hash;
  }
}
