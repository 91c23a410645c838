/** The log on MongoDB: writers from the past, trimmed places, what is too large or damaged, pages of routes. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { StoreError } from '../../src/store/errors.ts';
import type { StoreErrorKind } from '../../src/store/errors.ts';
import { MONGO_LIMITS } from '../../src/store/mongo/limits.ts';
import { RoutePages } from '../../src/store/mongo/route-pages.ts';
import type { Store } from '../../src/store/port.ts';
import { MONGODB_MISSING, startMongod } from '../support/mongod.ts';
import { ALL_ENTRIES, ALL_SEGMENTS, appendAll, eventEntries, eventEntry, routedSegments, segmentOf, stateOf } from './conformance/world.ts';
import { LossyWay, MongoTestDatabase, openStore, uriWith } from './mongo-world.ts';

const mongod = await startMongod();
const skip = mongod === null && MONGODB_MISSING;
const serverUri = mongod?.uri ?? 'mongodb://127.0.0.1';
after(() => mongod?.stop());

const isKind = (kind: StoreErrorKind) => (error: unknown): boolean => error instanceof StoreError && error.kind === kind;

async function positions(store: Store): Promise<number[]> {
  return (await store.readSegments('hs', 1, ALL_SEGMENTS)).map(({ firstPosition }) => firstPosition);
}

async function trimAll(store: Store): Promise<number> {
  const request = { after: 0, through: 1_000, beforeMs: 2_000_000_000_000, deliveredPositions: new Map<string, number>(), segmentsMax: 1_000 };
  return (await store.trim('hs', request)).removedSegments;
}

/** A writer that knows the log to end at 1, and another that has since appended up to 4 and trimmed all it may. */
async function writerFromThePast(database: MongoTestDatabase, late: { tailTrustMs: number }, other: { tombstoneKeptMs: number }): Promise<{ lateStore: Store; otherStore: Store }> {
  const lateStore = await openStore({ uri: database.uri, limits: late });
  const otherStore = await openStore({ uri: database.uri, limits: other });
  await appendAll(lateStore, 'hs', [{}]);
  await appendAll(otherStore, 'hs', [{}, {}, {}], 1);
  assert.equal(await trimAll(otherStore), 3);
  await trimAll(otherStore);
  assert.deepEqual(await positions(otherStore), [4]);
  return { lateStore, otherStore };
}

describe('the log on MongoDB', { skip }, () => {
  test('R62 I11 a writer that is a moment late is lost at a trimmed place, for the place is still taken', async () => {
    await using database = new MongoTestDatabase(serverUri);
    const { lateStore, otherStore } = await writerFromThePast(database, { tailTrustMs: 60_000 }, { tombstoneKeptMs: 60_000 });
    await using _late = lateStore;
    await using _other = otherStore;
    assert.deepEqual(await lateStore.append(segmentOf('hs', 2, { nonce: 'late' })), { kind: 'lost' });
    assert.deepEqual(await positions(otherStore), [4]);
  });

  test('R62 I11 a writer that is late for longer than it may trust what it knows looks first, and is lost', async () => {
    await using database = new MongoTestDatabase(serverUri);
    const { lateStore, otherStore } = await writerFromThePast(database, { tailTrustMs: 0 }, { tombstoneKeptMs: 0 });
    await using _late = lateStore;
    await using _other = otherStore;
    assert.equal(await database.collection('segments').countDocuments(), 1, 'no tombstone is left');
    assert.deepEqual(await lateStore.append(segmentOf('hs', 2, { nonce: 'late' })), { kind: 'lost' });
    assert.deepEqual(await positions(otherStore), [4]);
  });

  test('control: with neither, a writer from the past would get a trimmed place', async () => {
    await using database = new MongoTestDatabase(serverUri);
    const { lateStore, otherStore } = await writerFromThePast(database, { tailTrustMs: 60_000 }, { tombstoneKeptMs: 0 });
    await using _late = lateStore;
    await using _other = otherStore;
    assert.deepEqual(await lateStore.append(segmentOf('hs', 2, { nonce: 'late' })), { kind: 'appended' });
    assert.ok(MONGO_LIMITS.tombstoneKeptMs >= 3 * MONGO_LIMITS.tailTrustMs, 'which the limits in force rule out');
  });

  test('a tombstone holds the place and nothing else', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using store = await openStore({ uri: database.uri });
    await appendAll(store, 'hs', routedSegments(3, 2, 'irc'));
    assert.equal(await trimAll(store), 2);
    const tombstones = await database.collection('segments').find({ trimmed_at: { $exists: true } }).toArray();
    for (const tombstone of tombstones) assert.deepEqual(Object.keys(tombstone).sort(), ['_id', 'last_position', 'nonce', 'time_ms', 'trimmed_at']);
    assert.equal(tombstones.length, 2);
    assert.equal(await trimAll(store), 0, 'they are not trimmed twice');
    assert.deepEqual(await store.measureRoutes('hs', new Map([['irc', 0]]), 6), [{ appserviceId: 'irc', entryCount: 2, bytes: 16, firstSegment: 5, oldestTimeMs: 1_700_000_000_005 }]);
  });

  test('refuses as exhausted what one document cannot hold, and goes on', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using store = await openStore({ uri: database.uri });
    const large = Array.from({ length: 40 }, () => eventEntry(`"${'x'.repeat(400 * 1024)}"`));
    await assert.rejects(store.append(segmentOf('hs', 1, { entries: [...large, ...large.slice(0, 1)] })), isKind('exhausted'));
    const routes = Array.from({ length: 60_000 }, (_, at): [string, number[]] => [`appservice-${'x'.repeat(100)}-${at}`, [0, 0]]);
    await assert.rejects(store.append(segmentOf('hs', 1, { routes })), isKind('exhausted'));
    assert.deepEqual(await store.append(segmentOf('hs', 1, { entries: large.slice(0, 39) })), { kind: 'appended' });
  });

  test('says unreadable of documents that are not what it writes', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using store = await openStore({ uri: database.uri });
    await appendAll(store, 'hs', routedSegments(1, 2, 'irc'));
    await store.writeStates([stateOf('hs', 'irc')]);
    const segments = database.collection('segments');
    const states = database.collection('appservice_states');
    for (const damage of [{ body: 'text' }, { body: Buffer.from('garbage') }, { body: Buffer.alloc(0) }, { body: null }]) {
      await segments.updateOne({}, { $set: damage });
      await assert.rejects(store.readSegments('hs', 1, ALL_SEGMENTS), isKind('unreadable'));
      await assert.rejects(store.readRoute('hs', 'irc', 0, 2, ALL_ENTRIES), isKind('unreadable'));
    }
    for (const damage of [{ revision: 'one' }, { revision: 1.5 }, { revision: 1, delivered_position: -1 }, { delivered_position: 0, delivery_state: 'resting' }, { delivery_state: 'idle', transaction: {} }]) {
      await states.updateOne({}, { $set: damage });
      await assert.rejects(store.loadStates('hs'), isKind('unreadable'));
    }
  });

  test('I2 a route that is read on by transactions crosses the network once', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using way = await LossyWay.to(database);
    await using store = await openStore({ uri: uriWith(database.uri, { host: way.host, options: { directConnection: 'true' } }) });
    await appendAll(store, 'hs', routedSegments(4, 100, 'irc'));
    way.commands.length = 0;
    const read: number[] = [];
    for (let at = 0; at < 400; at = read.at(-1) ?? 400) read.push(...(await store.readRoute('hs', 'irc', at, 400, { entriesMax: 30, bytesMax: 1_000_000 })).map(({ position }) => position));
    assert.deepEqual(read, Array.from({ length: 400 }, (_, at) => at + 1));
    assert.equal(way.commands.filter((command) => 'find' in command || 'aggregate' in command).length, 1);
  });
});

describe('pages of routes', () => {
  const segments = [segmentOf('hs', 11, { entries: eventEntries(10) }), segmentOf('hs', 21, { entries: eventEntries(10) })];
  const shape = { bytesPerSegment: 10 };

  test('are given away to a read that goes on in them, once', () => {
    const pages = new RoutePages(1_000_000);
    pages.put('hs', 'irc', { after: 15, segments }, shape);
    assert.deepEqual(pages.take('hs', 'irc', 15).kept?.segments, segments);
    assert.deepEqual(pages.take('hs', 'irc', 15), { kept: null, shape: null });
  });

  test('are of no use to a read before or beyond them, of another appservice or another homeserver', () => {
    for (const [serverName, appserviceId, after] of [['hs', 'irc', 14], ['hs', 'irc', 30], ['hs', 'mail', 15], ['other', 'irc', 15]] as const) {
      const pages = new RoutePages(1_000_000);
      pages.put('hs', 'irc', { after: 15, segments }, shape);
      assert.equal(pages.take(serverName, appserviceId, after).kept, null);
    }
  });

  test('are forgotten after a trim, and the least recent ones when there are too many bytes', () => {
    const pages = new RoutePages(8_000);
    for (const id of ['a', 'b', 'c']) pages.put('hs', id, { after: 15, segments }, shape);
    assert.deepEqual(['a', 'b', 'c'].map((id) => pages.take('hs', id, 15).kept !== null), [false, true, true]);
    pages.put('hs', 'a', { after: 15, segments }, shape);
    pages.put('other', 'a', { after: 15, segments }, shape);
    pages.forget('hs');
    assert.deepEqual([pages.take('hs', 'a', 15).kept, pages.take('other', 'a', 15).kept === null], [null, false]);
  });
});
