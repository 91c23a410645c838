/**
 * Who gets an item, as the requirements say it (R21 to R46, R89) and with nothing of the code under test: one RegExp at a
 * time against the truth of the room. The measure for I9. What was found out is kept, since registrations, users and rooms
 * are few.
 */
import { SERVER } from './registrations.ts';
import type { Item, RoomTruth } from './rooms.ts';

interface ModelNamespace {
  readonly regex: string;
}

/** As it stands in the log. */
export interface ModelRegistration {
  readonly id: string;
  readonly url: string | null;
  readonly sender_localpart: string;
  readonly namespaces: { readonly users: readonly ModelNamespace[]; readonly aliases: readonly ModelNamespace[]; readonly rooms: readonly ModelNamespace[] };
  readonly receive_ephemeral: boolean;
}

const known = new Map<string, ModelAppservice>();

/** The same object for the same text. */
export function modelFrom(json: string): ModelAppservice {
  let model = known.get(json);
  if (model === undefined) known.set(json, (model = new ModelAppservice(JSON.parse(json) as ModelRegistration)));
  return model;
}

export class ModelAppservice {
  readonly id: string;
  readonly #registration: ModelRegistration;
  readonly #sender: string;
  readonly #patterns: Readonly<Record<'users' | 'aliases' | 'rooms', readonly RegExp[]>>;
  readonly #users = new Map<string, boolean>();
  readonly #rooms = new WeakMap<RoomTruth, boolean>();

  constructor(registration: ModelRegistration) {
    const { namespaces } = registration;
    this.id = registration.id;
    this.#registration = registration;
    this.#sender = `@${registration.sender_localpart}:${SERVER}`;
    this.#patterns = { users: compiled(namespaces.users), aliases: compiled(namespaces.aliases), rooms: compiled(namespaces.rooms) };
  }

  wants(item: Item): boolean {
    if (this.#registration.url === null) return false;
    if (item.kind === 'to_device') return this.#registration.receive_ephemeral && this.#isOurs(item.toUserId);
    if (this.#wantsRoom(item.after) || this.#isOurs(item.sender)) return true;
    return item.type === 'm.room.member' && item.stateKey !== undefined && this.#isOurs(item.stateKey);
  }

  /** In its namespaces, so that it is to be asked. */
  claims(userId: string): boolean {
    return this.#registration.url !== null && userId !== this.#sender && isLocal(userId) && this.#patterns.users.some((pattern) => pattern.test(userId));
  }

  #wantsRoom(room: RoomTruth): boolean {
    let wants = this.#rooms.get(room);
    if (wants === undefined) {
      const { roomId, aliases, joined } = room;
      wants =
        this.#patterns.rooms.some((pattern) => pattern.test(roomId)) ||
        aliases.some((alias) => isLocal(alias) && this.#patterns.aliases.some((pattern) => pattern.test(alias))) ||
        joined.some((userId) => this.#isOurs(userId));
      this.#rooms.set(room, wants);
    }
    return wants;
  }

  #isOurs(userId: string): boolean {
    let ours = this.#users.get(userId);
    if (ours === undefined) {
      ours = userId === this.#sender || (isLocal(userId) && this.#patterns.users.some((pattern) => pattern.test(userId)));
      this.#users.set(userId, ours);
    }
    return ours;
  }
}

function compiled(namespaces: readonly ModelNamespace[]): RegExp[] {
  return namespaces.map(({ regex }) => new RegExp(`^(?:${regex})`, 'u'));
}

function isLocal(identifier: string): boolean {
  return identifier.slice(identifier.indexOf(':') + 1) === SERVER;
}
