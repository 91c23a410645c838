/**
 * The tokens of the catch-all registration, and the file they live in (`ROUTER_INGRESS_TOKEN_FILE`): JSON, an object with
 * `hs_token` (the homeserver shows it to the router), `as_token` (the router shows it to the homeserver) and, if it is not
 * the configured one, `server_name`. Both tokens open all of the homeserver, so no message of this file quotes one.
 */
import { isNamed } from '../appservice/door-object.ts';
import { isJsonObject, parsedJson } from '../appservice/json.ts';
import { readSecretFile } from '../secret-file.ts';

export interface IngressTokens {
  readonly hsToken: string;
  readonly asToken: string;
  /** Null: the configured one. */
  readonly serverName: string | null;
}

export type IngressTokensLoading =
  | { readonly kind: 'missing'; readonly message: string }
  | { readonly kind: 'loaded'; readonly tokens: IngressTokens; readonly warnings: readonly string[] }
  /** A sentence that says what to do. */
  | { readonly kind: 'invalid'; readonly message: string };

const FILE_BYTES_MAX = 64 * 1024;
const LEVELS_MAX = 4;
const KEYS: readonly string[] = ['hs_token', 'as_token', 'server_name'];
const TOKEN = /^[\x21-\x7e]{16,1024}$/;

/** Never rejects for what an operator can mend. */
export async function loadIngressTokens(path: string): Promise<IngressTokensLoading> {
  const found = await readSecretFile(path, 'ingress token file', FILE_BYTES_MAX);
  if (found.kind === 'missing') return { kind: 'missing', message: `There is no ingress token file ${path}. "appservice-router synapse-setup DIR" writes one; check ROUTER_INGRESS_TOKEN_FILE.` };
  if (found.kind === 'unusable') return { kind: 'invalid', message: found.message };
  const tokens = ingressTokensFrom(found.text);
  return typeof tokens === 'string' ? { kind: 'invalid', message: `The ingress token file ${path} cannot be used: ${tokens}` } : { kind: 'loaded', tokens, warnings: found.warnings };
}

/** Tokens from the text of a token file, or what is wrong with it. */
export function ingressTokensFrom(text: string): IngressTokens | string {
  const value = parsedJson(text, LEVELS_MAX);
  if (!isJsonObject(value)) return 'it is no JSON object with "hs_token" and "as_token".';
  const unknown = Object.keys(value).find((key) => !KEYS.includes(key));
  if (unknown !== undefined) return `it may have ${KEYS.join(', ')} and nothing else.`;
  const { hs_token: hsToken, as_token: asToken, server_name: serverName = null } = value;
  if (!isNamed(hsToken) || !TOKEN.test(hsToken)) return '"hs_token" is a string of 16 to 1,024 printable characters without spaces.';
  if (!isNamed(asToken) || !TOKEN.test(asToken)) return '"as_token" is a string of 16 to 1,024 printable characters without spaces.';
  if (hsToken === asToken) return 'its two tokens are the same; give each its own.';
  if (serverName !== null && !isNamed(serverName)) return '"server_name" is a string; leave it out for the configured one.';
  return { hsToken, asToken, serverName };
}
