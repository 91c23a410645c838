/** Tells an appservice that has no such endpoint from one that says no (Application Service API, "Unknown routes"). */
import { isJsonObject, parsedJson } from '../appservice/json.ts';

/** M_UNRECOGNIZED with 400, 404 or 405; and 404 or 405 with no JSON at all, as frameworks answer that know nothing of Matrix. */
export function isUnknownRoute(status: number, text: string): boolean {
  if (status !== 400 && status !== 404 && status !== 405) return false;
  const body = parsedJson(text, 16);
  if (isJsonObject(body)) return body['errcode'] === 'M_UNRECOGNIZED';
  return status !== 400 && body === undefined;
}
