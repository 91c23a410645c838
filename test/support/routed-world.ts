/** Routes steps one by one through the real index, rooms and interest, as ingest does. */
import { parseEvent } from '../../src/appservice/event.ts';
import type { RoutingEvent } from '../../src/appservice/event.ts';
import { interestedAppservices, roomDeltasOf } from '../../src/appservice/interest.ts';
import { NamespaceIndex } from '../../src/appservice/namespaces.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { RoomState } from '../../src/room/room-state.ts';
import type { ReferenceEvent, Step } from './reference-matcher.ts';
import { SERVER } from './routing.ts';

export const noPause = (): Promise<void> => Promise.resolve();

export function compile(registrations: readonly Registration[], serverName = SERVER): Promise<NamespaceIndex> {
  return NamespaceIndex.compile(serverName, registrations, noPause);
}

export function eventOf({ roomId, type, sender, stateKey, membership }: ReferenceEvent): RoutingEvent {
  const content = membership === undefined ? {} : { membership };
  return parseEvent(Buffer.from(JSON.stringify({ event_id: '$e', room_id: roomId, type, sender, content, state_key: stateKey })), 'events[0].json');
}

/** A homeserver's rooms, in memory only. */
export class RoutedWorld {
  readonly #serverName: string;
  readonly #rooms = new Map<string, RoomState>();
  #index: NamespaceIndex;

  constructor(index: NamespaceIndex, serverName = SERVER) {
    this.#index = index;
    this.#serverName = serverName;
  }

  static async of(...registrations: Registration[]): Promise<RoutedWorld> {
    return new RoutedWorld(await compile(registrations));
  }

  get index(): NamespaceIndex {
    return this.#index;
  }

  room(roomId: string): RoomState {
    let room = this.#rooms.get(roomId);
    if (room === undefined) this.#rooms.set(roomId, (room = RoomState.unknown(roomId)));
    return room;
  }

  async register(...registrations: Registration[]): Promise<void> {
    this.#index = await NamespaceIndex.compile(this.#serverName, registrations, noPause, this.#index);
  }

  context(roomId: string, known: { members?: readonly string[] | undefined; aliases?: readonly string[] | undefined }): void {
    const room = this.room(roomId);
    if (known.members !== undefined) room.apply({ kind: 'members', roomId, userIds: known.members });
    if (known.aliases !== undefined) room.apply({ kind: 'aliases', roomId, roomAliases: known.aliases });
  }

  route(event: RoutingEvent): readonly string[] {
    const room = this.room(event.roomId);
    const delta = roomDeltasOf(event, this.#serverName);
    if (delta !== null) room.apply(delta);
    return interestedAppservices(event, room, this.#index);
  }

  /** Sends a message of `sender`; returns who gets it. */
  message(roomId: string, sender: string): readonly string[] {
    return this.route(eventOf({ roomId, type: 'm.room.message', sender }));
  }

  /** Changes a membership; returns who gets the event. */
  member(roomId: string, userId: string, membership: string, sender = userId): readonly string[] {
    return this.route(eventOf({ roomId, type: 'm.room.member', sender, stateKey: userId, membership }));
  }

  /** For each event of `steps`, who gets it. */
  async run(steps: readonly Step[]): Promise<(readonly string[])[]> {
    const routes: (readonly string[])[] = [];
    for (const step of steps) {
      if (step.kind === 'registrations') await this.register(...step.registrations);
      else if (step.kind === 'context') this.context(step.roomId, step);
      else routes.push(this.route(eventOf(step.event)));
    }
    return routes;
  }
}
