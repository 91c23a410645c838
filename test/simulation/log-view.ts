/**
 * The log as the checker reads it: which item stands where, to whom it is routed, what waited for an answer and was routed
 * again, what operators had delivered again, and which registrations were in force at each segment.
 */
import type { Segment } from '../../src/store/segment.ts';
import type { AppendedSegment } from './history.ts';
import { modelFrom } from './model.ts';
import type { ModelAppservice } from './model.ts';
import { entriesOf } from './sim-store.ts';

/** Where an item was first put. */
export interface Home {
  readonly position: number;
  /** Index of its segment. */
  readonly segment: number;
  readonly appserviceIds: ReadonlySet<string>;
  /** Those that had to be asked first. */
  readonly heldFor: ReadonlySet<string>;
}

/** One entry that an appservice is to get. */
export interface Routed {
  readonly id: string;
  readonly position: number;
  readonly isRedelivery: boolean;
  readonly timeMs: number;
}

/** One state of an appservice id's registration. */
export interface InForce {
  readonly since: number;
  readonly model: ModelAppservice | null;
}

export interface LogView {
  readonly homes: ReadonlyMap<string, Home>;
  readonly routed: ReadonlyMap<string, readonly Routed[]>;
  /** Appservice and item of what waits still. */
  readonly waiting: ReadonlySet<string>;
  /** By index of the segment: who was registered before it. */
  readonly registrationsAt: readonly (readonly ModelAppservice[])[];
  readonly registrationsAtEnd: readonly ModelAppservice[];
  /** Appservice and log position of each removal that gives the queue up. */
  readonly removals: ReadonlySet<string>;
  /** At the end, by appservice. */
  readonly inForce: ReadonlyMap<string, InForce>;
  readonly breaches: readonly { readonly text: string; readonly about: readonly string[] }[];
}

export function viewOf(segments: readonly AppendedSegment[]): LogView {
  const reader = new LogReader();
  for (const appended of segments) reader.read(appended);
  return reader;
}

class LogReader implements LogView {
  readonly homes = new Map<string, Home>();
  readonly routed = new Map<string, Routed[]>();
  readonly waiting = new Set<string>();
  readonly registrationsAt: ModelAppservice[][] = [];
  readonly removals = new Set<string>();
  readonly #redelivered = new Set<string>();
  readonly inForce = new Map<string, InForce & { readonly backlog: 'park' | 'discard' | null }>();
  readonly breaches: { text: string; about: string[] }[] = [];
  #models: ModelAppservice[] = [];
  #version = 0;
  readonly #streams = new Map<string, number>();

  get registrationsAtEnd(): readonly ModelAppservice[] {
    return this.#models;
  }

  read({ segment, timeMs }: AppendedSegment): void {
    this.registrationsAt.push(this.#models);
    if (segment.registrationsVersion !== this.#version) this.#breach(`I9 Match: the segment at ${segment.firstPosition} was routed with the registrations of ${segment.registrationsVersion}, not ${this.#version}`, []);
    for (const [stream, position] of Object.entries(segment.streamPositions)) {
      if (position < (this.#streams.get(stream) ?? 0)) this.#breach(`I11 Monotone: stream ${stream} goes back to ${position} at ${segment.firstPosition}`, [stream]);
      this.#streams.set(stream, position);
    }
    const { redelivery } = segment;
    if (redelivery !== undefined) {
      const key = `${redelivery.appserviceId} ${redelivery.txnId}`;
      if (this.#redelivered.has(key)) this.#breach(`I6 BoundedDuplicates: ${redelivery.txnId} was redelivered twice`, [redelivery.appserviceId]);
      this.#redelivered.add(key);
    }
    this.#readEntries(segment, timeMs);
    for (const change of segment.registrationChanges) this.#change(change, segment.firstPosition + segment.entries.length - 1);
  }

  #readEntries(segment: Segment, timeMs: number): void {
    const takers: string[][] = segment.entries.map(() => []);
    for (const route of segment.routes) for (const { position } of entriesOf(segment, route)) takers[position - segment.firstPosition]?.push(route.appserviceId);
    const holders: string[][] = segment.entries.map(() => []);
    for (const change of segment.holds ?? []) if (change.kind === 'held') for (const index of change.indexes) holders[index]?.push(change.appserviceId);
    for (const [index, entry] of segment.entries.entries()) {
      if (entry.kind !== 'event' && entry.kind !== 'to_device') continue;
      const id = idOf(entry.kind, entry.json);
      const position = segment.firstPosition + index;
      const appserviceIds = takers[index] ?? [];
      const heldFor = holders[index] ?? [];
      for (const appserviceId of appserviceIds) this.#route(appserviceId, { id, position, isRedelivery: segment.redelivery !== undefined, timeMs });
      if (segment.redelivery !== undefined) continue;
      if (this.homes.has(id)) this.#again(id, position, appserviceIds);
      else this.homes.set(id, { position, segment: this.registrationsAt.length - 1, appserviceIds: new Set(appserviceIds), heldFor: new Set(heldFor) });
      for (const appserviceId of heldFor) this.waiting.add(`${appserviceId} ${id}`);
    }
  }

  /** An item that stands in the log already may come again for one appservice that it waited for. */
  #again(id: string, position: number, appserviceIds: readonly string[]): void {
    const [appserviceId = ''] = appserviceIds;
    if (appserviceIds.length === 1 && this.waiting.delete(`${appserviceId} ${id}`)) return;
    this.#breach(`I7 IdempotentIngest: ${id} is in the log again at ${position}, for ${appserviceIds.join(', ')}`, [id]);
  }

  #route(appserviceId: string, routed: Routed): void {
    const all = this.routed.get(appserviceId);
    if (all === undefined) this.routed.set(appserviceId, [routed]);
    else all.push(routed);
  }

  #change(change: Segment['registrationChanges'][number], position: number): void {
    const { appserviceId } = change;
    const before = this.inForce.get(appserviceId);
    this.#version = position;
    if (change.kind === 'removed') {
      if (change.backlog === 'discard') this.removals.add(`${appserviceId} ${position}`);
      this.inForce.set(appserviceId, { since: before?.since ?? position, model: null, backlog: change.backlog });
    } else {
      const goesOn = before !== undefined && (before.model !== null || (before.backlog === 'park' && change.resumeParked));
      this.inForce.set(appserviceId, { since: goesOn ? before.since : position, model: modelFrom(change.registration.json), backlog: null });
    }
    this.#models = [...this.inForce.values()].flatMap(({ model }) => (model === null ? [] : [model]));
  }

  #breach(text: string, about: string[]): void {
    this.breaches.push({ text, about });
  }
}

const QUOTE = 0x22;
const EVENT_ID_AT = '{"event_id":"'.length;

export function idOf(kind: 'event' | 'to_device', json: Uint8Array): string {
  const text = Buffer.from(json.buffer, json.byteOffset, json.byteLength);
  if (kind === 'event') return text.toString('latin1', EVENT_ID_AT, text.indexOf(QUOTE, EVENT_ID_AT));
  return (JSON.parse(text.toString()) as { content: { id: string } }).content.id;
}
