/** Registrations, events and submissions as the ingest tests need them. */
import { parseEvent } from '../../src/appservice/event.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import type { ParsedSubmission } from '../../src/ingest/submission.ts';
import type { StoredRegistration } from '../../src/store/segment.ts';

export const SERVER = 'hs.test';

export function registration(id: string, changes: Partial<Registration> = {}): Registration {
  return {
    id,
    url: `http://127.0.0.1:1/${id}`,
    as_token: `as-${id}`,
    hs_token: `hs-${id}`,
    sender_localpart: `_${id}_bot`,
    namespaces: { users: [{ regex: `@_${id}_.*:hs\\.test`, exclusive: true }], aliases: [{ regex: `#${id}_.*`, exclusive: false }], rooms: [] },
    protocols: [],
    rate_limited: true,
    receive_ephemeral: false,
    push_ephemeral_unstable: false,
    device_extensions: false,
    delivery_options: {},
    ...changes,
  };
}

/** A registration at rest with nothing sealed, for tests that are not about secrecy. */
export function plainStored(value: Registration): StoredRegistration {
  const { as_token: asToken, hs_token: hsToken, ...rest } = value;
  return { json: JSON.stringify(rest), asTokenSealed: asToken, hsTokenSealed: hsToken, asTokenHash: `h(${asToken})`, hsTokenHash: `h(${hsToken})` };
}

export function openPlain(_serverName: string, _appserviceId: string, stored: StoredRegistration): Registration {
  return { ...(JSON.parse(stored.json) as Registration), as_token: stored.asTokenSealed, hs_token: stored.hsTokenSealed };
}

export interface EventFields {
  readonly id: string;
  readonly room?: string;
  readonly type?: string;
  readonly sender?: string;
  readonly stateKey?: string;
  readonly membership?: string;
}

export function eventJson({ id, room = '!r:hs.test', type = 'm.room.message', sender = '@alice:hs.test', stateKey, membership }: EventFields): Uint8Array {
  const content = membership === undefined ? { body: id } : { membership };
  return Buffer.from(JSON.stringify({ event_id: id, room_id: room, type, sender, content, ...(stateKey === undefined ? {} : { state_key: stateKey }) }));
}

export function member(id: string, userId: string, membership: string, room?: string): EventFields {
  return { id, type: 'm.room.member', sender: userId, stateKey: userId, membership, ...(room === undefined ? {} : { room }) };
}

export function submission(events: readonly (EventFields & { at?: number })[], extra: Partial<ParsedSubmission> = {}): ParsedSubmission {
  const parsed = events.map((fields) => ({ event: parseEvent(eventJson(fields), 'events'), streamPosition: fields.at ?? 0 }));
  const bytes = parsed.reduce((sum, { event }) => sum + event.json.byteLength, 0);
  return { stream: '', events: parsed, rooms: [], bytes, ...extra };
}
