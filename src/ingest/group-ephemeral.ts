/**
 * The ephemeral data of a group, put together before it is appended (R87): newer typing of a room and newer presence of
 * a user take the place of older, receipts of a room become one event. Its entries stand behind all others of the group.
 *
 * Who gets what is decided for each event, with the rooms as of then. So each appservice gets what concerns it and may
 * be seen by it, and appservices that get the same share the entries.
 */
import type { EphemeralEvent, Receipt } from '../appservice/ephemeral.ts';
import { ephemeralTakers, presenceAppservices, privateReaders } from '../appservice/interest.ts';
import { receiptEvents, receiptSlot } from '../appservice/receipts.ts';
import type { RoomState } from '../room/room-state.ts';
import type { Fold } from './fold.ts';
import type { ItemSink } from './item-sink.ts';

/** What several submissions may have come to together: the lowest stream position of each stream that is in it. */
interface Joined {
  readonly positions: ReadonlyMap<string, number>;
}

/** Typing or presence as it goes to these appservices. */
interface Latest extends Joined {
  readonly json: Uint8Array;
  readonly appserviceIds: readonly string[];
}

/** A receipt and who sees it. */
interface Seen {
  readonly receipt: Receipt;
  readonly appserviceIds: readonly string[];
}

interface RoomReceipts extends Joined {
  /** By slot: the newest. */
  readonly seen: Map<string, Seen>;
  /** The only event so far, if it has nothing but what is in `seen`: whoever sees all of it gets it as it came. */
  readonly only: Uint8Array | null;
}

/** Where an event stood; position 0 = nowhere. */
export interface StreamPlace {
  readonly stream: string;
  readonly streamPosition: number;
}

/** Rooms looked at for one presence. */
const PRESENCE_ROOMS_MAX = 10_000;
const NO_POSITIONS: ReadonlyMap<string, number> = new Map();
/** Different views of one room's receipts, each written whole. */
const VIEWS_MAX = 8;

export class GroupEphemeral {
  readonly #fold: Fold;
  readonly #sink: ItemSink;
  readonly #latest = new Map<string, Latest>();
  readonly #receipts = new Map<string, RoomReceipts>();
  /** Of a room's interested appservices those that take ephemeral data; a room gives the same list until something changes. */
  readonly #takers = new Map<readonly string[], readonly string[]>();

  constructor(fold: Fold, sink: ItemSink) {
    this.#fold = fold;
    this.#sink = sink;
  }

  /** Takes up one event; returns how many appservices get something of it. `roomIds`: of presence, rooms that its user is in. */
  route(event: EphemeralEvent, roomIds: readonly string[], place: StreamPlace): number {
    const { index, rooms } = this.#fold;
    if (!index.hasEphemeral) return 0;
    if (event.kind === 'presence') {
      return this.#routeLatest(event.userId, event.json, presenceAppservices(event.userId, this.#presenceRooms(event.userId, roomIds), index), place);
    }
    const takers = this.#takersOf(rooms.get(event.roomId).interested(index));
    if (takers.length === 0) return 0;
    return event.kind === 'typing' ? this.#routeLatest(event.roomId, event.json, takers, place) : this.#routeReceipts(event, takers, place);
  }

  /** Puts what was taken up into the group. */
  flush(): void {
    for (const { json, appserviceIds, positions } of this.#latest.values()) this.#sink.add('ephemeral', json, appserviceIds, positions);
    for (const [roomId, receipts] of this.#receipts) this.#flushReceipts(roomId, receipts);
  }

  /** `subject`: of which this is the latest; room IDs and user IDs begin with different characters. */
  #routeLatest(subject: string, json: Uint8Array, appserviceIds: readonly string[], place: StreamPlace): number {
    if (appserviceIds.length === 0) return 0;
    const key = JSON.stringify([subject, ...appserviceIds]);
    const positions = withPlace(this.#latest.get(key), place);
    this.#latest.delete(key);
    this.#latest.set(key, { json, appserviceIds, positions });
    return appserviceIds.length;
  }

  #routeReceipts({ roomId, json, receipts, isWhole }: EphemeralEvent & { readonly kind: 'receipt' }, takers: readonly string[], place: StreamPlace): number {
    const room = this.#receipts.get(roomId);
    const seen = room?.seen ?? new Map<string, Seen>();
    const readers = new Set<string>();
    let isAllSeen = isWhole;
    for (const receipt of receipts) {
      const appserviceIds = receipt.type === 'm.read' ? takers : privateReaders(receipt.userId, takers, this.#fold.index);
      if (appserviceIds.length === 0) {
        isAllSeen = false;
        continue;
      }
      const slot = receiptSlot(receipt);
      seen.delete(slot);
      seen.set(slot, { receipt, appserviceIds });
      for (const id of appserviceIds) readers.add(id);
    }
    if (readers.size === 0) return 0;
    const isOnly = room === undefined && isAllSeen && seen.size === receipts.length;
    this.#receipts.set(roomId, { seen, only: isOnly ? json : null, positions: withPlace(room, place) });
    return readers.size;
  }

  #flushReceipts(roomId: string, { seen, only, positions }: RoomReceipts): void {
    for (const { receipts, appserviceIds } of sharedViews([...seen.values()])) {
      const events = only !== null && receipts.length === seen.size ? [only] : receiptEvents(roomId, receipts);
      for (const json of events) this.#sink.add('ephemeral', json, appserviceIds, positions);
    }
  }

  #takersOf(interested: readonly string[]): readonly string[] {
    let takers = this.#takers.get(interested);
    if (takers === undefined) this.#takers.set(interested, (takers = ephemeralTakers(interested, this.#fold.index)));
    return takers;
  }

  *#presenceRooms(userId: string, roomIds: readonly string[]): Generator<RoomState, void, undefined> {
    const { rooms } = this.#fold;
    for (const roomId of roomIds) yield rooms.get(roomId);
    let looked = 0;
    for (const room of rooms.roomsOf(userId)) {
      if (++looked > PRESENCE_ROOMS_MAX) return;
      yield room;
    }
  }
}

function withPlace(joined: Joined | undefined, { stream, streamPosition }: StreamPlace): ReadonlyMap<string, number> {
  const positions = joined?.positions ?? NO_POSITIONS;
  return streamPosition === 0 || (positions.get(stream) ?? Infinity) <= streamPosition ? positions : new Map([...positions, [stream, streamPosition]]);
}

interface SharedView {
  readonly receipts: readonly Receipt[];
  readonly appserviceIds: readonly string[];
}

/**
 * What is seen, for each set of appservices that see the same of it. With many such sets, which would repeat nearly all
 * of it for each, the parts that they have in common instead.
 */
function sharedViews(all: readonly Seen[]): SharedView[] {
  const parts = new Map<string, { readonly receipts: Receipt[]; readonly appserviceIds: readonly string[] }>();
  for (const { receipt, appserviceIds } of all) {
    const key = JSON.stringify(appserviceIds);
    const known = parts.get(key);
    if (known === undefined) parts.set(key, { receipts: [receipt], appserviceIds });
    else known.receipts.push(receipt);
  }
  const views = new Map<string, { readonly parts: readonly SharedView[]; readonly appserviceIds: string[] }>();
  for (const id of new Set([...parts.values()].flatMap(({ appserviceIds }) => appserviceIds))) {
    const own = [...parts].filter(([, { appserviceIds }]) => appserviceIds.includes(id));
    const key = JSON.stringify(own.map(([part]) => part));
    const known = views.get(key);
    if (known === undefined) views.set(key, { parts: own.map(([, part]) => part), appserviceIds: [id] });
    else known.appserviceIds.push(id);
  }
  if (views.size > VIEWS_MAX) return [...parts.values()];
  return [...views.values()].map(({ parts: own, appserviceIds }) => ({ receipts: own.flatMap(({ receipts }) => receipts), appserviceIds }));
}
