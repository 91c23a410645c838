/** Two appservices that claim users, and what waits until they have been asked, on a log in memory. */
import assert from 'node:assert/strict';
import type { Registration } from '../../src/appservice/registration.ts';
import type { Hold } from '../../src/ingest/holds.ts';
import type { ParsedSubmission } from '../../src/ingest/submission.ts';
import { Upkeep } from '../../src/ingest/upkeep.ts';
import { VirtualClock } from './clock.ts';
import type { LedgerWorld } from './ledger-world.ts';
import { silent } from './ledger-world.ts';
import type { MemoryLog } from './memory-store.ts';
import { member, registration, submission } from './routing.ts';
import type { EventFields } from './routing.ts';

export const GHOST = '@_irc_ghost:hs.test';

/** Claims users and is interested in every room. */
export function everywhere(id: string, changes: Partial<Registration> = {}): Registration {
  const { namespaces } = registration(id);
  return registration(id, { namespaces: { ...namespaces, rooms: [{ regex: '!', exclusive: false }] }, ...changes });
}

/** With unknown users. */
export function unknowing(events: readonly (EventFields & { at?: number })[], userIds: readonly string[] = [GHOST], extra: Partial<ParsedSubmission> = {}): ParsedSubmission {
  return submission(events, { unknownUserIds: new Set(userIds), ...extra });
}

/** An invite of a user of irc's that has no account. */
export function invite(id: string, room: string, userId = GHOST): EventFields {
  return { ...member(id, userId, 'invite', room), sender: '@alice:hs.test' };
}

export function holdOf(world: LedgerWorld, appserviceId: string, roomId: string): Hold {
  const hold = world.fold.holds.find(appserviceId, roomId);
  assert.ok(hold, `nothing waits for ${appserviceId} in ${roomId}`);
  return hold;
}

export async function release(world: LedgerWorld, appserviceId: string, roomId: string): Promise<void> {
  await world.ledger.release(holdOf(world, appserviceId, roomId), () => true);
}

/** What waits: appservice, room, users, number of events. */
export function openHolds({ fold }: LedgerWorld): unknown[] {
  return [...fold.holds.all()].map(({ appserviceId, roomId, userIds, entries }) => [appserviceId, roomId, [...userIds], entries.length]).sort();
}

/** Saves and trims all that may go, everything being delivered. */
export function upkeepOf(world: LedgerWorld, log: MemoryLog, delivered: ReadonlyMap<string, number> = new Map([['irc', Infinity], ['xmpp', Infinity]])): Upkeep {
  return new Upkeep(
    {
      fold: world.fold,
      ledger: world.ledger,
      store: log,
      clock: new VirtualClock(Date.now() + 1_000_000),
      logger: silent,
      deliveredPositions: () => delivered,
      cutPositions: () => ({ asOfMs: Infinity, positions: new Map<string, number>() }),
      expired: () => undefined,
      ephemeralAgeMaxMs: 300_000,
      intervalMs: 1000,
      checkpointIntervalMs: 5000,
      dirtyRoomsMax: 100,
      trimIntervalMs: 5000,
      retentionMs: 0,
      trimSegmentsMax: 7,
      trimCallsMax: 1_000,
    },
    0,
  );
}
