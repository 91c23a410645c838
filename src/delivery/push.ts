/**
 * The one path to a PUT of a transaction (Application Service API, "Pushing events"): one attempt, and what it came to.
 * Where the registration has the legacy path tried too, that is still one attempt, with one time-out and one outcome.
 *
 * The status alone decides. Of a refusal's body only its `errcode` is looked at, and only if it looks like one: the
 * message of an outcome goes to logs, metrics and operators, where neither a token nor what a peer wrote belongs.
 */
import type { Registration } from '../appservice/registration.ts';
import type { Clock } from '../clock.ts';
import { AppserviceClient } from '../query/appservice-client.ts';
import { AppserviceTargets } from '../query/appservice-target.ts';
import type { OutboundFailure } from '../query/connect.ts';
import type { HttpClient, OutboundResult } from '../query/http-client.ts';
import type { Push, PushEnd, PushOutcome, PushRequest } from './ports.ts';

export interface HttpPushOptions {
  readonly client: Pick<HttpClient, 'request'>;
  readonly clock: Clock;
  /** For an appservice whose registration names no `push_timeout_ms`. */
  readonly pushTimeoutMs: number;
  /** A longer Retry-After counts as this. */
  readonly retryAfterMsMax: number;
}

/** What a peer that answered may take for the rest of its body; nothing waits for it but the connection. */
const BODY_TIMEOUT_MS = 1_000;
const ERROR_BODY_BYTES_MAX = 4_096;
const ERRCODE_LENGTH_MAX = 64;
const NO_URL: PushOutcome = {
  kind: 'unreachable',
  failure: 'address_refused',
  message: 'The url of the registration is no address to push to. Register the appservice with an http or https URL.',
};

export class HttpPush implements Push {
  readonly #options: HttpPushOptions;
  readonly #appservices: AppserviceClient;
  readonly #targets = new AppserviceTargets();

  constructor(options: HttpPushOptions) {
    this.#options = options;
    this.#appservices = new AppserviceClient(options);
  }

  async push({ serverName, registration, txnId, body }: PushRequest, signal: AbortSignal): Promise<PushOutcome> {
    const { clock, pushTimeoutMs, retryAfterMsMax } = this.#options;
    const target = this.#targets.of(serverName, registration);
    if (target === null) return NO_URL;
    const timeoutMs = registration.delivery_options.push_timeout_ms ?? pushTimeoutMs;
    const { path, result } = await this.#appservices.request(
      target,
      registration,
      { method: 'PUT', path: `/_matrix/app/v1/transactions/${encodeURIComponent(txnId)}`, body, timeoutMs, bodyTimeoutMs: BODY_TIMEOUT_MS },
      signal,
    );
    if (result.kind === 'aborted') return result;
    const end: PushEnd =
      result.kind === 'failed'
        ? { kind: 'unreachable', failure: result.failure, message: failureMessage(result.failure, result.sentence, timeoutMs) }
        : outcomeOf(result, registration, clock.nowMs(), retryAfterMsMax);
    return path === 'legacy' ? { ...end, path } : end;
  }
}

type Answer = Extract<OutboundResult, { kind: 'answered' }>;

function outcomeOf(answer: Answer, registration: Registration, nowMs: number, retryAfterMsMax: number): PushEnd {
  const { status: httpStatus } = answer;
  if (httpStatus >= 200 && httpStatus < 300) return { kind: 'delivered', httpStatus };
  const errcode = errcodeOf(answer.body, [registration.hs_token, registration.as_token]);
  const answered = errcode === null ? `HTTP ${httpStatus}` : `HTTP ${httpStatus}, ${errcode}`;
  const { misconfiguration, message } = refusalOf(httpStatus, answered);
  if (httpStatus === 413) return { kind: 'too_large', httpStatus, message };
  const mayWait = httpStatus === 429 || httpStatus === 503;
  const retryAfterMs = mayWait ? retryAfterMsOf(answer.header('retry-after'), nowMs, retryAfterMsMax) : null;
  return { kind: 'rejected', httpStatus, misconfiguration, retryAfterMs, message };
}

function refusalOf(httpStatus: number, answered: string): { misconfiguration: boolean; message: string } {
  if (httpStatus >= 300 && httpStatus < 400) {
    return { misconfiguration: true, message: `The appservice answered with a redirect (${answered}), which is never followed. Register it with the final url.` };
  }
  switch (httpStatus) {
    case 401:
    case 403:
      return {
        misconfiguration: true,
        message: `The appservice refused the hs_token (${answered}). Make the hs_token the same in its own registration file and in the router's.`,
      };
    case 404:
    case 405:
      return {
        misconfiguration: true,
        message: `The appservice takes no transactions at this url (${answered}). Check the url of the registration, its path included, and what answers there; an old appservice may need legacy_paths.`,
      };
    case 413:
      return { misconfiguration: false, message: `The transaction is too large for the appservice (${answered}). Raise the body limit of the appservice or of the proxy before it.` };
    case 429:
      return { misconfiguration: false, message: `The appservice asks for less traffic (${answered}). It is tried again later.` };
    case 502:
    case 503:
    case 504:
      return { misconfiguration: false, message: `The appservice is not available (${answered}). It is tried again later; see whether it runs behind its proxy.` };
    default:
      return httpStatus >= 500
        ? { misconfiguration: false, message: `The appservice failed on the transaction (${answered}). It is tried again later; see the appservice's own log for the reason.` }
        : { misconfiguration: false, message: `The appservice rejected the transaction (${answered}). It is tried again later; see the appservice's own log for the reason.` };
  }
}

const MESSAGES: Readonly<Record<OutboundFailure, string>> = {
  timeout: 'The appservice gave no answer in time. See whether it hangs, or raise its push_timeout_ms.',
  connection_refused: 'Nothing listens at the url of the registration. Start the appservice, or correct the url.',
  connection_reset: 'The appservice closed the connection before it answered. See its own log, and that of a proxy before it.',
  no_route: 'The network has no way to the appservice. Check the url of the registration and the network.',
  dns: 'The host name in the url of the registration cannot be resolved. Correct the url or the DNS.',
  tls: 'No TLS connection to the appservice came about. Check that the url takes https, and its certificate.',
  address_refused: 'The address of the appservice is one to which the router does not connect. Correct the url of the registration.',
  bad_response: 'What answers at the url of the registration does not speak HTTP as it should. Check the url and its port.',
  local_error: 'The router could not open a connection for reasons on its own machine. Check its limits on open files.',
};

function failureMessage(failure: OutboundFailure, sentence: string | null, timeoutMs: number): string {
  if (sentence !== null) return sentence;
  return failure === 'timeout' ? MESSAGES.timeout.replace('in time', `within ${timeoutMs} ms`) : MESSAGES[failure];
}

/** The `errcode` of a JSON error body (client-server API, "Standard error response"), if it has the form of one and holds no secret. */
function errcodeOf(body: Buffer, secrets: readonly string[]): string | null {
  if (body.byteLength > ERROR_BODY_BYTES_MAX || body[0] !== 0x7b) return null;
  let parsed: unknown;
  try {
    parsed = JSON.parse(body.toString('utf8'));
  } catch {
    return null;
  }
  if (typeof parsed !== 'object' || parsed === null || !('errcode' in parsed) || typeof parsed.errcode !== 'string') return null;
  const { errcode } = parsed;
  if (errcode.length > ERRCODE_LENGTH_MAX || !/^[A-Z][A-Z0-9]*(?:[._][A-Z0-9]+)+$/.test(errcode)) return null;
  return secrets.some((secret) => errcode.includes(secret)) ? null : errcode;
}

/** Seconds or an HTTP date (RFC 9110 section 10.2.3), as a wait from now; null for anything else. */
function retryAfterMsOf(header: string | null, nowMs: number, retryAfterMsMax: number): number | null {
  if (header === null) return null;
  const waitMs = /^\d{1,10}$/.test(header) ? Number(header) * 1_000 : /^[A-Z][a-z]{2}, /.test(header) ? Date.parse(header) - nowMs : Number.NaN;
  return Number.isNaN(waitMs) ? null : Math.min(Math.max(waitMs, 0), retryAfterMsMax);
}
