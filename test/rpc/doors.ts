/** Both doors on free loopback ports, before a house that a test scripts; and every protocol a caller may speak to them. */
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { ConnectError } from '@connectrpc/connect';
import type { Transport } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { createHash } from 'node:crypto';
import { BadRequestSchema, ErrorInfoSchema, PreconditionFailureSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import type { LogFields, Logger } from '../../src/logger.ts';
import { systemClock } from '../../src/clock.ts';
import { AdminMethods } from '../../src/rpc/admin-methods.ts';
import { Authenticator } from '../../src/rpc/authentication.ts';
import type { Credential } from '../../src/rpc/authentication.ts';
import { GrpcServer } from '../../src/rpc/grpc-server.ts';
import { HttpServer } from '../../src/rpc/http-server.ts';
import type { HttpTimeLimits } from '../../src/rpc/http-server.ts';
import type { AdminPort, AppserviceStatus, HomeserverPort, HttpProbes, SubmissionResult } from '../../src/rpc/ports.ts';
import { RouterMethods } from '../../src/rpc/router-methods.ts';
import { errorOf, RouterClient } from '../support/router-client.ts';

export const SERVER_NAME = 'a.test';
export const TOKENS = { homeserver: 'homeserver-token', admin: 'admin-token', monitor: 'monitor-token', configured: 'configured-token', bound: 'bound-token' } as const;

const CREDENTIALS: readonly Credential[] = [
  credential('homeserver', 'homeserver', SERVER_NAME),
  credential('admin', 'admin', null),
  credential('monitor', 'monitor', null),
  // A homeserver whose credential names none is the configured one.
  credential('configured', 'homeserver', null),
  credential('bound', 'admin', 'other.test'),
];

function credential(name: keyof typeof TOKENS, role: Credential['role'], serverName: string | null): Credential {
  return { name, role, serverName, tokenSha256: createHash('sha256').update(TOKENS[name]).digest('hex') };
}

/** Bytes that are no SubmitEventsRequest: cut short, no field, not UTF-8. */
export const MALFORMED: readonly (readonly number[])[] = [[0x1a, 0xff, 0xff, 0xff], [0xff], [0x0a, 0x02, 0xc3, 0x28]];

export function accepted(count: number): SubmissionResult {
  return { streamPosition: 7, logPosition: 9, accepted: count, duplicates: 0, routed: count, wantedRoomIds: ['!wanted:a.test'] };
}

export const STATUS: AppserviceStatus = {
  appserviceId: 'irc',
  state: 'retrying',
  paused: true,
  deliveredLogPosition: 41,
  backlogEntries: 3,
  backlogBytes: 2_100,
  oldestEntryTimeMs: 1_700_000_000_000,
  transaction: { txnId: '17', eventCount: 2, attemptCount: 4, nextAttemptTimeMs: 1_700_000_008_000 },
  heldBy: 'paused',
  quarantinedEntries: 1,
  leaseHolder: 'r1',
  lastError: { kind: 'rejected', httpStatus: 502, message: 'The appservice answered 502.', timeMs: 1_700_000_001_000 },
  deliveredEntries: 40,
  attempts: 9,
  failedAttempts: 4,
};

const SHELVED = { txnId: '16', reason: 'The appservice answered 413.', timeMs: 1_700_000_000_000, firstPosition: 3, lastPosition: 5, entryCount: 2, bytes: 700 };
const AUDITED = { timeMs: 1_700_000_000_000, actor: 'ops', action: 'SkipTransaction', appserviceId: 'irc', txnId: '16', reason: 'poison' };

export const REGISTRATION: Registration = {
  id: 'irc',
  url: 'http://127.0.0.1:9999',
  as_token: 'as-secret',
  hs_token: 'hs-secret',
  sender_localpart: 'irc',
  namespaces: { users: [{ regex: '@irc_.*', exclusive: true }], aliases: [{ regex: '#irc_.*', exclusive: false }], rooms: [] },
  protocols: ['irc'],
  rate_limited: false,
  receive_ephemeral: true,
  push_ephemeral_unstable: false,
  device_extensions: false,
  delivery_options: { legacy_paths: 'unrecognized', push_timeout_ms: 5_000 },
};

/** The house as a test wants it; every method can be replaced. */
export class ScriptedHouse {
  readonly router: { -readonly [Method in keyof HomeserverPort]: HomeserverPort[Method] } = {
    submit: ({ events }) => Promise.resolve(accepted(events.length)),
    deliveredPositions: (stream) => Promise.resolve([{ appserviceId: 'irc', streamPosition: 5 }, { appserviceId: 'mail', streamPosition: stream.length }]),
    streamPosition: () => Promise.resolve({ streamPosition: 7, logPosition: 9 }),
    checkNamespace: () => ({ matches: [{ appserviceId: 'irc', regex: '@irc_.*', exclusive: true }], exclusive: true, exclusiveAppserviceIds: ['irc'], senderUser: false }),
    authorize: () => 'irc',
    authenticate: () => ({ appserviceId: 'irc', userId: '@irc:a.test', deviceId: undefined, isRateLimited: false, isSenderUser: true }),
    ping: () => Promise.resolve({ kind: 'answered', durationMs: 3 }),
    query: () => Promise.resolve({ exists: true, appserviceId: 'irc' }),
    thirdPartyProtocols: () => Promise.resolve({ protocols: [], failedAppserviceIds: [] }),
    thirdPartyMatches: () => Promise.resolve({ matches: [], failedAppserviceIds: [] }),
    claimKeys: () => Promise.resolve({ json: '{}', failedAppserviceIds: [] }),
    queryKeys: () => Promise.resolve({ json: '{}', failedAppserviceIds: [] }),
  };
  readonly admin: { -readonly [Method in keyof AdminPort]: AdminPort[Method] } = {
    putRegistration: () => Promise.resolve({ registration: REGISTRATION, warnings: [{ code: 'overlap', message: 'Two namespaces overlap.' }] }),
    getRegistration: () => REGISTRATION,
    listRegistrations: () => ({ items: [REGISTRATION], nextPageToken: 'irc' }),
    deleteRegistration: () => Promise.resolve(),
    getAppservice: () => Promise.resolve(STATUS),
    listAppservices: () => Promise.resolve({ items: [STATUS], nextPageToken: '' }),
    setPaused: (_appserviceId, paused) => Promise.resolve({ ...STATUS, paused }),
    retryNow: () => Promise.resolve(STATUS),
    rotateEncryptionKey: () => Promise.resolve({ sealingKeyId: '0a0b0c0d', keyCreated: true, resealedCount: 2, keys: [{ keyId: '0a0b0c0d', registrationCount: 2 }, { keyId: '01020304', registrationCount: 0 }] }),
    stop: () => Promise.resolve({ ...STATUS, state: 'failed' }),
    skip: () => Promise.resolve(STATUS),
    redeliver: () => Promise.resolve(STATUS),
    discard: () => Promise.resolve(STATUS),
    replay: () => Promise.resolve({ status: STATUS, from: 12 }),
    listQuarantined: (_id, _pageSize, _pageToken, withBodies) => Promise.resolve({ items: [{ ...SHELVED, body: withBodies ? Buffer.from('{"events":[]}') : null }], nextPageToken: '17' }),
    listAudit: () => Promise.resolve({ items: [AUDITED], nextPageToken: '' }),
    explainRouting: ({ event }) => Promise.resolve({ eventId: event.kind === 'id' ? event.eventId : '$json', search: null, room: null, appservices: [] }),
    watch: (_ids, signal) => silentUntil(signal),
  };
}

async function* silentUntil(signal: AbortSignal): AsyncGenerator<never> {
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}

export interface DoorOptions {
  readonly probes?: HttpProbes;
  readonly timeLimits?: HttpTimeLimits;
  readonly httpListen?: string;
}

export class Doors implements AsyncDisposable {
  readonly house: ScriptedHouse;
  readonly grpc: GrpcServer;
  readonly http: HttpServer;
  /** `method code` of every call that ended. */
  readonly observed: readonly string[];
  readonly logged: readonly { readonly level: string; readonly message: string; readonly fields: LogFields }[];
  readonly #onObserved: Set<() => void>;

  private constructor(house: ScriptedHouse, doors: { grpc: GrpcServer; http: HttpServer }, observed: readonly string[], logged: Doors['logged'], onObserved: Set<() => void>) {
    this.house = house;
    this.grpc = doors.grpc;
    this.http = doors.http;
    this.observed = observed;
    this.logged = logged;
    this.#onObserved = onObserved;
  }

  static async open({ probes = PROBES, timeLimits, httpListen = '127.0.0.1:0' }: DoorOptions = {}): Promise<Doors> {
    const house = new ScriptedHouse();
    const observed: string[] = [];
    const logged: { level: string; message: string; fields: LogFields }[] = [];
    const onObserved = new Set<() => void>();
    const log = (level: string) => (fields: LogFields, message: string) => void logged.push({ level, fields, message });
    const logger: Logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
    const ports = {
      defaultServerName: SERVER_NAME,
      router: (name: string) => (name === SERVER_NAME ? house.router : undefined),
      admin: (name: string) => (name === SERVER_NAME ? house.admin : undefined),
      ingress: () => undefined,
    };
    const meter = {
      observe(method: string, code: number): void {
        observed.push(`${method.split('/')[1] ?? ''} ${code}`);
        for (const look of onObserved) look();
      },
    };
    const common = { router: new RouterMethods(ports), admin: new AdminMethods(ports, true), authenticator: new Authenticator(CREDENTIALS), clock: systemClock, logger, meter };
    const grpc = await GrpcServer.start({ ...common, listen: '127.0.0.1:0' });
    const http = await HttpServer.start({ ...common, listen: httpListen, probes, ...(timeLimits === undefined ? {} : { timeLimits }) });
    return new Doors(house, { grpc, http }, observed, logged, onObserved);
  }

  /** Resolves when so many calls have ended. */
  ended(count: number): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (this.observed.length >= count) resolve();
      };
      this.#onObserved.add(look);
      look();
    });
  }

  /** The port of the HTTP door. */
  get httpPort(): number {
    return Number(this.http.address.split(':').at(-1));
  }

  get grpcPort(): number {
    return Number(this.grpc.address.split(':').at(-1));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.grpc[Symbol.asyncDispose]();
    await this.http[Symbol.asyncDispose]();
  }
}

const PROBES: HttpProbes = { ready: () => ({ ready: true, detail: {} }), metrics: () => Promise.resolve({ contentType: 'text/plain', text: 'up 1\n' }) };

/** What every caller reads of an error, whatever it speaks. */
export interface CallError {
  readonly code: number;
  readonly message: string;
  readonly reason: string | undefined;
  readonly domain: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  readonly field: string | undefined;
  readonly retryDelayMs: number | undefined;
}

export const PROTOCOLS = ['gRPC', 'Connect with JSON', 'Connect with protobuf', 'gRPC-Web', 'gRPC on the HTTP port'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** Calls one unary method; throws a value for {@link failureOf}. */
export async function call<I extends DescMessage, O extends DescMessage>(
  doors: Doors,
  protocol: Protocol,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  token: string | null,
): Promise<MessageShape<O>> {
  if (protocol === 'gRPC') {
    using client = new RouterClient(doors.grpc.address, token);
    return await client.call(method, request);
  }
  const headers: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` };
  const { message } = await transportOf(doors, protocol).unary(method, undefined, 20_000, headers, request);
  return message;
}

export function transportOf(doors: Doors, protocol: Exclude<Protocol, 'gRPC'>): Transport {
  const baseUrl = `http://${doors.http.address}`;
  switch (protocol) {
    case 'Connect with JSON':
      return createConnectTransport({ baseUrl, httpVersion: '1.1', useBinaryFormat: false });
    case 'Connect with protobuf':
      return createConnectTransport({ baseUrl, httpVersion: '1.1', useBinaryFormat: true });
    case 'gRPC-Web':
      return createGrpcWebTransport({ baseUrl, httpVersion: '1.1' });
    case 'gRPC on the HTTP port':
      return createGrpcTransport({ baseUrl, idleConnectionTimeoutMs: 100 });
  }
}

export function failureOf(error: unknown): CallError {
  if (!(error instanceof ConnectError)) return errorOf(error);
  const [info] = error.findDetails(ErrorInfoSchema);
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return {
    code: error.code,
    message: error.rawMessage,
    reason: info?.reason,
    domain: info?.domain,
    metadata: { ...info?.metadata },
    field: error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field,
    retryDelayMs: delay === undefined ? undefined : Number(delay.seconds) * 1000 + delay.nanos / 1_000_000,
  };
}

/** The type of the precondition that a Connect error says was not met. */
export function preconditionOf(error: unknown): string | undefined {
  return error instanceof ConnectError ? error.findDetails(PreconditionFailureSchema)[0]?.violations[0]?.type : undefined;
}

/** The error of a call that must fail. */
export async function failing(pending: Promise<unknown>): Promise<unknown> {
  try {
    await pending;
  } catch (error) {
    return error;
  }
  throw new Error('the call succeeded');
}
