/** The appservices of the simulation and what their registrations may be; a few variants each, so that what is computed of them is kept. */
import type { Registration } from '../../src/appservice/registration.ts';
import type { Vault } from '../../src/registration/vault.ts';
import type { StoredRegistration } from '../../src/store/segment.ts';

export const SERVER = 'hs.test';
export const APPSERVICE_IDS: readonly string[] = Array.from({ length: 12 }, (_, at) => `as${at}`);
export const VARIANT_COUNT = 4;

const known = new Map<string, Registration>();

/** Variant 0 is the usual one; 1 claims more; 2 has moved; 3 has no url. */
export function registrationOf(id: string, variant: number): Registration {
  const key = `${id}/${variant}`;
  let registration = known.get(key);
  if (registration === undefined) known.set(key, (registration = made(id, variant)));
  return registration;
}

function made(id: string, variant: number): Registration {
  const number = Number(id.slice(2));
  const users = [{ regex: `@_${id}_.*:hs\\.test`, exclusive: true }];
  if (number % 4 === 1) users.push({ regex: '@_as(?:2|3)_g.*', exclusive: false });
  if (variant === 1) users.push({ regex: '@person[0-3]:', exclusive: false });
  return {
    id,
    url: variant === 3 ? null : `http://${id}${variant === 2 ? '-moved' : ''}.test/`,
    as_token: `as-token-of-${id}`,
    hs_token: `hs-token-of-${id}-${variant}`,
    sender_localpart: `_${id}_bot`,
    namespaces: {
      users,
      aliases: [{ regex: `#_${id}_.*`, exclusive: true }],
      rooms: number === 0 ? [{ regex: '!', exclusive: false }] : number === 5 ? [{ regex: '!room[0-3]:', exclusive: false }] : [],
    },
    protocols: [],
    rate_limited: true,
    receive_ephemeral: number % 3 === 0,
    push_ephemeral_unstable: false,
    device_extensions: false,
    delivery_options: number === 7 ? { push_timeout_ms: 20_000 } : {},
  };
}

/** Nothing is sealed: that is not what is simulated. */
export const PLAIN_VAULT: Pick<Vault, 'seal' | 'tokenHash' | 'isSealedAnew'> = {
  seal: (_serverName, registration) => plainStored(registration),
  tokenHash: (token) => `hash of ${token}`,
  isSealedAnew: () => true,
};

const stored = new WeakMap<Registration, StoredRegistration>();
const opened = new WeakMap<StoredRegistration, Registration>();

function plainStored(registration: Registration): StoredRegistration {
  let plain = stored.get(registration);
  if (plain === undefined) {
    const { as_token: asTokenSealed, hs_token: hsTokenSealed, ...rest } = registration;
    plain = { json: JSON.stringify({ origin: 'api', ...rest }), asTokenSealed, hsTokenSealed, asTokenHash: `hash of ${asTokenSealed}`, hsTokenHash: `hash of ${hsTokenSealed}` };
    stored.set(registration, plain);
    opened.set(plain, registration);
  }
  return plain;
}

export function registrationFrom(plain: StoredRegistration): Registration {
  const registration = opened.get(plain);
  if (registration === undefined) throw new Error('a registration was not stored as it was put');
  return registration;
}
