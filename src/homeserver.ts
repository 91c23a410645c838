/**
 * One homeserver's log, fold, delivery and upkeep, wired together.
 *
 *   loading    the fold is read from the checkpoint and the log; delivery starts with what waits there
 *   serving    submissions are taken; every durable segment is told to the recent segments, then to delivery
 *   draining   nothing new is taken; what was taken is made durable; deliveries in flight end; leases are released
 */
import type { AppserviceIdentity, AuthenticateRequest } from './appservice/authenticate.ts';
import { authenticate } from './appservice/authenticate.ts';
import type { AuthorizeRequest, NamespaceVerdict } from './appservice/authorize.ts';
import { authorize, checkNamespace, unknownAppservice } from './appservice/authorize.ts';
import type { Subject } from './appservice/identifier.ts';
import { claimedKeysFrom, keyAnswerFrom, keyClaimFrom, keyOwners, keyQueryFrom } from './appservice/key-request.ts';
import type { ClaimedKeys, KeyClaim, KeyOwners, KeyQuery, KeysResult } from './appservice/key-request.ts';
import type { JsonObject } from './appservice/json.ts';
import type { PingOutcome } from './appservice/ping.ts';
import { failedPing } from './appservice/ping.ts';
import { provisioners, unknownUsers } from './appservice/provisioning.ts';
import type { Provision, ProvisionSubject, UserAnswer } from './appservice/provisioning.ts';
import { RefusalError } from './appservice/refusal.ts';
import type { Registration } from './appservice/registration.ts';
import { protocolOwners, refuseProtocol, thirdPartyCandidates } from './appservice/third-party.ts';
import type { ThirdPartyKind, ThirdPartyMatches, ThirdPartyProtocols, ThirdPartyQuestion } from './appservice/third-party.ts';
import type { Clock, Random } from './clock.ts';
import type { Delivery } from './delivery/delivery.ts';
import type { RegistrationSource, RouteReader } from './delivery/ports.ts';
import { EventSearch } from './ingest/event-search.ts';
import type { EventSearchResult } from './ingest/event-search.ts';
import { announcementsOf, Fold } from './ingest/fold.ts';
import type { OpenRegistration } from './ingest/fold.ts';
import type { KnownAnswers } from './ingest/group-holds.ts';
import type { Hold } from './ingest/holds.ts';
import { Ledger } from './ingest/ledger.ts';
import type { IngestMeter, LedgerLimits } from './ingest/ledger.ts';
import { RecentSegments } from './ingest/recent-segments.ts';
import { registrationSource } from './ingest/registration-source.ts';
import { copyOfRoom, factsOfRooms, sendersOf } from './ingest/room-facts.ts';
import type { ParsedSubmission, SubmissionResult } from './ingest/submission.ts';
import { Upkeep } from './ingest/upkeep.ts';
import type { UpkeepOptions } from './ingest/upkeep.ts';
import type { PieceOutcome, RoomFacts, RoomFinding, TransactionPiece } from './ingress/ports.ts';
import type { Logger } from './logger.ts';
import type { DeliveredPosition, PingRequest, Submission } from './rpc/ports.ts';
import { parseSubmission } from './submission-parser.ts';
import { submissionFromFindings, submissionFromPiece } from './transaction-submission.ts';
import { StoreError } from './store/errors.ts';
import type { RedeliveredKey, Segment } from './store/segment.ts';
import type { Store } from './store/port.ts';

/** How often the log is looked after; see ingest/upkeep.ts. */
export type UpkeepIntervals = Pick<UpkeepOptions, 'intervalMs' | 'checkpointIntervalMs' | 'trimIntervalMs'>;

/** A position that passed unwanted items only is durable within a second (contract section 7). */
export const UPKEEP_DEFAULTS: UpkeepIntervals = { intervalMs: 900, checkpointIntervalMs: 5_000, trimIntervalMs: 5_000 };

export interface HomeserverLimits {
  readonly ledger: LedgerLimits;
  readonly recentBytesMax: number;
  readonly roomsMax: number;
  readonly dirtyRoomsMax: number;
  readonly upkeep: UpkeepIntervals;
  readonly retentionMs: number;
  readonly unreadMs?: number;
  readonly ephemeralAgeMaxMs: number;
}

export type SendPing = (serverName: string, registration: Registration, transactionId: string | undefined) => Promise<PingOutcome>;

export type SendQuery = (serverName: string, subject: ProvisionSubject, candidates: readonly Registration[]) => Promise<Provision>;

/** Looks up third-party networks at appservices. */
export interface ThirdPartyLookups {
  protocols(serverName: string, owners: ReadonlyMap<string, readonly Registration[]>): Promise<ThirdPartyProtocols>;
  lookUp(serverName: string, kind: ThirdPartyKind, question: ThirdPartyQuestion, candidates: readonly Registration[]): Promise<ThirdPartyMatches>;
}

/** Asks appservices for keys of their users. */
export interface KeyRequests {
  claim(serverName: string, wanted: KeyClaim, held: ClaimedKeys, ownersOf: KeyOwners): Promise<KeysResult>;
  query(serverName: string, wanted: KeyQuery, held: JsonObject, ownersOf: KeyOwners): Promise<KeysResult>;
}

/** Asks about the users for whom events wait, and has what waits released. */
export interface UnknownUsersPort extends KnownAnswers, AsyncDisposable {
  /** The holds are others than before. Never throws. */
  look(): void;
}

/** What {@link UnknownUsersPort} is made of. */
export interface HeldRooms {
  readonly waitingRooms: () => Iterable<Hold>;
  readonly isOpen: (hold: Hold) => boolean;
  readonly isMine: (appserviceId: string) => boolean;
  readonly ask: (appserviceId: string, userId: string) => Promise<UserAnswer>;
  readonly release: (hold: Hold, isDue: () => boolean) => Promise<void>;
}

export interface HomeserverOptions {
  readonly serverName: string;
  readonly store: Store;
  readonly open: OpenRegistration;
  readonly tokenHash: (token: string) => string;
  readonly meter: IngestMeter;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly limits: HomeserverLimits;
  /** Asks an appservice whether it can be reached. */
  readonly ping: SendPing;
  /** Asks appservices whether a user or an alias exists. */
  readonly query: SendQuery;
  readonly thirdParty: ThirdPartyLookups;
  readonly keys: KeyRequests;
  readonly unknownUsers: (rooms: HeldRooms) => UnknownUsersPort;
  readonly delivery: (routes: RouteReader, registrations: RegistrationSource) => Delivery;
}

const LAST_CHECKPOINT_TIMEOUT_MS = 1_500;
const TRIM_SEGMENTS_MAX = 500;
const TRIM_CALLS_MAX = 50;

export class Homeserver implements AsyncDisposable {
  readonly serverName: string;
  readonly ledger: Ledger;
  readonly delivery: Delivery;
  readonly #fold: Fold;
  readonly #store: Store;
  readonly #search: EventSearch;
  readonly #upkeep: Upkeep;
  readonly #unknownUsers: UnknownUsersPort;
  readonly #tokenHash: (token: string) => string;
  readonly #ping: SendPing;
  readonly #query: SendQuery;
  readonly #thirdParty: ThirdPartyLookups;
  readonly #keys: KeyRequests;
  readonly #clock: Clock;
  readonly #logger: Logger;

  private constructor(options: HomeserverOptions, fold: Fold) {
    const { serverName, store, clock, random, logger, meter, limits } = options;
    const checkpointPosition = fold.tail;
    const recent = new RecentSegments(serverName, store, checkpointPosition, limits.recentBytesMax);
    const delivery = options.delivery(recent, registrationSource(fold));
    this.serverName = serverName;
    this.delivery = delivery;
    this.#fold = fold;
    this.#store = store;
    this.#search = new EventSearch({ serverName, recent, log: store, streams: fold.streams, clock });
    this.#tokenHash = options.tokenHash;
    this.#ping = options.ping;
    this.#query = options.query;
    this.#thirdParty = options.thirdParty;
    this.#keys = options.keys;
    this.#clock = clock;
    this.#logger = logger;
    this.#unknownUsers = options.unknownUsers({
      waitingRooms: () => fold.holds.all(),
      isOpen: (hold) => fold.holds.isOpen(hold),
      isMine: (appserviceId) => delivery.isWantedHere(appserviceId),
      ask: (appserviceId, userId) => this.#askOne(appserviceId, userId),
      release: (hold, isDue) => this.ledger.release(hold, isDue),
    });
    this.ledger = new Ledger({ fold, log: store, answers: this.#unknownUsers, listener: segmentListener(recent, delivery, this.#unknownUsers), meter, clock, random, logger, limits: limits.ledger });
    this.#upkeep = new Upkeep(
      {
        fold, ledger: this.ledger, store, clock, logger,
        deliveredPositions: () => delivery.deliveredPositions(),
        cutPositions: () => delivery.cutPositions(),
        expired: (all) => delivery.expired(all),
        ephemeralAgeMaxMs: limits.ephemeralAgeMaxMs,
        ...limits.upkeep,
        dirtyRoomsMax: limits.dirtyRoomsMax,
        retentionMs: limits.retentionMs,
        ...(limits.unreadMs === undefined ? {} : { unreadMs: limits.unreadMs }),
        trimSegmentsMax: TRIM_SEGMENTS_MAX,
        trimCallsMax: TRIM_CALLS_MAX,
      },
      checkpointPosition,
    );
  }

  /** Loads the fold, resumes what waits for the appservices and begins to take submissions. Rejects with a StoreError. */
  static async start(options: HomeserverOptions): Promise<Homeserver> {
    const { serverName, store, open, clock, limits } = options;
    const fold = await Fold.load({ serverName, store, open, pause: () => clock.pause(), roomsMax: limits.roomsMax });
    const homeserver = new Homeserver(options, fold);
    await homeserver.ledger.start();
    await homeserver.delivery.start(fold.tail);
    homeserver.#unknownUsers.look();
    homeserver.#upkeep.start();
    return homeserver;
  }

  get tail(): number {
    return this.#fold.tail;
  }

  get registrations(): Fold['registrations'] {
    return this.#fold.registrations;
  }

  get registrationsVersion(): number {
    return this.#fold.registrationsVersion;
  }

  /** True for a transaction that is out of the quarantine and in the log again. */
  readonly isRedelivered = (key: RedeliveredKey): boolean => this.#fold.redelivered.has(key);

  /** Events that wait until an appservice has been asked about a user. */
  get heldEntryCount(): number {
    return this.#fold.holds.entryCount;
  }

  /** The namespaces in force. */
  get index(): Fold['index'] {
    return this.#fold.index;
  }

  /** See {@link copyOfRoom}. */
  copyOfRoom(roomId: string): ReturnType<typeof copyOfRoom> {
    return copyOfRoom(roomId, this.#fold, this.ledger, this.#store);
  }

  /** The appservices for which the entry at the log position waits until they have answered about a user. */
  waitingFor(roomId: string, position: number): ReadonlySet<string> {
    const { index, holds } = this.#fold;
    const waits = ({ id }: Registration): boolean => holds.find(id, roomId)?.entries.some(({ firstPosition, index: at }) => firstPosition + at === position) === true;
    return new Set(index.registrations.filter(waits).map(({ id }) => id));
  }

  /** Looks for an event in the log. Rejects with a RefusalError or a StoreError. */
  findEvent(eventId: string): Promise<EventSearchResult> {
    return this.#search.find(eventId);
  }

  get isFollowing(): boolean {
    return this.ledger.isFollowing;
  }

  /** See SubmitEvents. Rejects with a RefusalError or a StoreError; nothing of a refused submission is applied. */
  async submit(submission: Submission): Promise<SubmissionResult> {
    let parsed: ParsedSubmission;
    try {
      parsed = parseSubmission(submission);
      const { unknownUserIds } = submission;
      if (unknownUserIds !== undefined) parsed = { ...parsed, unknownUserIds: unknownUsers(unknownUserIds, this.serverName) };
    } catch (error) {
      submission.place?.refuse(error);
      throw error;
    }
    return this.ledger.submit(parsed);
  }

  /** A piece of a transaction that came by the ingress. Rejects with a RefusalError or a StoreError; nothing of a refused piece is applied. */
  takeTransaction(piece: TransactionPiece): Promise<PieceOutcome> {
    return this.ledger.submit(submissionFromPiece(piece, this.#clock.nowMs()));
  }

  /** A start needs nothing of the log up to here. Rejects with a StoreError. */
  saveFold(): Promise<void> {
    return this.#upkeep.checkpoint();
  }

  get hasAliasNamespaces(): boolean {
    return this.#fold.index.hasNamespaces('aliases');
  }

  get senderUserIds(): readonly string[] {
    return sendersOf(this.#fold);
  }

  /** See {@link factsOfRooms}. */
  roomFacts(roomIds: readonly string[]): Promise<readonly RoomFacts[]> {
    return factsOfRooms(roomIds, this.#fold, this.ledger, this.#store);
  }

  /** What was looked up of rooms. Rejects with a RefusalError or a StoreError. */
  tellRooms(findings: readonly RoomFinding[]): Promise<SubmissionResult> {
    return this.ledger.submit(submissionFromFindings(findings));
  }

  /** What other replicas have answered for counts too. Rejects with a StoreError. */
  async streamPosition(stream: string): Promise<{ streamPosition: number; logPosition: number }> {
    await this.delivery.commands.inTime(this.ledger.look());
    return { streamPosition: this.#fold.streams.passed(stream), logPosition: this.#fold.tail };
  }

  /** Up to which position of the stream each appservice has acknowledged what concerns it. Rejects with a StoreError. */
  deliveredPositions(stream: string): Promise<readonly DeliveredPosition[]> {
    const { streams, tail } = this.#fold;
    return this.delivery.streamPositions({ stream, streamPosition: streams.durablePosition(stream), tail });
  }

  checkNamespace(subject: Subject): NamespaceVerdict {
    return checkNamespace(this.#fold.index, subject);
  }

  authorize(request: AuthorizeRequest): string | undefined {
    return authorize(this.#fold.index, request, (token) => this.#findByToken(token));
  }

  authenticate(request: AuthenticateRequest): AppserviceIdentity {
    return authenticate(this.#fold.index, request, (token) => this.#findByToken(token));
  }

  /** An appservice that answers gets what waits for it at once (R137). Rejects with a RefusalError. */
  async ping({ appservice, transactionId }: PingRequest): Promise<PingOutcome> {
    const appserviceId = appservice.kind === 'as_token' ? this.#findByToken(appservice.asToken) : appservice.appserviceId;
    const registration = appserviceId === undefined ? null : (this.#fold.registrations.get(appserviceId)?.registration ?? null);
    if (registration === null) {
      if (appservice.kind === 'appservice_id') throw unknownAppservice(appservice.appserviceId);
      return failedPing('M_FORBIDDEN');
    }
    const outcome = await this.#ping(this.serverName, registration, transactionId);
    if (outcome.kind === 'answered') await this.#wake(registration.id);
    return outcome;
  }

  /** Rejects with a RefusalError if no appservice says yes and not all that may have it say no. */
  async query(subject: ProvisionSubject): Promise<Provision> {
    return await this.#query(this.serverName, subject, provisioners(this.#fold.index, subject));
  }

  /** Rejects with a RefusalError. */
  async thirdPartyProtocols(protocol: string | undefined): Promise<ThirdPartyProtocols> {
    if (protocol !== undefined) refuseProtocol(protocol);
    const owners = [...protocolOwners(this.#fold.index)].filter(([name]) => protocol === undefined || name === protocol);
    return await this.#thirdParty.protocols(this.serverName, new Map(owners));
  }

  /** Rejects with a RefusalError. */
  async thirdPartyMatches(kind: ThirdPartyKind, question: ThirdPartyQuestion): Promise<ThirdPartyMatches> {
    return await this.#thirdParty.lookUp(this.serverName, kind, question, thirdPartyCandidates(this.#fold.index, kind, question));
  }

  /** Rejects with a RefusalError. */
  async claimKeys(wanted: Uint8Array, held: Uint8Array): Promise<KeysResult> {
    return await this.#keys.claim(this.serverName, keyClaimFrom(wanted, 'json'), claimedKeysFrom(held, 'homeserver_json'), (userIds) => keyOwners(this.#fold.index, userIds));
  }

  /** Rejects with a RefusalError. */
  async queryKeys(wanted: Uint8Array, held: Uint8Array): Promise<KeysResult> {
    return await this.#keys.query(this.serverName, keyQueryFrom(wanted, 'json'), keyAnswerFrom(held, 'homeserver_json'), (userIds) => keyOwners(this.#fold.index, userIds));
  }

  /** Segments are durable and deliveries in flight ended, within the delivery's own bound. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#upkeep[Symbol.asyncDispose]();
    // What waits for answers stays in the log; the next start asks.
    await this.#unknownUsers[Symbol.asyncDispose]();
    // The next start replays nothing; without it, it replays what came since the last checkpoint.
    if (this.ledger.isFollowing) await Promise.race([this.#upkeep.checkpoint().catch(() => undefined), this.#clock.sleep(LAST_CHECKPOINT_TIMEOUT_MS)]);
    await this.ledger[Symbol.asyncDispose]();
    await this.delivery[Symbol.asyncDispose]();
  }

  async #askOne(appserviceId: string, userId: string): Promise<UserAnswer> {
    const subject: ProvisionSubject = { kind: 'users', identifier: userId };
    // Between groups the namespaces are those of the registrations in force; while the log is read on they are not.
    const candidate = await this.ledger.betweenGroups(() => provisioners(this.#fold.index, subject).find(({ id }) => id === appserviceId));
    if (candidate === undefined) return 'unclaimed';
    try {
      const { exists } = await this.#query(this.serverName, subject, [candidate]);
      return exists ? 'yes' : 'no';
    } catch (error) {
      if (error instanceof RefusalError && error.reason === 'APPSERVICE_QUERY_TIMEOUT') return 'timeout';
      if (error instanceof RefusalError && error.reason === 'APPSERVICE_SERVICE_UNAVAILABLE') return 'failed';
      throw error;
    }
  }

  /** The ping was answered all the same if the store cannot be asked now; the queue's next attempt comes at its time. */
  async #wake(appserviceId: string): Promise<void> {
    try {
      await this.delivery.wake(appserviceId);
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      this.#logger.warn({ server_name: this.serverName, appservice_id: appserviceId, kind: error.kind }, 'a ping could not wake the queue because of the store');
    }
  }

  #findByToken(token: string): string | undefined {
    const hash = this.#tokenHash(token);
    for (const { appserviceId, registration, stored } of this.#fold.registrations.values()) {
      if (registration !== null && stored?.asTokenHash === hash) return appserviceId;
    }
    return undefined;
  }
}

function segmentListener(recent: RecentSegments, delivery: Delivery, unknown: UnknownUsersPort): { segmentFolded(segment: Segment): void } {
  return {
    segmentFolded(segment) {
      recent.add(segment);
      if (segment.routes.length > 0) delivery.routed(announcementsOf(segment));
      if (segment.registrationChanges.length > 0) delivery.registrationsChanged();
      if (segment.holds !== undefined) unknown.look();
    },
  };
}
