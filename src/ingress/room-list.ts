/**
 * Whose rooms are to be known before an event has to wait for it: those of the appservices' own users, asked of the
 * homeserver one user at a time, at the start and when a registration is new. Rooms in which an appservice has other users
 * alone come with their first event.
 */
import type { RoomAnswer, RoomHomeserver, RoomSource } from './ports.ts';

export class RoomList {
  readonly #homeserver: Pick<RoomHomeserver, 'registrationsVersion' | 'senderUserIds'>;
  readonly #source: Pick<RoomSource, 'joinedRooms'>;
  readonly #asked = new Set<string>();
  /** Of the registrations whose users have all been asked about. */
  #version = -1;

  constructor(homeserver: Pick<RoomHomeserver, 'registrationsVersion' | 'senderUserIds'>, source: Pick<RoomSource, 'joinedRooms'>) {
    this.#homeserver = homeserver;
    this.#source = source;
  }

  get isDue(): boolean {
    return this.#version !== this.#homeserver.registrationsVersion;
  }

  /** Asks about the next user; null if there is none. The user comes again unless {@link done} is told. */
  async next(signal: AbortSignal): Promise<{ readonly userId: string; readonly answer: RoomAnswer } | null> {
    const { registrationsVersion, senderUserIds } = this.#homeserver;
    const userId = senderUserIds.find((sender) => !this.#asked.has(sender));
    if (userId !== undefined) return { userId, answer: await this.#source.joinedRooms(userId, signal) };
    this.#version = registrationsVersion;
    const senders = new Set(senderUserIds);
    for (const asked of this.#asked) if (!senders.has(asked)) this.#asked.delete(asked);
    return null;
  }

  done(userId: string): void {
    this.#asked.add(userId);
  }
}
