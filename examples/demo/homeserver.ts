/**
 * A homeserver, as far as the router sees one: it submits the events of its rooms in the order of its own stream, and says
 * what the events do not show, such as which aliases a room has.
 */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import type { Client, Transport } from '@connectrpc/connect';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { RoomContextSchema } from '../../gen/matrix/appservice/v1/event_pb.ts';

const SERVER_NAME = 'localhost';

export interface EventFields {
  readonly type: string;
  readonly sender: string;
  readonly content: Readonly<Record<string, unknown>>;
  readonly state_key?: string;
}

export interface Submitted {
  readonly eventIds: readonly string[];
  /** Pairs of an event and an appservice that wants it. */
  readonly routed: number;
}

export class DemoHomeserver {
  readonly #router: Client<typeof AppserviceRouter>;
  #streamPosition = 0;
  #roomCount = 0;

  constructor(transport: Transport) {
    this.#router = createClient(AppserviceRouter, transport);
  }

  /** Resolves with the id of a new room that its creator has joined and, unless it has no alias, that is in the directory. */
  async createRoom(creator: string, alias: string | null): Promise<Submitted & { readonly roomId: string }> {
    this.#roomCount += 1;
    const roomId = `!room${this.#roomCount}:${SERVER_NAME}`;
    const context = { roomId, localAliases: { roomAliases: alias === null ? [] : [alias] }, localMembers: { userIds: [] } };
    const events = [
      { type: 'm.room.create', sender: creator, state_key: '', content: { creator, room_version: '10' } },
      { type: 'm.room.member', sender: creator, state_key: creator, content: { membership: 'join' } },
    ];
    return { roomId, ...(await this.#submit(roomId, events, [context])) };
  }

  /** Resolves when the router has answered: the messages are durable there, whatever becomes of the appservice. */
  say(roomId: string, sender: string, texts: readonly string[]): Promise<Submitted> {
    return this.#submit(roomId, texts.map((body) => ({ type: 'm.room.message', sender, content: { msgtype: 'm.text', body } })));
  }

  async #submit(roomId: string, events: readonly EventFields[], rooms: MessageInitShape<typeof RoomContextSchema>[] = []): Promise<Submitted> {
    const eventIds: string[] = [];
    const items = events.map((fields) => {
      this.#streamPosition += 1;
      const eventId = `$${this.#streamPosition}`;
      eventIds.push(eventId);
      const event = { event_id: eventId, room_id: roomId, origin_server_ts: Date.now(), ...fields };
      return { json: Buffer.from(JSON.stringify(event)), streamPosition: BigInt(this.#streamPosition) };
    });
    const { routed } = await this.#router.submitEvents({ events: items, rooms });
    return { eventIds, routed };
  }
}
