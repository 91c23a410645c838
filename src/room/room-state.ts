/**
 * What is known of one room: its joined local users and its local aliases, each list whole or unknown.
 *
 *   members   unknown ──snapshot──▶ whole. While unknown, users seen to join or leave are kept one by one and count.
 *   aliases   unknown ──snapshot──▶ whole.
 *
 * Every change returns its exact inverse, so that a group that lost its append can be taken back. The appservices
 * interested in the whole room are counted per reason and kept current by each change; they are counted anew when
 * another index of namespaces is asked for.
 */
import { isLocalAlias } from '../appservice/identifier.ts';
import type { NamespaceIndex } from '../appservice/namespaces.ts';
import type { StoredRoom } from '../store/port.ts';
import type { RoomDelta } from '../store/segment.ts';

const NOBODY: readonly string[] = [];

/** Told of each local user who is, or is no longer, joined to a room that it watches. Must not throw. */
export interface MembershipWatch {
  joined(room: RoomState, userId: string): void;
  left(room: RoomState, userId: string): void;
}

export class RoomState {
  readonly roomId: string;
  /** Log position of the newest change. */
  position: number;
  #members: Set<string> | null;
  #aliases: ReadonlySet<string> | null;
  /** User → joined, while the members are unknown. */
  #partial: Map<string, boolean>;
  #index: NamespaceIndex | null = null;
  /** Appservice → number of reasons. */
  #reasons = new Map<string, number>();
  #interested: readonly string[] | null = null;
  #watch: MembershipWatch | null = null;

  private constructor(room: StoredRoom) {
    this.roomId = room.roomId;
    this.position = room.position;
    this.#members = room.localMembers === null ? null : new Set(room.localMembers);
    this.#aliases = room.localAliases === null ? null : new Set(room.localAliases);
    this.#partial = new Map(Object.entries(room.partialMembers));
  }

  static unknown(roomId: string): RoomState {
    return new RoomState({ roomId, position: 0, localMembers: null, localAliases: null, partialMembers: {} });
  }

  static fromStored(stored: StoredRoom): RoomState {
    return new RoomState(stored);
  }

  toStored(): StoredRoom {
    return {
      roomId: this.roomId,
      position: this.position,
      localMembers: this.#members === null ? null : [...this.#members],
      localAliases: this.#aliases === null ? null : [...this.#aliases],
      partialMembers: Object.fromEntries(this.#partial),
    };
  }

  /** Applies one change; returns what takes it back, in the order to apply, and nothing if nothing changed. */
  apply(delta: RoomDelta): RoomDelta[] {
    const { roomId } = this;
    switch (delta.kind) {
      case 'joined':
        return this.#setJoined(delta.userId, true);
      case 'left':
        return this.#setJoined(delta.userId, false);
      case 'forgotten':
        return this.#forget(delta.userId);
      case 'aliases': {
        const before = this.#aliases;
        const next = delta.roomAliases === null ? null : new Set(delta.roomAliases);
        if (sameSet(before, next)) return [];
        this.#aliases = next;
        this.#recount();
        return [{ kind: 'aliases', roomId, roomAliases: before === null ? null : [...before] }];
      }
      case 'members': {
        const next = delta.userIds === null ? null : new Set(delta.userIds);
        if (this.#partial.size === 0 && sameSet(this.#members, next)) return [];
        const inverses: RoomDelta[] = [{ kind: 'members', roomId, userIds: this.#members === null ? null : [...this.#members] }];
        for (const [userId, joined] of this.#partial) inverses.push({ kind: joined ? 'joined' : 'left', roomId, userId });
        this.#tellAll('left');
        this.#members = next;
        this.#partial = new Map();
        this.#tellAll('joined');
        this.#recount();
        return inverses;
      }
    }
  }

  /** Appservices that want every event of this room (R31, R32, R36, R37), in registration order. The same array until something changes. */
  interested(index: NamespaceIndex): readonly string[] {
    if (this.#index !== index) {
      this.#index = index;
      this.#count(index);
    }
    this.#interested ??= this.#reasons.size === 0 ? NOBODY : index.inOrder(this.#reasons.keys());
    return this.#interested;
  }

  isJoined(userId: string): boolean {
    return this.#members === null ? this.#partial.get(userId) === true : this.#members.has(userId);
  }

  /** No fewer than the joined local users that are known. */
  get joinedCountMax(): number {
    return this.#members?.size ?? this.#partial.size;
  }

  /** Those that are known. */
  *joinedUsers(): Generator<string, void, undefined> {
    if (this.#members !== null) yield* this.#members;
    else for (const [userId, joined] of this.#partial) if (joined) yield userId;
  }

  /** From here on `watch` is told, of those who are joined already too. Null: nobody is any more; the one before is told that all left. */
  watch(watch: MembershipWatch | null): void {
    this.#tellAll('left');
    this.#watch = watch;
    this.#tellAll('joined');
  }

  #tellAll(what: 'joined' | 'left'): void {
    if (this.#watch !== null) for (const userId of this.joinedUsers()) this.#watch[what](this, userId);
  }

  /** Those that are known; the local ones count (R37). */
  roomAliases(): Iterable<string> {
    return this.#aliases ?? NOBODY;
  }

  /** The whole list of joined local users is known. */
  get knowsMembers(): boolean {
    return this.#members !== null;
  }

  /** The whole list of local aliases is known. */
  get knowsAliases(): boolean {
    return this.#aliases !== null;
  }

  /** True if an unknown part could make an appservice interested. */
  wantsContext(index: NamespaceIndex): boolean {
    return this.wantsAliases(index) || this.wantsMembers(index);
  }

  wantsAliases(index: NamespaceIndex): boolean {
    return this.#aliases === null && index.hasNamespaces('aliases');
  }

  wantsMembers(index: NamespaceIndex): boolean {
    return this.#members === null && index.wantsUsers;
  }

  /** While the members are unknown: users seen to join (true) or leave (false). */
  get partialMembers(): ReadonlyMap<string, boolean> {
    return this.#partial;
  }

  #setJoined(userId: string, joined: boolean): RoomDelta[] {
    const { roomId } = this;
    if (this.#members !== null) {
      if (this.#members.has(userId) === joined) return [];
      if (joined) this.#members.add(userId);
      else this.#members.delete(userId);
      this.#moved(userId, joined);
      return [{ kind: joined ? 'left' : 'joined', roomId, userId }];
    }
    const before = this.#partial.get(userId);
    if (before === joined) return [];
    this.#partial.set(userId, joined);
    if ((before === true) !== joined) this.#moved(userId, joined);
    if (before === undefined) return [{ kind: 'forgotten', roomId, userId }];
    return [{ kind: before ? 'joined' : 'left', roomId, userId }];
  }

  #forget(userId: string): RoomDelta[] {
    const before = this.#partial.get(userId);
    if (before === undefined) return [];
    this.#partial.delete(userId);
    if (before) this.#moved(userId, false);
    return [{ kind: before ? 'joined' : 'left', roomId: this.roomId, userId }];
  }

  #recount(): void {
    if (this.#index !== null) this.#count(this.#index);
  }

  #count(index: NamespaceIndex): void {
    this.#reasons = new Map();
    this.#interested = null;
    this.#add(index.interested('rooms', this.roomId), 1);
    for (const alias of this.#aliases ?? []) if (isLocalAlias(alias, index.serverName)) this.#add(index.interested('aliases', alias), 1);
    for (const userId of this.#members ?? []) this.#add(index.interested('users', userId), 1);
    for (const [userId, joined] of this.#partial) if (joined) this.#add(index.interested('users', userId), 1);
  }

  #moved(userId: string, joined: boolean): void {
    if (this.#index !== null) this.#add(this.#index.interested('users', userId), joined ? 1 : -1);
    this.#watch?.[joined ? 'joined' : 'left'](this, userId);
  }

  #add(appserviceIds: readonly string[], by: 1 | -1): void {
    for (const id of appserviceIds) {
      const reasons = (this.#reasons.get(id) ?? 0) + by;
      if (reasons === 0) this.#reasons.delete(id);
      else this.#reasons.set(id, reasons);
      if (reasons === 0 || (reasons === 1 && by === 1)) this.#interested = null;
    }
  }
}

function sameSet(a: ReadonlySet<string> | null, b: ReadonlySet<string> | null): boolean {
  if (a === null || b === null) return a === b;
  return a.size === b.size && a.isSubsetOf(b);
}
