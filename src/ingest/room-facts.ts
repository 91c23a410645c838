/** What is known of a room now, for who only looks. */
import { senderUserId } from '../appservice/registration.ts';
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

/** What of each room is known and what is missing, in the order of the ids. Rooms that are not in memory are read without being taken into it. */
export async function factsOfRooms(roomIds: readonly string[], fold: Fold, ledger: Pick<Ledger, 'betweenGroups'>, store: Pick<FoldStore, 'loadRooms'>): Promise<KnownOfRoom[]> {
  const factsOf = (room: RoomState): KnownOfRoom => knownOf(room, fold);
  const facts = await ledger.betweenGroups(() => new Map(roomIds.filter((roomId) => !fold.rooms.lacks(roomId)).map((roomId) => [roomId, factsOf(fold.rooms.get(roomId))])));
  const missing = roomIds.filter((roomId) => !facts.has(roomId));
  if (missing.length > 0) {
    for (const roomId of missing) facts.set(roomId, factsOf(RoomState.unknown(roomId)));
    for (const stored of await store.loadRooms(fold.serverName, missing)) facts.set(stored.roomId, factsOf(RoomState.fromStored(stored)));
  }
  return roomIds.flatMap((roomId) => facts.get(roomId) ?? []);
}

/** The own users of the appservices that get events. */
export function sendersOf({ registrations, serverName }: Fold): string[] {
  return [...registrations.values()].flatMap(({ registration }) => (registration === null || registration.url === null || registration.url === '' ? [] : [senderUserId(registration, serverName)]));
}

export interface KnownOfRoom {
  readonly roomId: string;
  readonly wantsMembers: boolean;
  readonly wantsAliases: boolean;
  /** Some local user who is known to be joined. */
  readonly localUser: string | null;
  readonly partialMembers: Readonly<Record<string, boolean>>;
}

function knownOf(room: RoomState, { index }: Fold): KnownOfRoom {
  let localUser: string | null = null;
  for (const userId of room.joinedUsers()) {
    localUser = userId;
    break;
  }
  return { roomId: room.roomId, wantsMembers: room.wantsMembers(index), wantsAliases: room.wantsAliases(index), localUser, partialMembers: Object.fromEntries(room.partialMembers) };
}
