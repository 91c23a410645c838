/**
 * Opening one connection to an appservice:
 *
 *   resolve ──▶ judge every address ──▶ dial the ones that may be ──▶ [tunnel ──▶] TLS ──▶ connected
 *
 * The name is resolved once and the connection goes to an address that was judged, so a DNS answer that changes between
 * the judgement and the connection changes nothing. With a proxy it is the proxy's address that is resolved and judged;
 * the appservice's name is the proxy's to resolve, and only a literal address of it is judged here. What is to be
 * encrypted goes through a tunnel; for the rest the proxy is handed each request whole, since many open tunnels to the
 * port of https only. Every failure is an {@link OutboundError} with its class.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { lookup } from 'node:dns/promises';
import { connect as connectTcp, isIP } from 'node:net';
import type { Socket, TcpNetConnectOpts } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../clock.ts';
import type { AddressPolicy } from './address-policy.ts';
import type { OutboundUrl } from './outbound-url.ts';
import { openTunnel, parseProxyUrl } from './tunnel.ts';

/** Why there was no answer. A closed set. */
export type OutboundFailure =
  | 'timeout'
  | 'connection_refused'
  | 'connection_reset'
  /** The network has no way to the address. */
  | 'no_route'
  | 'dns'
  | 'tls'
  | 'address_refused'
  /** What came back is no HTTP answer, or one beyond the limits. */
  | 'bad_response'
  /** The fault is on this machine: no descriptors left, a CA file that cannot be read. */
  | 'local_error';

export class OutboundError extends Error {
  override readonly name = 'OutboundError';
  readonly failure: OutboundFailure;
  /** A sentence for operators, where the class alone says too little. */
  readonly sentence: string | null;

  constructor(failure: OutboundFailure, sentence: string | null = null) {
    super(failure);
    this.failure = failure;
    this.sentence = sentence;
  }
}

/** All addresses of a host name, in the order to try them. Rejects if there are none. */
export type Resolve = (host: string) => Promise<readonly string[]>;

export type DialTarget = { readonly kind: 'tcp'; readonly addresses: readonly string[]; readonly port: number } | { readonly kind: 'unix'; readonly path: string };

/** Opens a connection to the first address that takes it. Rejects with the system's error; stops when `signal` aborts. */
export type Dial = (target: DialTarget, signal: AbortSignal) => Promise<Socket>;

export interface Network {
  readonly resolve: Resolve;
  readonly dial: Dial;
}

export interface ConnectOptions {
  readonly clock: Clock;
  readonly policy: AddressPolicy;
  readonly network: Network;
  readonly connectTimeoutMs: number;
}

const ADDRESSES_MAX = 8;
const ADDRESS_ATTEMPT_TIMEOUT_MS = 2_500;
const KEEP_ALIVE_DELAY_MS = 60_000;
const CA_FILE_BYTES_MAX = 1024 * 1024;

/** How to get to an appservice, beside its url. */
export interface ConnectRoute {
  /** PEM file of authorities; replaces the system's trusted roots. */
  readonly caFile: string | null;
  /** `http://` URL of a forward proxy (RFC 9110 section 3.7). */
  readonly proxy: string | null;
}

/** Rejects with an {@link OutboundError}, within `connectTimeoutMs`. */
export async function openConnection(url: OutboundUrl, { caFile, proxy }: ConnectRoute, options: ConnectOptions): Promise<Socket> {
  const { clock, connectTimeoutMs } = options;
  const settled = new AbortController();
  const expired = new AbortController();
  void clock.sleep(connectTimeoutMs, settled.signal).then(() => {
    if (!settled.signal.aborted) expired.abort();
  });
  try {
    const ca = url.secure ? await readCa(caFile) : undefined;
    const socket = proxy === null ? await openTransport(url, options, expired.signal) : await openThroughProxy(url, proxy, options, expired.signal);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_DELAY_MS);
    return url.secure ? await secure(socket, url, ca, expired.signal) : socket;
  } finally {
    settled.abort();
  }
}

async function openThroughProxy(url: OutboundUrl, text: string, options: ConnectOptions, signal: AbortSignal): Promise<Socket> {
  const proxy = parseProxyUrl(text);
  if (proxy === null || url.unixPath !== null) {
    throw new OutboundError('address_refused', 'The proxy of the registration cannot be used; it must be an http URL, and the url no unix socket.');
  }
  const problem = options.policy.hostProblem(url.host, url.port);
  if (problem !== null) throw new OutboundError('address_refused', problem);
  const socket = await openTransport({ host: proxy.host, port: proxy.port, unixPath: null }, options, signal);
  if (!url.secure) return socket;
  const authority = `${url.host.includes(':') ? `[${url.host}]` : url.host}:${url.port}`;
  const status = await openTunnel(socket, authority, proxy, signal).catch(() => {
    throw new OutboundError(signal.aborted ? 'timeout' : 'connection_reset', 'The proxy of the registration did not answer as a proxy does. Check its address.');
  });
  if (status < 200 || status > 299) throw proxyRefusal(status);
  return socket;
}

/** What a proxy says that does not let the router through. */
export function proxyRefusal(status: number): OutboundError {
  return new OutboundError('connection_refused', `The proxy of the registration would not connect to the appservice (HTTP ${status}). Check its rules and its user.`);
}

async function openTransport(to: Pick<OutboundUrl, 'host' | 'port' | 'unixPath'>, { policy, network }: ConnectOptions, signal: AbortSignal): Promise<Socket> {
  if (to.unixPath !== null) {
    const problem = policy.unixProblem(to.unixPath);
    if (problem !== null) throw new OutboundError('address_refused', problem);
    return dialled(network.dial({ kind: 'unix', path: to.unixPath }, signal), signal);
  }
  const known = isIP(to.host) === 0 ? await resolved(network.resolve(to.host), signal) : [to.host];
  const problems = known.map((address) => policy.addressProblem(to.host, address, to.port));
  const addresses = known.filter((_, at) => problems[at] === null).slice(0, ADDRESSES_MAX);
  if (addresses.length === 0) {
    const problem = problems.find((one) => one !== null);
    throw problem === undefined ? new OutboundError('dns') : new OutboundError('address_refused', problem);
  }
  return dialled(network.dial({ kind: 'tcp', addresses, port: to.port }, signal), signal);
}

async function resolved(answer: Promise<readonly string[]>, signal: AbortSignal): Promise<readonly string[]> {
  try {
    return await unlessAborted(answer, signal);
  } catch (error) {
    throw error instanceof OutboundError ? error : new OutboundError('dns');
  }
}

async function dialled(connection: Promise<Socket>, signal: AbortSignal): Promise<Socket> {
  // A connection that comes too late belongs to nobody.
  void connection.then(
    (socket) => signal.aborted && socket.destroy(),
    () => undefined,
  );
  try {
    const socket = await unlessAborted(connection, signal);
    // Between here and the owner's own listeners an error must not be unheard of.
    socket.on('error', () => undefined);
    return socket;
  } catch (error) {
    throw error instanceof OutboundError ? error : new OutboundError(failureOfCode(codeOf(error)) ?? 'local_error');
  }
}

/** Rejects with `timeout` as soon as `signal` aborts. */
function unlessAborted<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const expire = (): void => reject(new OutboundError('timeout'));
    if (signal.aborted) return expire();
    signal.addEventListener('abort', expire, { once: true });
    void promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', expire));
  });
}

async function readCa(caFile: string | null): Promise<string | undefined> {
  if (caFile === null) return undefined;
  let text: string | null;
  try {
    // A pipe without a writer must not be waited for.
    await using file = await open(caFile, constants.O_RDONLY | constants.O_NONBLOCK);
    text = await textOf(file);
  } catch {
    throw new OutboundError('local_error', 'The ca_file of the registration cannot be read; check that it exists and that the router may read it.');
  }
  if (text?.includes('-----BEGIN CERTIFICATE-----') !== true) {
    throw new OutboundError('local_error', 'The ca_file of the registration holds no PEM certificate, is no plain file, or has more than a mebibyte.');
  }
  return text;
}

/** Null for what is no plain file within the bound: who registers an appservice chooses the path, and a device has no end. */
async function textOf(file: FileHandle): Promise<string | null> {
  const status = await file.stat();
  if (!status.isFile() || status.size > CA_FILE_BYTES_MAX) return null;
  const { buffer, bytesRead } = await file.read(Buffer.alloc(status.size), 0, status.size, 0);
  return buffer.toString('utf8', 0, bytesRead);
}

function secure(socket: Socket, url: OutboundUrl, ca: string | undefined, signal: AbortSignal): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const tls = connectTls({
      socket,
      host: url.host,
      // Without the dot that a name may end with (RFC 6066 section 3).
      ...(isIP(url.host) === 0 ? { servername: url.host.replace(/\.$/, '') } : {}),
      ...(ca === undefined ? {} : { ca }),
      ALPNProtocols: ['http/1.1'],
    });
    const expire = (): void => fail(new OutboundError('timeout'));
    const fail = (error: OutboundError): void => {
      signal.removeEventListener('abort', expire);
      tls.destroy();
      socket.destroy();
      reject(error);
    };
    tls.on('error', (error) => fail(new OutboundError('tls', tlsSentence(codeOf(error)))));
    if (signal.aborted) return expire();
    signal.addEventListener('abort', expire, { once: true });
    tls.once('secureConnect', () => {
      signal.removeEventListener('abort', expire);
      resolve(tls);
    });
  });
}

function tlsSentence(code: string): string | null {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'The certificate of the appservice is for another host name; make the url of the registration and the certificate agree.';
  if (code === 'CERT_HAS_EXPIRED') return 'The certificate of the appservice has expired; renew it.';
  if (/SELF_SIGNED|UNABLE_TO_(?:GET|VERIFY)/.test(code)) return 'The certificate of the appservice is not signed by a trusted authority; name its authority as ca_file in the registration.';
  return null;
}

export function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  if ('code' in error && typeof error.code === 'string') return error.code;
  // Several addresses were tried; the last failure speaks for them.
  return error instanceof AggregateError ? codeOf(error.errors.at(-1)) : '';
}

const CODES: Readonly<Record<string, OutboundFailure>> = {
  ECONNREFUSED: 'connection_refused',
  ENOENT: 'connection_refused',
  ECONNRESET: 'connection_reset',
  EPIPE: 'connection_reset',
  ECONNABORTED: 'connection_reset',
  ETIMEDOUT: 'timeout',
  EHOSTUNREACH: 'no_route',
  ENETUNREACH: 'no_route',
  EHOSTDOWN: 'no_route',
  ENETDOWN: 'no_route',
  EADDRNOTAVAIL: 'no_route',
};

export function failureOfCode(code: string): OutboundFailure | null {
  return CODES[code] ?? null;
}

/** The machine's own resolver and sockets. Look-ups of one name that overlap are one look-up. */
export function systemNetwork(): Network {
  const underWay = new Map<string, Promise<readonly string[]>>();
  return {
    resolve(host) {
      const known = underWay.get(host);
      if (known !== undefined) return known;
      const answer = lookup(host, { all: true, order: 'verbatim' })
        .then((found) => found.map(({ address }) => address))
        .finally(() => underWay.delete(host));
      underWay.set(host, answer);
      return answer;
    },
    dial: dialSystem,
  };
}

function dialSystem(target: DialTarget, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = target.kind === 'unix' ? connectTcp({ path: target.path }) : connectTcp(tcpOptions(target.addresses, target.port));
    const stop = (): void => {
      socket.destroy();
      reject(new OutboundError('timeout'));
    };
    const done = (): void => signal.removeEventListener('abort', stop);
    socket.once('error', (error) => {
      done();
      reject(error);
    });
    socket.once('connect', () => {
      done();
      resolve(socket);
    });
    if (signal.aborted) return stop();
    signal.addEventListener('abort', stop, { once: true });
  });
}

function tcpOptions(addresses: readonly string[], port: number): TcpNetConnectOpts {
  const all = addresses.map((address) => ({ address, family: isIP(address) }));
  return {
    // Never asked: the look-up below answers with what was judged.
    host: 'appservice.invalid',
    port,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: ADDRESS_ATTEMPT_TIMEOUT_MS,
    lookup: (_host, options, answer) => {
      const [first] = all;
      if (options.all === true) answer(null, all);
      else answer(null, first?.address ?? '', first?.family);
    },
  };
}
