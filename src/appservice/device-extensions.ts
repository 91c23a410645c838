/**
 * What MSC3202 tells appservices of devices, as log entries and as the objects of a transaction's body that entries come
 * to together: of several about one user or one device the last counts (R95).
 *
 *   entry of kind device_list   {"user_id": …, "left": …}
 *   entry of kind device_keys   {USER: {DEVICE: {"counts": {ALGORITHM: …}, "fallback": [ALGORITHM, …]}, …}, …}
 */

/** A user's devices changed, or the appservice shares no room with the user any more. */
export interface DeviceListChange {
  readonly userId: string;
  readonly left: boolean;
}

/** One device's keys on the homeserver: how many one-time keys by algorithm, and which unused fallback keys. */
export interface DeviceKeys {
  readonly userId: string;
  readonly deviceId: string;
  readonly oneTimeKeyCounts: Readonly<Record<string, number>>;
  readonly unusedFallbackKeyTypes: readonly string[];
}

/** Names and brackets around the keys of a device; a number, with its quotes, colon and comma. */
const DEVICE_OVERHEAD_BYTES = 100;
const COUNT_BYTES = 15;

interface JsonEntry {
  readonly json: Uint8Array;
}

interface KeysOfDevice {
  readonly counts: Readonly<Record<string, number>>;
  readonly fallback: readonly string[];
}

type KeysByUser = Readonly<Record<string, Readonly<Record<string, KeysOfDevice>>>>;

export function deviceListEntry({ userId, left }: DeviceListChange): Uint8Array {
  return Buffer.from(JSON.stringify({ user_id: userId, left }));
}

export function deviceKeysEntry(devices: readonly DeviceKeys[]): Uint8Array {
  const users = new Map<string, Map<string, KeysOfDevice>>();
  for (const { userId, deviceId, oneTimeKeyCounts, unusedFallbackKeyTypes } of devices) {
    devicesOf(users, userId).set(deviceId, { counts: oneTimeKeyCounts, fallback: unusedFallbackKeyTypes });
  }
  return Buffer.from(textOf(users, (keys) => keys));
}

/** Bytes of one device's keys as JSON, about, and rather more. */
export function deviceKeysBytes({ userId, deviceId, oneTimeKeyCounts, unusedFallbackKeyTypes }: DeviceKeys): number {
  let length = DEVICE_OVERHEAD_BYTES + userId.length + deviceId.length;
  for (const algorithm in oneTimeKeyCounts) length += algorithm.length + COUNT_BYTES;
  for (const algorithm of unusedFallbackKeyTypes) length += algorithm.length + COUNT_BYTES;
  return length;
}

/** `{"changed":[…],"left":[…]}`: each user in one of them, as the last entry says. */
export function deviceListsText(entries: readonly JsonEntry[]): string {
  const hasLeft = new Map<string, boolean>();
  for (const { json } of entries) {
    // Entries of this kind are made by deviceListEntry alone.
    const { user_id: userId, left } = JSON.parse(stringOf(json)) as { readonly user_id: string; readonly left: boolean };
    hasLeft.set(userId, left);
  }
  const users = [...hasLeft.keys()];
  return JSON.stringify({ changed: users.filter((userId) => hasLeft.get(userId) === false), left: users.filter((userId) => hasLeft.get(userId) === true) });
}

/** `{USER: {DEVICE: {ALGORITHM: count}}}`; a device without one-time keys has an empty object (R97). */
export function oneTimeKeysText(entries: readonly JsonEntry[]): string {
  return textOf(keysByUser(entries), ({ counts }) => counts);
}

/** `{USER: {DEVICE: [ALGORITHM]}}`; a device without unused fallback keys has an empty list (R97). */
export function fallbackKeysText(entries: readonly JsonEntry[]): string {
  return textOf(keysByUser(entries), ({ fallback }) => fallback);
}

function keysByUser(entries: readonly JsonEntry[]): Map<string, Map<string, KeysOfDevice>> {
  const users = new Map<string, Map<string, KeysOfDevice>>();
  for (const { json } of entries) {
    // Entries of this kind are made by deviceKeysEntry alone.
    const keys = JSON.parse(stringOf(json)) as KeysByUser;
    for (const [userId, devices] of Object.entries(keys)) {
      for (const [deviceId, device] of Object.entries(devices)) devicesOf(users, userId).set(deviceId, device);
    }
  }
  return users;
}

function devicesOf(users: Map<string, Map<string, KeysOfDevice>>, userId: string): Map<string, KeysOfDevice> {
  let devices = users.get(userId);
  if (devices === undefined) users.set(userId, (devices = new Map<string, KeysOfDevice>()));
  return devices;
}

function textOf(users: ReadonlyMap<string, ReadonlyMap<string, KeysOfDevice>>, shown: (keys: KeysOfDevice) => unknown): string {
  const objects = [...users].map(([userId, devices]) => [userId, Object.fromEntries([...devices].map(([deviceId, keys]) => [deviceId, shown(keys)]))]);
  return JSON.stringify(Object.fromEntries(objects));
}

function stringOf(json: Uint8Array): string {
  return Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString();
}
