/** A few cycles of the crash loop; `npm run crash` goes through thousands. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MONGODB_MISSING } from '../support/mongod.ts';
import { runLoop } from './loop.ts';
import type { StoreKind } from './world.ts';

const CYCLES = 10;

function run(store: StoreKind, seed: number): ReturnType<typeof runLoop> {
  return runLoop({ cycles: CYCLES, store, seed, only: null, routerCount: store === 'sqlite' ? 1 : 3, signal: new AbortController().signal, say: () => undefined });
}

test('I1 I2 I3 I4 I6 I7 R61 R62 R65 one router on SQLite loses and reorders nothing through kills, a torn log and a full disk', { timeout: 120_000 }, async () => {
  const result = await run('sqlite', 11);
  assert.deepEqual(result?.violations, []);
  assert.ok(result.eventCount > 0 && result.pushCount > 0);
});

test('I1 I2 I3 I4 I6 I7 R61 R62 R65 three routers on a replica set of three lose and reorder nothing through kills, stops and broken connections', { timeout: 120_000 }, async (context) => {
  if (process.env['ROUTER_TEST_MONGODB_URI'] === 'none') return context.skip(MONGODB_MISSING);
  const result = await run('mongodb', 12);
  if (result === null) return context.skip(MONGODB_MISSING);
  assert.deepEqual(result.violations, []);
  assert.ok(result.eventCount > 0 && result.pushCount > 0);
});
