/** What is known of a room now, for who only looks. */
import { RoomState } from '../room/room-state.ts';
import type { FoldStore, StoredRoom } from '../store/port.ts';
import type { Fold } from './fold.ts';
import type { Ledger } from './ledger.ts';

/**
 * A copy of the room as of the tail, which its owner may change. A room that is not in memory is read without being taken
 * into memory. Rejects with a StoreError, or a RefusalError while draining.
 */
export async function copyOfRoom(roomId: string, fold: Fold, ledger: Pick<Ledger, 'betweenGroups'>, store: Pick<FoldStore, 'loadRooms'>): Promise<RoomState> {
  const inMemory = (): StoredRoom | null => (fold.rooms.lacks(roomId) ? null : fold.rooms.get(roomId).toStored());
  const known = await ledger.betweenGroups(inMemory);
  if (known !== null) return RoomState.fromStored(known);
  const [stored] = await store.loadRooms(fold.serverName, [roomId]);
  // A change since then has brought the room into memory.
  const changed = await ledger.betweenGroups(inMemory);
  const newest = changed ?? stored;
  return newest === undefined ? RoomState.unknown(roomId) : RoomState.fromStored(newest);
}
