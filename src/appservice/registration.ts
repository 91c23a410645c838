/**
 * A registration as the Matrix Application Service API defines it (section "Registration"), after validation.
 * Field names are the specification's. Plain values only, so that a registration can be stored and compared.
 */

/** One namespace entry. `regex` is anchored at the first character and need not reach the end (R21). */
export interface Namespace {
  readonly regex: string;
  readonly exclusive: boolean;
}

export type NamespaceKind = 'users' | 'aliases' | 'rooms';

/** The three namespace lists; an absent list is an empty one (R9). */
export type Namespaces = Readonly<Record<NamespaceKind, readonly Namespace[]>>;

/** How this router delivers to one appservice: the `appservice_router:` mapping of its YAML. Absent = the configured default. */
export interface DeliveryOptions {
  readonly legacy_paths?: 'off' | 'unrecognized' | 'any_error';
  readonly legacy_auth?: 'off' | 'both' | 'query_only';
  readonly push_timeout_ms?: number;
  readonly query_timeout_ms?: number;
  readonly proxy?: string;
  readonly ca_file?: string;
}

export interface Registration {
  readonly id: string;
  /** Null means that the appservice wants no traffic: nothing is routed to it (R3, R4, R46). */
  readonly url: string | null;
  readonly as_token: string;
  readonly hs_token: string;
  readonly sender_localpart: string;
  readonly namespaces: Namespaces;
  readonly protocols: readonly string[];
  readonly rate_limited: boolean;
  readonly receive_ephemeral: boolean;
  /** The spelling from before MSC2409 was merged, `de.sorunome.msc2409.push_ephemeral` (R13). */
  readonly push_ephemeral_unstable: boolean;
  /** `org.matrix.msc3202`: wants device lists and key counts (R94). */
  readonly device_extensions: boolean;
  readonly delivery_options: DeliveryOptions;
}

/** The full ID of the appservice's own user (R17). */
export function senderUserId(registration: Pick<Registration, 'sender_localpart'>, serverName: string): string {
  return `@${registration.sender_localpart}:${serverName}`;
}
