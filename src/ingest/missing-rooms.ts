import type { RoomCache } from './room-cache.ts';
import type { ParsedSubmission } from './submission.ts';

const NONE: readonly string[] = [];

/** Rooms that the submissions concern and that have to be read from the store before they can be routed. */
export function missingRooms(rooms: Pick<RoomCache, 'lacks'>, submissions: readonly ParsedSubmission[]): Set<string> {
  const missing = new Set<string>();
  for (const submission of submissions) {
    for (const { event } of submission.events) if (rooms.lacks(event.roomId)) missing.add(event.roomId);
    for (const { roomId } of submission.rooms) if (rooms.lacks(roomId)) missing.add(roomId);
    for (const roomId of submission.others?.roomIds ?? NONE) if (rooms.lacks(roomId)) missing.add(roomId);
  }
  return missing;
}
