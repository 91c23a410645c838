/** Rooms by joined local user: the other way round than the rooms have it. As complete as the rooms that it watches. */
import type { MembershipWatch, RoomState } from './room-state.ts';

const NO_ROOMS: readonly RoomState[] = [];

export class JoinedRooms implements MembershipWatch {
  readonly #rooms = new Map<string, Set<RoomState>>();

  of(userId: string): Iterable<RoomState> {
    return this.#rooms.get(userId) ?? NO_ROOMS;
  }

  joined(room: RoomState, userId: string): void {
    const rooms = this.#rooms.get(userId);
    if (rooms === undefined) this.#rooms.set(userId, new Set([room]));
    else rooms.add(room);
  }

  left(room: RoomState, userId: string): void {
    const rooms = this.#rooms.get(userId);
    if (rooms?.delete(room) === true && rooms.size === 0) this.#rooms.delete(userId);
  }
}
