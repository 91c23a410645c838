/** What the ingress needs of the house. `service.ts` brings the implementations. */
import type { DeviceKeys, DeviceListChange } from '../appservice/device-extensions.ts';
import type { EphemeralEvent } from '../appservice/ephemeral.ts';
import type { RoutingEvent } from '../appservice/event.ts';
import type { HomeserverPort } from '../rpc/ports.ts';

/** Part of a homeserver's transaction, judged: what is taken over together. */
export interface TransactionPiece {
  /** In the homeserver's order. */
  readonly events: readonly RoutingEvent[];
  readonly ephemeral: readonly EphemeralEvent[];
  readonly toDevice: readonly { readonly json: Uint8Array; readonly userId: string }[];
  readonly deviceLists: readonly DeviceListChange[];
  readonly deviceKeys: readonly DeviceKeys[];
  /** Names what is here beside events and numbers of keys, and the transaction that it came in; null: there is nothing. */
  readonly restDigest: string | null;
}

export interface PieceOutcome {
  /** Items taken over, and those that had been before. */
  readonly accepted: number;
  readonly duplicates: number;
}

/** One homeserver, as its ingress sees it. */
export interface IngressHomeserver extends Answers, RoomHomeserver {
  /** Resolves when all of it is durable. Rejects with a RefusalError or a StoreError. */
  takeTransaction(piece: TransactionPiece): Promise<PieceOutcome>;
}

/** What the router answers homeservers that call it, too: see HomeserverPort. */
type Answers = Pick<HomeserverPort, 'query' | 'thirdPartyProtocols' | 'thirdPartyMatches' | 'authenticate' | 'ping'>;

/** What is known of a room and what is missing. */
export interface RoomFacts {
  readonly roomId: string;
  /** The joined local users are not known, and some registration makes them matter. */
  readonly wantsMembers: boolean;
  readonly wantsAliases: boolean;
  /** Some local user who is known to be joined. */
  readonly localUser: string | null;
  /** While the members are not known: users seen to join (true) or leave (false). */
  readonly partialMembers: Readonly<Record<string, boolean>>;
}

/** What was found out about a room. Undefined: nothing. */
export interface RoomFinding {
  readonly roomId: string;
  readonly localMembers: readonly string[] | undefined;
  readonly localAliases: readonly string[] | undefined;
  /** As of before it was asked for. */
  readonly partialMembers: RoomFacts['partialMembers'];
}

/** One homeserver, as its room look-ups see it. Rejects with a RefusalError or a StoreError. */
export interface RoomHomeserver {
  readonly serverName: string;
  /** Changes with the registrations in force. */
  readonly registrationsVersion: number;
  readonly hasAliasNamespaces: boolean;
  /** The appservices' own users, of those that get events. */
  readonly senderUserIds: readonly string[];
  /** In the order of the room IDs. */
  roomFacts(roomIds: readonly string[]): Promise<readonly RoomFacts[]>;
  /** Resolves when they are in the log. Members that are known already stay as they are. */
  tellRooms(findings: readonly RoomFinding[]): Promise<unknown>;
}

/** What a homeserver answered about a room. */
export type RoomAnswer =
  | { readonly kind: 'found'; readonly identifiers: readonly string[] }
  /** About this room there is no answer. */
  | { readonly kind: 'refused'; readonly httpStatus: number; readonly errcode: string | null }
  | { readonly kind: 'limited'; readonly waitMs: number }
  | { readonly kind: 'unknown_token' }
  | { readonly kind: 'away'; readonly reason: string }
  | { readonly kind: 'aborted' };

/** Where rooms are looked up. Never rejects. */
export interface RoomSource {
  /** All joined users. */
  joinedMembers(roomId: string, signal: AbortSignal): Promise<RoomAnswer>;
  /** The rooms that this local user is joined to. */
  joinedRooms(userId: string, signal: AbortSignal): Promise<RoomAnswer>;
  /** The aliases in the homeserver's directory, asked for as a local user who is joined. */
  roomAliases(roomId: string, userId: string, signal: AbortSignal): Promise<RoomAnswer>;
}

/** Kinds of what may be shelved. */
export const SHELVED_KINDS = ['event', 'ephemeral', 'to_device', 'device_list', 'device_keys', 'body'] as const;
export type ShelvedKind = (typeof SHELVED_KINDS)[number];

export type IngressEndpoint = 'transaction' | 'user' | 'alias' | 'third_party' | 'ping' | 'appservice_ping' | 'other';

/** What the ingress tells the metrics. Never throws. */
export interface IngressMeter {
  request(endpoint: IngressEndpoint, httpStatus: number, durationMs: number): void;
  shelved(kind: ShelvedKind, count: number): void;
  /** A look-up of a room ended so. */
  roomLookup(outcome: string): void;
}
