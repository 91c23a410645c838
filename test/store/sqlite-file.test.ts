/** SQLite files that are not what they should be, and a thread that does not do what it should. */
import assert from 'node:assert/strict';
import { mkdtemp, open as openFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { StoreError } from '../../src/store/errors.ts';
import type { StoreErrorKind } from '../../src/store/errors.ts';
import { openStore } from '../../src/store/open.ts';
import { migrate } from '../../src/store/sqlite/schema.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import type { SqliteOptions } from '../../src/store/sqlite/sqlite-store.ts';
import type { Store } from '../../src/store/port.ts';
import { VirtualClock, seededRandom } from '../support/clock.ts';
import { ALL_ENTRIES, ALL_SEGMENTS, appendAll, eventEntry, routedSegments, segmentOf, stateOf } from './conformance/world.ts';

const folder = await mkdtemp(join(tmpdir(), 'router-file-'));
after(async () => {
  await rm(folder, { recursive: true });
});

let files = 0;
function freshPath(): string {
  return join(folder, `router-${++files}.db`);
}

function open(path: string, parts: Partial<SqliteOptions> = {}): Promise<Store> {
  return openSqliteStore({ path, clock: new VirtualClock(), ...parts });
}

function ofKind(kind: StoreErrorKind, pattern = /./): (error: unknown) => boolean {
  return (error) => error instanceof StoreError && error.kind === kind && pattern.test(error.message);
}

/** A closed file with a log of 20 segments. */
async function filledPath(): Promise<string> {
  const path = freshPath();
  await using store = await open(path);
  await appendAll(store, 'hs', Array.from({ length: 20 }, () => ({ entries: [eventEntry(`"${'x'.repeat(20_000)}"`)], routes: [['irc', [0, 0]] as const] })));
  return path;
}

/** The file as another program sees it. */
function change(path: string, sql: string): void {
  const database = new DatabaseSync(path);
  database.exec(sql);
  database.close();
}

test('a file of a newer release is refused, unchanged', async () => {
  const path = await filledPath();
  const before = new DatabaseSync(path);
  const version = Number(before.prepare('PRAGMA user_version').get()?.['user_version']);
  before.close();
  change(path, 'PRAGMA user_version = 999');
  await assert.rejects(open(path), ofKind('unreadable', /schema version 999, written by a newer release/));
  change(path, `PRAGMA user_version = ${version}`);
  await using store = await open(path);
  assert.equal((await store.readSegments('hs', 1, ALL_SEGMENTS)).length, 20);
});

test('the database of another program is refused, unchanged', async () => {
  const path = freshPath();
  change(path, 'CREATE TABLE theirs (id INTEGER)');
  await assert.rejects(open(path), ofKind('unreadable', /another program/));
  const database = new DatabaseSync(path);
  assert.deepEqual(database.prepare('SELECT name FROM sqlite_schema').all().map((row) => row['name']), ['theirs']);
  database.close();
});

test('a file that is no database is refused, unchanged', async () => {
  const path = freshPath();
  const text = 'these are notes, not a database. '.repeat(200);
  await writeFile(path, text);
  await assert.rejects(open(path), ofKind('unreadable', /not a database/));
  assert.equal((await stat(path)).size, text.length);
});

test('pages overwritten with something else are reported as unreadable, and the rest still serves', async () => {
  const path = await filledPath();
  const { size } = await stat(path);
  const file = await openFile(path, 'r+');
  for (let at = 16 * 4_096; at < size; at += 4_096) await file.write(Buffer.alloc(4_096, 0xee), 0, 4_096, at);
  await file.close();
  await using store = await open(path);
  await assert.rejects(store.readSegments('hs', 1, ALL_SEGMENTS), ofKind('unreadable'));
  assert.deepEqual(await store.writeStates([stateOf('other', 'irc')]), ['written']);
});

test('a segment whose bytes are not what they should be is reported as unreadable, and those beside it still serve', async () => {
  const path = await filledPath();
  change(path, "UPDATE segments SET body = x'ff00' WHERE first_position = 3; UPDATE segments SET body = x'' WHERE first_position = 4");
  await using store = await open(path);
  await assert.rejects(store.readRoute('hs', 'irc', 2, 3, ALL_ENTRIES), ofKind('unreadable'));
  await assert.rejects(store.readSegments('hs', 4, ALL_SEGMENTS), ofKind('unreadable'));
  assert.equal((await store.readRoute('hs', 'irc', 4, 20, ALL_ENTRIES)).length, 16);
  assert.equal(await appendAll(store, 'hs', [{}], 20), 21);
});

test('a state that is not what it should be is reported as unreadable', async () => {
  const path = await filledPath();
  {
    await using store = await open(path);
    await store.writeStates([stateOf('hs', 'irc')]);
  }
  change(path, "UPDATE appservice_states SET state = '{'");
  await using store = await open(path);
  await assert.rejects(store.loadStates('hs'), ofKind('unreadable'));
});

test('a file of an earlier release is led forward step by step, and keeps what it holds', () => {
  const path = freshPath();
  const steps = ['CREATE TABLE kept (value TEXT)', 'ALTER TABLE kept ADD COLUMN added INTEGER NOT NULL DEFAULT 7', 'CREATE TABLE later (id INTEGER)'];
  const database = new DatabaseSync(path);
  migrate(database, steps.slice(0, 1));
  database.exec(`INSERT INTO kept VALUES ('old')`);
  migrate(database, steps);
  assert.deepEqual({ ...database.prepare('SELECT * FROM kept').get() }, { value: 'old', added: 7 });
  migrate(database, steps);
  assert.equal(database.prepare('PRAGMA user_version').get()?.['user_version'], 3);
  assert.throws(() => {
    migrate(database, steps.slice(0, 2));
  }, ofKind('unreadable', /newer release/));
  database.close();
});

test('a step that fails leaves the file as it was', () => {
  const path = freshPath();
  const database = new DatabaseSync(path);
  migrate(database, ['CREATE TABLE kept (value TEXT)']);
  assert.throws(() => {
    migrate(database, ['CREATE TABLE kept (value TEXT)', 'CREATE TABLE half (id INTEGER); CREATE TABLE kept (again TEXT)']);
  });
  database.close();
  const again = new DatabaseSync(path);
  assert.deepEqual(again.prepare('SELECT name FROM sqlite_schema').all().map((row) => row['name']), ['kept']);
  assert.equal(again.prepare('PRAGMA user_version').get()?.['user_version'], 1);
  again.close();
});

test('when the thread ends, what waits and what comes is refused with `unavailable`', async () => {
  const store = await open(':memory:', { program: new URL('./sqlite-dying-thread.ts', import.meta.url) });
  const results = await Promise.allSettled([store.loadStates('hs'), store.append(segmentOf('hs', 1)), store.loadFold('hs')]);
  assert.deepEqual(results.map((result) => result.status === 'rejected' && ofKind('unavailable', /thread/)(result.reason)), [true, true, true]);
  await assert.rejects(store.loadFold('hs'), ofKind('unavailable'));
  await store[Symbol.asyncDispose]();
});

test('a thread that ends before the file is open is a refusal to open', async () => {
  await assert.rejects(open(':memory:', { program: new URL('data:text/javascript,') }), ofKind('unavailable', /thread/));
});

test('R64 refuses with `exhausted` what would wait beyond the bound, takes one call of any size, and serves on', async () => {
  await using store = await open(':memory:', { waitingBytesMax: 50_000 });
  const large = segmentOf('hs', 1, { entries: [eventEntry(`"${'x'.repeat(200_000)}"`)] });
  const results = await Promise.allSettled([store.append(large), store.append(segmentOf('other', 1)), store.loadFold('hs')]);
  assert.deepEqual(results.map((result) => (result.status === 'fulfilled' ? result.value : ofKind('exhausted')(result.reason))), [{ kind: 'appended' }, true, true]);
  assert.equal(await appendAll(store, 'other', [{}]), 1);
  await appendAll(store, 'another', Array.from({ length: 20 }, () => ({ entries: [eventEntry(`"${'x'.repeat(10_000)}"`)] })));
  assert.deepEqual(await Promise.all([store.loadStates('hs'), store.loadStates('other'), store.loadStates('another')]), [[], [], []]);
});

test('R64 removes no more in one step than others can wait for, and says where to go on', async () => {
  await using store = await open(':memory:');
  const tail = await appendAll(store, 'hs', Array.from({ length: 50 }, () => ({ entries: [eventEntry(`"${'x'.repeat(1_048_576)}"`)] })));
  const request = { after: 0, through: tail, beforeMs: Number.MAX_SAFE_INTEGER, deliveredPositions: new Map<string, number>(), segmentsMax: 1_000 };
  assert.deepEqual(await store.trim('hs', request), { removedSegments: 32, expired: [], nextAfter: 32 });
  assert.deepEqual(await store.trim('hs', { ...request, after: 32 }), { removedSegments: 17, expired: [], nextAfter: null });
});

test('R65 closing waits for what was asked for before', async () => {
  const path = freshPath();
  const store = await open(path);
  const appending = Array.from({ length: 50 }, (_, at) => store.append(segmentOf(`hs-${at}`, 1)));
  const reading = store.readSegments('hs-7', 1, ALL_SEGMENTS);
  await store[Symbol.asyncDispose]();
  assert.ok((await Promise.all(appending)).every(({ kind }) => kind === 'appended'));
  assert.equal((await reading).length, 1);
  await using again = await open(path);
  for (let at = 0; at < 50; at++) assert.equal((await again.readSegments(`hs-${at}`, 1, ALL_SEGMENTS)).length, 1);
});

test('opens the store that the configuration names', async () => {
  const logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const options = { clock: new VirtualClock(), random: seededRandom(1), logger };
  const path = freshPath();
  {
    await using store = await openStore({ kind: 'sqlite', path }, options);
    await appendAll(store, 'hs', routedSegments(1, 1, 'irc'));
  }
  await using again = await openStore({ kind: 'sqlite', path }, options);
  await using memory = await openStore({ kind: 'memory' }, options);
  const counts = await Promise.all([again, memory].map(async (store) => (await store.readSegments('hs', 1, ALL_SEGMENTS)).length));
  assert.deepEqual(counts, [1, 0]);
});
