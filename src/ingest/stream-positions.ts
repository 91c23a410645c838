/**
 * How far each stream of a homeserver has come, and which event was seen where.
 *
 *   durable   in the log: what a restart finds
 *   passed    taken over by this process; runs ahead of durable by unwanted items only
 *
 * An item at or below `passed` is a duplicate (I7). The newest positions are remembered with their event ids, so that a
 * homeserver whose stream went back is told so instead of losing its new events as duplicates (R77). The very newest are
 * saved with the checkpoint, as hashes, so that a restart forgets few.
 */
import { createHash } from 'node:crypto';
import type { SeenEvent } from '../store/port.ts';

/** Newest positions remembered per stream. */
const REMEMBERED_MAX = 1024;
/** Of them, saved with the checkpoint: of one stream, and of all together. */
const SAVED_MAX = 64;
const SAVED_TOTAL_MAX = 4_096;
const HASH_LENGTH = 12;
/** Two events share the position: it tells nothing about one of them. */
const SEVERAL = '';

interface Stream {
  passed: number;
  durable: number;
  readonly eventIds: Map<number, string>;
  /** Hashes of event ids, from before the start. */
  readonly saved: Map<number, string>;
}

export class StreamPositions {
  readonly #streams = new Map<string, Stream>();

  passed(stream: string): number {
    return this.#streams.get(stream)?.passed ?? 0;
  }

  /** True if another event is known to have been at this position. */
  contradicts(stream: string, position: number, eventId: string): boolean {
    const known = this.#streams.get(stream);
    const seen = known?.eventIds.get(position);
    if (seen !== undefined) return seen !== SEVERAL && seen !== eventId;
    const hash = known?.saved.get(position);
    return hash !== undefined && hash !== hashOf(eventId);
  }

  /** What a checkpoint keeps: of each stream the newest durable positions with one event. */
  newest(): SeenEvent[] {
    const countMax = Math.min(SAVED_MAX, Math.floor(SAVED_TOTAL_MAX / Math.max(1, this.#streams.size)));
    return [...this.#streams].flatMap(([stream, { durable, eventIds, saved }]) => {
      const seen = [...eventIds].filter(([position, eventId]) => position <= durable && eventId !== SEVERAL).slice(-countMax);
      const before = [...saved].filter(([position]) => !eventIds.has(position)).slice(seen.length - countMax);
      const older = seen.length >= countMax ? [] : before.map(([position, hash]) => ({ stream, position, hash }));
      return [...older, ...seen.map(([position, eventId]) => ({ stream, position, hash: hashOf(eventId) }))];
    });
  }

  /** Takes what the checkpoint kept. */
  restore(seenEvents: readonly SeenEvent[]): void {
    for (const { stream, position, hash } of seenEvents) this.#stream(stream).saved.set(position, hash);
  }

  /** The stream and position at which an event was seen, if that is remembered. */
  find(eventId: string): { stream: string; position: number } | undefined {
    for (const [stream, { eventIds }] of this.#streams) for (const [position, seen] of eventIds) if (seen === eventId) return { stream, position };
    return undefined;
  }

  durablePosition(stream: string): number {
    return this.#streams.get(stream)?.durable ?? 0;
  }

  pass(stream: string, position: number): void {
    const entry = this.#stream(stream);
    entry.passed = Math.max(entry.passed, position);
  }

  remember(stream: string, position: number, eventId: string): void {
    const { eventIds } = this.#stream(stream);
    eventIds.set(position, eventIds.has(position) ? SEVERAL : eventId);
    if (eventIds.size <= REMEMBERED_MAX) return;
    for (const oldest of eventIds.keys()) {
      eventIds.delete(oldest);
      break;
    }
  }

  /** The log says so: positions of a durable segment or of the checkpoint. */
  settle(positions: Readonly<Record<string, number>>): void {
    for (const [stream, position] of Object.entries(positions)) {
      const entry = this.#stream(stream);
      entry.durable = Math.max(entry.durable, position);
      entry.passed = Math.max(entry.passed, position);
    }
  }

  /** Streams that have passed more than is durable, with what they have passed. */
  ahead(): Record<string, number> {
    const ahead: Record<string, number> = Object.create(null) as Record<string, number>;
    for (const [stream, entry] of this.#streams) if (entry.passed > entry.durable) ahead[stream] = entry.passed;
    return ahead;
  }

  /** What each stream has passed. */
  allPassed(): Record<string, number> {
    const all: Record<string, number> = Object.create(null) as Record<string, number>;
    for (const [stream, entry] of this.#streams) if (entry.passed > 0) all[stream] = entry.passed;
    return all;
  }

  durable(): Record<string, number> {
    const durable: Record<string, number> = Object.create(null) as Record<string, number>;
    for (const [stream, entry] of this.#streams) if (entry.durable > 0) durable[stream] = entry.durable;
    return durable;
  }

  get count(): number {
    return this.#streams.size;
  }

  has(stream: string): boolean {
    return this.#streams.has(stream);
  }

  #stream(stream: string): Stream {
    let entry = this.#streams.get(stream);
    if (entry === undefined) this.#streams.set(stream, (entry = { passed: 0, durable: 0, eventIds: new Map(), saved: new Map() }));
    return entry;
  }
}

function hashOf(eventId: string): string {
  return createHash('sha256').update(eventId).digest('base64url').slice(0, HASH_LENGTH);
}
