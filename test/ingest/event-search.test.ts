import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { EventSearch } from '../../src/ingest/event-search.ts';
import { RecentSegments } from '../../src/ingest/recent-segments.ts';
import { StreamPositions } from '../../src/ingest/stream-positions.ts';
import type { Segment } from '../../src/store/segment.ts';
import { VirtualClock } from '../support/clock.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { eventJson, SERVER } from '../support/routing.ts';

const clock = new VirtualClock();

function segmentAt(firstPosition: number, texts: readonly (string | Uint8Array)[]): Segment {
  const entries = texts.map((text) => ({ kind: 'event' as const, json: typeof text === 'string' ? eventJson({ id: text }) : text }));
  const last = entries.length - 1;
  const routes = [{ appserviceId: 'all', ranges: [0, last], entryCount: entries.length, bytes: 1 }, { appserviceId: 'last', ranges: [last, last], entryCount: 1, bytes: 1 }];
  return { serverName: SERVER, firstPosition, entries, routes, roomDeltas: [], streamPositions: {}, registrationChanges: [], registrationsVersion: 0, nonce: `n${firstPosition}`, timeMs: firstPosition * 10 };
}

/** Segments in the store, of which the memory keeps those from `keptFrom` on. */
async function searchOver(segments: readonly Segment[], { keptFrom = Infinity, storeBytesMax }: { keptFrom?: number; storeBytesMax?: number } = {}): Promise<{ search: EventSearch; reads: () => number; log: MemoryLog }> {
  const log = new MemoryLog();
  const recent = new RecentSegments(SERVER, log, 0, 1 << 30);
  for (const segment of segments) {
    await log.append(segment);
    if (segment.firstPosition >= keptFrom) recent.add(segment);
  }
  let reads = 0;
  const counted = { readSegments: (...args: Parameters<MemoryLog['readSegments']>) => (reads++, log.readSegments(...args)) };
  const search = new EventSearch({ serverName: SERVER, recent, log: counted, streams: new StreamPositions(), clock, ...(storeBytesMax === undefined ? {} : { storeBytesMax }) });
  return { search, reads: () => reads, log };
}

const LOG = [segmentAt(1, ['$1', '$2']), segmentAt(3, ['$3']), segmentAt(4, ['$4', '$5', '$6'])];

test('an event is found in memory and in the store alike, with its position, time and routes', async () => {
  for (const keptFrom of [1, 3, 4, Infinity]) {
    const { search } = await searchOver(LOG, { keptFrom });
    const found = async (id: string): Promise<unknown> => {
      const { found: one, isComplete, oldest } = await search.find(id);
      assert.deepEqual([isComplete, oldest], [true, { position: 1, timeMs: 10 }]);
      return one === null ? null : [one.position, one.timeMs, one.appserviceIds];
    };
    assert.deepEqual(await found('$1'), [1, 10, ['all']]);
    assert.deepEqual(await found('$2'), [2, 10, ['all', 'last']]);
    assert.deepEqual(await found('$5'), [5, 40, ['all']]);
    assert.equal(await found('$'), null);
    assert.equal(await found('$7'), null);
  }
});

test('an id is compared as a value: escapes find it, a mention in the content does not', async () => {
  const written = (text: string): Buffer => Buffer.from(`{"event_id":${text},"type":"t","sender":"@a:b","room_id":"!r","content":{"about":"$5"}}`);
  const { search } = await searchOver([segmentAt(1, [written('"\\u00241"'), written('"$a\\/b"'), written('"$q\\"\\\\"'), written('"$ü"'), written('"$\\ud800"')])]);
  const position = async (id: string): Promise<number | undefined> => (await search.find(id)).found?.position;
  assert.deepEqual(await Promise.all([position('$1'), position('$5')]), [1, undefined]);
  assert.deepEqual([await position('$a/b'), await position('$q"\\'), await position('$ü'), await position('$\ufffd'), await position('$\ud800')], [2, 3, 4, 5, 5]);
});

test('an empty log, and what was trimmed, are said', async () => {
  assert.deepEqual(await (await searchOver([])).search.find('$1'), { found: null, oldest: null, isComplete: true, seen: undefined });
  const { search, log } = await searchOver(LOG);
  await log.trim(SERVER, { after: 0, through: 3, beforeMs: 1_000, deliveredPositions: new Map(), segmentsMax: 10 });
  assert.deepEqual(await search.find('$1'), { found: null, oldest: { position: 4, timeMs: 40 }, isComplete: true, seen: undefined });
});

test('a search ends at its limit and says so, and finds what is before it', async () => {
  const long = Array.from({ length: 2_000 }, (_, at) => segmentAt(at + 1, [`$${at + 1}`]));
  const { search, reads } = await searchOver(long, { storeBytesMax: 1_000 });
  assert.equal((await search.find('$150')).found?.position, 150);
  const { found, isComplete } = await search.find('$2000');
  assert.deepEqual([found, isComplete], [null, false]);
  assert.equal(reads(), 4);
});

test('two searches at a time run, and a third is told to ask again', async () => {
  const { search } = await searchOver(LOG);
  const running = [search.find('$1'), search.find('$2')];
  await assert.rejects(search.find('$3'), (error) => error instanceof RefusalError && error.reason === 'TOO_MANY_LOOKUPS' && error.details.retryDelayMs === 1_000);
  await Promise.all(running);
  assert.equal((await search.find('$3')).found?.position, 3);
});

test('where an event was seen is told, if it is remembered', async () => {
  const streams = new StreamPositions();
  streams.remember('main', 7, '$dropped');
  const search = new EventSearch({ serverName: SERVER, recent: { newestFirst: () => [] }, log: new MemoryLog(), streams, clock });
  assert.deepEqual((await search.find('$dropped')).seen, { stream: 'main', position: 7 });
});
