/**
 * The latest numbers of keys of each device that an appservice is told of. Part of the fold: every replica that folds the
 * same segments holds the same, and a checkpoint saves it whole. Bounded: beyond the limit the user told of longest ago is
 * forgotten, until the homeserver tells of it again.
 */
import type { DeviceKeys } from '../appservice/device-extensions.ts';

/** A checkpoint holds as many, at some hundred bytes each. */
const DEVICES_MAX = 5_000;

export class DeviceKeysFold {
  /** User → device → keys, in the order in which the users were last told of. */
  readonly #users = new Map<string, Map<string, DeviceKeys>>();
  #count = 0;

  apply(all: readonly DeviceKeys[]): void {
    for (const keys of all) {
      const devices = this.#users.get(keys.userId) ?? new Map<string, DeviceKeys>();
      if (!devices.has(keys.deviceId)) this.#count++;
      devices.set(keys.deviceId, keys);
      this.#users.delete(keys.userId);
      this.#users.set(keys.userId, devices);
    }
    for (const [userId, devices] of this.#users) {
      if (this.#count <= DEVICES_MAX) break;
      this.#users.delete(userId);
      this.#count -= devices.size;
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
}
