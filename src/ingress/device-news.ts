/** What a homeserver's transaction says of devices (MSC3202), judged. Everything here throws a RefusalError. */
import type { DeviceKeys, DeviceListChange } from '../appservice/device-extensions.ts';
import { isNamed } from '../appservice/door-object.ts';
import { identifierProblem } from '../appservice/identifier.ts';
import { isJsonObject } from '../appservice/json.ts';
import type { JsonObject } from '../appservice/json.ts';
import { RefusalError } from '../appservice/refusal.ts';

const USERS_MAX = 10_000;
const DEVICES_MAX = 10_000;
const ALGORITHMS_MAX = 20;
const ID_BYTES_MAX = 255;

/** `{"changed": [USER], "left": [USER]}`; null is none. */
export function deviceListsFrom(value: unknown): DeviceListChange[] {
  if (value === null) return [];
  if (!isJsonObject(value)) throw refusal('Changes of devices are an object with the lists "changed" and "left".');
  const changes = [...usersOf(value['changed'], false), ...usersOf(value['left'], true)];
  if (changes.length > USERS_MAX) throw refusal(`A transaction has changes of devices of at most ${USERS_MAX} users.`);
  return changes;
}

/** `{USER: {DEVICE: {ALGORITHM: count}}}` and `{USER: {DEVICE: [ALGORITHM]}}`, put together by device; null is none. */
export function deviceKeysFrom(counts: unknown, fallback: unknown): DeviceKeys[] {
  const found = new Map<string, DeviceKeys>();
  const none = { oneTimeKeyCounts: {}, unusedFallbackKeyTypes: [] };
  for (const [userId, deviceId, value] of devicesOf(counts)) {
    found.set(JSON.stringify([userId, deviceId]), { ...none, userId, deviceId, oneTimeKeyCounts: countsOf(value) });
  }
  for (const [userId, deviceId, value] of devicesOf(fallback)) {
    const key = JSON.stringify([userId, deviceId]);
    found.set(key, { ...none, userId, deviceId, ...found.get(key), unusedFallbackKeyTypes: typesOf(value) });
  }
  return [...found.values()];
}

function usersOf(list: unknown, left: boolean): DeviceListChange[] {
  if (list === undefined || list === null) return [];
  if (!Array.isArray(list)) throw refusal('"changed" and "left" are lists of user IDs.');
  return list.map((userId: unknown) => ({ userId: judgedUser(userId), left }));
}

function* devicesOf(value: unknown): Generator<[userId: string, deviceId: string, value: unknown], void, undefined> {
  if (value === null) return;
  if (!isJsonObject(value)) throw refusal('Keys of devices are an object of users.');
  let count = 0;
  for (const [user, devices] of Object.entries(value)) {
    const userId = judgedUser(user);
    if (!isJsonObject(devices)) throw refusal('The keys of a user are an object of devices.');
    for (const [device, keys] of Object.entries(devices)) {
      if (++count > DEVICES_MAX) throw refusal(`A transaction has the keys of at most ${DEVICES_MAX} devices.`);
      yield [userId, judgedId(device), keys];
    }
  }
}

function countsOf(value: unknown): Record<string, number> {
  if (!isJsonObject(value)) throw refusal('The numbers of keys of a device are an object of algorithms.');
  return Object.fromEntries(entriesOf(value).map(([algorithm, count]) => [judgedId(algorithm), judgedCount(count)]));
}

function entriesOf(value: JsonObject): [string, unknown][] {
  const entries = Object.entries(value);
  if (entries.length > ALGORITHMS_MAX) throw refusal(`A device has keys of at most ${ALGORITHMS_MAX} algorithms.`);
  return entries;
}

function judgedCount(count: unknown): number {
  if (typeof count === 'number' && Number.isSafeInteger(count) && count >= 0) return count;
  throw refusal('A number of keys is a whole number from 0.');
}

function typesOf(value: unknown): string[] {
  if (!Array.isArray(value) || value.length > ALGORITHMS_MAX) throw refusal(`The unused fallback keys of a device are a list of at most ${ALGORITHMS_MAX} algorithms.`);
  return value.map(judgedId);
}

function judgedUser(userId: unknown): string {
  const problem = isNamed(userId) ? identifierProblem({ kind: 'users', identifier: userId }) : 'A user ID has the form @name:server.';
  if (!isNamed(userId) || problem !== null) throw refusal(problem ?? 'A user ID is not empty.');
  return userId.toWellFormed();
}

function judgedId(id: unknown): string {
  if (isNamed(id) && Buffer.byteLength(id) <= ID_BYTES_MAX) return id.toWellFormed();
  throw refusal(`The name of a device or an algorithm has 1 to ${ID_BYTES_MAX} bytes.`);
}

function refusal(message: string): RefusalError {
  return new RefusalError('INVALID_FIELD', message);
}
