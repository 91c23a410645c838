/**
 * Which keys of a transaction's body an appservice reads, beside `events`, by what its registration opted in to
 * (Application Service API, "Pushing ephemeral data"; MSC2409, MSC3202, MSC4203).
 *
 * Decided from the registration in force at the cut and kept with the transaction, under the names on the wire: a body is
 * the same for ever, whatever the registration says by then (I3).
 */
import type { Registration } from './registration.ts';

/** What a log entry that is routed to appservices carries. */
export type RoutedKind = 'event' | 'ephemeral' | 'to_device' | 'device_list' | 'device_keys';

/** The order here is the order in a body. */
export const BODY_KEYS = [
  'ephemeral',
  'de.sorunome.msc2409.ephemeral',
  'de.sorunome.msc2409.to_device',
  'org.matrix.msc3202.device_lists',
  'org.matrix.msc3202.device_one_time_keys_count',
  'org.matrix.msc3202.device_unused_fallback_key_types',
] as const;

export type BodyKey = (typeof BODY_KEYS)[number];

/** What is shown under a key. */
export const KIND_OF_KEY: Readonly<Record<BodyKey, RoutedKind>> = {
  ephemeral: 'ephemeral',
  'de.sorunome.msc2409.ephemeral': 'ephemeral',
  'de.sorunome.msc2409.to_device': 'to_device',
  'org.matrix.msc3202.device_lists': 'device_list',
  'org.matrix.msc3202.device_one_time_keys_count': 'device_keys',
  'org.matrix.msc3202.device_unused_fallback_key_types': 'device_keys',
};

type OptIns = Pick<Registration, 'receive_ephemeral' | 'push_ephemeral_unstable' | 'device_extensions'>;

/** R78, R13: under either name. */
export function wantsEphemeral({ receive_ephemeral: stable, push_ephemeral_unstable: unstable }: OptIns): boolean {
  return stable || unstable;
}

/** To-device messages came with MSC2409 and have no flag of their own. */
export function wantsToDevice(registration: OptIns): boolean {
  return wantsEphemeral(registration) || wantsDeviceExtensions(registration);
}

/** R94: device lists, counts of one-time keys, types of unused fallback keys. */
export function wantsDeviceExtensions({ device_extensions: wanted }: OptIns): boolean {
  return wanted;
}

/** All keys that an appservice with this registration reads, in the order of a body (R80, R90, R94, R99). */
export function bodyKeysOf(registration: OptIns): readonly BodyKey[] {
  return BODY_KEYS.filter((key) => {
    if (key === 'ephemeral') return registration.receive_ephemeral;
    if (key === 'de.sorunome.msc2409.ephemeral') return registration.push_ephemeral_unstable;
    return key === 'de.sorunome.msc2409.to_device' ? wantsToDevice(registration) : wantsDeviceExtensions(registration);
  });
}
