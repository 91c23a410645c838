/**
 * Asks the homeserver about the catch-all registration: whether it knows the as_token (Client-Server API, "GET
 * /account/whoami"), and whether what it sends to the router is taken there ("POST /appservice/{id}/ping"), which shows the
 * hs_token and the url that the homeserver has. The token goes to the configured homeserver and nowhere else: redirects are
 * not followed.
 */
import { isJsonObject, parsedJson } from '../../appservice/json.ts';
import type { JsonObject } from '../../appservice/json.ts';
import type { Clock } from '../../clock.ts';
import type { CatchAllFact } from './facts.ts';

const TIMEOUT_MS = 10_000;
const LEVELS_MAX = 8;
const BODY_CHARS_MAX = 64 * 1024;

interface Answer {
  readonly httpStatus: number;
  /** Empty if it is no JSON object. */
  readonly body: JsonObject;
}

/** Never rejects. */
export async function askCatchAll(homeserverUrl: string, asToken: string, clock: Clock): Promise<CatchAllFact> {
  const stop = new AbortController();
  const late = clock.sleep(TIMEOUT_MS, stop.signal).then(() => stop.abort());
  const ask = async (method: string, path: string): Promise<Answer> => {
    const response = await fetch(`${homeserverUrl.replace(/\/+$/, '')}${path}`, {
      method,
      signal: stop.signal,
      redirect: 'manual',
      headers: { authorization: `Bearer ${asToken}`, 'content-type': 'application/json' },
      ...(method === 'GET' ? {} : { body: '{}' }),
    });
    const text = await response.text();
    const body = text.length > BODY_CHARS_MAX ? undefined : parsedJson(text, LEVELS_MAX);
    return { httpStatus: response.status, body: isJsonObject(body) ? body : {} };
  };
  try {
    const { httpStatus, body } = await ask('GET', '/_matrix/client/v3/account/whoami');
    if (body['errcode'] === 'M_UNKNOWN_TOKEN') return { kind: 'unknown_token' };
    const { user_id: userId } = body;
    const user = httpStatus === 200 && typeof userId === 'string' ? /^@([^:]*):(.+)$/s.exec(userId) : null;
    if (user === null) return { kind: 'other', httpStatus };
    const [, localpart = '', serverName = ''] = user;
    // synapse-setup gives the registration the name of its sender.
    const ping = await ask('POST', `/_matrix/client/v1/appservice/${encodeURIComponent(localpart)}/ping`).catch(() => null);
    return { kind: 'known', serverName, ping: ping === null ? null : pingOf(ping) };
  } catch {
    return { kind: 'unreachable', message: stop.signal.aborted ? `It gave no answer within ${TIMEOUT_MS / 1_000} seconds.` : 'The connection failed.' };
  } finally {
    stop.abort();
    await late;
  }
}

function pingOf({ httpStatus, body: { errcode, status } }: Answer): Extract<CatchAllFact, { kind: 'known' }>['ping'] {
  if (httpStatus === 200) return { errcode: null, httpStatus: null };
  return typeof errcode === 'string' ? { errcode, httpStatus: typeof status === 'number' ? status : null } : null;
}
