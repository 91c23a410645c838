import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { VirtualClock } from '../support/clock.ts';
import { describeStoreConformance } from './conformance.ts';

const folder = await mkdtemp(join(tmpdir(), 'router-sqlite-'));
after(async () => {
  await rm(folder, { recursive: true });
});

for (const [name, path, isDurable] of [
  ['SQLite in a file', join(folder, 'router.db'), true],
  ['SQLite in memory', ':memory:', false],
] as const) {
  const clock = new VirtualClock();
  describeStoreConformance(name, {
    open: () => openSqliteStore({ path, clock }),
    allowsTwoHandles: false,
    isDurable,
    passTime: (durationMs) => clock.advance(durationMs),
  });
}
