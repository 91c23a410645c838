/**
 * Registrations at rest: everything in the clear but the tokens (M10, I12).
 *
 * A sealed token is `v1.KEYID.NONCE.CIPHERTEXT.TAG` in base64url: AES-256-GCM, with the server name, the appservice id
 * and the field as additional data, so that sealed text cannot be moved to another owner or field. A token is found by its
 * keyed hash, `v1.KEYID.HASH`: HMAC-SHA-256 under a key of its own.
 */
import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto';
import { z } from 'zod';
import type { DeliveryOptions, Registration } from '../appservice/registration.ts';
import type { Random } from '../clock.ts';
import { StoreError } from '../store/errors.ts';
import type { StoredRegistration } from '../store/segment.ts';
import type { EncryptionKey, EncryptionKeys } from './encryption-key.ts';

/** Who put a registration: a caller of PutRegistration, or the files of ROUTER_REGISTRATIONS. */
export type RegistrationOrigin = 'api' | 'files';

type TokenField = 'as_token' | 'hs_token';

const VERSION = 'v1';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

const namespacesSchema = z.array(z.object({ regex: z.string(), exclusive: z.boolean() }));
/** What `json` of a stored registration holds. Keys of a newer release are passed over. */
const storedSchema = z.object({
  origin: z.enum(['api', 'files']),
  id: z.string(),
  url: z.string().nullable(),
  sender_localpart: z.string(),
  namespaces: z.object({ users: namespacesSchema, aliases: namespacesSchema, rooms: namespacesSchema }),
  protocols: z.array(z.string()),
  rate_limited: z.boolean(),
  receive_ephemeral: z.boolean(),
  push_ephemeral_unstable: z.boolean(),
  device_extensions: z.boolean(),
  delivery_options: z.object({
    legacy_paths: z.enum(['off', 'unrecognized', 'any_error']).optional(),
    legacy_auth: z.enum(['off', 'both', 'query_only']).optional(),
    push_timeout_ms: z.number().optional(),
    query_timeout_ms: z.number().optional(),
    proxy: z.string().optional(),
    ca_file: z.string().optional(),
  }),
});

export class Vault {
  #keys: EncryptionKeys;
  #current: EncryptionKey;
  readonly #random: Pick<Random, 'hex'>;
  readonly #rereadKeys: () => EncryptionKeys | null;

  /**
   * `random` must be unpredictable and must never repeat. `rereadKeys` gives the keys if they have changed since its last
   * call: it is asked before something is sealed, and when something is sealed with a key that is not here.
   */
  constructor(keys: EncryptionKeys, random: Pick<Random, 'hex'>, rereadKeys: () => EncryptionKeys | null = () => null) {
    const [current] = keys.sealing;
    if (current === undefined) throw new Error('a vault needs a key');
    this.#keys = keys;
    this.#current = current;
    this.#random = random;
    this.#rereadKeys = rereadKeys;
  }

  /** Names the key that seals. */
  get sealingKeyId(): string {
    return this.#current.id;
  }

  /** Of all keys that open, that which seals first. */
  get keyIds(): string[] {
    return this.#keys.sealing.map(({ id }) => id);
  }

  /** Takes these keys from now on. The lookup key must be the same: hashes under two keys do not compare. */
  adopt(keys: EncryptionKeys): void {
    const [current] = keys.sealing;
    if (current === undefined || keys.lookup.id !== this.#keys.lookup.id) throw new Error('a vault is given other keys than it can take');
    this.#keys = keys;
    this.#current = current;
  }

  /** Takes the keys as they are by now. */
  reread(): void {
    const keys = this.#rereadKeys();
    if (keys !== null) this.adopt(keys);
  }

  /** Two sealings of one registration differ in their sealed tokens alone. */
  seal(serverName: string, registration: Registration, origin: RegistrationOrigin): StoredRegistration {
    const { id, as_token, hs_token } = registration;
    this.reread();
    return {
      json: jsonFrom(registration, origin),
      asTokenSealed: this.#seal(serverName, id, 'as_token', as_token),
      hsTokenSealed: this.#seal(serverName, id, 'hs_token', hs_token),
      asTokenHash: this.tokenHash(as_token),
      hsTokenHash: this.tokenHash(hs_token),
    };
  }

  /** Throws a StoreError of kind `unreadable` if it was sealed with a key that is not here, for another owner, or is damaged. */
  open(serverName: string, appserviceId: string, stored: StoredRegistration): Registration {
    const { origin: _, delivery_options: options, ...fields } = storedFrom(appserviceId, stored);
    return {
      ...fields,
      as_token: this.#open(serverName, appserviceId, 'as_token', stored.asTokenSealed),
      hs_token: this.#open(serverName, appserviceId, 'hs_token', stored.hsTokenSealed),
      delivery_options: optionsFrom(options),
    };
  }

  /** Equal for equal tokens, as long as the lookup key stays. Comparing hashes tells nothing of a token by its timing (R19). */
  tokenHash(token: string): string {
    const { id, lookup } = this.#keys.lookup;
    return `${VERSION}.${id}.${createHmac('sha256', lookup).update(token).digest('base64url')}`;
  }

  /** The ids of the keys with which its tokens are sealed, each once. */
  sealedWith({ asTokenSealed, hsTokenSealed }: StoredRegistration): string[] {
    return [...new Set([asTokenSealed, hsTokenSealed].map((text) => text.split('.')[1] ?? ''))];
  }

  /** True if both tokens are sealed with the key that seals now. */
  isSealedAnew(stored: StoredRegistration): boolean {
    return this.sealedWith(stored).every((id) => id === this.#current.id);
  }

  /** False if another key sealed or hashed it than would now. */
  isCurrent(stored: StoredRegistration): boolean {
    const sealed = `${VERSION}.${this.#current.id}.`;
    const hashed = `${VERSION}.${this.#keys.lookup.id}.`;
    const { asTokenSealed, hsTokenSealed, asTokenHash, hsTokenHash } = stored;
    return [asTokenSealed, hsTokenSealed].every((text) => text.startsWith(sealed)) && [asTokenHash, hsTokenHash].every((text) => text.startsWith(hashed));
  }

  /** Another router may have put the key into the file since. */
  #keyOf(keyId: string): EncryptionKey | undefined {
    const find = (): EncryptionKey | undefined => this.#keys.sealing.find(({ id }) => id === keyId);
    const known = find();
    if (known !== undefined) return known;
    this.reread();
    return find();
  }

  #seal(serverName: string, appserviceId: string, field: TokenField, token: string): string {
    const { id, sealing } = this.#current;
    const nonce = Buffer.from(this.#random.hex(NONCE_BYTES), 'hex');
    if (nonce.byteLength !== NONCE_BYTES) throw new Error(`sealing needs ${NONCE_BYTES} random bytes in hex`);
    const cipher = createCipheriv('aes-256-gcm', sealing, nonce, { authTagLength: TAG_BYTES }).setAAD(ownerOf(id, serverName, appserviceId, field));
    const ciphertext = Buffer.concat([cipher.update(token, 'utf8'), cipher.final()]);
    return [VERSION, id, ...[nonce, ciphertext, cipher.getAuthTag()].map((bytes) => bytes.toString('base64url'))].join('.');
  }

  #open(serverName: string, appserviceId: string, field: TokenField, sealed: string): string {
    const [version, keyId, ...parts] = sealed.split('.');
    const [nonce, ciphertext, tag] = parts.map((part) => Buffer.from(part, 'base64url'));
    if (version !== VERSION || keyId === undefined || parts.length !== 3 || nonce?.byteLength !== NONCE_BYTES || ciphertext === undefined || tag?.byteLength !== TAG_BYTES) {
      throw new StoreError('unreadable', `The stored ${field} of the appservice "${appserviceId}" has a form that this release does not know. Use the release that wrote it, or put the registration again.`);
    }
    const key = this.#keyOf(keyId);
    if (key === undefined) {
      const known = this.#keys.sealing.map(({ id }) => id).join(', ');
      const message = `The stored ${field} of the appservice "${appserviceId}" is sealed with the key ${keyId}, and the encryption key file holds ${known}. Add the key it was sealed with to that file.`;
      throw new StoreError('unreadable', message);
    }
    try {
      const decipher = createDecipheriv('aes-256-gcm', key.sealing, nonce, { authTagLength: TAG_BYTES }).setAAD(ownerOf(keyId, serverName, appserviceId, field)).setAuthTag(tag);
      return Buffer.concat([decipher.update(ciphertext), decipher.final()]).toString('utf8');
    } catch {
      // The cause is left out: it says nothing more, and nothing of a token can be in it.
      throw new StoreError('unreadable', `The stored ${field} of the appservice "${appserviceId}" is damaged, or was sealed for another appservice. Put the registration again.`);
    }
  }
}

/** Who put a stored registration. Throws a StoreError of kind `unreadable`. */
export function originOf(appserviceId: string, stored: StoredRegistration): RegistrationOrigin {
  return storedFrom(appserviceId, stored).origin;
}

function ownerOf(keyId: string, serverName: string, appserviceId: string, field: TokenField): Buffer {
  return Buffer.from(JSON.stringify([VERSION, keyId, serverName, appserviceId, field]));
}

/** Equal registrations of one origin give equal text. */
function jsonFrom(registration: Registration, origin: RegistrationOrigin): string {
  const { id, url, sender_localpart, namespaces, protocols, rate_limited, receive_ephemeral, push_ephemeral_unstable, device_extensions } = registration;
  const { legacy_paths, legacy_auth, push_timeout_ms, query_timeout_ms, proxy, ca_file } = registration.delivery_options;
  const plain = (list: Registration['namespaces']['users']): unknown => list.map(({ regex, exclusive }) => ({ regex, exclusive }));
  return JSON.stringify({
    origin, id, url, sender_localpart,
    namespaces: { users: plain(namespaces.users), aliases: plain(namespaces.aliases), rooms: plain(namespaces.rooms) },
    protocols, rate_limited, receive_ephemeral, push_ephemeral_unstable, device_extensions,
    delivery_options: { legacy_paths, legacy_auth, push_timeout_ms, query_timeout_ms, proxy, ca_file },
  });
}

function storedFrom(appserviceId: string, { json }: StoredRegistration): z.output<typeof storedSchema> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    value = null;
  }
  const read = storedSchema.safeParse(value);
  if (read.success && read.data.id === appserviceId) return read.data;
  throw new StoreError('unreadable', `The stored registration of the appservice "${appserviceId}" is damaged, or a newer release wrote it. Use that release, or put the registration again.`);
}

function optionsFrom({ legacy_paths, legacy_auth, push_timeout_ms, query_timeout_ms, proxy, ca_file }: z.output<typeof storedSchema>['delivery_options']): DeliveryOptions {
  return {
    ...(legacy_paths === undefined ? {} : { legacy_paths }),
    ...(legacy_auth === undefined ? {} : { legacy_auth }),
    ...(push_timeout_ms === undefined ? {} : { push_timeout_ms }),
    ...(query_timeout_ms === undefined ? {} : { query_timeout_ms }),
    ...(proxy === undefined ? {} : { proxy }),
    ...(ca_file === undefined ? {} : { ca_file }),
  };
}
