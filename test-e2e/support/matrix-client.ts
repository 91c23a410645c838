/** A person's client of a homeserver, as far as the tests need one. */
import { until } from './program.ts';

export type Json = Readonly<Record<string, unknown>>;

export interface TimelineEvent {
  readonly event_id: string;
  readonly type: string;
  readonly sender: string;
  readonly content: Json;
}

const WAIT_MS = 60_000;

/** An answer other than 2xx. */
export class MatrixError extends Error {
  readonly status: number;
  readonly errcode: string;
  constructor(request: string, status: number, body: Json) {
    super(`${request}: ${status} ${JSON.stringify(body)}`);
    this.status = status;
    this.errcode = String(body['errcode']);
  }
}

export class MatrixClient {
  readonly userId: string;
  readonly #baseUrl: string;
  readonly #token: string;
  #txn = 0;
  /** Without it Synapse answers a repeated first sync from its cache. */
  #since = '';
  readonly #invites: string[] = [];

  constructor(baseUrl: string, userId: string, token: string) {
    this.#baseUrl = baseUrl;
    this.userId = userId;
    this.#token = token;
  }

  async request(method: string, path: string, body?: Json): Promise<Json> {
    const response = await fetch(`${this.#baseUrl}${path}`, {
      method,
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(WAIT_MS),
    });
    const answer = (await response.json()) as Json;
    if (!response.ok) throw new MatrixError(`${method} ${path}`, response.status, answer);
    return answer;
  }

  async createRoom(options: Json = {}): Promise<string> {
    return String((await this.request('POST', '/_matrix/client/v3/createRoom', { preset: 'public_chat', ...options }))['room_id']);
  }

  /** The room's id. */
  async join(roomIdOrAlias: string): Promise<string> {
    return String((await this.request('POST', `/_matrix/client/v3/join/${encodeURIComponent(roomIdOrAlias)}`, {}))['room_id']);
  }

  async invite(roomId: string, userId: string): Promise<void> {
    await this.request('POST', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/invite`, { user_id: userId });
  }

  /** The event's id. */
  async say(roomId: string, body: string): Promise<string> {
    const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${Date.now()}-${++this.#txn}`;
    return String((await this.request('PUT', path, { msgtype: 'm.text', body }))['event_id']);
  }

  /** The event's id. */
  async setState(roomId: string, type: string, content: Json): Promise<string> {
    return String((await this.request('PUT', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/state/${type}/`, content))['event_id']);
  }

  async joinedMembers(roomId: string): Promise<string[]> {
    const { joined } = await this.request('GET', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/joined_members`);
    return Object.keys(joined as Json);
  }

  /** The newest events of the room, oldest first. */
  async timeline(roomId: string, limit = 100): Promise<TimelineEvent[]> {
    const { chunk } = await this.request('GET', `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/messages?dir=b&limit=${limit}`);
    return (chunk as TimelineEvent[]).toReversed();
  }

  /** The first event of the room that fits, past or to come. */
  async event(roomId: string, what: string, fits: (event: TimelineEvent) => boolean): Promise<TimelineEvent> {
    return until(`${this.userId} sees ${what}`, WAIT_MS, async () => (await this.timeline(roomId)).find(fits) ?? null);
  }

  /** A message that contains `text`, by somebody else. */
  async message(roomId: string, text: string): Promise<TimelineEvent> {
    return this.event(roomId, `a message with ${text}`, ({ type, sender, content }) => type === 'm.room.message' && sender !== this.userId && String(content['body']).includes(text));
  }

  /** Says something to a bot and waits for its answer behind it. */
  async ask(roomId: string, text: string, answer: RegExp): Promise<void> {
    const eventId = await this.say(roomId, text);
    await until(`an answer like ${answer} to ${text}`, WAIT_MS, async () => {
      const events = await this.timeline(roomId);
      const behind = events.slice(events.findIndex(({ event_id }) => event_id === eventId) + 1);
      return behind.some(({ sender, content }) => sender !== this.userId && answer.test(String(content['body']))) ? true : null;
    });
  }

  async member(roomId: string, userId: string): Promise<void> {
    await until(`${userId} is in the room`, WAIT_MS, async () => ((await this.joinedMembers(roomId)).includes(userId) ? true : null));
  }

  /** Waits for the next invite and follows it; the room's id. */
  async acceptInvite(): Promise<string> {
    const roomId = await until(`an invite for ${this.userId}`, WAIT_MS, async () => {
      const since = this.#since === '' ? '' : `&since=${encodeURIComponent(this.#since)}`;
      const { next_batch, rooms } = (await this.request('GET', `/_matrix/client/v3/sync?timeout=0${since}`)) as { next_batch: string; rooms?: { invite?: Json } };
      this.#since = next_batch;
      this.#invites.push(...Object.keys(rooms?.invite ?? {}));
      return this.#invites.shift() ?? null;
    });
    return this.join(roomId);
  }
}
