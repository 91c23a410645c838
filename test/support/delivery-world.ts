/**
 * A homeserver's delivery with everything around it scripted: one store, any number of router processes, appservices
 * that answer as told, a clock that the test moves.
 */
import type { RoutedKind } from '../../src/appservice/body-keys.ts';
import type { DomainEvent } from '../../src/appservice/domain-event.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import type { Clock } from '../../src/clock.ts';
import { Quarantine } from '../../src/admin/quarantine.ts';
import { Pacer, PACER_DEFAULTS } from '../../src/delivery/pacer.ts';
import { Delivery, DELIVERY_DEFAULTS } from '../../src/delivery/delivery.ts';
import type { DeliverySettings } from '../../src/delivery/delivery.ts';
import type { Push, PushOutcome, PushRequest, RegistrationInForce, RegistrationSource, RouteReader } from '../../src/delivery/ports.ts';
import { PRESENCE_DEFAULTS, ReplicaPresence } from '../../src/delivery/replica-presence.ts';
import type { RedeliveryOutcome, Shelf } from '../../src/ingest/redelivery.ts';
import type { LogFields, Logger } from '../../src/logger.ts';
import type { AppserviceState } from '../../src/store/port.ts';
import type { RedeliveredKey } from '../../src/store/segment.ts';
import { seededRandom, VirtualClock } from './clock.ts';
import { DeliveryStore, SERVER } from './delivery-store.ts';
import type { StoreConnection } from './delivery-store.ts';

export const OK: PushOutcome = { kind: 'delivered', httpStatus: 200 };
export const TOO_LARGE: PushOutcome = { kind: 'too_large', httpStatus: 413, message: 'The appservice answered 413.' };
export const DOWN: PushOutcome = { kind: 'unreachable', failure: 'connection_refused', message: 'The appservice cannot be reached.' };

export function rejected(httpStatus: number, retryAfterMs: number | null = null): PushOutcome {
  return { kind: 'rejected', httpStatus, misconfiguration: httpStatus === 401, retryAfterMs, message: `The appservice answered ${httpStatus}.` };
}

export interface PushRecord {
  readonly process: string;
  readonly appserviceId: string;
  readonly url: string | null;
  readonly txnId: string;
  readonly text: string;
  readonly timeMs: number;
  /** Places in the order of all that happened at appservices. */
  readonly beganAt: number;
  answeredAt: number | null;
  /** What the appservice did; null while it has not answered. */
  answered: PushOutcome['kind'] | null;
  /** What the router was told; null if it never heard. */
  heard: PushOutcome['kind'] | null;
}

export type Answer = (request: PushRequest, record: PushRecord) => PushOutcome | Promise<PushOutcome>;

export interface ProcessOptions {
  readonly exclusive?: boolean;
  readonly settings?: Partial<DeliverySettings>;
  /** Wraps what the process uses, to break it. */
  readonly breakPush?: (push: Push) => Push;
  readonly breakRoutes?: (routes: RouteReader) => RouteReader;
  readonly diesAt?: (point: string) => boolean;
  readonly fault?: StoreConnection['fault'];
}

/** One router process. */
export interface RouterProcess {
  readonly name: string;
  readonly delivery: Delivery;
  readonly quarantine: Quarantine;
  readonly presence: ReplicaPresence;
  readonly connection: StoreConnection;
  readonly clock: ProcessClock;
  /** Resolves when it has started; rejects if it could not. */
  started: Promise<void>;
  /** What it was not told while it was frozen. */
  readonly missed: (() => void)[];
}

/** The clock as one process sees it: nobody wakes in a process that is frozen. */
export class ProcessClock implements Clock {
  readonly #clock: Clock;
  frozenUntil: Promise<void> | null = null;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  async sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    await this.#clock.sleep(delayMs, signal);
    while (this.frozenUntil !== null) await this.frozenUntil;
  }

  async pause(): Promise<void> {
    await this.#clock.pause();
    while (this.frozenUntil !== null) await this.frozenUntil;
  }
}

export class DeliveryWorld {
  readonly clock = new VirtualClock();
  readonly store = new DeliveryStore(this.clock);
  readonly registrations = new Map<string, RegistrationInForce>();
  readonly processes: RouterProcess[] = [];
  readonly pushes: PushRecord[] = [];
  readonly events: DomainEvent[] = [];
  readonly logged: { level: string; fields: LogFields; message: string }[] = [];
  readonly metered: string[] = [];
  /** Transactions that went from the quarantine into the log again, as `appserviceId|txnId`. */
  readonly redelivered = new Set<string>();
  answer: Answer = () => OK;
  #names = 0;
  #order = 0;
  #activity = 0;

  registration(appserviceId: string, patch: Partial<Registration> = {}): Registration {
    return {
      id: appserviceId,
      url: `http://${appserviceId}.example`,
      as_token: `as_${appserviceId}`,
      hs_token: `hs_${appserviceId}`,
      sender_localpart: appserviceId,
      namespaces: { users: [], aliases: [], rooms: [] },
      protocols: [],
      rate_limited: true,
      receive_ephemeral: false,
      push_ephemeral_unstable: false,
      device_extensions: false,
      delivery_options: {},
      ...patch,
    };
  }

  /** Puts a registration as ingest does: at a log position of its own. */
  put(appserviceId: string, patch: Partial<Registration> = {}, resumeParked = false): void {
    const position = this.store.mark();
    const known = this.registrations.get(appserviceId);
    const goesOn = known !== undefined && (known.registration !== null || (known.backlog === 'park' && resumeParked));
    this.registrations.set(appserviceId, { appserviceId, position, since: goesOn ? known.since : position, registration: this.registration(appserviceId, patch), backlog: null });
    this.#tell(({ delivery }) => delivery.registrationsChanged());
  }

  remove(appserviceId: string, backlog: 'discard' | 'park'): void {
    const position = this.store.mark();
    const since = this.registrations.get(appserviceId)?.since ?? position;
    this.registrations.set(appserviceId, { appserviceId, position, since, registration: null, backlog });
    this.#tell(({ delivery }) => delivery.registrationsChanged());
  }

  /** Routes one segment with these texts to the appservices, and tells every process. */
  route(appserviceIds: readonly string[], texts: readonly string[]): void {
    const announcements = this.store.append(appserviceIds, texts);
    this.#tell(({ delivery }) => delivery.routed(announcements));
  }

  /** Routes one segment of entries of any kind to the appservices. */
  routeKinds(appserviceIds: readonly string[], items: readonly { readonly kind: RoutedKind; readonly text: string }[]): void {
    const announcements = this.store.appendMixed(items.map((item) => ({ ...item, appserviceIds })));
    this.#tell(({ delivery }) => delivery.routed(announcements));
  }

  /** Routes `count` events named `e1`, `e2` … by their log position. */
  routeMany(appserviceIds: readonly string[], count: number): string[] {
    const texts = Array.from({ length: count }, (_, at) => JSON.stringify({ event_id: `e${this.store.tail + 1 + at}` }));
    this.route(appserviceIds, texts);
    return texts;
  }

  /** Starts a process on the store as it is. */
  async start(options: ProcessOptions = {}): Promise<RouterProcess> {
    const process = this.launch(options);
    await process.started;
    await this.quiet();
    return process;
  }

  /** As {@link start}, without waiting for it. */
  launch(options: ProcessOptions = {}): RouterProcess {
    const process = this.make(options);
    const { tail } = this.store;
    process.started = process.presence.start().then(() => process.delivery.start(tail));
    process.started.catch(() => undefined);
    this.processes.push(process);
    return process;
  }

  /** As SIGSTOP; the answer is SIGCONT. */
  freeze(process: RouterProcess): () => void {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    process.connection.frozenUntil = promise;
    process.clock.frozenUntil = promise;
    return () => {
      process.connection.frozenUntil = null;
      process.clock.frozenUntil = null;
      resolve(undefined);
      for (const tell of process.missed.splice(0)) tell();
    };
  }

  #tell(tell: (process: RouterProcess) => void): void {
    for (const process of this.processes) {
      if (process.connection.frozenUntil === null) tell(process);
      else process.missed.push(() => tell(process));
    }
  }

  /** A process that is not started yet. */
  make(options: ProcessOptions = {}): RouterProcess {
    const name = `p${++this.#names}`;
    const { store } = this;
    const clock = new ProcessClock(this.clock);
    const connection = store.connect(name);
    if (options.diesAt !== undefined) connection.diesAt = options.diesAt;
    if (options.fault !== undefined) connection.fault = options.fault;
    const random = seededRandom(this.#names);
    const logger = this.#logger();
    const presence = new ReplicaPresence({ ...PRESENCE_DEFAULTS, store: connection, clock, random, logger, isExclusive: options.exclusive ?? true });
    const push = this.#push(connection);
    const delivery = new Delivery({
      serverName: SERVER,
      store: connection,
      routes: options.breakRoutes?.(connection) ?? connection,
      registrations: this.#source(),
      push: options.breakPush?.(push) ?? push,
      clock,
      random,
      logger,
      presence,
      pacer: new Pacer(clock, () => 0, PACER_DEFAULTS),
      meter: {
        attempt: (_serverName, appserviceId, outcome) => this.metered.push(`attempt ${appserviceId} ${outcome}`),
        delivered: (_serverName, appserviceId, count) => this.metered.push(`delivered ${appserviceId} ${count}`),
        leftOut: (_serverName, appserviceId, kind, reason, count) => this.metered.push(`left out ${appserviceId} ${kind} ${reason} ${count}`),
      },
      events: { emit: ({ event }) => void this.events.push(event) },
      settings: { ...DELIVERY_DEFAULTS, ...options.settings },
    });
    const isRedelivered = ({ appserviceId, txnId }: RedeliveredKey): boolean => this.redelivered.has(`${appserviceId}|${txnId}`);
    const log = { redeliver: (key: RedeliveredKey, shelf: Shelf) => this.#redeliver(connection, key, shelf) };
    const quarantine = new Quarantine({ serverName: SERVER, store: connection, commands: delivery.commands, log, isRedelivered });
    return { name, delivery, quarantine, presence, connection, clock, started: Promise.resolve(), missed: [] };
  }

  /** As the ledger does it: what is on the shelf and not in the log again goes there, in one step that happens or does not. */
  async #redeliver(connection: StoreConnection, key: RedeliveredKey, shelf: Shelf): Promise<RedeliveryOutcome> {
    const { appserviceId, txnId } = key;
    const name = `${appserviceId}|${txnId}`;
    const shelved = await shelf.find(key);
    if (this.redelivered.has(name)) return 'known';
    if (shelved === null) return 'absent';
    if (shelved.lastPosition <= (this.registrations.get(appserviceId)?.since ?? 0)) throw new RefusalError('DELIVERY_STATE_FORBIDS', 'It was registered anew after this transaction.');
    return connection.appendOnce(() => {
      if (this.redelivered.has(name)) return 'known';
      this.redelivered.add(name);
      this.routeKinds([appserviceId], shelved.entries.map(({ kind, json }) => ({ kind, text: Buffer.from(json).toString() })));
      return 'appended';
    });
  }

  /** As kill -9: nothing the process still does has an effect. */
  crash(process: RouterProcess): void {
    process.connection.kill();
    this.#remove(process);
  }

  async stop(process: RouterProcess): Promise<void> {
    await this.end(process.delivery[Symbol.asyncDispose]());
    this.#remove(process);
    await this.end(process.presence[Symbol.asyncDispose]());
  }

  #remove(process: RouterProcess): void {
    const at = this.processes.indexOf(process);
    if (at !== -1) this.processes.splice(at, 1);
  }

  /** Moves time on until `work` is done. */
  async end<Result>(work: Promise<Result>): Promise<Result> {
    let isDone = false;
    const done = work.finally(() => (isDone = true));
    done.catch(() => undefined);
    for (let turns = 0; turns < 100 && !isDone; turns++) {
      await this.quiet();
      if (!isDone) await this.advance(500);
    }
    if (!isDone) throw new Error('it does not end');
    return done;
  }

  /** Waits until nothing happens any more without time passing. */
  async quiet(): Promise<void> {
    for (let still = 0; still < 6; ) {
      const before = this.#activity + this.store.calls.length;
      await new Promise((resolve) => setImmediate(resolve));
      still = before === this.#activity + this.store.calls.length ? still + 1 : 0;
    }
  }

  async advance(byMs: number): Promise<void> {
    await this.quiet();
    await this.clock.advance(byMs);
    await this.quiet();
  }

  /** Pushes to one appservice as `txnId n text`. */
  pushesTo(appserviceId: string): PushRecord[] {
    return this.pushes.filter((push) => push.appserviceId === appserviceId);
  }

  /** Event texts that the appservice has accepted, in order, repetitions included. */
  received(appserviceId: string): string[] {
    return this.pushesTo(appserviceId).flatMap(({ answered, text }) => (answered === 'delivered' ? eventsOf(text) : []));
  }

  state(appserviceId: string): AppserviceState {
    const state = this.store.states.get(appserviceId);
    if (state === undefined) throw new Error(`no state of ${appserviceId}`);
    return state;
  }

  #source(): RegistrationSource {
    return { find: (_serverName, appserviceId) => this.registrations.get(appserviceId), list: () => [...this.registrations.values()] };
  }

  #push(connection: StoreConnection): Push {
    return {
      push: async (request, signal) => {
        await connection.pass('before push');
        const { appserviceId, txnId, registration, body } = request;
        const record: PushRecord = { process: connection.name, appserviceId, url: registration.url, txnId, text: Buffer.from(body).toString(), timeMs: this.clock.nowMs(), beganAt: this.#order++, answeredAt: null, answered: null, heard: null };
        this.pushes.push(record);
        this.#activity++;
        const aborted = new Promise<PushOutcome>((resolve) => signal.addEventListener('abort', () => resolve({ kind: 'aborted' }), { once: true }));
        const answering = Promise.resolve(this.answer(request, record)).then((outcome) => {
          record.answered = outcome.kind;
          record.answeredAt = this.#order++;
          return outcome;
        });
        const outcome = await Promise.race([answering, aborted]);
        await connection.pass('after push');
        record.heard = outcome.kind;
        this.#activity++;
        return outcome;
      },
    };
  }

  #logger(): Logger {
    const log = (level: string) => (fields: LogFields, message: string) => void this.logged.push({ level, fields, message });
    return { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
  }
}

/** Texts of the events in a body, then of the to-device messages. */
export function eventsOf(body: string): string[] {
  const parsed: unknown = JSON.parse(body);
  if (typeof parsed !== 'object' || parsed === null || !('events' in parsed) || !Array.isArray(parsed.events)) throw new Error('no transaction body');
  const messages: unknown = Reflect.get(parsed, 'de.sorunome.msc2409.to_device') ?? [];
  if (!Array.isArray(messages)) throw new Error('no list of messages');
  return [...parsed.events, ...messages].map((event) => JSON.stringify(event));
}

/** An answer that the test gives later. */
export function later(): { answer: Promise<PushOutcome>; give: (outcome: PushOutcome) => void } {
  const { promise, resolve } = Promise.withResolvers<PushOutcome>();
  return { answer: promise, give: resolve };
}
