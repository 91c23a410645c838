/**
 * What a group in progress does to the holds: which of its events wait for which appservices, and which holds it
 * releases. The fold's holds stay as they are until the group's segment is durable; so there is nothing to take back.
 *
 *   interested appservice      has no hold of the room     nothing to ask it, or it has answered lately   routed
 *                                                          asked about a sender or a target               held, if there is room
 *                              has one                                                                    held behind it, if there is room
 *   no room for it             the hold is released, then the event is routed: the order stays, the question is left out
 */
import type { RoutingEvent } from '../appservice/event.ts';
import { provisioners } from '../appservice/provisioning.ts';
import type { HoldChange } from '../store/segment.ts';
import type { Fold } from './fold.ts';
import { HOLD_BYTES_MAX, HOLD_ENTRIES_MAX, HOLD_USERS_MAX, HOLDS_BYTES_MAX, HOLDS_ENTRIES_MAX, HOLDS_MAX } from './holds.ts';
import type { Hold } from './holds.ts';

/** What this process knows of answers. It decides what is asked and never what is delivered, so replicas may differ. */
export interface KnownAnswers {
  /** True if the appservice has said yes or no to this user a short while ago, or answers no such questions at present. */
  isAnswered(appserviceId: string, userId: string): boolean;
}

/** Where released entries go: next in the group's segment, for one appservice. */
export type PutReleased = (hold: Pick<Hold, 'appserviceId' | 'roomId'>, jsons: readonly Uint8Array[]) => void;

/** A hold as of this point of the group. */
interface GroupHold {
  readonly appserviceId: string;
  readonly roomId: string;
  readonly userIds: Set<string>;
  readonly jsons: Uint8Array[];
  bytes: number;
  /** What this group adds to it; null: nothing yet. */
  change: HeldChange | null;
}

type HeldChange = Extract<HoldChange, { readonly kind: 'held' }> & { readonly userIds: string[]; readonly indexes: number[] };

/** An appservice for which the event waits. */
interface Wait {
  readonly hold: GroupHold;
  readonly newUserIds: readonly string[];
}

export interface Division {
  /** Appservices that get the event with this group, in their order. */
  readonly now: readonly string[];
  readonly waits: readonly Wait[];
}

const NOBODY: readonly string[] = [];

export class GroupHolds {
  readonly changes: HoldChange[] = [];
  /** Pairs of an event and an appservice that went out without a question for want of room. */
  unaskedCount = 0;
  readonly #fold: Fold;
  readonly #answers: KnownAnswers;
  readonly #putReleased: PutReleased;
  /** Room → appservice → hold; null: released by this group. What is not in it is as the fold has it. */
  readonly #changed = new Map<string, Map<string, GroupHold | null>>();
  /** User → the appservices that claim it. */
  readonly #claimants = new Map<string, ReadonlySet<string>>();
  #count: number;
  #entryCount: number;
  #bytes: number;

  constructor(fold: Fold, answers: KnownAnswers, putReleased: PutReleased) {
    this.#fold = fold;
    this.#answers = answers;
    this.#putReleased = putReleased;
    this.#count = fold.holds.count;
    this.#entryCount = fold.holds.entryCount;
    this.#bytes = fold.holds.bytes;
  }

  /** Divides the interested appservices; releases what has no room for the event, before it. Call {@link wait} with the result. */
  divide(event: RoutingEvent, interested: readonly string[], unknownUserIds: ReadonlySet<string> | undefined): Division {
    const asked = unknownUserIds === undefined ? NOBODY : concernedUsers(event, unknownUserIds);
    if (asked.length === 0 && this.#holdsIn(event.roomId) === 0) return { now: interested, waits: [] };
    const now: string[] = [];
    const waits: Wait[] = [];
    for (const appserviceId of interested) {
      const userIds = asked.filter((userId) => this.#claims(appserviceId, userId) && !this.#answers.isAnswered(appserviceId, userId));
      const hold = this.#find(appserviceId, event.roomId);
      if (hold === null && userIds.length === 0) {
        now.push(appserviceId);
        continue;
      }
      const newUserIds = userIds.filter((userId) => hold === null || !hold.userIds.has(userId));
      if (this.#hasRoom(hold, event, newUserIds)) {
        waits.push(this.#extend(hold ?? this.#open(appserviceId, event.roomId), event, newUserIds));
        continue;
      }
      if (hold !== null) this.#release(hold);
      this.unaskedCount += 1;
      now.push(appserviceId);
    }
    return { now, waits };
  }

  /** The event is the entry at `index` of the group's segment and waits. */
  wait(waits: readonly Wait[], index: number): void {
    for (const { hold, newUserIds } of waits) {
      const { appserviceId, roomId } = hold;
      if (hold.change === null) {
        hold.change = { kind: 'held', appserviceId, roomId, userIds: [], indexes: [] };
        this.changes.push(hold.change);
      }
      hold.change.userIds.push(...newUserIds);
      hold.change.indexes.push(index);
    }
  }

  /** Puts everything that waits in this hold next in the group's segment; nothing if it is not open any more. */
  release({ appserviceId, roomId }: Pick<Hold, 'appserviceId' | 'roomId'>): void {
    const hold = this.#find(appserviceId, roomId);
    if (hold !== null) this.#release(hold);
  }

  #release(hold: GroupHold): void {
    const { appserviceId, roomId, jsons } = hold;
    this.#putReleased(hold, jsons);
    this.changes.push({ kind: 'released', appserviceId, roomId });
    this.#set(appserviceId, roomId, null);
    this.#count -= 1;
    this.#entryCount -= jsons.length;
    this.#bytes -= hold.bytes;
  }

  #extend(hold: GroupHold, { json }: RoutingEvent, newUserIds: readonly string[]): Wait {
    hold.jsons.push(json);
    for (const userId of newUserIds) hold.userIds.add(userId);
    this.#weigh(hold, json.byteLength + textBytes(newUserIds));
    this.#entryCount += 1;
    return { hold, newUserIds };
  }

  #open(appserviceId: string, roomId: string): GroupHold {
    const hold: GroupHold = { appserviceId, roomId, userIds: new Set(), jsons: [], bytes: 0, change: null };
    this.#set(appserviceId, roomId, hold);
    this.#weigh(hold, textBytes([roomId]));
    this.#count += 1;
    return hold;
  }

  #find(appserviceId: string, roomId: string): GroupHold | null {
    const changed = this.#changed.get(roomId)?.get(appserviceId);
    if (changed !== undefined) return changed;
    const open = this.#fold.holds.find(appserviceId, roomId);
    if (open === undefined) return null;
    const jsons = open.entries.map(({ json }) => {
      if (json === null) throw new Error('a hold is used before its bytes were read back');
      return json;
    });
    const hold: GroupHold = { appserviceId, roomId, userIds: new Set(open.userIds), jsons, bytes: open.bytes, change: null };
    this.#set(appserviceId, roomId, hold);
    return hold;
  }

  #holdsIn(roomId: string): number {
    return (this.#fold.holds.inRoom(roomId)?.size ?? 0) + (this.#changed.get(roomId)?.size ?? 0);
  }

  #set(appserviceId: string, roomId: string, hold: GroupHold | null): void {
    const holds = this.#changed.get(roomId) ?? new Map<string, GroupHold | null>();
    this.#changed.set(roomId, holds.set(appserviceId, hold));
  }

  #weigh(hold: GroupHold, bytes: number): void {
    hold.bytes += bytes;
    this.#bytes += bytes;
  }

  #hasRoom(hold: GroupHold | null, event: RoutingEvent, newUserIds: readonly string[]): boolean {
    const bytes = event.json.byteLength + textBytes(newUserIds) + (hold === null ? textBytes([event.roomId]) : 0);
    const { entries, users, weight } = hold === null ? { entries: 0, users: 0, weight: 0 } : { entries: hold.jsons.length, users: hold.userIds.size, weight: hold.bytes };
    if (entries >= HOLD_ENTRIES_MAX || users + newUserIds.length > HOLD_USERS_MAX || weight + bytes > HOLD_BYTES_MAX) return false;
    return (hold !== null || this.#count < HOLDS_MAX) && this.#entryCount < HOLDS_ENTRIES_MAX && this.#bytes + bytes <= HOLDS_BYTES_MAX;
  }

  #claims(appserviceId: string, userId: string): boolean {
    let claimants = this.#claimants.get(userId);
    if (claimants === undefined) {
      claimants = new Set(provisioners(this.#fold.index, { kind: 'users', identifier: userId }).map(({ id }) => id));
      this.#claimants.set(userId, claimants);
    }
    return claimants.has(appserviceId);
  }
}

function textBytes(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
}

/** Sender and membership target, as far as the homeserver does not know them. */
function concernedUsers({ sender, type, stateKey }: RoutingEvent, unknownUserIds: ReadonlySet<string>): string[] {
  const users = type === 'm.room.member' && stateKey !== undefined && stateKey !== sender ? [sender, stateKey] : [sender];
  return users.filter((userId) => unknownUserIds.has(userId));
}
