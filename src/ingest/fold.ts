/**
 * The fold of one homeserver's log in memory: what all segments up to `tail` come to. Every replica that folds the
 * same segments has the same fold, so a routing decision depends on the log alone.
 *
 * The ledger is its one writer. Between two appends the rooms may already hold the changes of the group in progress;
 * the group router takes them back if the append is lost.
 */
import { NamespaceIndex } from '../appservice/namespaces.ts';
import type { Registration } from '../appservice/registration.ts';
import type { RegistrationInForce, RouteAnnouncement } from '../delivery/ports.ts';
import type { FoldStore, PositionedRegistration } from '../store/port.ts';
import type { RegistrationChange, Segment, StoredRegistration } from '../store/segment.ts';
import { lastPosition } from '../store/segment.ts';
import { DeviceKeysFold } from './device-keys.ts';
import { OpenHolds } from './holds.ts';
import { RedeliveredFold } from './redelivery.ts';
import { RoomCache } from './room-cache.ts';
import { SeenIds } from './seen-ids.ts';
import { StreamPositions } from './stream-positions.ts';

/** A registration change as the fold keeps it: at rest and opened. */
export interface FoldedRegistration extends RegistrationInForce {
  readonly stored: StoredRegistration | null;
}

/** Brings a registration at rest into the clear. Throws a StoreError of kind `unreadable`. */
export type OpenRegistration = (serverName: string, appserviceId: string, stored: StoredRegistration) => Registration;

export interface FoldOptions {
  readonly serverName: string;
  readonly store: FoldStore;
  readonly open: OpenRegistration;
  readonly pause: () => Promise<void>;
  readonly roomsMax: number;
}

export class Fold {
  readonly serverName: string;
  readonly streams = new StreamPositions();
  readonly rooms: RoomCache;
  readonly deviceKeys = new DeviceKeysFold();
  readonly seen = new SeenIds();
  readonly redelivered = new RedeliveredFold();
  readonly holds = new OpenHolds();
  /** Log position of the last entry folded. */
  tail = 0;
  /** Log position of the newest registration change folded. */
  registrationsVersion = 0;
  #index: NamespaceIndex;
  /** Registrations were found in the log that the index does not know yet. */
  #isIndexStale = false;
  #registrations = new Map<string, FoldedRegistration>();
  #changedRegistrations = new Set<string>();
  readonly #options: FoldOptions;

  private constructor(options: FoldOptions, index: NamespaceIndex) {
    this.serverName = options.serverName;
    this.#options = options;
    this.#index = index;
    this.rooms = new RoomCache(options.serverName, options.store, options.roomsMax);
  }

  /** The fold as of the store's checkpoint; the segments after it are still to be folded. */
  static async load(options: FoldOptions): Promise<Fold> {
    const { checkpoint, registrations, seenPages } = await options.store.loadFold(options.serverName);
    const fold = new Fold(options, await NamespaceIndex.compile(options.serverName, [], options.pause));
    fold.tail = checkpoint.position;
    fold.registrationsVersion = checkpoint.registrationsVersion;
    fold.streams.settle(checkpoint.streamPositions);
    fold.deviceKeys.apply(checkpoint.deviceKeys ?? []);
    fold.streams.restore(checkpoint.seenEvents ?? []);
    fold.seen.restore(seenPages ?? []);
    fold.redelivered.load(checkpoint.redelivered ?? []);
    fold.holds.restore(checkpoint.holds ?? []);
    for (const stored of registrations) {
      const registration =
        stored.registration === null ? null : options.open(options.serverName, stored.appserviceId, stored.registration);
      fold.#registrations.set(stored.appserviceId, { ...stored, registration, stored: stored.registration });
    }
    fold.#index = await fold.compile(fold.#registrations);
    return fold;
  }

  /** Matches identifiers against the registrations in force at `tail`. */
  get index(): NamespaceIndex {
    return this.#index;
  }

  get registrations(): ReadonlyMap<string, FoldedRegistration> {
    return this.#registrations;
  }

  /** What the registrations come to once these changes stand at log position `position`. */
  after(changes: readonly RegistrationChange[], position: number): Map<string, FoldedRegistration> {
    const next = new Map(this.#registrations);
    for (const change of changes) {
      const { appserviceId } = change;
      const previous = next.get(appserviceId);
      // A crash between the registrations and the checkpoint of a save leaves them ahead of it; the replay catches up.
      if (previous !== undefined && previous.position >= position) continue;
      if (change.kind === 'removed') {
        next.set(appserviceId, {
          appserviceId,
          position,
          since: previous?.since ?? position,
          registration: null,
          stored: null,
          backlog: change.backlog,
        });
        continue;
      }
      const goesOn = previous !== undefined && (previous.registration !== null || (previous.backlog === 'park' && change.resumeParked));
      next.set(appserviceId, {
        appserviceId,
        position,
        since: goesOn ? previous.since : position,
        registration: this.#options.open(this.serverName, appserviceId, change.registration),
        stored: change.registration,
        backlog: null,
      });
    }
    return next;
  }

  /** Compiles the namespaces of these registrations, in the order in which their lives began. */
  compile(registrations: ReadonlyMap<string, FoldedRegistration>): Promise<NamespaceIndex> {
    const present = [...registrations.values()].sort((a, b) => a.since - b.since || (a.appserviceId < b.appserviceId ? -1 : 1));
    const inForce = present.flatMap(({ registration }) => (registration === null ? [] : [registration]));
    return NamespaceIndex.compile(this.serverName, inForce, this.#options.pause, this.#index);
  }

  /** Folds a segment of this process, whose room changes the rooms hold already. `compiled`: see {@link after} and {@link compile}. */
  settleOwn(segment: Segment, compiled: { registrations: Map<string, FoldedRegistration>; index: NamespaceIndex } | null): void {
    this.#settle(segment, true);
    if (compiled === null) return;
    this.#switch(segment, compiled.registrations);
    this.#index = compiled.index;
  }

  /** Folds a segment found in the log. Rejects with a StoreError before anything is changed. */
  async settleFound(segment: Segment): Promise<void> {
    if (segment.firstPosition !== this.tail + 1) throw new Error('the log goes on beyond what was read of it: others have trimmed what this router has yet to read. It ends, and begins anew from the checkpoint when it is started again');
    await this.rooms.load(new Set(segment.roomDeltas.map((delta) => delta.roomId)));
    const registrations = segment.registrationChanges.length === 0 ? null : this.after(segment.registrationChanges, lastPosition(segment));
    this.#settle(segment, false);
    if (registrations === null) return;
    this.#switch(segment, registrations);
    this.#isIndexStale = true;
  }

  /** Brings the index up to the registrations. To be awaited after segments were found and before anything is routed. */
  async refreshIndex(): Promise<void> {
    if (!this.#isIndexStale) return;
    this.#index = await this.compile(this.#registrations);
    this.#isIndexStale = false;
  }

  #settle(segment: Segment, applied: boolean): void {
    const position = lastPosition(segment);
    this.rooms.settle(segment.roomDeltas, position, applied);
    this.streams.settle(segment.streamPositions);
    if (segment.deviceKeys !== undefined) this.deviceKeys.apply(segment.deviceKeys);
    if (segment.seenIds !== undefined) this.seen.settle(segment.seenIds);
    if (segment.redelivery !== undefined) this.redelivered.apply(segment.redelivery);
    if (segment.holds !== undefined) this.holds.apply(segment);
    this.tail = position;
  }

  #switch(segment: Segment, registrations: Map<string, FoldedRegistration>): void {
    this.#registrations = registrations;
    this.registrationsVersion = Math.max(this.registrationsVersion, lastPosition(segment));
    for (const change of segment.registrationChanges) this.#changedRegistrations.add(change.appserviceId);
  }

  /** Registrations changed since the last call; they count as saved unless {@link unsaved} gives them back. */
  takeChangedRegistrations(): PositionedRegistration[] {
    const changed = [...this.#changedRegistrations].flatMap((id) => this.#registrations.get(id) ?? []);
    this.#changedRegistrations = new Set();
    return changed.map(({ appserviceId, position, since, stored, backlog }) => ({ appserviceId, position, since, registration: stored, backlog }));
  }

  unsaved(registrations: readonly PositionedRegistration[]): void {
    for (const { appserviceId } of registrations) this.#changedRegistrations.add(appserviceId);
  }
}

/** What delivery is told of a durable segment. */
export function announcementsOf(segment: Segment): RouteAnnouncement[] {
  return segment.routes.map(({ appserviceId, ranges, entryCount, bytes }) => ({
    appserviceId,
    firstPosition: segment.firstPosition + (ranges[0] ?? 0),
    lastPosition: segment.firstPosition + (ranges.at(-1) ?? 0),
    entryCount,
    bytes,
    timeMs: segment.timeMs,
  }));
}
