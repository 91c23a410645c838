/**
 * How far each stream of a homeserver has come, and which event was seen where.
 *
 *   durable   in the log: what a restart finds
 *   passed    taken over by this process; runs ahead of durable by unwanted items only
 *
 * An item at or below `passed` is a duplicate (I7). The newest positions are remembered with their event ids, so that a
 * homeserver whose stream went back is told so instead of losing its new events as duplicates (R77).
 */

/** Newest positions remembered per stream. */
const REMEMBERED_MAX = 1024;
/** Two events share the position: it tells nothing about one of them. */
const SEVERAL = '';

interface Stream {
  passed: number;
  durable: number;
  readonly eventIds: Map<number, string>;
}

export class StreamPositions {
  readonly #streams = new Map<string, Stream>();

  passed(stream: string): number {
    return this.#streams.get(stream)?.passed ?? 0;
  }

  /** True if another event is known to have been at this position. */
  contradicts(stream: string, position: number, eventId: string): boolean {
    const seen = this.#streams.get(stream)?.eventIds.get(position);
    return seen !== undefined && seen !== SEVERAL && seen !== eventId;
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
    if (entry === undefined) this.#streams.set(stream, (entry = { passed: 0, durable: 0, eventIds: new Map() }));
    return entry;
  }
}
