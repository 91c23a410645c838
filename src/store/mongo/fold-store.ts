/**
 * The materialised fold: rooms, registrations, checkpoints. Each document is written unless the stored one is as new:
 * an upsert that only matches an older one, so that a newer one shows as a key that exists already.
 */
import type { DeviceKeys } from '../../appservice/device-extensions.ts';
import type { Checkpoint, Fold, FoldChanges, PositionedRegistration, StoredHold, StoredRoom } from '../port.ts';
import type { RedeliveredKey, StoredRegistration } from '../segment.ts';
import type { CallOptions, MongoCalls } from './calls.ts';
import { isOnlyDuplicateKeys } from './driver-error.ts';
import type { StoredDocument } from './fields.ts';
import { booleanField, documentField, integerField, listField, oneOfField, optionalField, textField } from './fields.ts';
import type { CheckpointDocument, Collections, DeviceKeysFields, HoldFields, RegistrationDocument, RoomDocument } from './schema.ts';
import { appserviceKey, keysOfServer, roomKey } from './schema.ts';

export interface MongoFoldStoreOptions {
  readonly collections: Pick<Collections, 'rooms' | 'registrations' | 'checkpoints'>;
  readonly calls: MongoCalls;
}

/** Documents written or asked for in one call of the database. */
const DOCUMENTS_AT_ONCE_MAX = 1_000;

export class MongoFoldStore {
  readonly #options: MongoFoldStoreOptions;

  constructor(options: MongoFoldStoreOptions) {
    this.#options = options;
  }

  loadFold(serverName: string): Promise<Fold> {
    const { calls, collections } = this.#options;
    return calls.runNewest('loadFold', async (options) => {
      const checkpoint = await collections.checkpoints.findOne<StoredDocument>({ _id: { server_name: serverName } }, options);
      const registrations = await collections.registrations.find({ _id: keysOfServer(serverName) }, options).sort({ _id: 1 }).project<StoredDocument>({}).toArray();
      return { checkpoint: checkpointFrom(checkpoint), registrations: registrations.map(registrationFrom) };
    });
  }

  async loadRooms(serverName: string, roomIds: readonly string[]): Promise<StoredRoom[]> {
    const found: StoredRoom[] = [];
    for (const some of slices(roomIds)) {
      const rooms = await this.#options.calls.run('loadRooms', (options) =>
        this.#options.collections.rooms
          .find({ _id: { $in: some.map((roomId) => roomKey(serverName, roomId)) } }, options)
          .project<StoredDocument>({})
          .toArray(),
      );
      found.push(...rooms.map(roomFrom));
    }
    return found;
  }

  async saveFold(serverName: string, changes: FoldChanges): Promise<void> {
    const { rooms, registrations, checkpoints } = this.#options.collections;
    for (const some of slices(changes.rooms)) {
      const writes = some.map((room) => {
        const { _id, ...replacement } = roomDocument(serverName, room);
        return { replaceOne: { filter: { _id, position: { $lt: room.position } }, replacement, upsert: true } };
      });
      await this.#unlessNewer('saveFold: rooms', (options) => rooms.bulkWrite(writes, options));
    }
    for (const some of slices(changes.registrations)) {
      const writes = some.map((registration) => {
        const { _id, ...replacement } = registrationDocument(serverName, registration);
        return { replaceOne: { filter: { _id, position: { $lt: registration.position } }, replacement, upsert: true } };
      });
      await this.#unlessNewer('saveFold: registrations', (options) => registrations.bulkWrite(writes, options));
    }
    const { _id, ...replacement } = checkpointDocument(serverName, changes.checkpoint);
    const write = { replaceOne: { filter: { _id, position: { $lt: replacement.position } }, replacement, upsert: true } };
    await this.#unlessNewer('saveFold: checkpoint', (options) => checkpoints.bulkWrite([write], options));
  }

  /** An existing key is no failure: the stored document is as new, and confirmed, since the write waited for all before it. */
  #unlessNewer(name: string, write: (options: CallOptions & { readonly ordered: false }) => Promise<unknown>): Promise<void> {
    return this.#options.calls.run(name, async (options) => {
      try {
        await write({ ...options, ordered: false });
      } catch (error) {
        if (!isOnlyDuplicateKeys(error)) throw error;
      }
    });
  }
}

function* slices<Item>(items: readonly Item[]): Generator<Item[]> {
  for (let at = 0; at < items.length; at += DOCUMENTS_AT_ONCE_MAX) yield items.slice(at, at + DOCUMENTS_AT_ONCE_MAX);
}

function roomDocument(serverName: string, room: StoredRoom): RoomDocument {
  return {
    _id: roomKey(serverName, room.roomId),
    position: room.position,
    local_members: room.localMembers,
    local_aliases: room.localAliases,
    partial_members: Object.entries(room.partialMembers).map(([userId, joined]) => ({ user_id: userId, joined })),
  };
}

function roomFrom(document: StoredDocument): StoredRoom {
  const members = listField(document, 'partial_members', documentField).map((member): [string, boolean] => [textField(member, 'user_id'), booleanField(member, 'joined')]);
  return {
    roomId: textField(documentField(document, '_id'), 'room_id'),
    position: integerField(document, 'position'),
    localMembers: optionalField(document, 'local_members', textList),
    localAliases: optionalField(document, 'local_aliases', textList),
    partialMembers: Object.fromEntries(members),
  };
}

function registrationDocument(serverName: string, { appserviceId, position, since, registration, backlog }: PositionedRegistration): RegistrationDocument {
  return {
    _id: appserviceKey(serverName, appserviceId),
    position,
    since,
    backlog,
    registration: registration && {
      json: registration.json,
      as_token_sealed: registration.asTokenSealed,
      hs_token_sealed: registration.hsTokenSealed,
      as_token_hash: registration.asTokenHash,
      hs_token_hash: registration.hsTokenHash,
    },
  };
}

function registrationFrom(document: StoredDocument): PositionedRegistration {
  return {
    appserviceId: textField(documentField(document, '_id'), 'appservice_id'),
    position: integerField(document, 'position'),
    since: integerField(document, 'since'),
    registration: optionalField(document, 'registration', storedRegistrationField),
    backlog: optionalField(document, 'backlog', backlogField),
  };
}

function storedRegistrationField(document: StoredDocument, name: string): StoredRegistration {
  const fields = documentField(document, name);
  return {
    json: textField(fields, 'json'),
    asTokenSealed: textField(fields, 'as_token_sealed'),
    hsTokenSealed: textField(fields, 'hs_token_sealed'),
    asTokenHash: textField(fields, 'as_token_hash'),
    hsTokenHash: textField(fields, 'hs_token_hash'),
  };
}

function checkpointDocument(serverName: string, { position, registrationsVersion, streamPositions, deviceKeys, holds, redelivered }: Checkpoint): CheckpointDocument {
  return {
    _id: { server_name: serverName },
    position,
    registrations_version: registrationsVersion,
    stream_positions: Object.entries(streamPositions).map(([stream, streamPosition]) => ({ stream, position: streamPosition })),
    ...(deviceKeys === undefined ? {} : { device_keys: deviceKeys.map(fieldsFromDeviceKeys) }),
    ...(redelivered === undefined ? {} : { redelivered: redelivered.map(({ appserviceId, txnId }) => ({ appservice_id: appserviceId, txn_id: txnId })) }),
    ...(holds === undefined ? {} : { holds: holds.map(fieldsFromHold) }),
  };
}

function checkpointFrom(document: StoredDocument | null): Checkpoint {
  if (document === null) return { position: 0, streamPositions: {}, registrationsVersion: 0 };
  const streams = listField(document, 'stream_positions', documentField).map((item): [string, number] => [textField(item, 'stream'), integerField(item, 'position')]);
  return {
    position: integerField(document, 'position'),
    streamPositions: Object.fromEntries(streams),
    registrationsVersion: integerField(document, 'registrations_version'),
    ...(document['device_keys'] === undefined ? {} : { deviceKeys: listField(document, 'device_keys', deviceKeysField) }),
    ...(document['redelivered'] === undefined ? {} : { redelivered: listField(document, 'redelivered', documentField).map(redeliveredKeyFrom) }),
    ...(document['holds'] === undefined ? {} : { holds: listField(document, 'holds', holdField) }),
  };
}

function redeliveredKeyFrom(fields: StoredDocument): RedeliveredKey {
  return { appserviceId: textField(fields, 'appservice_id'), txnId: textField(fields, 'txn_id') };
}

function fieldsFromDeviceKeys({ userId, deviceId, oneTimeKeyCounts, unusedFallbackKeyTypes }: DeviceKeys): DeviceKeysFields {
  const counts = Object.entries(oneTimeKeyCounts).map(([algorithm, count]) => ({ algorithm, count }));
  return { user_id: userId, device_id: deviceId, one_time_keys: counts, unused_fallback_key_types: unusedFallbackKeyTypes };
}

function deviceKeysField(document: StoredDocument, name: string): DeviceKeys {
  const fields = documentField(document, name);
  const counts = listField(fields, 'one_time_keys', documentField).map((item): [string, number] => [textField(item, 'algorithm'), integerField(item, 'count')]);
  return {
    userId: textField(fields, 'user_id'),
    deviceId: textField(fields, 'device_id'),
    oneTimeKeyCounts: Object.fromEntries(counts),
    unusedFallbackKeyTypes: textList(fields, 'unused_fallback_key_types'),
  };
}

function fieldsFromHold({ appserviceId, roomId, userIds, entries }: StoredHold): HoldFields {
  return { appservice_id: appserviceId, room_id: roomId, user_ids: userIds, entries: entries.map(({ firstPosition, index }) => ({ first_position: firstPosition, index })) };
}

function holdField(document: StoredDocument, name: string): StoredHold {
  const fields = documentField(document, name);
  const entries = listField(fields, 'entries', documentField).map((entry) => ({ firstPosition: integerField(entry, 'first_position'), index: integerField(entry, 'index') }));
  return { appserviceId: textField(fields, 'appservice_id'), roomId: textField(fields, 'room_id'), userIds: textList(fields, 'user_ids'), entries };
}

function textList(document: StoredDocument, name: string): string[] {
  return listField(document, name, textField);
}

function backlogField(document: StoredDocument, name: string): 'discard' | 'park' {
  return oneOfField(document, name, ['discard', 'park']);
}
