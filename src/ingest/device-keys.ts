/**
 * The latest numbers of keys of each device that an appservice is told of. Part of the fold: every replica that folds the
 * same segments holds the same, and a checkpoint saves it whole. So it is bounded, in devices and in bytes: beyond that the
 * user told of longest ago is forgotten, until the homeserver tells of it again.
 */
import type { DeviceKeys } from '../appservice/device-extensions.ts';
import { deviceKeysBytes } from '../appservice/device-extensions.ts';

const DEVICES_MAX = 5_000;
const BYTES_MAX = 2 * 1024 * 1024;

export class DeviceKeysFold {
  /** User → device → keys, in the order in which the users were last told of. */
  readonly #users = new Map<string, Map<string, DeviceKeys>>();
  #count = 0;
  #bytes = 0;

  apply(all: readonly DeviceKeys[]): void {
    for (const keys of all) {
      const devices = this.#users.get(keys.userId) ?? new Map<string, DeviceKeys>();
      this.#forget(devices, keys.deviceId);
      devices.set(keys.deviceId, keys);
      this.#count++;
      this.#bytes += deviceKeysBytes(keys);
      this.#users.delete(keys.userId);
      this.#users.set(keys.userId, devices);
    }
    for (const [userId, devices] of this.#users) {
      if (this.#count <= DEVICES_MAX && this.#bytes <= BYTES_MAX) break;
      for (const deviceId of [...devices.keys()]) this.#forget(devices, deviceId);
      this.#users.delete(userId);
    }
  }

  of(userId: string): Iterable<DeviceKeys> {
    return this.#users.get(userId)?.values() ?? [];
  }

  get userCount(): number {
    return this.#users.size;
  }

  userIds(): Iterable<string> {
    return this.#users.keys();
  }

  /** In an order that {@link apply} takes to the same again. */
  all(): DeviceKeys[] {
    return [...this.#users.values()].flatMap((devices) => [...devices.values()]);
  }

  #forget(devices: Map<string, DeviceKeys>, deviceId: string): void {
    const known = devices.get(deviceId);
    if (known === undefined) return;
    devices.delete(deviceId);
    this.#count--;
    this.#bytes -= deviceKeysBytes(known);
  }
}
