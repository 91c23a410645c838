import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecentSegments } from '../../src/ingest/recent-segments.ts';
import type { Route, Segment } from '../../src/store/segment.ts';
import { seededRandom } from '../support/clock.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { SERVER } from '../support/routing.ts';

function segmentAt(firstPosition: number, entryCount: number, routes: readonly Route[]): Segment {
  const entries = Array.from({ length: entryCount }, (_, at) => ({ kind: 'event' as const, json: Buffer.from(JSON.stringify({ at: firstPosition + at })) }));
  return { serverName: SERVER, firstPosition, entries, routes, roomDeltas: [], streamPositions: {}, registrationChanges: [], registrationsVersion: 0, nonce: `n${firstPosition}`, timeMs: firstPosition };
}

function randomRoute(appserviceId: string, entryCount: number, next: () => number): Route | null {
  const ranges: number[] = [];
  let count = 0;
  for (let at = 0; at < entryCount; at++) {
    if (next() < 0.4) continue;
    count++;
    if (ranges.at(-1) === at - 1) ranges[ranges.length - 1] = at;
    else ranges.push(at, at);
  }
  return count === 0 ? null : { appserviceId, ranges, entryCount: count, bytes: count * 10 };
}

test('what is read from memory is what the store has, wherever the memory begins (I1, I2)', async () => {
  let fromStore = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const { next } = seededRandom(seed);
    const log = new MemoryLog();
    const sizes = Array.from({ length: 40 }, () => 1 + Math.floor(next() * 6));
    const skipped = Math.floor(next() * 15);
    const startedAfter = sizes.slice(0, skipped).reduce((sum, size) => sum + size, 0);
    const store = { readRoute: (...args: Parameters<MemoryLog['readRoute']>) => (fromStore++, log.readRoute(...args)) };
    const recent = new RecentSegments(SERVER, store, startedAfter, 6000 + Math.floor(next() * 10_000));
    let tail = 0;
    for (const entryCount of sizes) {
      const routes = ['a', 'b', 'c'].flatMap((id) => (next() < 0.6 ? (randomRoute(id, entryCount, next) ?? []) : []));
      const segment = segmentAt(tail + 1, entryCount, routes);
      await log.append(segment);
      if (segment.firstPosition > startedAfter) recent.add(segment);
      tail += entryCount;
      const after = Math.floor(next() * tail);
      const through = after + Math.floor(next() * 60);
      const limits = { entriesMax: 1 + Math.floor(next() * 20), bytesMax: Math.floor(next() * 200) };
      for (const id of ['a', 'b', 'c']) {
        assert.deepEqual(
          (await recent.readRoute(SERVER, id, after, through, limits)).map(({ position, timeMs, json }) => [position, timeMs, Buffer.from(json).toString()]),
          (await log.readRoute(SERVER, id, after, through, limits)).map(({ position, timeMs, json }) => [position, timeMs, Buffer.from(json).toString()]),
          `seed ${seed}, ${id} after ${after} through ${through}`,
        );
      }
    }
  }
  assert.ok(fromStore > 100, 'the store is asked for what is not in memory');
});

test('live delivery reads nothing back from the store', async () => {
  const store = { readRoute: () => Promise.reject(new Error('the store was asked')) };
  const recent = new RecentSegments(SERVER, store, 0, 1 << 20);
  for (let n = 0; n < 2000; n++) recent.add(segmentAt(n + 1, 1, [{ appserviceId: n % 2 === 0 ? 'a' : 'b', ranges: [0, 0], entryCount: 1, bytes: 10 }]));
  const read = await recent.readRoute(SERVER, 'a', 1990, 2000, { entriesMax: 100, bytesMax: 1 << 20 });
  assert.deepEqual(read.map(({ position }) => position), [1991, 1993, 1995, 1997, 1999]);
});

test('I1 a transaction that another replica cut beyond the newest segment here is read from the store', async () => {
  const log = new MemoryLog();
  const recent = new RecentSegments(SERVER, log, 0, 1 << 20);
  const segments = [1, 2, 3].map((position) => segmentAt(position, 1, [{ appserviceId: 'a', ranges: [0, 0], entryCount: 1, bytes: 10 }]));
  for (const segment of segments) await log.append(segment);
  for (const segment of segments.slice(0, 1)) recent.add(segment);
  const read = await recent.readRoute(SERVER, 'a', 1, 3, { entriesMax: 100, bytesMax: 1 << 20 });
  assert.deepEqual(read.map(({ position }) => position), [2, 3]);
});

test('memory stays within its limit', () => {
  const recent = new RecentSegments(SERVER, new MemoryLog(), 0, 100_000);
  for (let n = 0; n < 5000; n++) recent.add(segmentAt(n + 1, 1, [{ appserviceId: 'a', ranges: [0, 0], entryCount: 1, bytes: 10 }]));
  assert.ok(recent.bytes <= 100_000);
});
