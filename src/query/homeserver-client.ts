/**
 * What a homeserver tells its catch-all appservice of rooms (Client-Server API, "GET /rooms/{roomId}/joined_members",
 * "GET /rooms/{roomId}/aliases" and "GET /joined_rooms"). Members may be asked of any room; aliases only when acting as a
 * user who is joined; rooms when acting as the user meant.
 */
import { isJsonObject, parsedJson } from '../appservice/json.ts';
import type { JsonObject } from '../appservice/json.ts';
import type { RoomAnswer, RoomSource } from '../ingress/ports.ts';
import type { HttpClient, OutboundRequest, OutboundResult, OutboundTarget } from './http-client.ts';
import type { OutboundUrl } from './outbound-url.ts';
import { pathSegment } from './path-segment.ts';

export interface HomeserverClientOptions {
  readonly client: HttpClient;
  readonly serverName: string;
  readonly url: OutboundUrl;
  /** Of the catch-all registration. */
  readonly asToken: string;
  readonly timeoutMs: number;
}

/** A room of some 100,000 members. */
const MEMBERS_BYTES_MAX = 16 * 1024 * 1024;
const ALIASES_BYTES_MAX = 1024 * 1024;
/** Some 50,000 rooms. */
const ROOMS_BYTES_MAX = 4 * 1024 * 1024;
const LEVELS_MAX = 8;
const LIMITED_WAIT_MS = { default: 2_000, min: 500, max: 60_000 } as const;

export class HomeserverClient implements RoomSource {
  readonly #options: HomeserverClientOptions;
  readonly #target: OutboundTarget;

  constructor(options: HomeserverClientOptions) {
    this.#options = options;
    this.#target = { owner: `${options.serverName}|homeserver`, url: options.url, caFile: null, proxy: null };
  }

  joinedMembers(roomId: string, signal: AbortSignal): Promise<RoomAnswer> {
    return this.#ask(`/_matrix/client/v3/rooms/${pathSegment(roomId)}/joined_members`, MEMBERS_BYTES_MAX, ({ joined }) => (isJsonObject(joined) ? Object.keys(joined) : null), signal);
  }

  roomAliases(roomId: string, userId: string, signal: AbortSignal): Promise<RoomAnswer> {
    const path = `/_matrix/client/v3/rooms/${pathSegment(roomId)}/aliases?user_id=${pathSegment(userId)}`;
    return this.#ask(path, ALIASES_BYTES_MAX, ({ aliases }) => textsOf(aliases), signal);
  }

  joinedRooms(userId: string, signal: AbortSignal): Promise<RoomAnswer> {
    return this.#ask(`/_matrix/client/v3/joined_rooms?user_id=${pathSegment(userId)}`, ROOMS_BYTES_MAX, ({ joined_rooms: rooms }) => textsOf(rooms), signal);
  }

  async #ask(path: string, responseBytesMax: number, read: (body: JsonObject) => string[] | null, signal: AbortSignal): Promise<RoomAnswer> {
    const { client, asToken, timeoutMs } = this.#options;
    const headers = { authorization: `Bearer ${asToken}`, accept: 'application/json' };
    const request: OutboundRequest = { method: 'GET', path, headers, body: null, timeoutMs, bodyTimeoutMs: timeoutMs, responseBytesMax };
    return answerFrom(await client.request(this.#target, request, signal), read);
  }
}

function answerFrom(result: OutboundResult, read: (body: JsonObject) => string[] | null): RoomAnswer {
  if (result.kind === 'aborted') return { kind: 'aborted' };
  if (result.kind === 'failed') return { kind: 'away', reason: result.failure };
  const { status, body, bodyComplete } = result;
  if (status >= 500) return { kind: 'away', reason: `HTTP ${status}` };
  const value = bodyComplete ? parsedJson(body.toString(), LEVELS_MAX) : undefined;
  const object = isJsonObject(value) ? value : null;
  if (status === 429) return { kind: 'limited', waitMs: waitMsOf(object, result.header('retry-after')) };
  const errcode = typeof object?.['errcode'] === 'string' ? object['errcode'] : null;
  if (status === 401 || errcode === 'M_UNKNOWN_TOKEN') return { kind: 'unknown_token' };
  const identifiers = status === 200 && object !== null ? read(object) : null;
  if (identifiers === null) return { kind: 'refused', httpStatus: status, errcode };
  return { kind: 'found', identifiers: identifiers.filter((identifier) => identifier.isWellFormed()) };
}

function textsOf(list: unknown): string[] | null {
  return Array.isArray(list) ? list.filter((text) => typeof text === 'string') : null;
}

function waitMsOf(body: JsonObject | null, retryAfter: string | null): number {
  const told = body?.['retry_after_ms'];
  const waitMs = typeof told === 'number' ? told : retryAfter !== null && /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) * 1_000 : LIMITED_WAIT_MS.default;
  return Math.min(Math.max(waitMs, LIMITED_WAIT_MS.min), LIMITED_WAIT_MS.max);
}
