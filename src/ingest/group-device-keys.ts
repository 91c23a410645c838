/**
 * The numbers of keys that go along with a group's encrypted events and to-device messages (R98): an entry of its own,
 * right before the first of the group that calls for it, with what was told last before it. A user's are told once in a
 * group, and again if they changed within it.
 */
import type { DeviceKeys } from '../appservice/device-extensions.ts';
import { deviceKeysBytes, deviceKeysEntry } from '../appservice/device-extensions.ts';
import { deviceKeysAppservices, isToldOfDevices } from '../appservice/interest.ts';
import type { RoomState } from '../room/room-state.ts';
import type { Fold } from './fold.ts';
import type { ItemSink } from './item-sink.ts';

/** Of one entry, about: several fit beside each other into a transaction. */
const ENTRY_BYTES_MAX = 64 * 1024;

export class GroupDeviceKeys {
  /** What the homeserver told with this group and some appservice is told of. */
  readonly told: DeviceKeys[] = [];
  readonly #fold: Fold;
  readonly #sink: ItemSink;
  readonly #newer = new Map<string, Map<string, DeviceKeys>>();
  /** Appservice → users of whom it is told in this group. */
  readonly #attached = new Map<string, Set<string>>();
  /** Appservice → rooms that were looked through. */
  readonly #rooms = new Map<string, Set<string>>();

  constructor(fold: Fold, sink: ItemSink) {
    this.#fold = fold;
    this.#sink = sink;
  }

  /** From here on these are the latest. */
  tell(keys: DeviceKeys): void {
    const { userId, deviceId } = keys;
    if (deviceKeysAppservices(userId, this.#fold.index).length === 0) return;
    this.told.push(keys);
    const devices = this.#newer.get(userId) ?? new Map<string, DeviceKeys>();
    this.#newer.set(userId, devices.set(deviceId, keys));
    for (const users of this.#attached.values()) users.delete(userId);
    this.#rooms.clear();
  }

  /** A to-device message to this user is next. */
  attachUser(userId: string): void {
    for (const appserviceId of deviceKeysAppservices(userId, this.#fold.index)) this.#attach(appserviceId, [userId]);
  }

  /** An encrypted event of this room, for these appservices, is next. */
  attachRoom(room: RoomState, appserviceIds: readonly string[]): void {
    for (const appserviceId of appserviceIds) {
      if (!isToldOfDevices(appserviceId, this.#fold.index)) continue;
      const looked = this.#rooms.get(appserviceId) ?? new Set<string>();
      if (looked.has(room.roomId)) continue;
      this.#rooms.set(appserviceId, looked.add(room.roomId));
      this.#attach(appserviceId, this.#keyedUsers(room));
    }
  }

  /** Local users of the room with known keys. */
  *#keyedUsers(room: RoomState): Generator<string, void, undefined> {
    const { deviceKeys } = this.#fold;
    if (room.joinedCountMax < deviceKeys.userCount) {
      for (const userId of room.joinedUsers()) yield userId;
      return;
    }
    for (const userId of deviceKeys.userIds()) if (room.isJoined(userId)) yield userId;
    for (const userId of this.#newer.keys()) if (room.isJoined(userId)) yield userId;
  }

  /** The appservice is one that is told of devices. */
  #attach(appserviceId: string, userIds: Iterable<string>): void {
    const { index } = this.#fold;
    const attached = this.#attached.get(appserviceId) ?? new Set<string>();
    this.#attached.set(appserviceId, attached);
    let devices: DeviceKeys[] = [];
    let bytes = 0;
    const add = (): void => {
      if (devices.length > 0) this.#sink.add('device_keys', deviceKeysEntry(devices), [appserviceId], 0);
      devices = [];
      bytes = 0;
    };
    for (const userId of userIds) {
      if (attached.has(userId) || !index.interested('users', userId).includes(appserviceId)) continue;
      attached.add(userId);
      for (const keys of this.#devicesOf(userId)) {
        devices.push(keys);
        bytes += deviceKeysBytes(keys);
        if (bytes >= ENTRY_BYTES_MAX) add();
      }
    }
    add();
  }

  #devicesOf(userId: string): DeviceKeys[] {
    const newer = this.#newer.get(userId);
    const known = [...this.#fold.deviceKeys.of(userId)];
    return newer === undefined ? known : [...known.filter(({ deviceId }) => !newer.has(deviceId)), ...newer.values()];
  }
}
