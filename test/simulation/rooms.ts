/**
 * What happens at the homeserver: rooms whose members and aliases change, told in streams. The truth about each room is
 * known here for every event, whatever the routers make of it.
 */
import type { Chance } from './chance.ts';
import { APPSERVICE_IDS, SERVER } from './registrations.ts';

/** A room at one moment: never changed, so what is found out of it may be kept. */
export interface RoomTruth {
  readonly roomId: string;
  /** Joined local users. */
  readonly joined: readonly string[];
  readonly aliases: readonly string[];
}

/** One event or to-device message of a stream. */
export interface Item {
  readonly kind: 'event' | 'to_device';
  readonly stream: string;
  readonly position: number;
  readonly id: string;
  readonly json: Uint8Array;
  readonly type: string;
  readonly sender: string;
  readonly stateKey: string | undefined;
  /** Recipient, of a to-device message. */
  readonly toUserId: string;
  /** Local users without an account, as the homeserver says. */
  readonly unknownUserIds: readonly string[];
  readonly before: RoomTruth;
  readonly after: RoomTruth;
  /** The room's directory changed just before it: a request begins here and tells the room. */
  readonly beginsRequest: boolean;
  /** When it was first submitted, in the order of things. */
  offeredOrder: number | null;
  /** When a router said that it is taken. */
  ackedMs: number | null;
  /** The same in the order of things. */
  ackedOrder: number | null;
}

export const ROOM_COUNT = 9;
const PEOPLE = Array.from({ length: 8 }, (_, at) => `@person${at}:${SERVER}`);
const NOWHERE: RoomTruth = { roomId: '', joined: [], aliases: [] };

/** One writer of the homeserver: a stream, and the rooms that are told in it. */
export class StreamWriter {
  readonly stream: string;
  readonly items: Item[] = [];
  readonly #chance: Chance;
  readonly #rooms: RoomTruth[];
  readonly #numbers: { next: number };
  /** Users of whom the homeserver knows that they exist by now. */
  readonly #known = new Set<string>();
  #position = 0;

  constructor(stream: string, rooms: readonly number[], chance: Chance, numbers: { next: number }) {
    this.stream = stream;
    this.#chance = chance;
    this.#numbers = numbers;
    // Some rooms are older than the router: it has to be told who is in them.
    this.#rooms = rooms.map((number) => ({ roomId: `!room${number}:${SERVER}`, joined: number % 2 === 0 ? [`@person0:${SERVER}`, ghost(number % 12, 0)] : [], aliases: number % 3 === 0 ? [`#_as${number % 12}_old:${SERVER}`] : [] }));
  }

  /** Something happens. */
  grow(): void {
    if (this.#rooms.length === 0) return this.#message();
    const chance = this.#chance;
    const at = chance.below(this.#rooms.length);
    const room = this.#rooms[at];
    if (room === undefined) return;
    const beginsRequest = chance.is(0.06);
    const before = beginsRequest ? { ...room, aliases: this.#otherAliases(room) } : room;
    const roll = chance.next();
    const after = roll < 0.62 ? this.#text(before, beginsRequest) : roll < 0.9 ? this.#membership(before, beginsRequest) : this.#invite(before, beginsRequest);
    this.#rooms[at] = after;
  }

  #otherAliases({ aliases }: RoomTruth): string[] {
    const alias = `#_${this.#chance.pick(APPSERVICE_IDS)}_${this.#chance.below(2)}:${SERVER}`;
    return aliases.includes(alias) ? aliases.filter((other) => other !== alias) : [...aliases, alias].slice(-2);
  }

  #text(room: RoomTruth, beginsRequest: boolean): RoomTruth {
    const sender = this.#chance.is(0.7) && room.joined.length > 0 ? this.#chance.pick(room.joined) : this.#chance.pick(['@stranger:far.test', `@_as3_g1:far.test`, ...PEOPLE]);
    this.#add({ type: 'm.room.message', sender, stateKey: undefined, membership: undefined }, room, room, beginsRequest);
    return room;
  }

  #membership(room: RoomTruth, beginsRequest: boolean): RoomTruth {
    const chance = this.#chance;
    const leaves = room.joined.length > 0 && chance.is(0.45);
    const user = leaves ? chance.pick(room.joined) : chance.is(0.3) ? chance.pick(PEOPLE) : ghost(chance.below(12), chance.below(3));
    const without = room.joined.filter((other) => other !== user);
    const after = leaves ? { ...room, joined: without } : { ...room, joined: [...without, user].slice(-6) };
    // More than a few are put out at once, which is told like any leave: so nobody is put out here.
    if (!leaves && without.length >= 6) return this.#text(room, beginsRequest);
    this.#add({ type: 'm.room.member', sender: user, stateKey: user, membership: leaves ? chance.pick(['leave', 'ban']) : 'join' }, room, after, beginsRequest);
    return after;
  }

  /** Of a user who may have no account yet. */
  #invite(room: RoomTruth, beginsRequest: boolean): RoomTruth {
    const chance = this.#chance;
    const user = ghost(chance.below(12), 3 + chance.below(4));
    if (room.joined.includes(user)) return this.#text(room, beginsRequest);
    const unknown = this.#known.has(user) ? [] : [user];
    if (chance.is(0.3)) this.#known.add(user);
    this.#add({ type: 'm.room.member', sender: chance.pick(PEOPLE), stateKey: user, membership: 'invite' }, room, room, beginsRequest, unknown);
    return room;
  }

  #add(fields: { readonly type: string; readonly sender: string; readonly stateKey: string | undefined; readonly membership: string | undefined }, before: RoomTruth, after: RoomTruth, beginsRequest: boolean, unknownUserIds: readonly string[] = []): void {
    const { type, sender, stateKey, membership } = fields;
    const id = `$e${this.#numbers.next++}`;
    const content = membership === undefined ? { body: 'x'.repeat(this.#chance.below(120)) } : { membership };
    const json = Buffer.from(JSON.stringify({ event_id: id, room_id: before.roomId, type, sender, content, ...(stateKey === undefined ? {} : { state_key: stateKey }) }));
    this.#position += 1 + this.#chance.below(3);
    this.items.push({ kind: 'event', stream: this.stream, position: this.#position, id, json, type, sender, stateKey, toUserId: '', unknownUserIds, before, after, beginsRequest, offeredOrder: null, ackedMs: null, ackedOrder: null });
  }

  #message(): void {
    const id = `t${this.#numbers.next++}`;
    const toUserId = this.#chance.is(0.8) ? ghost(this.#chance.below(12), this.#chance.below(3)) : this.#chance.pick(PEOPLE);
    this.#position += 1;
    const json = Buffer.from(JSON.stringify({ type: 'm.test', sender: this.#chance.pick(PEOPLE), content: { id } }));
    this.items.push({ kind: 'to_device', stream: this.stream, position: this.#position, id, json, type: 'm.test', sender: '', stateKey: undefined, toUserId, unknownUserIds: [], before: NOWHERE, after: NOWHERE, beginsRequest: false, offeredOrder: null, ackedMs: null, ackedOrder: null });
  }
}

export function ghost(appservice: number, number: number): string {
  return `@_as${appservice}_g${number}:${SERVER}`;
}
