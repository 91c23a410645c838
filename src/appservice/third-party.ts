/**
 * Third-party networks: what appservices say of protocols, users and locations, and how that of several becomes one answer
 * (Application Service API, "Third-party networks"; Client-Server API, "Third-party Networks"; requirements R122 to R130).
 */
import { identifierProblem } from './identifier.ts';
import type { JsonObject } from './json.ts';
import { isJsonObject, parsedJson } from './json.ts';
import type { NamespaceIndex } from './namespaces.ts';
import { RefusalError } from './refusal.ts';
import type { Registration } from './registration.ts';

export interface ThirdPartyField {
  readonly name: string;
  readonly value: string;
}

/** What is looked for: users by user ID, or locations by room alias. */
export type ThirdPartyKind = 'users' | 'locations';

/** By a protocol and the fields a client sent, in its order and with repeated names; or in reverse, by user ID or room alias. */
export type ThirdPartyQuestion =
  | { readonly by: 'fields'; readonly protocol: string; readonly fields: readonly ThirdPartyField[] }
  | { readonly by: 'identifier'; readonly identifier: string };

export interface ThirdPartyMatch {
  readonly appserviceId: string;
  /** A user ID or a room alias. */
  readonly identifier: string;
  readonly protocol: string;
  /** A User or Location object of the specification, as text. */
  readonly json: string;
}

export interface ThirdPartyMatches {
  /** In registration order, and in each appservice's own. */
  readonly matches: readonly ThirdPartyMatch[];
  /** Those asked in vain: there may be more matches than these. */
  readonly failedAppserviceIds: readonly string[];
}

export interface ThirdPartyInstance {
  readonly instanceId: string;
  readonly appserviceId: string;
  readonly networkId: string;
}

export interface ThirdPartyProtocol {
  readonly protocol: string;
  /** In the order in which they stand in the object. */
  readonly instances: readonly ThirdPartyInstance[];
  /** A Protocol object of the specification with all instances, as text. */
  readonly json: string;
}

export interface ThirdPartyProtocols {
  readonly protocols: readonly ThirdPartyProtocol[];
  /** Those asked in vain of which nothing older is known either. */
  readonly failedAppserviceIds: readonly string[];
}

/** One appservice's answer about one protocol. */
export interface ProtocolMetadata {
  /** Everything but the instances. */
  readonly common: JsonObject;
  /** Each with a network_id that no other has. */
  readonly instances: readonly { readonly networkId: string; readonly fields: JsonObject }[];
  /** What was no instance, or repeated the network_id of one before it. */
  readonly droppedCount: number;
}

export const THIRD_PARTY_DEPTH_MAX = 64;
const NETWORK_ID_BYTES_MAX = 1_024;
const FIELDS_MAX = 64;
/** Names and values together: what they come to percent-encoded fits the head of a request that any server takes. */
const FIELDS_BYTES_MAX = 4_096;
const PROTOCOL_BYTES_MAX = 255;

/** Names of the protocols that appservices with a url list, each with those appservices, in registration order (R122). */
export function protocolOwners({ registrations }: NamespaceIndex): ReadonlyMap<string, readonly Registration[]> {
  const owners = new Map<string, Registration[]>();
  for (const registration of registrations) {
    if (registration.url === null) continue;
    for (const protocol of new Set(registration.protocols)) {
      const known = owners.get(protocol);
      if (known === undefined) owners.set(protocol, [registration]);
      else known.push(registration);
    }
  }
  return owners;
}

/**
 * Whom to ask, in registration order: for fields, the appservices with a url that list the protocol (R122); in reverse,
 * those with a url whose namespace has the identifier, exclusively or not (R129). Throws a RefusalError for a malformed
 * question.
 */
export function thirdPartyCandidates(index: NamespaceIndex, kind: ThirdPartyKind, question: ThirdPartyQuestion): readonly Registration[] {
  if (question.by === 'fields') {
    refuseProtocol(question.protocol);
    refuseFields(question.fields);
    return index.registrations.filter(({ url, protocols }) => url !== null && protocols.includes(question.protocol));
  }
  const { identifier } = question;
  const namespaces = kind === 'users' ? 'users' : 'aliases';
  const problem = identifier.isWellFormed() ? identifierProblem({ kind: namespaces, identifier }) : 'An identifier is well-formed Unicode text.';
  if (problem !== null) throw new RefusalError('INVALID_FIELD', problem, { field: kind === 'users' ? 'user_id' : 'room_alias' });
  const claiming = new Set(index.matches(namespaces, identifier).map(({ appserviceId }) => appserviceId));
  return index.registrations.filter(({ id, url }) => url !== null && claiming.has(id));
}

/** Throws a RefusalError for what can be no protocol's name. */
export function refuseProtocol(protocol: string): void {
  if (protocol !== '' && protocol.isWellFormed() && Buffer.byteLength(protocol) <= PROTOCOL_BYTES_MAX) return;
  throw new RefusalError('INVALID_FIELD', `A protocol has a name such as "irc", of at most ${PROTOCOL_BYTES_MAX} bytes.`, { field: 'protocol' });
}

function refuseFields(fields: readonly ThirdPartyField[]): void {
  if (fields.length > FIELDS_MAX) throw new RefusalError('INVALID_FIELD', `A look-up has at most ${FIELDS_MAX} fields; this one has ${fields.length}.`, { field: 'fields' });
  let bytes = 0;
  for (const [at, { name, value }] of fields.entries()) {
    if (!name.isWellFormed() || !value.isWellFormed()) throw new RefusalError('INVALID_FIELD', 'A field is well-formed Unicode text.', { field: `fields[${at}]` });
    bytes += Buffer.byteLength(name) + Buffer.byteLength(value);
  }
  if (bytes > FIELDS_BYTES_MAX) throw new RefusalError('INVALID_FIELD', `The fields of a look-up have at most ${FIELDS_BYTES_MAX} bytes together; these have ${bytes}.`, { field: 'fields' });
}

/** The fields as a query, in their order, without any access_token (R126); begins with `?`, or is empty. */
export function queryOf(fields: readonly ThirdPartyField[]): string {
  const pairs = fields.filter(({ name }) => name !== 'access_token').map(({ name, value }) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
  return pairs.length === 0 ? '' : `?${pairs.join('&')}`;
}

/** The matches in an appservice's answer; what is none is dropped and counted (R127). Null if the answer is no list. */
export function matchesFrom(text: string, kind: ThirdPartyKind, appserviceId: string): { readonly matches: readonly ThirdPartyMatch[]; readonly droppedCount: number } | null {
  const list = parsedJson(text, THIRD_PARTY_DEPTH_MAX);
  if (!Array.isArray(list)) return null;
  const matches = list.flatMap((item: unknown) => matchFrom(item, kind, appserviceId) ?? []);
  return { matches, droppedCount: list.length - matches.length };
}

function matchFrom(item: unknown, kind: ThirdPartyKind, appserviceId: string): ThirdPartyMatch | null {
  if (!isJsonObject(item)) return null;
  const { userid, alias, protocol, fields } = item;
  const identifier = kind === 'users' ? userid : alias;
  if (typeof identifier !== 'string' || !identifier.isWellFormed() || identifierProblem({ kind: kind === 'users' ? 'users' : 'aliases', identifier }) !== null) return null;
  if (typeof protocol !== 'string' || !protocol.isWellFormed() || Buffer.byteLength(protocol) > PROTOCOL_BYTES_MAX) return null;
  return isJsonObject(fields) ? { appserviceId, identifier, protocol, json: JSON.stringify(item) } : null;
}

/** What an appservice says of a protocol; null if that is no Protocol object: parts that are there must be of their type. */
export function protocolMetadataFrom(text: string): ProtocolMetadata | null {
  const value = parsedJson(text, THIRD_PARTY_DEPTH_MAX);
  if (!isJsonObject(value)) return null;
  const { instances: list, ...common } = value;
  if (!Array.isArray(list) || !isCommon(common)) return null;
  const instances = new Map<string, JsonObject>();
  for (const item of list as readonly unknown[]) {
    if (!isJsonObject(item)) continue;
    const { network_id: networkId } = item;
    if (typeof networkId !== 'string' || !networkId.isWellFormed() || Buffer.byteLength(networkId) > NETWORK_ID_BYTES_MAX) continue;
    if (!instances.has(networkId)) instances.set(networkId, item);
  }
  return { common, instances: [...instances].map(([networkId, fields]) => ({ networkId, fields })), droppedCount: list.length - instances.size };
}

function isCommon({ user_fields, location_fields, icon, field_types }: JsonObject): boolean {
  const isTexts = (value: unknown): boolean => value === undefined || (Array.isArray(value) && value.every((item) => typeof item === 'string'));
  return isTexts(user_fields) && isTexts(location_fields) && (icon === undefined || typeof icon === 'string') && (field_types === undefined || isJsonObject(field_types));
}

/**
 * One Protocol object: what the first appservice says, with the instances of all (R123). Every instance gets an
 * instance_id (R124): the id of its appservice, which has no `|` in it, then `|` and its network_id; so it depends on nothing
 * else and is the same after a restart and whoever answers first. Null without an answer (R125).
 */
export function mergedProtocol(protocol: string, answers: readonly { readonly appserviceId: string; readonly metadata: ProtocolMetadata }[]): ThirdPartyProtocol | null {
  const [first] = answers;
  if (first === undefined) return null;
  const all = answers.flatMap(({ appserviceId, metadata }) =>
    metadata.instances.map(({ networkId, fields }) => ({ instance: { instanceId: `${appserviceId}|${networkId}`, appserviceId, networkId }, fields })),
  );
  const instances = all.map(({ instance, fields }) => ({ ...fields, instance_id: instance.instanceId }));
  return { protocol, instances: all.map(({ instance }) => instance), json: JSON.stringify({ ...first.metadata.common, instances }) };
}
