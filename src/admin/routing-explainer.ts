/**
 * Answers ExplainRouting: what is known of the event's room, who would get the event by that, and where it is.
 * It only looks: nothing of the fold, the log or a delivery is changed.
 */
import { parseEvent } from '../appservice/event.ts';
import type { RoutingEvent } from '../appservice/event.ts';
import { explainRouting } from '../appservice/explain.ts';
import type { RoutingVerdict } from '../appservice/explain.ts';
import { roomDeltasOf } from '../appservice/interest.ts';
import type { NamespaceIndex } from '../appservice/namespaces.ts';
import type { EventDelivery } from '../delivery/whereabouts.ts';
import { NOT_ROUTED } from '../delivery/whereabouts.ts';
import type { EventSearchResult } from '../ingest/event-search.ts';
import type { RoomState } from '../room/room-state.ts';
import type { ExplainRoutingRequest, RoomContext, RoutingExplanation } from '../rpc/ports.ts';

/** One homeserver, as far as it is looked at. */
export interface ExplainedHomeserver {
  readonly serverName: string;
  readonly index: NamespaceIndex;
  /** A copy of what is known. Rejects with a StoreError or a RefusalError. */
  copyOfRoom(roomId: string): Promise<RoomState>;
  findEvent(eventId: string): Promise<EventSearchResult>;
  readonly delivery: { deliveriesOf(position: number, appserviceIds: readonly string[]): Promise<ReadonlyMap<string, EventDelivery>> };
}

const LIMITS = { reasonsMax: 8, totalReasonsMax: 2_000 };

/** Rejects with a RefusalError or a StoreError. */
export async function explainedRouting(request: ExplainRoutingRequest, homeserver: ExplainedHomeserver): Promise<RoutingExplanation> {
  if (request.event.kind === 'json') {
    const event = parseEvent(request.event.json, 'event_json');
    return { eventId: event.eventId, search: null, ...(await verdictsOf(event, request.rooms, homeserver)) };
  }
  const { eventId } = request.event;
  const search = await homeserver.findEvent(eventId);
  if (search.found === null) return { eventId, search, room: null, appservices: [] };
  const { position, json, appserviceIds } = search.found;
  const { room, appservices } = await verdictsOf(parseEvent(json, 'event_id'), request.rooms, homeserver);
  const deliveries = await homeserver.delivery.deliveriesOf(position, appserviceIds);
  const inForce = new Set(appservices.map(({ appserviceId }) => appserviceId));
  const gone = appserviceIds.filter((appserviceId) => !inForce.has(appserviceId)).map(absent);
  const explained = [...appservices, ...gone].map((verdict) => ({ ...verdict, delivery: deliveries.get(verdict.appserviceId) ?? NOT_ROUTED }));
  return { eventId, search, room, appservices: explained };
}

async function verdictsOf(event: RoutingEvent, contexts: readonly RoomContext[], homeserver: ExplainedHomeserver): Promise<Pick<RoutingExplanation, 'room' | 'appservices'>> {
  const { roomId } = event;
  const room = await homeserver.copyOfRoom(roomId);
  for (const context of contexts) {
    if (context.roomId !== roomId) continue;
    if (context.localMembers !== undefined) room.apply({ kind: 'members', roomId, userIds: context.localMembers });
    if (context.localAliases !== undefined) room.apply({ kind: 'aliases', roomId, roomAliases: context.localAliases });
  }
  // Interest is decided with the room as of just after the event.
  const delta = roomDeltasOf(event, homeserver.serverName);
  if (delta !== null) room.apply(delta);
  const appservices = explainRouting(event, room, homeserver.index, LIMITS).map((verdict) => ({ ...verdict, delivery: null }));
  const { knowsMembers, knowsAliases } = room;
  return { room: { roomId, knowsMembers, memberCount: [...room.joinedUsers()].length, knowsAliases, aliasCount: [...room.roomAliases()].length }, appservices };
}

/** Of an appservice whose registration is gone. */
function absent(appserviceId: string): RoutingVerdict {
  return { appserviceId, interested: false, reasons: [], reasonCount: 0, lacksUrl: false, wantsContext: false };
}
