/** explain: who gets an event, by which rule and namespace, and where it is now. */
import { AppserviceAdmin, ExplainRoutingResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { ExplainRoutingResponse } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { EventDelivery_Whereabouts as Whereabouts, RoutingRule } from '../../gen/matrix/appservice/v1/routing_explanation_pb.ts';
import type { EventDelivery, LogSearch, RoomFacts, RoutingExplanation, RoutingReason } from '../../gen/matrix/appservice/v1/routing_explanation_pb.ts';
import { jsonFrom } from '../rpc/admin-client.ts';
import { deadlineMs, printJson } from './context.ts';
import type { RouterContext } from './context.ts';
import { duration, isoTime, NONE, timeMsFrom } from './format.ts';
import { table } from './table.ts';
import { coloured, EXIT, plainLine } from './terminal.ts';
import type { ExitCode } from './terminal.ts';

const RULES: ReadonlyMap<RoutingRule, string> = new Map([
  [RoutingRule.ROOM_ID, 'room'],
  [RoutingRule.ROOM_ALIAS, 'alias'],
  [RoutingRule.JOINED_MEMBER, 'member'],
  [RoutingRule.SENDER, 'sender'],
  [RoutingRule.MEMBER_TARGET, 'membership of'],
]);

const WHEREABOUTS: ReadonlyMap<Whereabouts, string> = new Map([
  [Whereabouts.NOT_ROUTED, 'was not routed to it'],
  [Whereabouts.QUEUED, 'queued'],
  [Whereabouts.IN_FLIGHT, 'in flight'],
  [Whereabouts.HELD, 'held'],
  [Whereabouts.DELIVERED, 'delivered'],
  [Whereabouts.QUARANTINED, 'in quarantine'],
  [Whereabouts.GIVEN_UP, 'given up'],
]);

/** `subject`: an event id, which begins with "$", or a file with the JSON of an event. */
export async function explain(context: RouterContext, subject: string, readFile: (path: string) => string): Promise<ExitCode> {
  const { router, serverName, terminal, json } = context;
  const event = subject.startsWith('$') ? { case: 'eventId' as const, value: subject } : { case: 'eventJson' as const, value: new TextEncoder().encode(readFile(subject)) };
  const answer = await router.call(AppserviceAdmin.method.explainRouting, { serverName, event }, deadlineMs(context));
  if (json) printJson(context, jsonFrom(ExplainRoutingResponseSchema, answer));
  else terminal.out(told(context, answer));
  return EXIT.ok;
}

function told({ terminal, clock }: RouterContext, { eventId, room, logSearch, appservices }: ExplainRoutingResponse): string {
  const lines = [`${eventId === '' ? 'The event' : plainLine(eventId)}${room === undefined ? '' : ` in ${roomTold(room)}`}\n`];
  if (logSearch !== undefined) lines.push(`${searchTold(logSearch)}\n`);
  if (appservices.length === 0) return `${lines.join('')}No appservice is registered.\n`;
  const sorted = [...appservices].sort((a, b) => Number(b.interested) - Number(a.interested) || (a.appserviceId < b.appserviceId ? -1 : 1));
  const rows = sorted.map((one) => [one.appserviceId, one.interested ? 'yes' : 'no', why(one), whereTold(one.delivery, clock.nowMs())]);
  return `${lines.join('')}\n${table(['appservice', 'gets it', 'because', 'now'], rows, (cell, column) => (column === 1 ? coloured(terminal, cell === 'yes' ? 'green' : 'dim', cell) : cell))}`;
}

function roomTold({ roomId, localMembersKnown, localMemberCount, localAliasesKnown, localAliasCount }: RoomFacts): string {
  const members = localMembersKnown ? `${localMemberCount} local members` : 'its local members are not known';
  const aliases = localAliasesKnown ? `${localAliasCount} local aliases` : 'its local aliases are not known';
  return plainLine(`${roomId} (${members}, ${aliases})`);
}

function searchTold({ logPosition, submittedTime, retainedSinceTime, complete }: LogSearch): string {
  const submittedMs = timeMsFrom(submittedTime);
  if (logPosition !== undefined) return `It is at log position ${logPosition}${submittedMs === null ? '' : `, submitted at ${isoTime(submittedMs)}`}.`;
  const sinceMs = timeMsFrom(retainedSinceTime);
  const since = sinceMs === null ? '' : ` since ${isoTime(sinceMs)}`;
  return complete ? `It is not in the retained log${since}: nobody wanted it, or all who did have it.` : `It was not found in the part of the log that was looked through${since}.`;
}

function why({ reasons, reasonCount, noUrl, roomContextWanted }: RoutingExplanation): string {
  const parts = reasons.map(reasonTold);
  if (reasonCount > reasons.length) parts.push(`${reasonCount - reasons.length} more`);
  if (noUrl) parts.push('it has no url');
  if (roomContextWanted) parts.push('the room is not fully known; submit a RoomContext');
  return parts.join('; ') || NONE;
}

function reasonTold({ rule, identifier, regex, senderUser }: RoutingReason): string {
  const by = senderUser ? 'its sender user' : regex === undefined ? '' : `namespace ${JSON.stringify(regex)}`;
  return `${RULES.get(rule) ?? 'a rule that this release does not know'} ${identifier}${by === '' ? '' : `, ${by}`}`;
}

function whereTold(delivery: EventDelivery | undefined, nowMs: number): string {
  if (delivery === undefined) return NONE;
  const { whereabouts, txnId, attemptCount, nextAttemptTime } = delivery;
  const nextMs = timeMsFrom(nextAttemptTime);
  return [
    WHEREABOUTS.get(whereabouts) ?? 'unknown',
    txnId === undefined ? '' : ` in transaction ${txnId}`,
    attemptCount === 0 ? '' : `, ${attemptCount} attempts failed`,
    nextMs === null || nextMs <= nowMs ? '' : `, next in ${duration(nextMs - nowMs)}`,
  ].join('');
}
