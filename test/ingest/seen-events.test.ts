/** What is remembered of streams across a restart (R77). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { StreamPositions } from '../../src/ingest/stream-positions.ts';
import { Upkeep } from '../../src/ingest/upkeep.ts';
import { systemClock } from '../../src/clock.ts';
import { openLedger, silent } from '../support/ledger-world.ts';
import type { LedgerWorld } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { registration, submission } from '../support/routing.ts';

async function checkpoint({ fold, ledger }: LedgerWorld, log: MemoryLog): Promise<void> {
  const idle = { deliveredPositions: () => new Map<string, number>(), cutPositions: () => ({ asOfMs: Infinity, positions: new Map<string, number>() }), expired: () => undefined, ephemeralAgeMaxMs: 300_000, intervalMs: 1_000, checkpointIntervalMs: 5_000, dirtyRoomsMax: 100, trimIntervalMs: 5_000, retentionMs: 0, trimSegmentsMax: 10, trimCallsMax: 10 };
  await new Upkeep({ fold, ledger, store: log, clock: systemClock, logger: silent, ...idle }, 0).checkpoint();
}

const isRewound = (error: unknown): boolean => error instanceof RefusalError && error.reason === 'STREAM_POSITION_REWOUND';

test('R77 after a restart a stream that went back is refused as before, whether its events were wanted or not', async () => {
  const log = new MemoryLog();
  {
    await using world = await openLedger(log);
    await world.put(registration('irc'));
    await world.ledger.submit(submission([{ id: '$wanted', sender: '@_irc_a:hs.test', at: 10 }, { id: '$other', at: 11 }]));
    await world.ledger.flush();
    await checkpoint(world, log);
  }
  for (let restart = 0; restart < 3; restart++) {
    await using world = await openLedger(log);
    await assert.rejects(world.ledger.submit(submission([{ id: '$new', at: 10 }])), isRewound);
    await assert.rejects(world.ledger.submit(submission([{ id: '$new', at: 11 }, { id: '$newer', at: 12 }])), isRewound);
    assert.equal((await world.ledger.submit(submission([{ id: '$wanted', sender: '@_irc_a:hs.test', at: 10 }, { id: '$other', at: 11 }]))).duplicates, 2);
    // What one start was told of, the next is told of too.
    await checkpoint(world, log);
  }
});

test('control: without what the checkpoint keeps, the restart takes the other event for a duplicate', async () => {
  const log = new MemoryLog();
  {
    await using world = await openLedger(log);
    await world.ledger.submit(submission([{ id: '$a', at: 10 }]));
    await world.ledger.flush();
  }
  await using world = await openLedger(log);
  assert.equal((await world.ledger.submit(submission([{ id: '$new', at: 10 }]))).duplicates, 1);
});

test('of each stream the newest 64 are kept, of very many fewer, and none that is not durable or shared', () => {
  const one = new StreamPositions();
  for (let position = 1; position <= 200; position++) one.remember('a', position, `$${position}`);
  one.remember('a', 150, '$second');
  one.settle({ a: 190 });
  const kept = one.newest();
  assert.deepEqual([kept.length, kept.at(0)?.position, kept.at(-1)?.position, kept.some(({ position }) => position === 150)], [64, 126, 190, false]);
  assert.ok(kept.every(({ stream, hash }) => stream === 'a' && hash.length === 12));

  const again = new StreamPositions();
  again.restore(kept);
  for (let position = 191; position <= 200; position++) again.remember('a', position, `$${position}`);
  again.settle({ a: 200 });
  const next = again.newest();
  assert.deepEqual([next.length, next.at(0)?.position, next.at(-1)?.position], [64, 136, 200]);
  assert.deepEqual([again.contradicts('a', 140, '$140'), again.contradicts('a', 140, '$x'), again.contradicts('a', 3, '$x'), again.contradicts('a', 195, '$x')], [false, true, false, true]);

  const many = new StreamPositions();
  for (let stream = 0; stream < 1_000; stream++) {
    for (let position = 1; position <= 10; position++) many.remember(`s${stream}`, position, `$${position}`);
    many.settle({ [`s${stream}`]: 10 });
  }
  assert.equal(many.newest().length, 4_000);
});
