/**
 * The whole router, wired by hand, top to bottom. The only file that knows every room of the house.
 *
 *   starting ──▶ serving ──drain──▶ ended
 *
 * A start that cannot work rejects within seconds, having closed what it opened. Draining refuses new work, answers
 * what was taken, ends the deliveries in flight, releases the leases and closes the store, in this order.
 */
import { networkInterfaces } from 'node:os';
import { AppserviceAdmin } from './admin/appservice-admin.ts';
import type { AppserviceAdminOptions } from './admin/appservice-admin.ts';
import { Audit } from './admin/audit.ts';
import { Quarantine } from './admin/quarantine.ts';
import { KeyRotation } from './admin/key-rotation.ts';
import { Registrar } from './admin/registrar.ts';
import { patternProblem } from './appservice/namespaces.ts';
import { eventLoopLoad } from './clock.ts';
import type { Clock, Random } from './clock.ts';
import { Delivery, DELIVERY_DEFAULTS } from './delivery/delivery.ts';
import type { DeliverySettings } from './delivery/delivery.ts';
import { Pacer, PACER_DEFAULTS } from './delivery/pacer.ts';
import type { DeliveryMeter } from './delivery/ports.ts';
import { HttpPush } from './delivery/push.ts';
import { PRESENCE_DEFAULTS, ReplicaPresence } from './delivery/replica-presence.ts';
import { Escalations } from './escalations.ts';
import { EventFeed } from './event-feed.ts';
import { Homeserver, UPKEEP_DEFAULTS } from './homeserver.ts';
import type { HomeserverLimits } from './homeserver.ts';
import { Ingress } from './ingress/ingress.ts';
import { RoomLookups } from './ingress/room-lookups.ts';
import type { IngressTokens } from './ingress/token-file.ts';
import type { Logger } from './logger.ts';
import { createAddressPolicy } from './query/address-policy.ts';
import type { AddressPolicyOptions } from './query/address-policy.ts';
import { systemNetwork } from './query/connect.ts';
import { HomeserverClient } from './query/homeserver-client.ts';
import { HTTP_CLIENT_LIMITS, HttpClient } from './query/http-client.ts';
import { Keys } from './query/keys.ts';
import { outboundUrlProblem, parseOutboundUrl } from './query/outbound-url.ts';
import { Ping, PING_LIMITS } from './query/ping.ts';
import { Provisioning, PROVISIONING_LIMITS } from './query/provisioning.ts';
import { ThirdParty } from './query/third-party.ts';
import type { KeyFile } from './registration/key-file.ts';
import { UNKNOWN_USERS_LIMITS, UnknownUsers } from './query/unknown-users.ts';
import { registrationDisk } from './registration/registration-disk.ts';
import { REGISTRATION_FILES_DEFAULTS, RegistrationFiles } from './registration/registration-files.ts';
import type { RegistrationRules } from './registration/registration-rules.ts';
import { registrationFromYaml } from './registration/registration-yaml.ts';
import type { Vault } from './registration/vault.ts';
import { AdminMethods } from './rpc/admin-methods.ts';
import { Authenticator } from './rpc/authentication.ts';
import type { Credential } from './rpc/authentication.ts';
import { GrpcServer } from './rpc/grpc-server.ts';
import { HttpServer } from './rpc/http-server.ts';
import type { Homeservers, HttpProbes, IngressStatus, RpcMeter } from './rpc/ports.ts';
import { RouterMethods } from './rpc/router-methods.ts';
import { codeName } from './rpc/status.ts';
import { timedStore } from './store/timed.ts';
import type { Store } from './store/port.ts';
import type { StoreWakes, WakeRelay } from './store/wake-relay.ts';
import type { TailWitness } from './tail-witness.ts';
import { Telemetry } from './telemetry.ts';

export interface ServiceSettings {
  /** The homeserver served when a credential names no other. */
  readonly serverName: string;
  readonly grpcListen: string;
  readonly httpListen: string;
  readonly credentials: readonly Credential[];
  /** Files and directories with the registrations of `serverName`; none = only those put by PutRegistration. */
  readonly registrationPaths: readonly string[];
  readonly rateLimitedDefault: boolean;
  readonly pushTimeoutMs: number;
  readonly queryTimeoutMs: number;
  readonly queryAttemptsMax: number;
  readonly pingTimeoutMs: number;
  readonly escalationWindowMs: number;
  readonly delivery: Pick<DeliverySettings, 'eventsMax' | 'ephemeralMax' | 'toDeviceMax' | 'ephemeralAgeMaxMs' | 'bytesMax' | 'backoff'>;
  readonly outbound: Pick<AddressPolicyOptions, 'mode' | 'allow'>;
  readonly logRetentionMs: number;
  /** Of the catch-all registration at the homeserver; null: no ingress is served. */
  readonly ingress: IngressTokens | null;
  /** Where the ingress looks up rooms; null: nowhere. */
  readonly homeserverUrl: string | null;
  readonly homeserverTimeoutMs: number;
  readonly roomWaitMs: number;
}

export interface ServiceParts {
  readonly settings: ServiceSettings;
  readonly version: string;
  /** Opened; closed by the service. */
  readonly store: Store;
  /** What is remembered of the store from earlier starts. */
  readonly witness?: TailWitness;
  /** What the store tells of other processes. */
  readonly wakes?: WakeRelay;
  /** True if no other process can have the store. */
  readonly isStoreExclusive: boolean;
  readonly vault: Vault;
  /** Where the vault's keys are; null: in no file. */
  readonly keyFile: KeyFile | null;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/**
 * Segments of a store with several routers stay at least this long: a router that has not read them yet must still find
 * them. One that is further behind than this ends, and begins anew from the checkpoint.
 */
const SHARED_RETENTION_MS = 60_000;
/** By which the wall clocks of routers on one store may differ, the time of a command included. */
const CLOCKS_APART_MAX_MS = 120_000;
/** Homeservers that credentials may name. */
const HOMESERVERS_MAX = 100;
const REGISTRATIONS_MAX = 20_000;
const RETRY_AFTER_MS_MAX = 600_000;
const DRAIN_TIMEOUT_MS = 3_000;

const HOMESERVER_LIMITS: Omit<HomeserverLimits, 'retentionMs' | 'ephemeralAgeMaxMs'> = {
  ledger: {
    groupRoutedMax: 200_000,
    groupEventsMax: 2_000,
    groupBytesMax: 8 * 1024 * 1024,
    queueItemsMax: 20_000,
    queueBytesMax: 128 * 1024 * 1024,
    retryDelayMs: 1_000,
    answerTimeoutMs: 750,
    catchUpIntervalMs: 250,
    readSegmentsMax: 100,
    readBytesMax: 8 * 1024 * 1024,
    streamsMax: 1_000,
  },
  recentBytesMax: 64 * 1024 * 1024,
  roomsMax: 100_000,
  dirtyRoomsMax: 20_000,
  upkeep: UPKEEP_DEFAULTS,
};

export class Service implements AsyncDisposable {
  readonly grpcAddress: string;
  readonly httpAddress: string;
  /** Of this process among those that share the store. */
  readonly replicaId: string;
  readonly #closers: AsyncDisposableStack;
  readonly #doors: { readonly grpc: GrpcServer; readonly http: HttpServer };
  readonly #clock: Clock;

  private constructor(doors: { grpc: GrpcServer; http: HttpServer }, replicaId: string, closers: AsyncDisposableStack, clock: Clock) {
    this.grpcAddress = doors.grpc.address;
    this.httpAddress = doors.http.address;
    this.replicaId = replicaId;
    this.#doors = doors;
    this.#closers = closers;
    this.#clock = clock;
  }

  static async start(parts: ServiceParts): Promise<Service> {
    await using opened = new AsyncDisposableStack();
    const { settings, clock, random, logger } = parts;
    const telemetry = new Telemetry({ clock, version: parts.version });
    const store = timedStore(opened.use(parts.store), telemetry, clock);
    const presence = opened.use(new ReplicaPresence({ store, clock, random, logger, isExclusive: parts.isStoreExclusive, ...PRESENCE_DEFAULTS }));
    await presence.start();
    const listeners: { address: string; port: number }[] = [];
    const policy = createAddressPolicy({ ...settings.outbound, ownListeners: () => listeners, localAddresses });
    const client = opened.use(new HttpClient({ ...HTTP_CLIENT_LIMITS, clock, policy, network: systemNetwork() }));
    const push = new HttpPush({ client, clock, pushTimeoutMs: settings.pushTimeoutMs, retryAfterMsMax: RETRY_AFTER_MS_MAX });
    const pacer = new Pacer(clock, eventLoopLoad(), PACER_DEFAULTS);
    const feed = new EventFeed({ logger, meter: telemetry });
    const operations = new Escalations({ events: feed, meter: telemetry, clock, windowMs: settings.escalationWindowMs });
    const ping = opened.use(new Ping({ client, clock, logger, operations, timeoutMs: settings.pingTimeoutMs, ...PING_LIMITS }));
    const asking = { client, clock, random, logger, operations, queryTimeoutMs: settings.queryTimeoutMs };
    const provisioning = opened.use(new Provisioning({ ...asking, events: feed, attemptsMax: settings.queryAttemptsMax, ...PROVISIONING_LIMITS }));
    const thirdParty = opened.use(new ThirdParty(asking));
    const keys = opened.use(new Keys(asking));

    const deliverySettings: DeliverySettings = { ...DELIVERY_DEFAULTS, ...settings.delivery, replayAgeMaxMs: replayAgeMaxMsOf(parts) };
    const files: RegistrationFiles[] = [];
    const homeservers = new Map<string, Homeserver>();
    const registrars: Registrar[] = [];
    const rotation = new KeyRotation({ ...parts, registrars: () => registrars, saveFolds: () => Promise.all([...homeservers.values()].map((homeserver) => homeserver.saveFold())) });
    const admins = new Map<string, AppserviceAdmin>();
    for (const serverName of serverNames(settings)) {
      const homeserver = await Homeserver.start({
        serverName,
        store,
        open: (name, appserviceId, stored) => parts.vault.open(name, appserviceId, stored),
        tokenHash: (token) => parts.vault.tokenHash(token),
        ping: (name, registration, transactionId) => ping.ping(name, registration, transactionId),
        query: (name, subject, candidates) => provisioning.query(name, subject, candidates),
        thirdParty,
        keys,
        unknownUsers: (rooms) => new UnknownUsers({ ...rooms, serverName, clock, logger, meter: telemetry.unknownUsers(serverName), limits: UNKNOWN_USERS_LIMITS }),
        meter: telemetry.ingest(serverName),
        clock,
        random,
        logger,
        limits: { ...HOMESERVER_LIMITS, ephemeralAgeMaxMs: deliverySettings.ephemeralAgeMaxMs, ...retentionOf(parts) },
        delivery: (routes, registrations) =>
          new Delivery({ serverName, store, routes, registrations, push, clock, random, logger, meter: meterOf(telemetry, operations), events: feed, presence, pacer, settings: deliverySettings }),
      });
      opened.use(homeserver);
      const registrar = new Registrar({ serverName, registrations: () => homeserver.registrations, ledger: homeserver.ledger, vault: parts.vault, registrationsMax: REGISTRATIONS_MAX });
      homeservers.set(serverName, homeserver);
      registrars.push(registrar);
      const rules: RegistrationRules = { serverName, rateLimitedDefault: settings.rateLimitedDefault, patternProblem, urlProblem: (url) => outboundUrlProblem(url, policy) };
      const admin = adminOf(homeserver, { registrar, rules, feed, rotation, store, clock, random, logger });
      admins.set(serverName, admin);
      if (serverName === settings.serverName && settings.registrationPaths.length > 0) {
        files.push(opened.use(await watchFiles(settings.registrationPaths, registrar, admin, { rules, clock, logger })));
      }
    }
    await beginWatching(parts, presence, homeservers, opened);
    const ingress = ingressOf(settings, homeservers, opened, { client, store, telemetry, clock, logger });
    const ingressStatus = (name: string): IngressStatus | undefined => (ingress?.serverName === name ? ingress.status() : undefined);
    telemetry.observe(() => [...homeservers.values()].map((homeserver) => gaugesOf(homeserver, operations, ingressStatus(homeserver.serverName))));

    const ports: Homeservers = { defaultServerName: settings.serverName, router: (name) => homeservers.get(name), admin: (name) => admins.get(name), ingress: ingressStatus };
    const methods = { router: new RouterMethods(ports), admin: new AdminMethods(ports, settings.rateLimitedDefault) };
    const common = { ...methods, authenticator: new Authenticator(settings.credentials), clock, logger, meter: rpcMeterOf(telemetry) };
    const grpc = opened.use(await GrpcServer.start({ ...common, listen: settings.grpcListen }));
    const ready: HttpProbes['ready'] = () => readinessOf(homeservers, files, ingress);
    const http = opened.use(await HttpServer.start({ ...common, listen: settings.httpListen, probes: probesOf(telemetry, ready), ingress }));
    listeners.push(endpointOf(grpc.address), endpointOf(http.address));
    return new Service({ grpc, http }, presence.replicaId, opened.move(), clock);
  }

  /** Ends the calls, then everything else; see the head of this file. Within the bounds of its parts, below ten seconds. */
  async [Symbol.asyncDispose](): Promise<void> {
    const late = new AbortController();
    const drained = Promise.all([this.#doors.grpc.drain(), this.#doors.http.drain()]).then(() => late.abort());
    await Promise.race([drained, this.#clock.sleep(DRAIN_TIMEOUT_MS, late.signal)]);
    await this.#closers.disposeAsync();
  }
}

/** How long segments stay. Where others trim too, longer than anything may be replayed: a router may trim by states that it read before the replay. */
function retentionOf(parts: ServiceParts): Pick<HomeserverLimits, 'retentionMs' | 'unreadMs'> {
  if (parts.isStoreExclusive) return { retentionMs: parts.settings.logRetentionMs };
  return { retentionMs: replayAgeMaxMsOf(parts) + CLOCKS_APART_MAX_MS, unreadMs: SHARED_RETENTION_MS };
}

function replayAgeMaxMsOf({ settings, isStoreExclusive }: ServiceParts): number {
  return isStoreExclusive ? Infinity : Math.max(settings.logRetentionMs, SHARED_RETENTION_MS);
}

/** Has what other processes do on the store looked at at once, while there are others; says whether the store has gone back. */
async function beginWatching({ wakes, witness }: ServiceParts, presence: ReplicaPresence, homeservers: ReadonlyMap<string, Homeserver>, opened: AsyncDisposableStack): Promise<void> {
  const listener: StoreWakes = {
    appended: (name, firstPosition) => homeservers.get(name)?.ledger.appendedElsewhere(firstPosition),
    leaseChanged: (name, appserviceId, holder) => homeservers.get(name)?.delivery.leaseChanged(appserviceId, holder),
    replicasChanged: () => presence.look(),
  };
  wakes?.connect(listener, () => presence.isShared);
  if (witness !== undefined) await opened.use(witness).watch(() => [...homeservers].map(([name, { tail }]) => [name, tail] as const));
}

interface IngressParts extends Pick<ServiceParts, 'store' | 'clock' | 'logger'> {
  readonly client: HttpClient;
  readonly telemetry: Telemetry;
}

function ingressOf(settings: ServiceSettings, homeservers: ReadonlyMap<string, Homeserver>, opened: AsyncDisposableStack, { client, store, telemetry, clock, logger }: IngressParts): Ingress | undefined {
  const { ingress: tokens, homeserverUrl, homeserverTimeoutMs, roomWaitMs } = settings;
  const homeserver = homeservers.get(ingressServerName(settings));
  if (tokens === null || homeserver === undefined) return undefined;
  const { serverName } = homeserver;
  const meter = telemetry.ingress(serverName);
  const url = homeserverUrl === null ? null : parseOutboundUrl(homeserverUrl);
  const source = url === null ? null : new HomeserverClient({ client, serverName, url, asToken: tokens.asToken, timeoutMs: homeserverTimeoutMs });
  const rooms = source === null ? undefined : opened.use(new RoomLookups({ homeserver, source, meter, clock, logger, waitMs: roomWaitMs }));
  rooms?.start();
  return new Ingress({ hsToken: tokens.hsToken, homeserver, rooms, store, meter, clock, logger });
}

function ingressServerName({ serverName, ingress }: ServiceSettings): string {
  return ingress?.serverName ?? serverName;
}

function serverNames(settings: ServiceSettings): Set<string> {
  const { serverName, credentials } = settings;
  const names = new Set([serverName, ingressServerName(settings), ...credentials.flatMap((credential) => credential.serverName ?? [])]);
  if (names.size > HOMESERVERS_MAX) throw new Error(`the credentials name ${names.size} homeservers; at most ${HOMESERVERS_MAX} can be served`);
  return names;
}

function adminOf(
  homeserver: Homeserver,
  { store, clock, random, logger, ...parts }: Pick<AppserviceAdminOptions, 'registrar' | 'rules' | 'feed' | 'rotation'> & Pick<ServiceParts, 'store' | 'clock' | 'random' | 'logger'>,
): AppserviceAdmin {
  const { serverName, delivery, ledger, isRedelivered } = homeserver;
  const quarantine = new Quarantine({ serverName, store, commands: delivery.commands, log: ledger, isRedelivered });
  const audit = new Audit({ serverName, store, clock, random, logger, inTime: (work) => delivery.commands.inTime(work) });
  return new AppserviceAdmin({ serverName, delivery, quarantine, audit, explained: homeserver, pause: () => clock.pause(), ...parts });
}

function gaugesOf(homeserver: Homeserver, operations: Escalations, ingress: IngressStatus | undefined): ReturnType<Parameters<Telemetry['observe']>[0]>[number] {
  return {
    serverName: homeserver.serverName,
    unknownRooms: ingress?.unknownRoomCount,
    async appservices() {
      const { serverName } = homeserver;
      const statuses = await homeserver.delivery.statuses('', REGISTRATIONS_MAX);
      operations.retain(serverName, new Set(statuses.map(({ appserviceId }) => appserviceId)));
      return statuses.map((status) => ({ ...status, ...operations.errorRate(serverName, status.appserviceId) }));
    },
    queueBytes: () => homeserver.ledger.queuedBytes,
    heldEntries: () => homeserver.heldEntryCount,
  };
}

function probesOf(telemetry: Telemetry, ready: HttpProbes['ready']): HttpProbes {
  return { ready, metrics: async () => ({ contentType: telemetry.contentType, text: await telemetry.scrape() }) };
}

function rpcMeterOf(telemetry: Telemetry): RpcMeter {
  return { observe: (method, code, durationMs) => telemetry.rpc(method, codeName(code), durationMs) };
}

/** What delivery tells goes to the metrics, and each attempt to the error rates. */
function meterOf(telemetry: Telemetry, operations: Escalations): DeliveryMeter {
  return {
    attempt(serverName, appserviceId, outcome, durationMs, attempt) {
      telemetry.attempt(serverName, appserviceId, outcome, durationMs, attempt);
      if (outcome !== 'aborted') operations.operated({ serverName, appserviceId, kind: 'push', failed: outcome !== 'delivered' });
    },
    delivered: (serverName, appserviceId, entryCount) => telemetry.delivered(serverName, appserviceId, entryCount),
    leftOut: (serverName, appserviceId, kind, reason, count) => telemetry.leftOut(serverName, appserviceId, kind, reason, count),
  };
}

/** A registration file that cannot be applied is told and does not make the router unready: what was in force stays so. */
function readinessOf(homeservers: ReadonlyMap<string, Homeserver>, files: readonly RegistrationFiles[], ingress: Ingress | undefined): { ready: boolean; detail: Record<string, unknown> } {
  const behind = [...homeservers.values()].filter(({ isFollowing }) => !isFollowing).map(({ serverName }) => serverName);
  const problems = files.flatMap((one) => one.problems());
  return {
    ready: behind.length === 0,
    detail: {
      ...(behind.length === 0 ? {} : { store: 'the log cannot be reached', server_names: behind }),
      ...(problems.length === 0 ? {} : { registration_files: problems }),
      ...(ingress === undefined ? {} : { ingress: ingress.detail }),
    },
  };
}

function watchFiles(paths: readonly string[], registrar: Registrar, admin: AppserviceAdmin, { rules, clock, logger }: { readonly rules: RegistrationRules; readonly clock: Clock; readonly logger: Logger }): Promise<RegistrationFiles> {
  return RegistrationFiles.start({
    ...REGISTRATION_FILES_DEFAULTS,
    disk: registrationDisk(paths),
    target: {
      list: () => registrar.origins(),
      put: (registration, { resumeParked }) => admin.putFromFile(registration, resumeParked),
      remove: (appserviceId) => admin.removeWithoutFile(appserviceId),
    },
    read: (text) => registrationFromYaml(text, rules),
    clock,
    logger,
  });
}

function endpointOf(address: string): { address: string; port: number } {
  const colon = address.lastIndexOf(':');
  return { address: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) };
}

function localAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((addresses) => (addresses ?? []).map(({ address }) => address));
}
