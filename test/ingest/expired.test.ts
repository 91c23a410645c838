/** What an appservice that is away costs the log: its events, and no more than some minutes of ephemeral data. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { once } from 'node:events';
import { parseEphemeral } from '../../src/appservice/ephemeral.ts';
import type { ParsedSubmission } from '../../src/ingest/submission.ts';
import { Upkeep } from '../../src/ingest/upkeep.ts';
import type { ExpiredEntries } from '../../src/store/port.ts';
import { lastPosition } from '../../src/store/segment.ts';
import type { Clock } from '../../src/clock.ts';
import { openLedger, silent } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { member, registration, submission } from '../support/routing.ts';

const AGE_MS = 300_000;
const MARGIN_MS = 120_000;
const MINUTE_MS = 60_000;

function receiptsOf(users: readonly string[], eventId: string, events: Parameters<typeof submission>[0] = []): ParsedSubmission {
  const content = { [eventId]: { 'm.read': Object.fromEntries(users.map((user) => [user, { ts: 1 }])) } };
  const event = parseEphemeral(Buffer.from(JSON.stringify({ type: 'm.receipt', room_id: '!r:hs.test', content })), 'ephemeral');
  const ephemeral = [{ event, roomIds: [], streamPosition: 0 }];
  return submission(events, { others: { ephemeral, toDevice: [], deviceLists: [], deviceKeys: [], roomIds: ['!r:hs.test'], count: 1 } });
}

/** A clock that only the test moves, on which nothing that sleeps ever wakes: a week has too many turns. */
class StillClock implements Clock {
  ms = 1_700_000_000_000;

  nowMs(): number {
    return this.ms;
  }

  monotonicMs(): number {
    return this.ms;
  }

  async sleep(_delayMs: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted !== true) await (signal === undefined ? new Promise(() => undefined) : once(signal, 'abort'));
  }

  pause(): Promise<void> {
    return new Promise((resolve) => void setImmediate(resolve));
  }
}

/** An appservice with a transaction in flight through `cut`, for ever. */
async function awayWorld() {
  const log = new MemoryLog();
  const clock = new StillClock();
  const opened = await openLedger(log, {}, clock);
  await opened.put(registration('a', { receive_ephemeral: true }));
  const { logPosition } = await opened.ledger.submit(receiptsOf(['@early:hs.test'], '$0', [member('$1', '@_a_g:hs.test', 'join')]));
  const expired: ExpiredEntries[] = [];
  const known = { asOfMs: Infinity, delivered: 0, cut: logPosition };
  const upkeep = new Upkeep(
    {
      fold: opened.fold, ledger: opened.ledger, store: log, clock, logger: silent,
      deliveredPositions: () => new Map([['a', known.delivered]]),
      cutPositions: () => ({ asOfMs: known.asOfMs, positions: new Map([['a', known.cut]]) }),
      expired: (all) => void expired.push(...all),
      ephemeralAgeMaxMs: AGE_MS, intervalMs: 1_000, checkpointIntervalMs: 5_000, dirtyRoomsMax: 100, trimIntervalMs: 5_000, retentionMs: 0, trimSegmentsMax: 500, trimCallsMax: 50,
    },
    0,
  );
  const turn = async (): Promise<void> => {
    clock.ms += MINUTE_MS;
    await upkeep.checkpoint();
    await upkeep.trim();
  };
  const lost = (): number => expired.reduce((sum, { entryCount }) => sum + entryCount, 0);
  return { log, opened, known, turn, lost };
}

test('R88 I1 a week of receipts for an appservice that is down leaves minutes of them in the log, and every event', async () => {
  const world = await awayWorld();
  const { log, opened } = world;
  const users = Array.from({ length: 20 }, (_, at) => `@p${at}:hs.test`);
  let events = 0;
  let most = 0;
  const minutes = 7 * 24 * 60;
  for (let minute = 0; minute < minutes; minute++) {
    await opened.ledger.submit(receiptsOf(users, `$r${minute}`));
    if (minute % 600 === 0) await opened.ledger.submit(submission([{ id: `$e${events++}` }]));
    await world.turn();
    most = Math.max(most, log.segments.filter(({ entries }) => entries.every(({ kind }) => kind === 'ephemeral')).length);
  }
  assert.ok(most <= (AGE_MS + MARGIN_MS) / MINUTE_MS + 2, `${most} segments of ephemeral data at most`);
  const kept = await log.readRoute('hs.test', 'a', 0, log.tail, { entriesMax: 10_000, bytesMax: 1e9 });
  assert.equal(kept.filter(({ kind }) => kind === 'event').length, events + 1);
  assert.deepEqual(kept.slice(0, 2).map(({ position, kind }) => [position, kind]), [[world.known.cut - 1, 'event'], [world.known.cut, 'ephemeral']], 'the transaction in flight is whole');
  assert.equal(world.lost() + kept.filter(({ kind }) => kind === 'ephemeral').length, minutes + 1, 'what went is counted');
  await opened.ledger[Symbol.asyncDispose]();
});

test('R88 nothing within its age goes, nothing that a transaction holds, nor what a replica may have cut unseen', async () => {
  const world = await awayWorld();
  const { log, opened, known } = world;
  const { logPosition: second } = await opened.ledger.submit(receiptsOf(['@p:hs.test'], '$2'));
  await opened.ledger.submit(receiptsOf(['@q:hs.test'], '$3'));
  // So that the segments above are not the newest, which always stays.
  await opened.ledger.submit(submission([{ id: '$4' }]));
  const startMs = log.segments[1]?.timeMs ?? 0;
  const left = (): number[] => log.segments.map(lastPosition).filter((position) => position > 1);
  const all = left();
  for (let minute = 0; minute < 7; minute++) await world.turn();
  assert.deepEqual(left(), all, 'within its age and the margin');
  known.asOfMs = startMs + AGE_MS + MARGIN_MS;
  for (let minute = 0; minute < 60; minute++) await world.turn();
  assert.deepEqual(left(), all, 'the states were last read long ago');
  known.asOfMs = Infinity;
  known.cut = second;
  await world.turn();
  assert.deepEqual([left(), world.lost()], [all.filter((position) => position !== second + 1), 1]);
  known.cut = second - 1;
  known.delivered = second - 1;
  await world.turn();
  assert.deepEqual([left().includes(second), world.lost()], [false, 2]);
  await opened.ledger[Symbol.asyncDispose]();
});

test('I1 what was within its retention when the states were last read is not trimmed: a replay made since may want it', async () => {
  const log = new MemoryLog();
  const clock = new StillClock();
  const opened = await openLedger(log, {}, clock);
  await opened.put(registration('a'));
  const { logPosition } = await opened.ledger.submit(submission([member('$1', '@_a_g:hs.test', 'join')]));
  await opened.ledger.submit(submission([{ id: '$2' }]));
  const readMs = clock.ms;
  let asOfMs = readMs;
  const upkeep = new Upkeep(
    {
      fold: opened.fold, ledger: opened.ledger, store: log, clock, logger: silent,
      deliveredPositions: () => new Map([['a', log.tail]]),
      cutPositions: () => ({ asOfMs, positions: new Map() }),
      expired: () => undefined,
      ephemeralAgeMaxMs: AGE_MS, intervalMs: 1_000, checkpointIntervalMs: 5_000, dirtyRoomsMax: 100, trimIntervalMs: 5_000, retentionMs: MINUTE_MS, trimSegmentsMax: 500, trimCallsMax: 50,
    },
    0,
  );
  const trimmed = async (): Promise<boolean> => {
    await upkeep.checkpoint();
    await upkeep.trim();
    return !log.segments.some((segment) => lastPosition(segment) === logPosition);
  };
  clock.ms += 60 * MINUTE_MS;
  assert.equal(await trimmed(), false, 'it is an hour old, and the states are, too');
  asOfMs = readMs + MINUTE_MS + 1;
  assert.equal(await trimmed(), true);
  await opened.ledger[Symbol.asyncDispose]();
});
