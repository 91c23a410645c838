/**
 * The log in the collection `segments`: append, read on, trim. Reading routes: routes.ts.
 *
 * An append is one insert under the key {server name, first position}; the collection's unique `_id` is the compare-and-set.
 *
 *   insert ──▶ inserted ─────────────────────────────▶ appended
 *     ▲  └───▶ key taken ──▶ read it back ──▶ own nonce ──▶ appended
 *     │                          │       └──▶ another ────▶ lost
 *     │                          └── not confirmed yet ────┐
 *     └──────── pause ◀── outcome unknown ◀────────────────┘     until settleTimeoutMs: unavailable
 *
 * An unknown outcome is settled by inserting the same segment again: it either gets the key or meets itself or a rival
 * there. The nonce is what makes this safe, for an insert whose answer was lost comes back as a duplicate of itself.
 *
 * A trimmed segment leaves a tombstone, its key without its contents, for `tombstoneKeptMs` (tails.ts says why). The newest
 * segment is never trimmed, so the log's tail is always the end of the newest key.
 */
import { Binary, BSON } from 'mongodb';
import type { Clock, Random } from '../../clock.ts';
import { StoreError } from '../errors.ts';
import type { AppendOutcome, ExpiredEntries, SegmentLimits, TrimOutcome, TrimRequest } from '../port.ts';
import { decodeSegment, encodeSegment } from '../segment-codec.ts';
import type { Segment } from '../segment.ts';
import { isEphemeralRoute, lastPosition } from '../segment.ts';
import type { CallOptions, MongoCalls } from './calls.ts';
import { isDuplicateKey } from './driver-error.ts';
import type { StoredDocument } from './fields.ts';
import { bytesField, documentField, integerField, listField, textField } from './fields.ts';
import type { MongoLimits } from './limits.ts';
import type { RoutePages } from './route-pages.ts';
import type { Collections, SegmentDocument } from './schema.ts';
import { keysOfServer, segmentKey } from './schema.ts';
import { Tails } from './tails.ts';

export interface MongoSegmentLogOptions {
  readonly collections: Pick<Collections, 'segments' | 'checkpoints'>;
  readonly calls: MongoCalls;
  readonly routePages: RoutePages;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: MongoLimits;
}

/** MongoDB's bound on a document is 16 MiB. */
const DOCUMENT_BYTES_MAX = 16 * 1024 * 1024;
/** A body and a number of routes that together never come near that bound. */
const BODY_BYTES_SAFE = 8 * 1024 * 1024;
const ROUTES_SAFE = 1_000;

export class MongoSegmentLog {
  readonly #options: MongoSegmentLogOptions;
  readonly #tails: Tails;

  constructor(options: MongoSegmentLogOptions) {
    this.#options = options;
    this.#tails = new Tails(options.clock, options.limits.tailTrustMs);
  }

  async append(segment: Segment): Promise<AppendOutcome> {
    const { calls, clock, random, limits } = this.#options;
    const document = documentFrom(segment);
    const deadlineMs = clock.monotonicMs() + limits.settleTimeoutMs;
    for (;;) {
      const known = this.#tails.isFresh(segment.serverName, segment.firstPosition - 1) ? null : await this.#settleByTail(segment);
      if (known !== null) return known;
      const inserted = await this.#insert(segment, document);
      if (inserted === 'inserted') return { kind: 'appended' };
      const settled = inserted === 'taken' ? await this.#settleByNonce(segment) : null;
      if (settled !== null) return settled;
      if (calls.closed.aborted || clock.monotonicMs() >= deadlineMs) throw new StoreError('unavailable', 'it could not be learnt in time whether the segment was appended');
      await clock.sleep(limits.settleIntervalMs * (0.5 + random.next()), calls.closed);
    }
  }

  async readSegments(serverName: string, from: number, { segmentsMax, bytesMax, mayLag = false }: SegmentLimits): Promise<Segment[]> {
    const { calls } = this.#options;
    const since = this.#tails.now();
    const run = mayLag ? calls.run.bind(calls) : calls.runNewest.bind(calls);
    const { found, isTail } = await run('readSegments', async (options): Promise<{ found: Segment[]; isTail: boolean }> => {
      const read: Segment[] = [];
      let bytes = 0;
      const keys = { $gte: segmentKey(serverName, from), $lt: keysOfServer(serverName).$lt };
      const documents = this.#segments
        .find({ _id: keys, trimmed_at: { $exists: false } }, options)
        .sort({ _id: 1 })
        .limit(segmentsMax)
        .project<StoredDocument>({ body: 1 });
      for await (const document of documents) {
        const segment = decodeSegment(serverName, firstPositionOf(document), bytesField(document, 'body'));
        read.push(segment);
        for (const { json } of segment.entries) bytes += json.byteLength;
        if (read.length >= segmentsMax || bytes >= bytesMax) return { found: read, isTail: false };
      }
      return { found: read, isTail: true };
    });
    const last = found.at(-1);
    // A primary that lags has been replaced, and steps down within seconds: far less than the tombstones' time.
    if (isTail && last !== undefined) this.#tails.saw(serverName, lastPosition(last), since);
    if (isTail && last === undefined && !mayLag) this.#tails.sawNothingAfter(serverName, from - 1, since);
    return found;
  }

  async trim(serverName: string, request: TrimRequest): Promise<TrimOutcome> {
    const { calls, routePages } = this.#options;
    const { looked, newest } = await calls.run('trim: look', async (options) => {
      const keys = { $gt: segmentKey(serverName, request.after), $lt: keysOfServer(serverName).$lt };
      const documents = await this.#segments
        .find({ _id: keys, trimmed_at: { $exists: false } }, options)
        .sort({ _id: 1 })
        .limit(request.segmentsMax)
        .project<StoredDocument>({ last_position: 1, time_ms: 1, 'routes.appservice_id': 1, 'routes.through': 1, 'routes.entry_count': 1, 'routes.ephemeral': 1 })
        .toArray();
      return { looked: documents, newest: await this.#newest(serverName, options) };
    });
    const may = looked.filter((document) => integerField(document, 'last_position') !== newest && mayGo(document, request));
    const removed = may.map(firstPositionOf);
    if (removed.length > 0) {
      await calls.run('trim', (options) =>
        this.#segments.updateMany(
          { _id: { $in: removed.map((position) => segmentKey(serverName, position)) } },
          { $currentDate: { trimmed_at: true }, $unset: { body: true, routes: true } },
          options,
        ),
      );
      routePages.forget(serverName);
    }
    await this.#removeTombstones(serverName, request.segmentsMax);
    const last = looked.at(-1);
    return { removedSegments: removed.length, expired: expiredIn(may, request), nextAfter: last === undefined || looked.length < request.segmentsMax ? null : firstPositionOf(last) };
  }

  wholeFrom(serverName: string, from: number, through: number, segmentsMax: number): Promise<number> {
    return this.#options.calls.runNewest('wholeFrom', async (options) => {
      const segments = this.#segments
        .find({ _id: { $gt: { server_name: serverName }, $lte: segmentKey(serverName, through) }, trimmed_at: { $exists: false } }, options)
        .sort({ _id: -1 })
        .limit(segmentsMax)
        .project<StoredDocument>({ last_position: 1 });
      let whole = through + 1;
      for await (const segment of segments) {
        if (integerField(segment, 'last_position') < whole - 1) break;
        whole = firstPositionOf(segment);
        if (whole <= from) break;
      }
      return whole;
    });
  }

  get #segments(): Collections['segments'] {
    return this.#options.collections.segments;
  }

  async #insert({ serverName, ...segment }: Segment, document: SegmentDocument): Promise<'inserted' | 'taken' | 'unknown'> {
    const since = this.#tails.now();
    try {
      return await this.#options.calls.run('append', async (options) => {
        try {
          await this.#segments.insertOne(document, options);
        } catch (error) {
          if (isDuplicateKey(error)) return 'taken';
          throw error;
        }
        this.#tails.saw(serverName, lastPosition(segment), since);
        return 'inserted';
      });
    } catch (error) {
      if (isUnavailable(error)) return 'unknown';
      throw error;
    }
  }

  /** Who has the key: null while that is not confirmed by a majority. */
  async #settleByNonce({ serverName, firstPosition, nonce }: Segment): Promise<AppendOutcome | null> {
    const { calls } = this.#options;
    const find = (options: CallOptions): Promise<StoredDocument | null> =>
      this.#segments.findOne<StoredDocument>({ _id: segmentKey(serverName, firstPosition) }, { ...options, projection: { nonce: 1 } });
    try {
      // A key that a majority has confirmed is taken for good, so whatever is found decides; mostly it is there at once.
      const found = (await calls.run('append: read back', find)) ?? (await calls.runNewest('append: read back', find));
      if (found === null) return null;
      return { kind: textField(found, 'nonce') === nonce ? 'appended' : 'lost' };
    } catch (error) {
      if (isUnavailable(error)) return null;
      throw error;
    }
  }

  /** Null if the log ends just before the segment. Throws if the segment would leave a hole, which is a bug of the caller. */
  async #settleByTail(segment: Segment): Promise<AppendOutcome | null> {
    const { serverName, firstPosition } = segment;
    const { calls, collections } = this.#options;
    const since = this.#tails.now();
    const tail = await calls.runNewest('append: tail', async (options) => {
      const newest = await this.#newest(serverName, options);
      if (newest !== null) return newest;
      const checkpoint = await collections.checkpoints.findOne<StoredDocument>({ _id: { server_name: serverName } }, options);
      return checkpoint === null ? 0 : integerField(checkpoint, 'position');
    });
    if (firstPosition > tail + 1) throw new Error(`an append at ${firstPosition} would leave a hole after ${tail}`);
    if (firstPosition <= tail) return (await this.#settleByNonce(segment)) ?? { kind: 'lost' };
    this.#tails.saw(serverName, tail, since);
    return null;
  }

  /** Last position of the newest segment. */
  async #newest(serverName: string, options: CallOptions): Promise<number | null> {
    const [newest] = await this.#segments.find({ _id: keysOfServer(serverName) }, options).sort({ _id: -1 }).limit(1).project<StoredDocument>({ last_position: 1 }).toArray();
    return newest === undefined ? null : integerField(newest, 'last_position');
  }

  async #removeTombstones(serverName: string, countMax: number): Promise<void> {
    const { calls, limits } = this.#options;
    await calls.run('trim: tombstones', async (options) => {
      const isOld = { $expr: { $lte: ['$trimmed_at', { $subtract: ['$$NOW', limits.tombstoneKeptMs] }] } };
      const old = await this.#segments
        .find({ '_id.server_name': serverName, trimmed_at: { $exists: true }, ...isOld }, options)
        .limit(countMax)
        .project<StoredDocument>({ _id: 1 })
        .toArray();
      if (old.length > 0) await this.#segments.deleteMany({ _id: { $in: old.map((document) => segmentKey(serverName, firstPositionOf(document))) } }, options);
    });
  }
}

function isUnavailable(error: unknown): boolean {
  return error instanceof StoreError && error.kind === 'unavailable';
}

function firstPositionOf(document: StoredDocument): number {
  return integerField(documentField(document, '_id'), 'first_position');
}

/** The codec's bytes go in as they are; what queries need stands beside them. Throws `exhausted` if that is too large for one document. */
function documentFrom(segment: Segment): SegmentDocument {
  const { serverName, firstPosition, routes, nonce, timeMs } = segment;
  if (segment.entries.length === 0) throw new Error('a segment has at least one entry');
  const body = encodeSegment(segment);
  const document: SegmentDocument = {
    _id: segmentKey(serverName, firstPosition),
    last_position: lastPosition(segment),
    time_ms: timeMs,
    nonce,
    ...(routes.length > 0 && {
      routes: routes.map((route) => ({
        appservice_id: route.appserviceId,
        through: firstPosition + (route.ranges.at(-1) ?? 0),
        entry_count: route.entryCount,
        bytes: route.bytes,
        ...(isEphemeralRoute(segment, route) && { ephemeral: true }),
      })),
    }),
    body: new Binary(body),
  };
  if (body.byteLength > BODY_BYTES_SAFE || routes.length > ROUTES_SAFE) {
    const bytes = BSON.calculateObjectSize(document);
    if (bytes > DOCUMENT_BYTES_MAX) throw new StoreError('exhausted', `a segment of ${segment.entries.length} entries for ${routes.length} appservices takes ${bytes} bytes; one document holds ${DOCUMENT_BYTES_MAX}`);
  }
  return document;
}

function mayGo(document: StoredDocument, request: TrimRequest): boolean {
  if (integerField(document, 'last_position') > request.through || integerField(document, 'time_ms') >= request.beforeMs) return false;
  return undeliveredRoutes(document, request).every((route) => isExpired(document, route, request));
}

function undeliveredRoutes(document: StoredDocument, { deliveredPositions }: TrimRequest): StoredDocument[] {
  const routes = document['routes'] === undefined ? [] : listField(document, 'routes', documentField);
  return routes.filter((route) => integerField(route, 'through') > (deliveredPositions.get(textField(route, 'appservice_id')) ?? Infinity));
}

function isExpired(document: StoredDocument, route: StoredDocument, { expired }: TrimRequest): boolean {
  if (expired === undefined || route['ephemeral'] !== true || integerField(document, 'time_ms') >= expired.beforeMs) return false;
  return firstPositionOf(document) > (expired.cutThrough.get(textField(route, 'appservice_id')) ?? Infinity);
}

/** What goes undelivered with these documents. */
function expiredIn(documents: readonly StoredDocument[], request: TrimRequest): ExpiredEntries[] {
  const counts = new Map<string, number>();
  for (const route of documents.flatMap((document) => undeliveredRoutes(document, request))) {
    const id = textField(route, 'appservice_id');
    counts.set(id, integerField(route, 'entry_count') + (counts.get(id) ?? 0));
  }
  return [...counts].map(([appserviceId, entryCount]) => ({ appserviceId, entryCount }));
}
