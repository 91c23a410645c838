/**
 * Encryption keys that appservices hold for their users (MSC3983 for claims, MSC3984 for queries; requirements R100, R101):
 * whom to ask for what, what of an answer counts, and how it is laid over what the homeserver has. All pure.
 *
 * Only a user that is one appservice's alone is asked for: its own user, or one in the exclusive namespaces of one
 * appservice. An answer counts for users, devices and algorithms that were asked for; the rest is dropped and counted.
 */
import { isUtf8 } from 'node:buffer';
import type { JsonObject } from './json.ts';
import { isJsonObject, parsedJson } from './json.ts';
import type { NamespaceIndex } from './namespaces.ts';
import { RefusalError } from './refusal.ts';
import type { Registration } from './registration.ts';

/** By user ID, then by device ID: the algorithms wanted, one for each key. */
export type KeyClaim = ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>;
/** By user ID, then by device ID, then by key ID (`algorithm:name`): the keys as they came. */
export type ClaimedKeys = ReadonlyMap<string, ReadonlyMap<string, ReadonlyMap<string, unknown>>>;
/** By user ID: the devices wanted; none for all. */
export type KeyQuery = ReadonlyMap<string, readonly string[]>;

/** What an appservice says of its users. `crossSigning`: by the name of the part, then by user ID. */
export interface DeviceKeys {
  readonly devices: ReadonlyMap<string, ReadonlyMap<string, JsonObject>>;
  readonly crossSigning: ReadonlyMap<string, ReadonlyMap<string, JsonObject>>;
}

/** Which users belong to which appservice alone, of these. */
export type KeyOwners = (userIds: Iterable<string>) => ReadonlyMap<Registration, ReadonlySet<string>>;

/** `json` is what the homeserver has with the appservices' laid over it. */
export interface KeysResult {
  readonly json: string;
  /** Those asked in vain. */
  readonly failedAppserviceIds: readonly string[];
}

/** What counts of an answer, and how much of it was dropped. */
export interface Accepted<Keys> {
  readonly keys: Keys;
  readonly droppedCount: number;
}

export const KEY_DEPTH_MAX = 32;
const REQUEST_BYTES_MAX = 1024 * 1024;
const USERS_MAX = 1_000;
/** Keys of one device that one claim may want. */
const DEVICE_KEYS_MAX = 100;
const CROSS_SIGNING = ['master_keys', 'self_signing_keys', 'user_signing_keys'] as const;

/** The one appservice with a url that each user belongs to alone, with those users; the others are left out. */
export function keyOwners(index: NamespaceIndex, userIds: Iterable<string>): ReadonlyMap<Registration, ReadonlySet<string>> {
  const byId = new Map<string, Set<string>>();
  for (const userId of userIds) {
    const exclusive = index.matches('users', userId).filter((match) => match.exclusive);
    const owners = index.senderOwners(userId).length > 0 ? index.senderOwners(userId) : [...new Set(exclusive.map(({ appserviceId }) => appserviceId))];
    const [owner] = owners;
    if (owner === undefined || owners.length > 1) continue;
    const known = byId.get(owner);
    if (known === undefined) byId.set(owner, new Set([userId]));
    else known.add(userId);
  }
  const owned = index.registrations.filter(({ id, url }) => url !== null && byId.has(id));
  return new Map(owned.map((registration) => [registration, byId.get(registration.id) ?? new Set<string>()]));
}

/** `{user: {device: algorithm or [algorithm, …]}}`, as MSC3983 and the `one_time_keys` of a client's claim have it. Throws a RefusalError. */
export function keyClaimFrom(json: Uint8Array, field: string): KeyClaim {
  const shape = `This field is JSON of the form {"@user:server": {"DEVICE": ["algorithm"]}}, of at most ${USERS_MAX} users and ${DEVICE_KEYS_MAX} keys for a device.`;
  const users = Object.entries(objectFrom(json, field));
  if (users.length > USERS_MAX) throw malformed(field, shape);
  return new Map(
    users.map(([userId, devices]) => {
      if (!isJsonObject(devices)) throw malformed(field, shape);
      const wanted = Object.entries(devices).map(([deviceId, value]): [string, readonly string[]] => {
        const algorithms = typeof value === 'string' ? [value] : textsOf(value);
        if (algorithms === null || algorithms.length > DEVICE_KEYS_MAX) throw malformed(field, shape);
        return [deviceId, algorithms];
      });
      return [userId, new Map(wanted)];
    }),
  );
}

/** `{user: {device: {"algorithm:name": key}}}`, as claims are answered. Empty bytes are no keys. Throws a RefusalError. */
export function claimedKeysFrom(json: Uint8Array, field: string): ClaimedKeys {
  if (json.byteLength === 0) return new Map();
  const shape = 'This field is JSON of the form {"@user:server": {"DEVICE": {"algorithm:name": key}}}.';
  return new Map(
    Object.entries(objectFrom(json, field)).map(([userId, devices]) => {
      if (!isJsonObject(devices)) throw malformed(field, shape);
      return [userId, new Map(Object.entries(devices).map(([deviceId, keys]) => {
        if (!isJsonObject(keys)) throw malformed(field, shape);
        return [deviceId, new Map(Object.entries(keys))];
      }))];
    }),
  );
}

/** `{user: [device, …]}`, as MSC3984 and the `device_keys` of a client's query have it. Throws a RefusalError. */
export function keyQueryFrom(json: Uint8Array, field: string): KeyQuery {
  const shape = `This field is JSON of the form {"@user:server": ["DEVICE"]}, of at most ${USERS_MAX} users.`;
  const users = Object.entries(objectFrom(json, field));
  if (users.length > USERS_MAX) throw malformed(field, shape);
  return new Map(
    users.map(([userId, devices]) => {
      const wanted = textsOf(devices);
      if (wanted === null) throw malformed(field, shape);
      return [userId, wanted];
    }),
  );
}

/** The answer to a client's query as the homeserver has it; empty bytes are none. Throws a RefusalError. */
export function keyAnswerFrom(json: Uint8Array, field: string): JsonObject {
  const answer = json.byteLength === 0 ? {} : objectFrom(json, field);
  for (const name of ['device_keys', ...CROSS_SIGNING]) {
    const part = answer[name];
    if (part !== undefined && (!isJsonObject(part) || !Object.values(part).every(isJsonObject))) {
      throw malformed(field, `In "${name}" of this field stands an object for each user.`);
    }
  }
  return answer;
}

/** What is still wanted beside these keys: a key counts once for its algorithm, and a fallback key not at all (R100). */
export function shortfallOf(claim: KeyClaim, held: ClaimedKeys): KeyClaim {
  const missing = new Map<string, ReadonlyMap<string, readonly string[]>>();
  for (const [userId, devices] of claim) {
    const short = new Map<string, readonly string[]>();
    for (const [deviceId, algorithms] of devices) {
      const left = [...(held.get(userId)?.get(deviceId) ?? [])].filter(([, key]) => !isFallback(key)).map(([keyId]) => algorithmOf(keyId));
      const wanted = algorithms.filter((algorithm) => !takes(left, algorithm));
      if (wanted.length > 0) short.set(deviceId, wanted);
    }
    if (short.size > 0) missing.set(userId, short);
  }
  return missing;
}

/** The keys in an appservice's answer that were asked for, no more of an algorithm than that. Null if it is no object. */
export function acceptedClaim(text: string, asked: KeyClaim): Accepted<ClaimedKeys> | null {
  const answer = parsedJson(text, KEY_DEPTH_MAX);
  if (!isJsonObject(answer)) return null;
  let droppedCount = 0;
  const users = new Map<string, ReadonlyMap<string, ReadonlyMap<string, unknown>>>();
  for (const [userId, devices] of Object.entries(answer)) {
    const wantedDevices = asked.get(userId);
    if (wantedDevices === undefined || !isJsonObject(devices)) {
      droppedCount += 1;
      continue;
    }
    const accepted = new Map<string, ReadonlyMap<string, unknown>>();
    for (const [deviceId, keys] of Object.entries(devices)) {
      const wanted = [...(wantedDevices.get(deviceId) ?? [])];
      const all = isJsonObject(keys) ? Object.entries(keys) : [];
      const taken = all.filter(([keyId, key]) => (typeof key === 'string' || isJsonObject(key)) && takes(wanted, algorithmOf(keyId)));
      droppedCount += isJsonObject(keys) ? all.length - taken.length : 1;
      if (taken.length > 0) accepted.set(deviceId, new Map(taken));
    }
    if (accepted.size > 0) users.set(userId, accepted);
  }
  return { keys: users, droppedCount };
}

/** The parts of an appservice's answer that are about the users and devices that were asked for. Null if it is no object. */
export function acceptedQuery(text: string, asked: KeyQuery): Accepted<DeviceKeys> | null {
  const answer = parsedJson(text, KEY_DEPTH_MAX);
  if (!isJsonObject(answer)) return null;
  const { device_keys: allDevices = {} } = answer;
  if (!isJsonObject(allDevices)) return null;
  let droppedCount = 0;
  const devices = new Map<string, ReadonlyMap<string, JsonObject>>();
  for (const [userId, ofUser] of Object.entries(allDevices)) {
    const wanted = asked.get(userId);
    const deviceIds = new Set(wanted);
    const all = wanted !== undefined && isJsonObject(ofUser) ? Object.entries(ofUser) : [];
    const taken = all.flatMap(([deviceId, keys]): [string, JsonObject][] => (isJsonObject(keys) && (deviceIds.size === 0 || deviceIds.has(deviceId)) ? [[deviceId, keys]] : []));
    droppedCount += wanted === undefined || !isJsonObject(ofUser) ? 1 : all.length - taken.length;
    if (taken.length > 0) devices.set(userId, new Map(taken));
  }
  const crossSigning = new Map<string, ReadonlyMap<string, JsonObject>>();
  for (const name of CROSS_SIGNING) {
    const part = answer[name];
    const all = isJsonObject(part) ? Object.entries(part) : [];
    const taken = all.flatMap(([userId, key]): [string, JsonObject][] => (asked.has(userId) && isJsonObject(key) ? [[userId, key]] : []));
    droppedCount += all.length - taken.length + (part === undefined || isJsonObject(part) ? 0 : 1);
    if (taken.length > 0) crossSigning.set(name, new Map(taken));
  }
  return { keys: { devices, crossSigning }, droppedCount };
}

/** The homeserver's keys with the appservices' over them, device by device; a fallback key only as far as keys are still missing. */
export function mergedClaim(claim: KeyClaim, held: ClaimedKeys, answers: readonly ClaimedKeys[]): string {
  const users = new Map<string, Map<string, Map<string, unknown>>>();
  const lay = (keys: ClaimedKeys, isWanted: (userId: string, deviceId: string, keyId: string, key: unknown) => boolean): void => {
    for (const [userId, devices] of keys) {
      for (const [deviceId, ofDevice] of devices) {
        for (const [keyId, key] of ofDevice) {
          if (!isWanted(userId, deviceId, keyId, key)) continue;
          const ofUser = users.get(userId) ?? new Map<string, Map<string, unknown>>();
          users.set(userId, ofUser.set(deviceId, (ofUser.get(deviceId) ?? new Map<string, unknown>()).set(keyId, key)));
        }
      }
    }
  };
  lay(held, (_userId, _deviceId, _keyId, key) => !isFallback(key));
  for (const answer of answers) lay(answer, () => true);
  const missing = shortfallOf(claim, users);
  lay(held, (userId, deviceId, keyId, key) => isFallback(key) && (claim.get(userId)?.has(deviceId) !== true || missing.get(userId)?.get(deviceId)?.includes(algorithmOf(keyId)) === true));
  return JSON.stringify(Object.fromEntries([...users].map(([userId, devices]) => [userId, Object.fromEntries([...devices].map(([deviceId, keys]) => [deviceId, Object.fromEntries(keys)]))])));
}

/** The homeserver's answer with the appservices' over it: by device, and by user for the keys that sign across devices (R101). */
export function mergedQuery(held: JsonObject, answers: readonly DeviceKeys[]): string {
  const parts = new Map(Object.entries(held));
  const deviceKeys = new Map(Object.entries(objectOr(held['device_keys'])));
  for (const { devices } of answers) {
    for (const [userId, ofUser] of devices) deviceKeys.set(userId, { ...objectOr(deviceKeys.get(userId)), ...Object.fromEntries(ofUser) });
  }
  if (deviceKeys.size > 0) parts.set('device_keys', Object.fromEntries(deviceKeys));
  for (const name of CROSS_SIGNING) {
    const keys = [...Object.entries(objectOr(held[name])), ...answers.flatMap(({ crossSigning }) => [...(crossSigning.get(name) ?? [])])];
    if (keys.length > 0) parts.set(name, Object.fromEntries(keys));
  }
  return JSON.stringify(Object.fromEntries(parts));
}

/** A claim or query of these users only, in the form that the MSCs have. */
export function requestJsonOf(asked: ReadonlyMap<string, unknown>): Uint8Array {
  const plain = [...asked].map(([userId, wanted]): [string, unknown] => [userId, wanted instanceof Map ? Object.fromEntries<unknown>(wanted) : wanted]);
  return Buffer.from(JSON.stringify(Object.fromEntries(plain)));
}

export function ofUsers<Wanted>(asked: ReadonlyMap<string, Wanted>, userIds: ReadonlySet<string>): ReadonlyMap<string, Wanted> {
  return new Map([...asked].filter(([userId]) => userIds.has(userId)));
}

function objectOr(value: unknown): JsonObject {
  return isJsonObject(value) ? value : {};
}

function isFallback(key: unknown): boolean {
  return isJsonObject(key) && key['fallback'] === true;
}

function algorithmOf(keyId: string): string {
  return keyId.slice(0, Math.max(0, keyId.indexOf(':')));
}

/** Takes one out of the list; false if it is not there. */
function takes(list: string[], item: string): boolean {
  const at = list.indexOf(item);
  if (at !== -1) list.splice(at, 1);
  return at !== -1;
}

function textsOf(value: unknown): readonly string[] | null {
  if (!Array.isArray(value)) return null;
  const texts = value.filter((item: unknown): item is string => typeof item === 'string');
  return texts.length === value.length ? texts : null;
}

function objectFrom(json: Uint8Array, field: string): JsonObject {
  if (json.byteLength > REQUEST_BYTES_MAX) throw malformed(field, `This field has at most ${REQUEST_BYTES_MAX} bytes.`);
  const value = isUtf8(json) ? parsedJson(Buffer.from(json).toString('utf8'), KEY_DEPTH_MAX) : undefined;
  if (!isJsonObject(value)) throw malformed(field, `This field is a JSON object in UTF-8 that nests at most ${KEY_DEPTH_MAX} levels deep.`);
  return value;
}

function malformed(field: string, message: string): RefusalError {
  return new RefusalError('INVALID_FIELD', message, { field });
}
