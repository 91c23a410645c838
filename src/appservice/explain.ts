/**
 * Why an appservice gets an event, or does not: the same verdicts of identifiers that interest.ts decides by, told one
 * by one. A test holds it to {@link interestedAppservices} for whatever registrations, rooms and events.
 */
import type { RoutingEvent } from './event.ts';
import { isLocalAlias, isLocalUser } from './identifier.ts';
import type { NamespaceIndex } from './namespaces.ts';
import type { NamespaceKind } from './registration.ts';

export type RoutingRule = 'room_id' | 'room_alias' | 'joined_member' | 'sender' | 'member_target';

/** One thing that makes an appservice interested. */
export interface RoutingReason {
  readonly rule: RoutingRule;
  readonly identifier: string;
  /** The pattern; null: the identifier is the appservice's own user. */
  readonly regex: string | null;
}

/** A room as far as an explanation needs it, as of just after the event. */
export interface ExplainedRoom {
  readonly knowsMembers: boolean;
  readonly knowsAliases: boolean;
  joinedUsers(): Iterable<string>;
  roomAliases(): Iterable<string>;
}

/** Whether and why one appservice gets an event. */
export interface RoutingVerdict {
  readonly appserviceId: string;
  readonly interested: boolean;
  readonly reasons: readonly RoutingReason[];
  /** Of all reasons, those left out included. */
  readonly reasonCount: number;
  /** There are reasons, and nothing is sent for want of a URL. */
  readonly lacksUrl: boolean;
  /** Not interested as far as is known; what is unknown of the room could make it so. */
  readonly wantsContext: boolean;
}

export interface ExplanationLimits {
  /** Reasons told of one appservice. */
  readonly reasonsMax: number;
  /** Reasons told of all together; the further ones are only counted. */
  readonly totalReasonsMax: number;
}

interface Found {
  readonly reasons: RoutingReason[];
  count: number;
}

/** One for each registration, in registration order. */
export function explainRouting(event: RoutingEvent, room: ExplainedRoom, index: NamespaceIndex, limits: ExplanationLimits): RoutingVerdict[] {
  const found = new Map<string, Found>();
  let total = 0;
  const add = (appserviceId: string, reason: RoutingReason): void => {
    let known = found.get(appserviceId);
    if (known === undefined) found.set(appserviceId, (known = { reasons: [], count: 0 }));
    known.count++;
    if (known.reasons.length >= limits.reasonsMax || total >= limits.totalReasonsMax) return;
    known.reasons.push(reason);
    total++;
  };
  const judge = (rule: RoutingRule, kind: NamespaceKind, identifier: string): void => {
    for (const { appserviceId, regex } of index.matches(kind, identifier)) add(appserviceId, { rule, identifier, regex });
    if (kind !== 'users' || !isLocalUser(identifier, index.serverName)) return;
    for (const appserviceId of index.senderOwners(identifier)) add(appserviceId, { rule, identifier, regex: null });
  };
  judge('sender', 'users', event.sender);
  if (event.type === 'm.room.member' && event.stateKey !== undefined) judge('member_target', 'users', event.stateKey);
  judge('room_id', 'rooms', event.roomId);
  for (const alias of room.roomAliases()) if (isLocalAlias(alias, index.serverName)) judge('room_alias', 'aliases', alias);
  for (const userId of room.joinedUsers()) judge('joined_member', 'users', userId);
  return index.registrations.map(({ id, url, namespaces }) => {
    const { reasons, count } = found.get(id) ?? { reasons: [], count: 0 };
    const lacksUrl = url === null;
    const interested = count > 0 && !lacksUrl;
    // Its own user may be joined, so unknown members matter to each.
    const isUnknown = !room.knowsMembers || (!room.knowsAliases && namespaces.aliases.length > 0);
    return { appserviceId: id, interested, reasons, reasonCount: count, lacksUrl: lacksUrl && count > 0, wantsContext: !interested && !lacksUrl && isUnknown };
  });
}
