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
export interface IngressHomeserver extends Answers {
  readonly serverName: string;
  /** Changes with the registrations in force. */
  readonly registrationsVersion: number;
  /** Resolves when all of it is durable. Rejects with a RefusalError or a StoreError. */
  takeTransaction(piece: TransactionPiece): Promise<PieceOutcome>;
}

/** What the router answers homeservers that call it, too: see HomeserverPort. */
type Answers = Pick<HomeserverPort, 'query' | 'thirdPartyProtocols' | 'thirdPartyMatches' | 'authenticate' | 'ping'>;

/** Kinds of what may be shelved. */
export const SHELVED_KINDS = ['event', 'ephemeral', 'to_device', 'device_list', 'device_keys', 'body'] as const;
export type ShelvedKind = (typeof SHELVED_KINDS)[number];

export type IngressEndpoint = 'transaction' | 'user' | 'alias' | 'third_party' | 'ping' | 'appservice_ping' | 'other';

/** What the ingress tells the metrics. Never throws. */
export interface IngressMeter {
  request(endpoint: IngressEndpoint, httpStatus: number, durationMs: number): void;
  shelved(kind: ShelvedKind, count: number): void;
}
