/**
 * Routes one group: decides, in order and with the room state as of each event, what is new, what changes in the
 * rooms and who gets what. CPU only; every room must be loaded.
 *
 * The rooms hold the group's changes when it returns. `undo` takes them back exactly; nothing else of the fold is touched.
 */
import type { RoutedKind } from '../appservice/body-keys.ts';
import type { CallOrder, CallPlace } from '../appservice/call-order.ts';
import type { DeviceKeys } from '../appservice/device-extensions.ts';
import type { RoutingEvent } from '../appservice/event.ts';
import { interestedAppservices, roomDeltasOf } from '../appservice/interest.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { RoomState } from '../room/room-state.ts';
import type { Entry, RoomDelta, Route, Segment } from '../store/segment.ts';
import type { Fold } from './fold.ts';
import { GroupDeviceKeys } from './group-device-keys.ts';
import { GroupEphemeral } from './group-ephemeral.ts';
import { GroupHolds } from './group-holds.ts';
import type { KnownAnswers } from './group-holds.ts';
import type { Hold } from './holds.ts';
import type { ItemSink } from './item-sink.ts';
import { NewIds } from './new-ids.ts';
import { routeOthers } from './other-items.ts';
import type { SeenId } from './seen-ids.ts';
import type { ParsedSubmission, SubmittedEvent, SubmittedRoom } from './submission.ts';

/** What became of one submission of the group. */
export interface SubmissionVerdict {
  readonly refusal: unknown;
  readonly accepted: number;
  readonly duplicates: number;
  readonly routed: number;
  readonly wantedRoomIds: readonly string[];
  /** Stream position to answer with. */
  readonly streamPosition: number;
}

/** What a group has to do with events that wait (holds.ts). */
export interface GroupWaits {
  /** Released before anything is routed, as far as they are open. */
  readonly releases: readonly Pick<Hold, 'appserviceId' | 'roomId'>[];
  readonly answers: KnownAnswers;
}

const NO_KEYS: readonly DeviceKeys[] = [];
const NO_WAITS: GroupWaits = { releases: [], answers: { isAnswered: () => false } };

interface RouteBuilder {
  readonly ranges: number[];
  entryCount: number;
  bytes: number;
}

export class RoutedGroup implements ItemSink {
  /** True if nothing of it needs the log. */
  readonly isEmpty: boolean;
  readonly verdicts: SubmissionVerdict[] = [];
  readonly roomDeltas: RoomDelta[] = [];
  /** Streams that pass further with this group. */
  readonly passed = new Map<string, number>();
  readonly seen: { readonly stream: string; readonly position: number; readonly eventId: string }[] = [];
  readonly #fold: Fold;
  readonly #json: Uint8Array[] = [];
  readonly #routes = new Map<string, RouteBuilder>();
  readonly #inverses: RoomDelta[] = [];
  /** By call, the newest refusal of this group: the place is told of it once the group is final. */
  readonly #refused = new Map<CallOrder, unknown>();
  /** Index → kind, of what is no event. */
  readonly #otherKinds = new Map<number, RoutedKind>();
  readonly #deviceKeys: GroupDeviceKeys;
  readonly #ephemeral: GroupEphemeral;
  readonly #ids: NewIds;
  /** Null: nothing waits and nobody is to be asked. */
  readonly #holds: GroupHolds | null;
  /** See Segment.streamRuns. */
  readonly #runs = new Map<string, number[]>();
  /** Of the submission that is being routed. */
  #stream = '';
  #bytes = 0;

  constructor(fold: Fold, submissions: readonly ParsedSubmission[], { releases, answers }: GroupWaits = NO_WAITS) {
    this.#fold = fold;
    const mayWait = fold.holds.count > 0 || submissions.some(({ unknownUserIds }) => unknownUserIds !== undefined);
    this.#holds = mayWait ? new GroupHolds(fold, answers, (hold, jsons) => this.#putReleased(hold, jsons)) : null;
    this.#deviceKeys = new GroupDeviceKeys(fold, this);
    this.#ephemeral = new GroupEphemeral(fold, this);
    this.#ids = new NewIds(fold.seen);
    for (const hold of releases) this.#holds?.release(hold);
    for (const submission of submissions) this.verdicts.push(this.#route(submission));
    this.#ephemeral.flush();
    this.isEmpty = this.#json.length === 0 && this.roomDeltas.length === 0 && this.#deviceKeys.told.length === 0 && !this.#ids.needLog;
  }

  /** Ids that count as seen with this group. */
  get newIds(): readonly SeenId[] {
    return this.#ids.all;
  }

  get entryCount(): number {
    return this.#json.length;
  }

  /** Pairs of an item and an appservice. */
  get routedCount(): number {
    return this.verdicts.reduce((sum, { routed }) => sum + routed, 0);
  }

  /** Pairs of an event and an appservice that go out without the appservice being asked, since too much waits. */
  get unaskedCount(): number {
    return this.#holds?.unaskedCount ?? 0;
  }

  undo(): void {
    for (let at = this.#inverses.length - 1; at >= 0; at--) {
      const inverse = this.#inverses[at];
      if (inverse !== undefined) this.#fold.rooms.get(inverse.roomId).apply(inverse);
    }
  }

  /** The group as the segment after the fold's tail, its bytes copied out of the requests. */
  segment(nonce: string, timeMs: number): Segment {
    const routes: Route[] = [];
    for (const [appserviceId, { ranges, entryCount, bytes }] of this.#routes) routes.push({ appserviceId, ranges, entryCount, bytes });
    const streamPositions = this.#fold.streams.ahead();
    for (const [stream, position] of this.passed) streamPositions[stream] = position;
    return {
      serverName: this.#fold.serverName,
      firstPosition: this.#fold.tail + 1,
      entries: this.#entries(),
      routes,
      roomDeltas: this.roomDeltas,
      streamPositions,
      ...(routes.length === 0 ? {} : { streamsBefore: this.#fold.streams.allPassed() }),
      ...(this.#runs.size === 0 ? {} : { streamRuns: Object.fromEntries(this.#runs) }),
      ...(this.#deviceKeys.told.length === 0 ? {} : { deviceKeys: this.#deviceKeys.told }),
      ...this.#ids.facts(),
      ...(this.#holds === null || this.#holds.changes.length === 0 ? {} : { holds: this.#holds.changes }),
      registrationChanges: [],
      registrationsVersion: this.#fold.registrationsVersion,
      nonce,
      timeMs,
    };
  }

  #entries(): Entry[] {
    if (this.#json.length === 0) return [{ kind: 'mark', json: new Uint8Array(0) }];
    const bytes = new Uint8Array(this.#bytes);
    let offset = 0;
    return this.#json.map((json, index) => {
      bytes.set(json, offset);
      offset += json.byteLength;
      return { kind: this.#otherKinds.get(index) ?? 'event', json: bytes.subarray(offset - json.byteLength, offset) };
    });
  }

  #passedOf(stream: string): number {
    return this.passed.get(stream) ?? this.#fold.streams.passed(stream);
  }

  #route(submission: ParsedSubmission): SubmissionVerdict {
    const { stream, events, place, ids, unknownUserIds } = submission;
    const others = ids === undefined || this.#ids.takeOthers(ids) ? submission.others : undefined;
    const passed = this.#passedOf(stream);
    this.#stream = stream;
    const refusal = this.#refusalBefore(place) ?? this.#rewound(submission, passed);
    if (refusal !== null) {
      if (place !== undefined) this.#refused.set(place.order, refusal);
      return { refusal, accepted: 0, duplicates: 0, routed: 0, wantedRoomIds: [], streamPosition: passed };
    }
    this.#applyContexts(submission, passed);
    // The numbers of keys are those that the events and messages beside them are sent with.
    for (const keys of others?.deviceKeys ?? NO_KEYS) this.#deviceKeys.tell(keys);
    let accepted = 0;
    let routed = 0;
    let at = -1;
    for (const submitted of events) {
      at++;
      if (isDuplicate(submitted, passed) || (ids !== undefined && !this.#ids.takeEvent(ids, at, submitted.event))) continue;
      accepted++;
      routed += this.#routeEvent(submitted, unknownUserIds);
      if (submitted.streamPosition !== 0) {
        this.passed.set(stream, submitted.streamPosition);
        this.seen.push({ stream, position: submitted.streamPosition, eventId: submitted.event.eventId });
      }
    }
    if (others !== undefined) {
      const group = { fold: this.#fold, keys: this.#deviceKeys, ephemeral: this.#ephemeral, sink: this, stream };
      const routedOthers = routeOthers(others, group, (position) => this.#passes(stream, position, passed));
      accepted += routedOthers.accepted;
      routed += routedOthers.routed;
    }
    return {
      refusal: null,
      accepted,
      duplicates: events.length + (submission.others?.count ?? 0) - accepted,
      routed,
      wantedRoomIds: this.#wantedRoomIds(submission),
      streamPosition: this.#passedOf(stream),
    };
  }

  /** False for what was taken over before; the stream passes on to what was not. */
  #passes(stream: string, position: number, passed: number): boolean {
    if (position === 0) return true;
    if (position <= passed) return false;
    this.passed.set(stream, Math.max(position, this.#passedOf(stream)));
    return true;
  }

  #rewound({ stream, events }: ParsedSubmission, passed: number): RefusalError | null {
    const at = events.findIndex(
      ({ streamPosition, event }) =>
        streamPosition !== 0 && streamPosition <= passed && this.#fold.streams.contradicts(stream, streamPosition, event.eventId),
    );
    if (at < 0) return null;
    const message =
      'This stream position was taken over before with another event, so the stream of the homeserver went back. Nothing of the request is applied. ' +
      'Submit under a new stream name, from the position that the homeserver has now.';
    return new RefusalError('STREAM_POSITION_REWOUND', message, { field: `events[${at}].stream_position`, metadata: { stream_position: String(passed) } });
  }

  #refusalBefore(place: CallPlace | undefined): unknown {
    return place === undefined ? null : (place.refusal() ?? this.#refused.get(place.order) ?? null);
  }

  /**
   * Contexts hold from just before the first event. Where events of the request are duplicates, the room has their
   * membership already, which a context takes back: it is told anew. A request that the stream has gone past is older
   * than what is known of its rooms and says nothing of them.
   */
  #applyContexts({ rooms, events, others }: ParsedSubmission, passed: number): void {
    if (rooms.length === 0) return;
    const lasts = [events, others?.ephemeral ?? [], others?.toDevice ?? [], others?.deviceLists ?? []].flatMap((items) => items.findLast(({ streamPosition }) => streamPosition !== 0)?.streamPosition ?? []);
    if (lasts.length > 0 && Math.max(...lasts) < passed) return;
    for (const room of rooms) this.#applySnapshots(room);
    const told = new Set(rooms.flatMap(({ roomId, localMembers }) => (localMembers === undefined ? [] : [roomId])));
    for (const submitted of events) {
      const { event } = submitted;
      const delta = isDuplicate(submitted, passed) && told.has(event.roomId) ? roomDeltasOf(event, this.#fold.serverName) : null;
      if (delta !== null) this.#apply(this.#fold.rooms.get(event.roomId), delta);
    }
  }

  #applySnapshots({ roomId, localMembers, localAliases, partialBefore }: SubmittedRoom): void {
    const room = this.#fold.rooms.get(roomId);
    const members = localMembers === undefined || partialBefore === undefined ? localMembers : membersLookedUp(room, localMembers, partialBefore);
    if (members !== undefined) this.#apply(room, { kind: 'members', roomId, userIds: members });
    if (localAliases !== undefined) this.#apply(room, { kind: 'aliases', roomId, roomAliases: localAliases });
  }

  #apply(room: RoomState, delta: RoomDelta): void {
    const inverses = room.apply(delta);
    if (inverses.length === 0) return;
    this.roomDeltas.push(delta);
    for (let at = inverses.length - 1; at >= 0; at--) {
      const inverse = inverses[at];
      if (inverse !== undefined) this.#inverses.push(inverse);
    }
  }

  #routeEvent({ event, streamPosition }: SubmittedEvent, unknownUserIds: ReadonlySet<string> | undefined): number {
    const { rooms, index, serverName } = this.#fold;
    const room = rooms.get(event.roomId);
    const delta = roomDeltasOf(event, serverName);
    if (delta !== null) this.#apply(room, delta);
    const interested = interestedAppservices(event, room, index);
    if (this.#holds !== null && interested.length > 0) return this.#routeOrHold(this.#holds, event, interested, unknownUserIds, streamPosition);
    if (event.type === 'm.room.encrypted' && index.hasDeviceExtensions) this.#deviceKeys.attachRoom(room, interested);
    return this.add('event', event.json, interested, streamPosition);
  }

  #routeOrHold(holds: GroupHolds, event: RoutingEvent, interested: readonly string[], unknownUserIds: ReadonlySet<string> | undefined, streamPosition: number): number {
    const { rooms, index } = this.#fold;
    const { now, waits } = holds.divide(event, interested, unknownUserIds);
    if (event.type === 'm.room.encrypted' && index.hasDeviceExtensions) this.#deviceKeys.attachRoom(rooms.get(event.roomId), now);
    const at = this.#put('event', event.json, now, streamPosition);
    holds.wait(waits, at);
    return now.length + waits.length;
  }

  /** Its keys are those of now, which the appservice needs now. Without positions: they were counted when it was held. */
  #putReleased({ appserviceId, roomId }: Pick<Hold, 'appserviceId' | 'roomId'>, jsons: readonly Uint8Array[]): void {
    if (this.#fold.index.hasDeviceExtensions && jsons.some(isEncrypted)) this.#deviceKeys.attachRoom(this.#fold.rooms.get(roomId), [appserviceId]);
    for (const json of jsons) this.#put('event', json, [appserviceId], 0);
  }

  add(kind: RoutedKind, json: Uint8Array, appserviceIds: readonly string[], positions: number | ReadonlyMap<string, number>): number {
    if (appserviceIds.length > 0) this.#put(kind, json, appserviceIds, positions);
    return appserviceIds.length;
  }

  /** Returns the index of the entry. */
  #put(kind: RoutedKind, json: Uint8Array, appserviceIds: readonly string[], positions: number | ReadonlyMap<string, number>): number {
    const at = this.#json.push(json) - 1;
    if (kind !== 'event') this.#otherKinds.set(at, kind);
    if (typeof positions !== 'number') for (const [stream, position] of positions) this.#addToRuns(at, stream, position);
    else if (positions !== 0) this.#addToRuns(at, this.#stream, positions);
    this.#bytes += json.byteLength;
    for (const appserviceId of appserviceIds) this.#addToRoute(appserviceId, at, json.byteLength);
    return at;
  }

  #addToRuns(at: number, stream: string, streamPosition: number): void {
    let runs = this.#runs.get(stream);
    if (runs === undefined) this.#runs.set(stream, (runs = []));
    const last = runs.length - 3;
    const entryCount = runs[last + 2] ?? 0;
    if (entryCount > 0 && runs[last] === at - entryCount && runs[last + 1] === streamPosition - entryCount) runs[last + 2] = entryCount + 1;
    else runs.push(at, streamPosition, 1);
  }

  #addToRoute(appserviceId: string, at: number, bytes: number): void {
    let route = this.#routes.get(appserviceId);
    if (route === undefined) this.#routes.set(appserviceId, (route = { ranges: [], entryCount: 0, bytes: 0 }));
    const { ranges } = route;
    if (ranges.length > 0 && ranges[ranges.length - 1] === at - 1) ranges[ranges.length - 1] = at;
    else ranges.push(at, at);
    route.entryCount++;
    route.bytes += bytes;
  }

  #wantedRoomIds(submission: ParsedSubmission): string[] {
    const wanted = new Set<string>();
    const { rooms, index } = this.#fold;
    for (const { event } of submission.events) if (!wanted.has(event.roomId) && rooms.get(event.roomId).wantsContext(index)) wanted.add(event.roomId);
    for (const { roomId } of submission.rooms) if (rooms.get(roomId).wantsContext(index)) wanted.add(roomId);
    for (const roomId of submission.others?.roomIds ?? []) if (rooms.get(roomId).wantsContext(index)) wanted.add(roomId);
    return [...wanted];
  }
}

/** Undefined: they are known already, and followed since. */
function membersLookedUp(room: RoomState, localMembers: readonly string[], partialBefore: Readonly<Record<string, boolean>>): readonly string[] | undefined {
  if (room.knowsMembers) return undefined;
  const members = new Set(localMembers);
  for (const [userId, joined] of room.partialMembers) {
    if (partialBefore[userId] === joined) continue;
    if (joined) members.add(userId);
    else members.delete(userId);
  }
  return [...members];
}

/** Taken over before, as the stream's position says. */
function isDuplicate({ streamPosition }: SubmittedEvent, passed: number): boolean {
  return streamPosition !== 0 && streamPosition <= passed;
}

function isEncrypted(json: Uint8Array): boolean {
  // What is in the log is an event: it was parsed at the door.
  const { type } = JSON.parse(Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString()) as { readonly type: string };
  return type === 'm.room.encrypted';
}
