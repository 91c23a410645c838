/**
 * Segments that a route's last read brought along beyond its limits and the next one wants: a sender reads on where it
 * stopped, and a segment's contents cross the network once, not once for each transaction cut from it. Segments never
 * change, so what is kept is as new as the database. Bounded in bytes over all routes, the least recently read first to go.
 */
import type { Segment } from '../segment.ts';
import { lastPosition } from '../segment.ts';

/** Consecutive segments of one route: all of it above `after` and up to the end of the last of them. */
export interface KeptRoute {
  readonly after: number;
  readonly segments: readonly Segment[];
}

/** What a segment of the route was like on average, to size the next page. */
export interface RouteShape {
  readonly bytesPerSegment: number;
}

interface Item extends KeptRoute {
  readonly serverName: string;
  readonly bytes: number;
  readonly shape: RouteShape;
}

/** What a decoded entry costs beside its JSON, about. */
export const ENTRY_OVERHEAD_BYTES = 128;
const ROUTE_OVERHEAD_BYTES = 512;

export class RoutePages {
  readonly #bytesMax: number;
  /** In the order in which they were last put. */
  readonly #items = new Map<string, Item>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Gives away what is kept of the route, if it goes on from `after`. */
  take(serverName: string, appserviceId: string, after: number): { readonly kept: KeptRoute | null; readonly shape: RouteShape | null } {
    const key = JSON.stringify([serverName, appserviceId]);
    const item = this.#items.get(key);
    if (item === undefined) return { kept: null, shape: null };
    this.#remove(key, item);
    const last = item.segments.at(-1);
    const goesOn = last !== undefined && item.after <= after && after < lastPosition(last);
    return { kept: goesOn ? item : null, shape: item.shape };
  }

  put(serverName: string, appserviceId: string, { after, segments }: KeptRoute, shape: RouteShape): void {
    let bytes = ROUTE_OVERHEAD_BYTES;
    for (const { entries } of segments) for (const { json } of entries) bytes += json.byteLength + ENTRY_OVERHEAD_BYTES;
    const key = JSON.stringify([serverName, appserviceId]);
    const former = this.#items.get(key);
    if (former !== undefined) this.#remove(key, former);
    this.#items.set(key, { serverName, after, segments, bytes, shape });
    this.#bytes += bytes;
    for (const [oldest, item] of this.#items) {
      if (this.#bytes <= this.#bytesMax) break;
      this.#remove(oldest, item);
    }
  }

  /** After a trim, which may have removed what is kept. */
  forget(serverName: string): void {
    for (const [key, item] of this.#items) if (item.serverName === serverName) this.#remove(key, item);
  }

  #remove(key: string, item: Item): void {
    this.#items.delete(key);
    this.#bytes -= item.bytes;
  }
}
