/**
 * What the homeserver tells and who wants it: several streams of events, ten appservices that are interested for
 * different reasons, and a reference that says for each event who must get it. Interest of the bots follows their
 * memberships, so a wrong fold shows as an event too many or too few.
 */
export interface AppserviceUnderTest {
  readonly id: string;
  readonly namespaces: string;
  wants(event: TrafficEvent): boolean;
}

export interface TrafficEvent {
  readonly stream: string;
  readonly room: string;
  readonly sender: string;
  /** Bots that are in the room as of this event, or come or go by it. */
  readonly bots: ReadonlySet<string>;
  readonly text: string;
}

export const SERVER_NAME = 'hs.test';
const ROOMS_PER_STREAM = 2;
const SENDERS = 4;
const BOTS = ['bot0', 'bot1', 'bot2'];
const MEMBERSHIP_SHARE = 0.04;

const everything = (id: string): AppserviceUnderTest => ({ id, namespaces: 'rooms: [{regex: "!.*", exclusive: false}]', wants: () => true });

/** The first gets everything: the order in which it does is that of the log. */
export const APPSERVICES: readonly AppserviceUnderTest[] = [
  ...['all0', 'all1', 'all2'].map(everything),
  ...['s0', 's1'].map((stream) => ({ id: `rooms-${stream}`, namespaces: `rooms: [{regex: "!${stream}-.*", exclusive: false}]`, wants: (event: TrafficEvent) => event.stream === stream })),
  ...[1, 2].map((at) => ({ id: `sender${at}`, namespaces: `users: [{regex: "@person${at}:.*", exclusive: false}]`, wants: (event: TrafficEvent) => event.sender === `@person${at}:${SERVER_NAME}` })),
  ...BOTS.map((bot) => ({ id: bot, namespaces: '', wants: (event: TrafficEvent) => event.bots.has(bot) })),
];

export function registrationOf({ id, namespaces }: AppserviceUnderTest, url: string): string {
  const lines = [`id: ${id}`, `url: ${url}`, `as_token: as-${id}-long-enough`, `hs_token: hs-${id}-long-enough`, `sender_localpart: _${id}`];
  return `${[...lines, ...(namespaces === '' ? ['namespaces: {}'] : ['namespaces:', `  ${namespaces}`])].join('\n')}\n`;
}

/** Makes the events of one stream, one after the other. */
export class EventSource {
  readonly stream: string;
  readonly #chance: () => number;
  readonly #joined = new Map<string, Set<string>>();
  #count = 0;

  constructor(stream: string, chance: () => number) {
    this.stream = stream;
    this.#chance = chance;
  }

  next(): TrafficEvent {
    const number = ++this.#count;
    const { stream } = this;
    const room = `!${stream}-${this.#below(ROOMS_PER_STREAM)}:${SERVER_NAME}`;
    const joined = this.#joined.get(room) ?? new Set<string>();
    this.#joined.set(room, joined);
    const base = { event_id: `$${stream}-${number}`, room_id: room };
    if (this.#chance() >= MEMBERSHIP_SHARE) {
      const sender = `@person${this.#below(SENDERS)}:${SERVER_NAME}`;
      return { stream, room, sender, bots: new Set(joined), text: JSON.stringify({ ...base, type: 'm.room.message', sender, content: { body: `number ${number}` } }) };
    }
    const bot = BOTS[this.#below(BOTS.length)] ?? '';
    const sender = `@_${bot}:${SERVER_NAME}`;
    const membership = joined.has(bot) ? 'leave' : 'join';
    const bots = new Set(joined).add(bot);
    if (membership === 'join') joined.add(bot);
    else joined.delete(bot);
    return { stream, room, sender, bots, text: JSON.stringify({ ...base, type: 'm.room.member', sender, state_key: sender, content: { membership } }) };
  }

  #below(count: number): number {
    return Math.floor(this.#chance() * count);
  }
}
