/** Registrations on the wire and in the domain. Tokens go in and never out (M10). */
import type { MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { RegistrationSchema } from '../../gen/matrix/appservice/v1/registration_pb.ts';
import {
  Registration_DeliveryOptions_LegacyAuth as LegacyAuth,
  Registration_DeliveryOptions_LegacyPaths as LegacyPaths,
} from '../../gen/matrix/appservice/v1/registration_pb.ts';
import type { DeliveryOptions, Namespace, Registration } from '../appservice/registration.ts';

type WireRegistration = MessageShape<typeof RegistrationSchema>;

const PATHS = { off: LegacyPaths.OFF, unrecognized: LegacyPaths.UNRECOGNIZED, any_error: LegacyPaths.ANY_ERROR } as const;
const AUTH = { off: LegacyAuth.OFF, both: LegacyAuth.BOTH, query_only: LegacyAuth.QUERY_ONLY } as const;

/** Not judged here: the same rules as for a file hold for it. */
export function registrationFrom(wire: WireRegistration, rateLimitedDefault: boolean): Registration {
  return {
    id: wire.id,
    url: wire.url === undefined || wire.url === '' ? null : wire.url,
    as_token: wire.asToken,
    hs_token: wire.hsToken,
    sender_localpart: wire.senderLocalpart,
    namespaces: {
      users: namespacesFrom(wire.namespaces?.users),
      aliases: namespacesFrom(wire.namespaces?.aliases),
      rooms: namespacesFrom(wire.namespaces?.rooms),
    },
    protocols: [...wire.protocols],
    rate_limited: wire.rateLimited ?? rateLimitedDefault,
    receive_ephemeral: wire.receiveEphemeral,
    push_ephemeral_unstable: wire.pushEphemeral,
    device_extensions: wire.deviceExtensions,
    delivery_options: deliveryOptionsFrom(wire.deliveryOptions),
  };
}

function namespacesFrom(wire: readonly { regex: string; exclusive: boolean }[] | undefined): Namespace[] {
  return (wire ?? []).map(({ regex, exclusive }) => ({ regex, exclusive }));
}

function deliveryOptionsFrom(wire: WireRegistration['deliveryOptions']): DeliveryOptions {
  if (wire === undefined) return {};
  const paths = Object.entries(PATHS).find(([, value]) => value === wire.legacyPaths)?.[0] as keyof typeof PATHS | undefined;
  const auth = Object.entries(AUTH).find(([, value]) => value === wire.legacyAuth)?.[0] as keyof typeof AUTH | undefined;
  return {
    ...(paths === undefined ? {} : { legacy_paths: paths }),
    ...(auth === undefined ? {} : { legacy_auth: auth }),
    ...(wire.pushTimeoutMs === undefined ? {} : { push_timeout_ms: wire.pushTimeoutMs }),
    ...(wire.queryTimeoutMs === undefined ? {} : { query_timeout_ms: wire.queryTimeoutMs }),
    ...(wire.proxy === undefined ? {} : { proxy: wire.proxy }),
    ...(wire.caFile === undefined ? {} : { ca_file: wire.caFile }),
  };
}

/** The registration without its tokens. */
export function registrationTo(registration: Registration): MessageInitShape<typeof RegistrationSchema> {
  const { users, aliases, rooms } = registration.namespaces;
  const { legacy_paths: paths, legacy_auth: auth, ...options } = registration.delivery_options;
  return {
    id: registration.id,
    ...(registration.url === null ? {} : { url: registration.url }),
    senderLocalpart: registration.sender_localpart,
    namespaces: { users: [...users], aliases: [...aliases], rooms: [...rooms] },
    protocols: [...registration.protocols],
    rateLimited: registration.rate_limited,
    receiveEphemeral: registration.receive_ephemeral,
    pushEphemeral: registration.push_ephemeral_unstable,
    deviceExtensions: registration.device_extensions,
    deliveryOptions: {
      legacyPaths: paths === undefined ? LegacyPaths.UNSPECIFIED : PATHS[paths],
      legacyAuth: auth === undefined ? LegacyAuth.UNSPECIFIED : AUTH[auth],
      ...(options.push_timeout_ms === undefined ? {} : { pushTimeoutMs: options.push_timeout_ms }),
      ...(options.query_timeout_ms === undefined ? {} : { queryTimeoutMs: options.query_timeout_ms }),
      ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
      ...(options.ca_file === undefined ? {} : { caFile: options.ca_file }),
    },
  };
}
