/** ExplainRoutingRequest from the wire, and its answer back. */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { ExplainRoutingRequestSchema, ExplainRoutingResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { EventDeliverySchema, LogSearchSchema, RoutingReasonSchema } from '../../gen/matrix/appservice/v1/routing_explanation_pb.ts';
import { EventDelivery_Whereabouts as Whereabouts, RoutingRule as WireRule } from '../../gen/matrix/appservice/v1/routing_explanation_pb.ts';
import type { RoutingReason, RoutingRule } from '../appservice/explain.ts';
import { heldByTo, invalid, short, timestamp } from './conversion.ts';
import type { EventDelivery, ExplainRoutingRequest, RoutingExplanation } from './ports.ts';
import { roomContextsFrom } from './submission-conversion.ts';

const EVENT_ID_BYTES_MAX = 1024;
/** Of an identifier in an answer; longer ones are no Matrix identifiers and are cut. */
const SHOWN_LENGTH_MAX = 1024;

const RULES: Readonly<Record<RoutingRule, WireRule>> = {
  room_id: WireRule.ROOM_ID,
  room_alias: WireRule.ROOM_ALIAS,
  joined_member: WireRule.JOINED_MEMBER,
  sender: WireRule.SENDER,
  member_target: WireRule.MEMBER_TARGET,
};

const WHEREABOUTS: Readonly<Record<EventDelivery['whereabouts'], Whereabouts>> = {
  not_routed: Whereabouts.NOT_ROUTED,
  queued: Whereabouts.QUEUED,
  in_flight: Whereabouts.IN_FLIGHT,
  held: Whereabouts.HELD,
  delivered: Whereabouts.DELIVERED,
  quarantined: Whereabouts.QUARANTINED,
  given_up: Whereabouts.GIVEN_UP,
};

export function explanationWantedFrom({ event, rooms }: MessageShape<typeof ExplainRoutingRequestSchema>): ExplainRoutingRequest {
  switch (event.case) {
    case 'eventJson':
      return { event: { kind: 'json', json: event.value }, rooms: roomContextsFrom(rooms) };
    case 'eventId':
      if (event.value === '') throw invalid('event_id', 'Name the event by its event_id, or send the event itself as event_json.');
      return { event: { kind: 'id', eventId: short(event.value, EVENT_ID_BYTES_MAX, 'event_id') }, rooms: roomContextsFrom(rooms) };
    case undefined:
      throw invalid('event', 'Say which event: event_json, the event itself, or event_id, an event that was submitted.');
  }
}

export function explanationTo({ eventId, search, room, appservices }: RoutingExplanation): MessageInitShape<typeof ExplainRoutingResponseSchema> {
  return {
    eventId: shown(eventId),
    ...(search === null ? {} : { logSearch: searchTo(search) }),
    ...(room === null
      ? {}
      : {
          room: {
            roomId: shown(room.roomId),
            localMembersKnown: room.knowsMembers,
            localMemberCount: room.memberCount,
            localAliasesKnown: room.knowsAliases,
            localAliasCount: room.aliasCount,
          },
        }),
    appservices: appservices.map(({ appserviceId, interested, reasons, reasonCount, lacksUrl, wantsContext, delivery }) => ({
      appserviceId,
      interested,
      reasons: reasons.map(reasonTo),
      reasonCount,
      noUrl: lacksUrl,
      roomContextWanted: wantsContext,
      ...(delivery === null ? {} : { delivery: deliveryTo(delivery) }),
    })),
  };
}

function reasonTo({ rule, identifier, regex }: RoutingReason): MessageInitShape<typeof RoutingReasonSchema> {
  return { rule: RULES[rule], identifier: shown(identifier), senderUser: regex === null, ...(regex === null ? {} : { regex: regex.toWellFormed() }) };
}

function searchTo({ found, oldest, isComplete, seen }: NonNullable<RoutingExplanation['search']>): MessageInitShape<typeof LogSearchSchema> {
  return {
    complete: isComplete,
    ...(found === null ? {} : { logPosition: BigInt(found.position), submittedTime: timestamp(found.timeMs) }),
    ...(oldest === null ? {} : { retainedLogPosition: BigInt(oldest.position), retainedSinceTime: timestamp(oldest.timeMs) }),
    ...(seen === undefined ? {} : { stream: seen.stream, streamPosition: BigInt(seen.position) }),
  };
}

function deliveryTo({ whereabouts, txnId, attemptCount, nextAttemptTimeMs, heldBy }: EventDelivery): MessageInitShape<typeof EventDeliverySchema> {
  return {
    whereabouts: WHEREABOUTS[whereabouts],
    attemptCount,
    heldBy: heldByTo(heldBy),
    ...(txnId === null ? {} : { txnId }),
    ...(nextAttemptTimeMs === null ? {} : { nextAttemptTime: timestamp(nextAttemptTimeMs) }),
  };
}

function shown(identifier: string): string {
  return identifier.slice(0, SHOWN_LENGTH_MAX).toWellFormed();
}
