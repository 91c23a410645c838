/**
 * `POST /_matrix/client/v1/appservice/{id}/ping` (Client-Server API), for a reverse proxy to hand over: at a homeserver that
 * knows the appservices without their urls it would say so to each of them.
 */
import { RefusalError } from '../appservice/refusal.ts';
import { isJsonObject, parsedJson } from '../appservice/json.ts';
import type { IngressAnswer } from '../rpc/ports.ts';
import { matrixError, tokenOf } from './answers.ts';
import type { MatchedRequest } from './answers.ts';
import type { IngressHomeserver } from './ports.ts';

const BODY_BYTES_MAX = 64 * 1024;
const LEVELS_MAX = 8;

const WORDS: Readonly<Record<string, string>> = {
  M_FORBIDDEN: 'This is not the token of the application service.',
  M_URL_NOT_SET: 'The application service does not have a URL set.',
  M_BAD_STATUS: 'The application service answered with another status than 2xx.',
  M_CONNECTION_FAILED: 'The application service could not be reached.',
  M_CONNECTION_TIMEOUT: 'The application service did not answer in time.',
};

/** Rejects with a RefusalError, or with what the body rejects with. */
export async function answerAppservicePing(request: MatchedRequest, homeserver: Pick<IngressHomeserver, 'authenticate' | 'ping'>): Promise<IngressAnswer> {
  const token = tokenOf(request);
  if (token === null || token === '') return matrixError(401, 'M_MISSING_TOKEN', 'Send the as_token of the application service as "Authorization: Bearer TOKEN".');
  if (ownerOf(token, homeserver) !== request.captured[0]) return matrixError(403, 'M_FORBIDDEN', WORDS['M_FORBIDDEN'] ?? '');
  const text = await readText(request.body);
  const body = text === '' ? {} : text === null ? null : parsedJson(text, LEVELS_MAX);
  if (!isJsonObject(body)) return matrixError(400, 'M_NOT_JSON', 'The body of a ping is a JSON object.');
  const { transaction_id: transactionId } = body;
  if (transactionId !== undefined && typeof transactionId !== 'string') return matrixError(400, 'M_BAD_JSON', 'The "transaction_id" of a ping is a string; leave it out for none.');
  const outcome = await homeserver.ping({ appservice: { kind: 'as_token', asToken: token }, transactionId });
  if (outcome.kind === 'answered') return { status: 200, body: JSON.stringify({ duration_ms: outcome.durationMs }) };
  const { errcode, httpStatus, answer } = outcome.failure;
  return matrixError(httpStatus, errcode, WORDS[errcode] ?? 'The ping failed.', answer ?? {});
}

/** Undefined: nobody has this token. */
function ownerOf(asToken: string, homeserver: Pick<IngressHomeserver, 'authenticate'>): string | undefined {
  try {
    return homeserver.authenticate({ asToken, userId: undefined, deviceId: undefined, userRegistered: undefined }).appserviceId;
  } catch (error) {
    if (error instanceof RefusalError) return undefined;
    throw error;
  }
}

/** Null if there is more than a ping has. */
async function readText(body: AsyncIterable<Uint8Array>): Promise<string | null> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.byteLength;
    if (bytes > BODY_BYTES_MAX) return null;
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString().trim();
}
