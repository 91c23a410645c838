/**
 * Delivery to all appservices of one homeserver: the door to delivery/.
 *
 * Ingest tells what it routed and that registrations changed; operators look and command; upkeep asks how far each
 * appservice is. Which process delivers, and how, is behind it: roster.ts and sender.ts.
 */
import type { BackoffLimits } from '../appservice/backoff.ts';
import type { DomainEventSink } from '../appservice/domain-event.ts';
import type { Clock, Random } from '../clock.ts';
import type { Logger } from '../logger.ts';
import type { AppserviceState, AppserviceStateStore, ExpiredEntries, OperatorRecordStore, SegmentLog } from '../store/port.ts';
import { Commands, firstStateElsewhere } from './commands.ts';
import type { StreamAtTail, StreamDelivery } from './delivered-positions.ts';
import { deliveredStreamPositions } from './delivered-positions.ts';
import { DeliveredTransactions } from './delivered-transactions.ts';
import type { Pacer } from './pacer.ts';
import type { DeliveryMeter, Push, RegistrationSource, RouteAnnouncement, RouteReader } from './ports.ts';
import type { ReplicaPresence } from './replica-presence.ts';
import { Roster } from './roster.ts';
import { StateWriter } from './state-writer.ts';
import type { AppserviceStatus, BacklogFigures } from './status.ts';
import { isKnown, statusOf } from './status.ts';
import type { EventDelivery } from './whereabouts.ts';
import { deliveriesOfEvent } from './whereabouts.ts';

export interface DeliverySettings {
  /** Events in one transaction, 1 to 10,000. */
  readonly eventsMax: number;
  /** Typing, receipts and presence in one transaction, 1 to 10,000. */
  readonly ephemeralMax: number;
  /** To-device messages in one transaction, 1 to 10,000. */
  readonly toDeviceMax: number;
  /** Ephemeral entries that wait longer are left out, 1 or more. */
  readonly ephemeralAgeMaxMs: number;
  /** Bytes of one request body; a single larger event goes alone. */
  readonly bytesMax: number;
  /** Wait after the first failed attempt, and the longest. */
  readonly backoff: BackoffLimits;
  /** Wait between two tries while the store is away. */
  readonly storeRetry: BackoffLimits;
  /** Longest time that anything waits whose wake was lost; how often replicas look at each other's states. */
  readonly pollIntervalMs: number;
  /** How old what is replayed may be: as long as nobody trims it, on a store that others trim too. */
  readonly replayAgeMaxMs: number;
  /** States in one write call of the store. */
  readonly statesMax: number;
  /** An operator's command is refused when the store has not answered for this long. */
  readonly answerTimeoutMs: number;
  /** At the end, attempts in flight have this long; then they are aborted. */
  readonly drainTimeoutMs: number;
  /** And giving back the leases has this long. */
  readonly releaseTimeoutMs: number;
}

export const DELIVERY_DEFAULTS: DeliverySettings = {
  eventsMax: 100,
  ephemeralMax: 100,
  toDeviceMax: 100,
  ephemeralAgeMaxMs: 300_000,
  bytesMax: 1_000_000,
  backoff: { firstMs: 2_000, maxMs: 512_000 },
  storeRetry: { firstMs: 100, maxMs: 5_000 },
  pollIntervalMs: 1_000,
  replayAgeMaxMs: Infinity,
  statesMax: 500,
  answerTimeoutMs: 900,
  drainTimeoutMs: 5_000,
  releaseTimeoutMs: 1_500,
};

export interface DeliveryOptions {
  readonly serverName: string;
  readonly store: AppserviceStateStore & OperatorRecordStore & Pick<SegmentLog, 'measureRoutes' | 'readSegments' | 'wholeFrom'>;
  readonly routes: RouteReader;
  readonly registrations: RegistrationSource;
  readonly push: Push;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly meter: DeliveryMeter;
  readonly events: DomainEventSink;
  /** One for the whole process. */
  readonly pacer: Pacer;
  /** Started before delivery is, disposed after. */
  readonly presence: ReplicaPresence;
  readonly settings: DeliverySettings;
}

const TRANSACTION_ENTRIES_LIMIT = 10_000;
/** A position that holds nothing back. */
const BEYOND_ALL = Number.MAX_SAFE_INTEGER;

export class Delivery implements AsyncDisposable {
  readonly #options: DeliveryOptions;
  readonly #writer: StateWriter;
  readonly #roster: Roster;
  /** What operators command. */
  readonly commands: Commands;
  readonly #deliveredTransactions = new DeliveredTransactions();

  constructor(options: DeliveryOptions) {
    const { serverName, store, routes, registrations, push, clock, random, logger, meter, events, presence, pacer, settings } = options;
    const { eventsMax, ephemeralMax, toDeviceMax, bytesMax, ephemeralAgeMaxMs, backoff, statesMax, pollIntervalMs } = settings;
    if ([eventsMax, ephemeralMax, toDeviceMax].some((countMax) => countMax < 1 || countMax > TRANSACTION_ENTRIES_LIMIT) || bytesMax < 1) throw new Error('the limits of a transaction are out of range');
    this.#options = options;
    const storeRetry = { clock, random, logger, serverName, limits: settings.storeRetry };
    this.#writer = new StateWriter({ serverName, store, statesMax });
    const limits = { eventsMax, ephemeralMax, toDeviceMax, bytesMax, ephemeralAgeMaxMs, backoff };
    const context = { serverName, store, routes, registrations, push, clock, random, logger, meter, events, presence, limits, pacer, storeRetry, deliveredTransactions: this.#deliveredTransactions };
    this.#roster = new Roster({ context, presence, writer: this.#writer, log: store, pollIntervalMs });
    this.commands = new Commands({ serverName, registrations, roster: this.#roster, writer: this.#writer, log: store, clock, storeRetry, replayAgeMaxMs: settings.replayAgeMaxMs, answerTimeoutMs: settings.answerTimeoutMs });
  }

  /**
   * Takes up every queue that is this replica's and goes on with what waits there, without new traffic. Everything up
   * to log position `throughPosition` is durable and was announced or is older than this process; what is announced
   * from now on lies above. Rejects with a StoreError.
   */
  start(throughPosition: number): Promise<void> {
    return this.#roster.start(throughPosition);
  }

  /** True if it is for this replica to deliver to the appservice, as replicas come and go. */
  isWantedHere(appserviceId: string): boolean {
    return this.#roster.isWantedHere(appserviceId);
  }

  /** Durable segments' routes, in log order. Cheap; never throws. */
  routed(announcements: readonly RouteAnnouncement[]): void {
    this.#roster.routed(announcements);
  }

  /** The registrations in force are others than before; a wait of an appservice whose registration changed ends. Never throws. */
  registrationsChanged(): void {
    this.#roster.registrationsChanged();
  }

  /** The lease of an appservice changed hands, as the store tells. A hint; never throws. */
  leaseChanged(appserviceId: string, holder: string | null): void {
    this.#roster.leaseChanged(appserviceId, holder);
  }

  /** Rejects with a RefusalError or StoreError. */
  async status(appserviceId: string): Promise<AppserviceStatus> {
    this.commands.inForce(appserviceId);
    const [status] = await this.#statuses([appserviceId]);
    if (status === undefined) throw new Error('an appservice has no status');
    return status;
  }

  /** In order of the ids, at most `limit`, those after `afterId` ('' = from the start). Rejects with a StoreError. */
  statuses(afterId: string, limit: number): Promise<AppserviceStatus[]> {
    const { registrations, serverName } = this.#options;
    const ids = registrations.list(serverName).flatMap((inForce) => (isKnown(inForce) && inForce.appserviceId > afterId ? [inForce.appserviceId] : []));
    return this.#statuses(ids.sort((a, b) => (a < b ? -1 : 1)).slice(0, limit));
  }

  /** Stops or resumes delivery; an attempt in flight ends and counts. Survives restarts. Rejects with a RefusalError or StoreError. */
  async setPaused(appserviceId: string, paused: boolean): Promise<AppserviceStatus> {
    await this.commands.setPaused(appserviceId, paused);
    return this.status(appserviceId);
  }

  /** Ends the wait for the next attempt. Rejects with a RefusalError or StoreError. */
  async retryNow(appserviceId: string): Promise<AppserviceStatus> {
    await this.commands.retryNow(appserviceId);
    return this.status(appserviceId);
  }

  /** The appservice was heard of, by a ping: ends the wait for the next attempt if there is one (R137). Rejects with a StoreError. */
  wake(appserviceId: string): Promise<void> {
    return this.commands.wake(appserviceId);
  }

  /** Of each appservice that there is, in order of the ids. Rejects with a StoreError. */
  async streamPositions(at: StreamAtTail): Promise<StreamDelivery[]> {
    const { registrations, serverName, store } = this.#options;
    const known = registrations.list(serverName).filter(isKnown);
    const states = known.every(({ appserviceId }) => this.#roster.sender(appserviceId) !== undefined) ? null : await this.commands.inTime(this.#writer.load());
    const delivered = new Map<string, number>();
    for (const inForce of known.sort((one, other) => (one.appserviceId < other.appserviceId ? -1 : 1))) {
      const { appserviceId, since } = inForce;
      const stored = this.#roster.sender(appserviceId)?.state ?? states?.get(appserviceId);
      // Nothing accumulates for one that failed, and nothing from before this life of the id is its own.
      const isOver = stored?.deliveryState === 'failed' && stored.sincePosition === since;
      delivered.set(appserviceId, isOver ? at.tail : Math.max(stored?.deliveredPosition ?? since, since));
    }
    return this.commands.inTime(deliveredStreamPositions(store, serverName, at, delivered));
  }

  /** Where an event is on its way to each of those it is routed to, each by the log position of its entry. Rejects with a StoreError. */
  async deliveriesOf(routes: ReadonlyMap<string, number>): Promise<ReadonlyMap<string, EventDelivery>> {
    const { registrations, serverName, store } = this.#options;
    const isHere = [...routes.keys()].every((appserviceId) => this.#roster.sender(appserviceId) !== undefined);
    const states = isHere ? null : await this.commands.inTime(this.#writer.load());
    return this.commands.inTime(
      deliveriesOfEvent(routes, {
        serverName,
        store,
        delivered: this.#deliveredTransactions,
        inForce: (appserviceId) => registrations.find(serverName, appserviceId),
        state: (appserviceId) => {
          const sender = this.#roster.sender(appserviceId);
          if (sender !== undefined) return { stored: sender.state, visibleState: sender.visibleState };
          const stored = states?.get(appserviceId);
          return stored === undefined ? undefined : { stored, visibleState: stored.deliveryState };
        },
      }),
    );
  }

  /**
   * Log position up to which each appservice with a state is owed nothing more, for trimming: parked and held queues
   * hold the log back, one that is `failed` does not.
   */
  deliveredPositions(): ReadonlyMap<string, number> {
    const { registrations, serverName } = this.#options;
    const positions = new Map<string, number>();
    for (const appserviceId of this.#roster.appserviceIds()) {
      const state = this.#roster.state(appserviceId);
      if (state === undefined) continue;
      // A new life of the id may have begun that the state does not show yet.
      const isThisLife = registrations.find(serverName, appserviceId)?.since === state.sincePosition;
      positions.set(appserviceId, state.deliveryState === 'failed' && isThisLife ? BEYOND_ALL : state.deliveredPosition);
    }
    return positions;
  }

  /** Log position up to which each appservice with a state has had a transaction cut, as far as was stored by `asOfMs`. */
  cutPositions(): { readonly asOfMs: number; readonly positions: ReadonlyMap<string, number> } {
    const positions = new Map<string, number>();
    for (const appserviceId of this.#roster.appserviceIds()) {
      const state = this.#roster.state(appserviceId);
      if (state !== undefined) positions.set(appserviceId, Math.max(state.deliveredPosition, state.transaction?.through ?? 0, state.split?.through ?? 0));
    }
    return { asOfMs: this.#roster.knownAsOfMs, positions };
  }

  /** Ephemeral entries past their age are gone from the log before anything was cut of them. Never throws. */
  expired(all: readonly ExpiredEntries[]): void {
    const { meter, serverName } = this.#options;
    for (const { appserviceId, entryCount } of all) {
      meter.leftOut(serverName, appserviceId, 'ephemeral', 'expired', entryCount);
      this.#roster.sender(appserviceId)?.backlog.forget();
    }
  }

  /** Finishes or aborts attempts in flight, then gives back the leases, each within its bound. */
  [Symbol.asyncDispose](): Promise<void> {
    const { drainTimeoutMs, releaseTimeoutMs } = this.#options.settings;
    return this.#roster.end(drainTimeoutMs, releaseTimeoutMs);
  }

  async #statuses(appserviceIds: readonly string[]): Promise<AppserviceStatus[]> {
    const { registrations, serverName } = this.#options;
    const ids = appserviceIds.filter((id) => this.#roster.sender(id) === undefined);
    const elsewhere = ids.length === 0 ? null : await this.commands.inTime(this.#readElsewhere(ids));
    return appserviceIds.flatMap((appserviceId) => {
      const inForce = registrations.find(serverName, appserviceId);
      const sender = this.#roster.sender(appserviceId);
      if (sender !== undefined) {
        const { state: stored, backlog, visibleState, trouble } = sender;
        return statusOf({ stored, inForce, backlog, visibleState, trouble });
      }
      const read = elsewhere?.get(appserviceId);
      if (read === undefined) return [];
      return statusOf({ stored: read.stored, inForce, backlog: read.backlog, visibleState: read.stored.deliveryState, trouble: null });
    });
  }

  /** States and backlogs of appservices that other replicas hold, or nobody yet. */
  async #readElsewhere(appserviceIds: readonly string[]): Promise<Map<string, { stored: AppserviceState; backlog: BacklogFigures }>> {
    const { registrations, serverName, store } = this.#options;
    const read = new Map<string, { stored: AppserviceState; backlog: BacklogFigures }>();
    const states = await this.#writer.load();
    const after = new Map<string, number>();
    for (const appserviceId of appserviceIds) {
      const inForce = registrations.find(serverName, appserviceId);
      const stored = states.get(appserviceId) ?? (inForce === undefined ? undefined : firstStateElsewhere(serverName, inForce));
      if (stored === undefined) continue;
      read.set(appserviceId, { stored, backlog: { entries: 0, bytes: 0, oldestTimeMs: null } });
      after.set(appserviceId, stored.deliveredPosition);
    }
    for (const { appserviceId, entryCount, bytes, oldestTimeMs } of await store.measureRoutes(serverName, after, this.#roster.tail)) {
      const known = read.get(appserviceId);
      if (known !== undefined) read.set(appserviceId, { stored: known.stored, backlog: { entries: entryCount, bytes, oldestTimeMs } });
    }
    return read;
  }
}
