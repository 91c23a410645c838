/**
 * Reads what is routed to one appservice, by the index of routes.
 *
 * A majority read in causal order (calls.ts) is enough here: the caller asks up to a position of which it learnt through
 * this same store, so whatever stands at or below it is seen.
 *
 * Of the segment that `after` lies in, the newest that begins at or below it, only the rest counts. It is asked for beside
 * the segments that begin above `after`, and its contents travel only if the route goes on in it.
 */
import type { Document } from 'mongodb';
import type { RoutedEntry, RouteLimits, RouteMeasure } from '../port.ts';
import { collectRouted, decodeSegment, measureRoute } from '../segment-codec.ts';
import type { Segment } from '../segment.ts';
import { lastPosition } from '../segment.ts';
import type { MongoCalls } from './calls.ts';
import type { StoredDocument } from './fields.ts';
import { bytesField, documentField, integerField } from './fields.ts';
import type { MongoLimits } from './limits.ts';
import { ENTRY_OVERHEAD_BYTES } from './route-pages.ts';
import type { RoutePages, RouteShape } from './route-pages.ts';
import type { Collections } from './schema.ts';

export interface MongoRoutesOptions {
  readonly collections: Pick<Collections, 'segments'>;
  readonly calls: MongoCalls;
  readonly routePages: RoutePages;
  readonly limits: MongoLimits;
}

interface RouteAddress {
  readonly serverName: string;
  readonly appserviceId: string;
}

/** Of a route not read before: a few segments show what it is like. */
const FIRST_PAGE_SEGMENTS = 4;
const PAGE_SEGMENTS_MAX = 1_000;

export class MongoRoutes {
  readonly #options: MongoRoutesOptions;

  constructor(options: MongoRoutesOptions) {
    this.#options = options;
  }

  async readRoute(serverName: string, appserviceId: string, after: number, through: number, limits: RouteLimits): Promise<RoutedEntry[]> {
    if (through <= after) return [];
    const { routePages } = this.#options;
    const address = { serverName, appserviceId };
    const { kept, shape } = routePages.take(serverName, appserviceId, after);
    const segments = kept === null ? await this.#firstPage(address, after, through, pageSegments(shape, this.#options.limits)) : [...kept.segments];
    const found: RoutedEntry[] = [];
    let bytes = 0;
    for (let at = 0; ; at++) {
      if (at === segments.length) {
        const last = segments.at(-1);
        if (last === undefined || lastPosition(last) >= through) break;
        const size = pageSegments(shapeOf(segments), this.#options.limits);
        const page = await this.#page(address, lastPosition(last), through, size);
        if (page.length === 0) break;
        segments.push(...page);
      }
      const segment = segments[at];
      if (segment === undefined || segment.firstPosition > through) break;
      bytes = collectRouted(segment, appserviceId, after, through, limits, found, bytes);
      if (bytes < 0 || bytes >= limits.bytesMax || found.length >= limits.entriesMax) break;
    }
    const end = found.at(-1)?.position ?? after;
    if (segments.length > 0) routePages.put(serverName, appserviceId, { after: end, segments: segments.filter((segment) => lastPosition(segment) > end) }, shapeOf(segments));
    return withOwnBytes(found);
  }

  async measureRoutes(serverName: string, after: ReadonlyMap<string, number>, through: number): Promise<RouteMeasure[]> {
    const { routesPerMeasureMax, measuresAtOnceMax } = this.#options.limits;
    const measures = new Map([...after.keys()].map((appserviceId): [string, RouteMeasure] => [appserviceId, nothingWaits(appserviceId)]));
    const asked = [...after].filter(([, position]) => position < through);
    const parts = Array.from({ length: Math.ceil(asked.length / routesPerMeasureMax) }, (_, at) => asked.slice(at * routesPerMeasureMax, (at + 1) * routesPerMeasureMax)).values();
    // One iterator for all: each takes the next part when it is done with one.
    const measureOn = async (): Promise<void> => {
      for (const part of parts) for (const measure of await this.#measure(serverName, part, through)) measures.set(measure.appserviceId, measure);
    };
    await Promise.all(Array.from({ length: measuresAtOnceMax }, measureOn));
    return [...measures.values()];
  }

  async #firstPage(address: RouteAddress, after: number, through: number, segmentsMax: number): Promise<Segment[]> {
    const [straddling, page] = await Promise.all([this.#straddling(address, after), this.#page(address, after, through, segmentsMax)]);
    return straddling === null ? page : [straddling, ...page];
  }

  /** The route's segments that begin above `after` and at or below `through`, ascending. */
  #page({ serverName, appserviceId }: RouteAddress, after: number, through: number, segmentsMax: number): Promise<Segment[]> {
    return this.#options.calls.run('readRoute', async (options) => {
      const documents = await this.#options.collections.segments
        .find({ '_id.server_name': serverName, 'routes.appservice_id': appserviceId, '_id.first_position': { $gt: after, $lte: through } }, options)
        .sort({ '_id.first_position': 1 })
        .limit(segmentsMax)
        .project<StoredDocument>({ body: 1 })
        .toArray();
      return documents.map((document) => segmentFrom(serverName, document));
    });
  }

  /** The segment that `after` lies in, if the route goes on in it. */
  #straddling({ serverName, appserviceId }: RouteAddress, after: number): Promise<Segment | null> {
    if (after === 0) return Promise.resolve(null);
    return this.#options.calls.run('readRoute: straddling', async (options) => {
      const pipeline = straddlingStages(serverName, appserviceId, after, Number.MAX_SAFE_INTEGER);
      const [document] = await this.#options.collections.segments.aggregate<StoredDocument>(pipeline, options).toArray();
      return document === undefined ? null : segmentFrom(serverName, document);
    });
  }

  /** Several routes by one read: the sums over whole segments, and the straddling segments, each marked with its route's place. */
  async #measure(serverName: string, asked: readonly (readonly [appserviceId: string, after: number])[], through: number): Promise<RouteMeasure[]> {
    const { calls, collections } = this.#options;
    const pipelines = asked.flatMap(([appserviceId, after], at) => [
      [...sumStages(serverName, appserviceId, after, through), { $addFields: { at } }],
      [...straddlingStages(serverName, appserviceId, after, through), { $addFields: { at } }],
    ]);
    const [first = [], ...others] = pipelines;
    const pipeline = [...first, ...others.map((stages) => ({ $unionWith: { coll: collections.segments.collectionName, pipeline: stages } }))];
    const documents = await calls.run('measureRoutes', (options) => collections.segments.aggregate<StoredDocument>(pipeline, options).toArray());
    const measures = asked.map(([appserviceId]) => nothingWaits(appserviceId));
    for (const document of documents) {
      const at = integerField(document, 'at');
      const [former, position] = [measures[at], asked[at]?.[1]];
      if (former === undefined || position === undefined) throw new Error('a measure belongs to no route');
      measures[at] = sumOf(former, document['body'] === undefined ? summedPart(document) : straddlingPart(segmentFrom(serverName, document), former.appserviceId, position));
    }
    return measures;
  }
}

type MeasuredPart = Omit<RouteMeasure, 'appserviceId'>;

function nothingWaits(appserviceId: string): RouteMeasure {
  return { appserviceId, entryCount: 0, bytes: 0, firstSegment: null, oldestTimeMs: null };
}

function sumOf(measure: RouteMeasure, part: MeasuredPart): RouteMeasure {
  return {
    appserviceId: measure.appserviceId,
    entryCount: measure.entryCount + part.entryCount,
    bytes: measure.bytes + part.bytes,
    firstSegment: leastOf(measure.firstSegment, part.firstSegment),
    oldestTimeMs: leastOf(measure.oldestTimeMs, part.oldestTimeMs),
  };
}

function leastOf(one: number | null, other: number | null): number | null {
  if (one === null || other === null) return one ?? other;
  return Math.min(one, other);
}

function summedPart(document: StoredDocument): MeasuredPart {
  return { entryCount: integerField(document, 'entry_count'), bytes: integerField(document, 'bytes'), firstSegment: integerField(document, 'first_segment'), oldestTimeMs: integerField(document, 'oldest_time_ms') };
}

function straddlingPart(segment: Segment, appserviceId: string, after: number): MeasuredPart {
  return { ...measureRoute(segment, appserviceId, after), firstSegment: segment.firstPosition, oldestTimeMs: segment.timeMs };
}

/** Of the newest segment that begins at or below `after`: its contents, if the route goes on in it and it ends at or below `through`. */
function straddlingStages(serverName: string, appserviceId: string, after: number, through: number): Document[] {
  return [
    { $match: { '_id.server_name': serverName, 'routes.appservice_id': appserviceId, '_id.first_position': { $lte: after } } },
    { $sort: { '_id.first_position': -1 } },
    { $limit: 1 },
    { $match: { routes: { $elemMatch: { appservice_id: appserviceId, through: { $gt: after } } }, last_position: { $lte: through } } },
    { $project: { body: 1 } },
  ];
}

/** Counts and bytes of the route in the segments that begin above `after` and end at or below `through`; the entries are not read. */
function sumStages(serverName: string, appserviceId: string, after: number, through: number): Document[] {
  const ownRoute = { $first: { $filter: { input: '$routes', as: 'route', cond: { $eq: ['$$route.appservice_id', { $literal: appserviceId }] } } } };
  return [
    {
      $match: {
        '_id.server_name': serverName,
        'routes.appservice_id': appserviceId,
        '_id.first_position': { $gt: after, $lte: through },
        last_position: { $lte: through },
      },
    },
    { $project: { time_ms: 1, route: ownRoute } },
    { $group: { _id: null, entry_count: { $sum: '$route.entry_count' }, bytes: { $sum: '$route.bytes' }, first_segment: { $min: '$_id.first_position' }, oldest_time_ms: { $min: '$time_ms' } } },
  ];
}

/** On bytes of its own: the segment may outlive the others of its page. */
function segmentFrom(serverName: string, document: StoredDocument): Segment {
  return decodeSegment(serverName, integerField(documentField(document, '_id'), 'first_position'), Uint8Array.from(bytesField(document, 'body')));
}

/** Copies the entries' bytes into one buffer: what is read ahead stays as it is, whatever the caller does with them, and is not held in memory by them. */
function withOwnBytes(entries: readonly RoutedEntry[]): RoutedEntry[] {
  const bytes = new Uint8Array(entries.reduce((sum, { json }) => sum + json.byteLength, 0));
  let at = 0;
  return entries.map((entry) => {
    bytes.set(entry.json, at);
    at += entry.json.byteLength;
    return { ...entry, json: bytes.subarray(at - entry.json.byteLength, at) };
  });
}

function shapeOf(segments: readonly Segment[]): RouteShape {
  let bytes = 0;
  for (const { entries } of segments) for (const { json } of entries) bytes += json.byteLength + ENTRY_OVERHEAD_BYTES;
  return { bytesPerSegment: bytes / segments.length };
}

/** How many segments to ask for: as many as fill a page. What goes beyond this read's limits is kept for the next. */
function pageSegments(shape: RouteShape | null, { routePageBytes }: MongoLimits): number {
  if (shape === null) return FIRST_PAGE_SEGMENTS;
  return Math.max(1, Math.min(Math.floor(routePageBytes / Math.max(shape.bytesPerSegment, 1)), PAGE_SEGMENTS_MAX));
}
