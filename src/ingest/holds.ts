/**
 * Events that wait until an appservice has been asked about users whom the homeserver does not know (requirements R110,
 * R119, M5), without a wait for anybody else.
 *
 *   an event concerns an unknown user whom the appservice claims
 *        │ held: its bytes are in the log, with whatever route it has to others, and without one to this appservice
 *        ▼
 *   open hold of one appservice and one room ◀── held: every further event of that room for that appservice, in order
 *        │
 *        │ the appservice said yes, no, something else or nothing in time (query/unknown-users.ts); or the hold is full;
 *        │ or the registration is removed or loses its url
 *        ▼
 *   released: a later segment has the same bytes once more, as entries of their own, routed to the appservice
 *
 * So the order of the log stays the order of delivery, and delivery knows nothing of it. Holds are part of the fold:
 * every replica that folds the same segments has the same ones open. Any replica may release one; the append is a
 * compare-and-set, so one does, and the others find it released. A crash leaves them open: they are in the log or in the
 * checkpoint, and whoever folds them asks again. A segment with what is held is not trimmed.
 *
 * The bytes of what is held stay in memory, so that a release reads nothing. Everything is bounded: what does not fit is
 * routed without a question, behind what it would have waited for (group-holds.ts).
 */
import { StoreError } from '../store/errors.ts';
import type { SegmentLog, StoredHold } from '../store/port.ts';
import type { HoldChange, Segment } from '../store/segment.ts';

/** Of one hold. */
export const HOLD_ENTRIES_MAX = 500;
export const HOLD_USERS_MAX = 100;
/** JSON, with the ids of the room and the users. */
export const HOLD_BYTES_MAX = 1024 * 1024;
/** Of all open holds of a homeserver. Released together with a group of ordinary size they still fit into one segment. */
export const HOLDS_MAX = 1_000;
export const HOLDS_ENTRIES_MAX = 5_000;
export const HOLDS_BYTES_MAX = 4 * 1024 * 1024;

export interface HeldEntry {
  /** Of the segment that has it. */
  readonly firstPosition: number;
  readonly index: number;
  /** On bytes of its own. Null: not read back from the log yet, after a start. */
  json: Uint8Array | null;
}

export interface Hold {
  readonly appserviceId: string;
  readonly roomId: string;
  readonly userIds: ReadonlySet<string>;
  readonly entries: readonly HeldEntry[];
  readonly bytes: number;
}

interface OpenHold extends Hold {
  readonly userIds: Set<string>;
  readonly entries: HeldEntry[];
  bytes: number;
}

export class OpenHolds {
  /** Room → appservice → hold. */
  readonly #rooms = new Map<string, Map<string, OpenHold>>();
  #count = 0;
  #entryCount = 0;
  #bytes = 0;

  get count(): number {
    return this.#count;
  }

  get entryCount(): number {
    return this.#entryCount;
  }

  /** As far as they were read. */
  get bytes(): number {
    return this.#bytes;
  }

  find(appserviceId: string, roomId: string): Hold | undefined {
    return this.#rooms.get(roomId)?.get(appserviceId);
  }

  /** True as long as this very hold is open, and not one that was opened after it. */
  isOpen(hold: Hold): boolean {
    return this.find(hold.appserviceId, hold.roomId) === hold;
  }

  /** By appservice. */
  inRoom(roomId: string): ReadonlyMap<string, Hold> | undefined {
    return this.#rooms.get(roomId);
  }

  *all(): Generator<Hold, void, undefined> {
    for (const holds of this.#rooms.values()) yield* holds.values();
  }

  /** First log position of the oldest segment with something that is held; Infinity if nothing is. */
  get oldestSegment(): number {
    let oldest = Infinity;
    for (const { entries } of this.all()) oldest = Math.min(oldest, entries[0]?.firstPosition ?? Infinity);
    return oldest;
  }

  apply({ holds = [], firstPosition, entries }: Pick<Segment, 'holds' | 'firstPosition' | 'entries'>): void {
    for (const change of holds) {
      if (change.kind === 'released') {
        this.#close(change);
        continue;
      }
      const hold = this.#open(change);
      for (const userId of change.userIds) this.#addUser(hold, userId);
      for (const index of change.indexes) {
        const json = entries[index]?.json;
        if (json === undefined) throw new StoreError('unreadable', `the segment at log position ${firstPosition} holds an entry that it does not have`);
        // The segment's bytes are not held in memory by it.
        this.#addEntry(hold, { firstPosition, index, json: Uint8Array.from(json) });
      }
    }
  }

  restore(stored: readonly StoredHold[]): void {
    for (const { appserviceId, roomId, userIds, entries } of stored) {
      const hold = this.#open({ appserviceId, roomId });
      for (const userId of userIds) this.#addUser(hold, userId);
      for (const { firstPosition, index } of entries) this.#addEntry(hold, { firstPosition, index, json: null });
    }
  }

  toStored(): StoredHold[] {
    return [...this.all()].map(({ appserviceId, roomId, userIds, entries }) => ({
      appserviceId,
      roomId,
      userIds: [...userIds],
      entries: entries.map(({ firstPosition, index }) => ({ firstPosition, index })),
    }));
  }

  /**
   * Reads the bytes that a restored hold lacks, once the fold is at the tail. False if the log has them no more: then
   * another replica has released the hold since. Rejects with a StoreError.
   */
  async readBack(log: Pick<SegmentLog, 'readSegments'>, serverName: string): Promise<boolean> {
    let segment: Segment | undefined;
    for (const hold of this.#openHolds()) {
      for (const entry of hold.entries) {
        if (entry.json !== null) continue;
        if (segment?.firstPosition !== entry.firstPosition) [segment] = await log.readSegments(serverName, entry.firstPosition, { segmentsMax: 1, bytesMax: 1 });
        if (segment?.firstPosition !== entry.firstPosition) return false;
        const json = segment.entries[entry.index]?.json;
        if (json === undefined) throw new StoreError('unreadable', `the segment at log position ${entry.firstPosition} lacks an entry that is held`);
        entry.json = Uint8Array.from(json);
        hold.bytes += json.byteLength;
        this.#bytes += json.byteLength;
      }
    }
    return true;
  }

  *#openHolds(): Generator<OpenHold, void, undefined> {
    for (const holds of this.#rooms.values()) yield* holds.values();
  }

  #open({ appserviceId, roomId }: Pick<HoldChange, 'appserviceId' | 'roomId'>): OpenHold {
    const holds = this.#rooms.get(roomId) ?? new Map<string, OpenHold>();
    const known = holds.get(appserviceId);
    if (known !== undefined) return known;
    const hold: OpenHold = { appserviceId, roomId, userIds: new Set(), entries: [], bytes: Buffer.byteLength(roomId) };
    this.#rooms.set(roomId, holds.set(appserviceId, hold));
    this.#count += 1;
    this.#bytes += hold.bytes;
    return hold;
  }

  #addUser(hold: OpenHold, userId: string): void {
    if (hold.userIds.has(userId)) return;
    hold.userIds.add(userId);
    const bytes = Buffer.byteLength(userId);
    hold.bytes += bytes;
    this.#bytes += bytes;
  }

  #addEntry(hold: OpenHold, entry: HeldEntry): void {
    hold.entries.push(entry);
    this.#entryCount += 1;
    hold.bytes += entry.json?.byteLength ?? 0;
    this.#bytes += entry.json?.byteLength ?? 0;
  }

  #close({ appserviceId, roomId }: Pick<HoldChange, 'appserviceId' | 'roomId'>): void {
    const holds = this.#rooms.get(roomId);
    const hold = holds?.get(appserviceId);
    if (holds === undefined || hold === undefined) return;
    holds.delete(appserviceId);
    if (holds.size === 0) this.#rooms.delete(roomId);
    this.#count -= 1;
    this.#entryCount -= hold.entries.length;
    this.#bytes -= hold.bytes;
  }
}
