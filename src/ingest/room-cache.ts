/**
 * The rooms in memory. A room is clean (the store has it as it is, or it was never heard of) or dirty (the log has
 * changes of it that the store's room documents lack). Clean rooms beyond the limit are forgotten, least recently used
 * first; dirty ones stay until a checkpoint has saved them.
 */
import { JoinedRooms } from '../room/joined-rooms.ts';
import { RoomState } from '../room/room-state.ts';
import type { RoomDelta } from '../store/segment.ts';
import type { FoldStore, StoredRoom } from '../store/port.ts';

/** Rooms asked of the store in one call. */
const LOAD_ROOMS_MAX = 1000;

export class RoomCache {
  readonly #serverName: string;
  readonly #store: Pick<FoldStore, 'loadRooms'>;
  readonly #roomsMax: number;
  readonly #rooms = new Map<string, RoomState>();
  #dirty = new Set<string>();
  /** Rooms of a checkpoint that is being saved: no longer dirty, not yet in the store. */
  #saving: ReadonlySet<string> = new Set();
  /** Null until somebody asks: it takes memory for every membership. */
  #joined: JoinedRooms | null = null;

  constructor(serverName: string, store: Pick<FoldStore, 'loadRooms'>, roomsMax: number) {
    this.#serverName = serverName;
    this.#store = store;
    this.#roomsMax = roomsMax;
  }

  get dirtyCount(): number {
    return this.#dirty.size;
  }

  get size(): number {
    return this.#rooms.size;
  }

  /** Brings all of them into memory; they stay there until {@link evict}. Rejects with a StoreError. */
  async load(roomIds: Iterable<string>): Promise<void> {
    const missing: string[] = [];
    for (const roomId of roomIds) {
      const room = this.#rooms.get(roomId);
      if (room === undefined) missing.push(roomId);
      else {
        this.#rooms.delete(roomId);
        this.#rooms.set(roomId, room);
      }
    }
    for (let start = 0; start < missing.length; start += LOAD_ROOMS_MAX) {
      const wanted = missing.slice(start, start + LOAD_ROOMS_MAX);
      const stored = await this.#store.loadRooms(this.#serverName, wanted);
      for (const roomId of wanted) this.#rooms.set(roomId, RoomState.unknown(roomId));
      for (const room of stored) this.#rooms.set(room.roomId, RoomState.fromStored(room));
      if (this.#joined !== null) for (const roomId of wanted) this.get(roomId).watch(this.#joined);
    }
  }

  /** True if {@link load} would have to ask the store. */
  lacks(roomId: string): boolean {
    return !this.#rooms.has(roomId);
  }

  /** A room that was loaded; asking for another is a bug. */
  get(roomId: string): RoomState {
    const room = this.#rooms.get(roomId);
    if (room === undefined) throw new Error('the room was not loaded before it was used');
    return room;
  }

  /** The rooms in memory to which this local user is known to be joined. */
  roomsOf(userId: string): Iterable<RoomState> {
    if (this.#joined === null) {
      this.#joined = new JoinedRooms();
      for (const room of this.#rooms.values()) room.watch(this.#joined);
    }
    return this.#joined.of(userId);
  }

  /** The log has these changes, ending at `position`; `applied` says that the rooms in memory have them already. */
  settle(deltas: readonly RoomDelta[], position: number, applied: boolean): void {
    for (const delta of deltas) {
      const room = this.get(delta.roomId);
      if (room.position >= position && !applied) continue;
      if (!applied) room.apply(delta);
      this.#dirty.add(delta.roomId);
    }
    for (const delta of deltas) {
      const room = this.get(delta.roomId);
      room.position = Math.max(room.position, position);
    }
  }

  /** The dirty rooms as they are now; they count as clean from here on, unless {@link saved} says that saving failed. */
  beginSave(): StoredRoom[] {
    const rooms = [...this.#dirty].map((roomId) => this.get(roomId).toStored());
    this.#saving = this.#dirty;
    this.#dirty = new Set();
    return rooms;
  }

  saved(ok: boolean): void {
    if (!ok) for (const roomId of this.#saving) this.#dirty.add(roomId);
    this.#saving = new Set();
  }

  /** Forgets clean rooms above the limit. Call it only when no room is in use. */
  evict(): void {
    let excess = this.#rooms.size - this.#roomsMax;
    if (excess <= 0) return;
    for (const [roomId, room] of this.#rooms) {
      if (this.#dirty.has(roomId) || this.#saving.has(roomId)) continue;
      room.watch(null);
      this.#rooms.delete(roomId);
      if (--excess <= 0) return;
    }
  }
}
