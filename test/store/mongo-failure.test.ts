/** The MongoDB store when the database fails: lost answers, a primary that steps down, a server that is gone or hangs. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { StoreError } from '../../src/store/errors.ts';
import type { Store } from '../../src/store/port.ts';
import { MONGODB_MISSING, startMongod } from '../support/mongod.ts';
import { ALL_SEGMENTS, appendAll, eventEntries, segmentOf, stateOf } from './conformance/world.ts';
import { KeptLog, LossyWay, MongoTestDatabase, clockWithPauses, openStore, uriWith } from './mongo-world.ts';

/** A server of its own: its fail points and its primary are nobody else's. */
const mongod = await startMongod({ own: true });
const skip = mongod === null && MONGODB_MISSING;
const serverUri = mongod?.uri ?? 'mongodb://127.0.0.1';
after(() => mongod?.stop());

const isKind = (kind: StoreError['kind']) => (error: unknown): boolean => error instanceof StoreError && error.kind === kind;

/** Nonces in the order of the log, which must have no hole. */
async function nonces(store: Store, serverName: string): Promise<string[]> {
  const segments = await store.readSegments(serverName, 1, ALL_SEGMENTS);
  let tail = 0;
  for (const { firstPosition, entries } of segments) {
    assert.equal(firstPosition, tail + 1);
    tail += entries.length;
  }
  return segments.map(({ nonce }) => nonce);
}

async function throughWay(database: MongoTestDatabase, options: Readonly<Record<string, string>> = {}): Promise<{ way: LossyWay; uri: string }> {
  const way = await LossyWay.to(database);
  return { way, uri: uriWith(database.uri, { host: way.host, options: { directConnection: 'true', ...options } }) };
}

describe('appends on MongoDB', { skip }, () => {
  for (const retryWrites of ['true', 'false']) {
    test(`I1 R61 answers appended, and appends once, when the answer to the insert is lost (retryWrites=${retryWrites})`, async () => {
      await using database = new MongoTestDatabase(serverUri);
      const { way, uri } = await throughWay(database, { retryWrites });
      await using _way = way;
      await using store = await openStore({ uri });
      way.loseAnswers('insert', 'insert');
      assert.deepEqual(await store.append(segmentOf('hs', 1, { nonce: 'mine' })), { kind: 'appended' });
      assert.deepEqual(way.lost, ['insert', 'insert']);
      assert.deepEqual(await store.append(segmentOf('hs', 2, { nonce: 'next' })), { kind: 'appended' });
      assert.deepEqual(await nonces(store, 'hs'), ['mine', 'next']);
    });
  }

  test('I1 answers appended when the insert meets itself as a duplicate that no majority has confirmed yet', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using store = await openStore({ uri: database.uri });
    await database.failNext('insert', 1, { errorCode: 11_000 });
    assert.deepEqual(await store.append(segmentOf('hs', 1, { nonce: 'mine' })), { kind: 'appended' });
    assert.deepEqual(await nonces(store, 'hs'), ['mine']);
  });

  test('I1 settles an insert that was carried out and not confirmed by a majority', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using store = await openStore({ uri: database.uri });
    await database.failNext('insert', 1, { writeConcernError: { code: 64, errmsg: 'waiting for replication timed out' } });
    assert.deepEqual(await store.append(segmentOf('hs', 1, { nonce: 'mine' })), { kind: 'appended' });
    assert.deepEqual(await nonces(store, 'hs'), ['mine']);
  });

  test('R61 is lost when a rival takes the place while the outcome is unknown', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using rival = await openStore({ uri: database.uri });
    let pauses = 0;
    const clock = clockWithPauses(async () => {
      if (pauses++ === 0) assert.deepEqual(await rival.append(segmentOf('hs', 1, { nonce: 'rival', entries: eventEntries(3) })), { kind: 'appended' });
    });
    await using store = await openStore({ uri: database.uri, clock });
    // The driver tries twice by itself.
    await database.failNext('insert', 2, { closeConnection: true });
    assert.deepEqual(await store.append(segmentOf('hs', 1, { nonce: 'mine' })), { kind: 'lost' });
    assert.equal(pauses, 1);
    assert.deepEqual(await nonces(store, 'hs'), ['rival']);
  });

  test('I1 R62 goes on in order and without a hole when the primary steps down in between', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using store = await openStore({ uri: database.uri });
    const expected = Array.from({ length: 40 }, (_, at) => `n${at}`);
    let steppedDown: Promise<unknown> = Promise.resolve();
    for (const [at, nonce] of expected.entries()) {
      if (at === 10) steppedDown = database.admin({ replSetStepDown: 1, force: true });
      assert.deepEqual(await store.append(segmentOf('hs', at + 1, { nonce })), { kind: 'appended' });
    }
    await steppedDown;
    assert.deepEqual(await nonces(store, 'hs'), expected);
    const { electionId } = await database.admin({ hello: 1 });
    assert.notEqual(String(electionId), '7fffffff0000000000000001', 'there was another election');
  });

  test('says unavailable within its bound while the server is gone, and goes on when it is back', async () => {
    await using database = new MongoTestDatabase(serverUri);
    const { way, uri } = await throughWay(database);
    await using _way = way;
    const log = new KeptLog();
    await using store = await openStore({ uri, logger: log, limits: { serverSelectionTimeoutMs: 300, connectTimeoutMs: 300, settleTimeoutMs: 300, settleIntervalMs: 10 } });
    await appendAll(store, 'hs', [{}, {}]);
    await way.down();
    await assert.rejects(store.append(segmentOf('hs', 3)), isKind('unavailable'));
    await assert.rejects(store.readSegments('hs', 1, ALL_SEGMENTS), isKind('unavailable'));
    await assert.rejects(store.readRoute('hs', 'irc', 0, 9, { entriesMax: 1, bytesMax: 1 }), isKind('unavailable'));
    await assert.rejects(store.loadStates('hs'), isKind('unavailable'));
    await assert.rejects(store.writeStates([stateOf('hs', 'irc')]), isKind('unavailable'));
    await assert.rejects(store.heartbeat('r', 1_000), isKind('unavailable'));
    assert.ok(log.lines.length >= 6, 'the operator is told');
    await way.up();
    // The driver notices by itself; until then the calls are unavailable.
    while ((await store.readSegments('hs', 3, ALL_SEGMENTS).catch(() => null)) === null) await systemClock.pause();
    assert.deepEqual(await store.append(segmentOf('hs', 3)), { kind: 'appended' });
    assert.equal((await nonces(store, 'hs')).length, 3);
  });

  test('says unavailable within its bound while the server hangs, and goes on when it answers again', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using store = await openStore({ uri: database.uri, limits: { callTimeoutMs: 200, settleTimeoutMs: 300, settleIntervalMs: 10 } });
    await appendAll(store, 'hs', [{}]);
    const [processId] = mongod?.processIds ?? [];
    assert.ok(processId !== undefined);
    process.kill(processId, 'SIGSTOP');
    try {
      await assert.rejects(store.append(segmentOf('hs', 2, { nonce: 'late' })), isKind('unavailable'));
      await assert.rejects(store.loadStates('hs'), isKind('unavailable'));
    } finally {
      process.kill(processId, 'SIGCONT');
    }
    // What was sent in the meantime may have landed; either way the outcome is the one segment.
    assert.deepEqual(await store.append(segmentOf('hs', 2, { nonce: 'late' })), { kind: 'appended' });
    assert.deepEqual(await nonces(store, 'hs'), ['hs-1', 'late']);
  });
});

describe('delivery states on MongoDB', { skip }, () => {
  test('I5 tells each outcome of a bulk write whose answer is lost', async () => {
    await using database = new MongoTestDatabase(serverUri);
    const { way, uri } = await throughWay(database, { retryWrites: 'false' });
    await using _way = way;
    await using store = await openStore({ uri });
    assert.deepEqual(await store.writeStates([stateOf('hs', 'a'), stateOf('hs', 'c')]), ['written', 'written']);
    way.loseAnswers('update');
    const states = [stateOf('hs', 'a', { revision: 2, attempts: 7 }), stateOf('hs', 'b'), stateOf('hs', 'c', { revision: 3 }), stateOf('hs', 'd', { revision: 2 })];
    assert.deepEqual(await store.writeStates(states), ['written', 'written', 'conflict', 'conflict']);
    assert.deepEqual(way.lost, ['update']);
    const stored = await store.loadStates('hs');
    assert.deepEqual(stored, [stateOf('hs', 'a', { revision: 2, attempts: 7 }), stateOf('hs', 'b'), stateOf('hs', 'c')]);
  });

  test('I5 R61 is a conflict when a rival wrote the revision while the outcome is unknown', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using rival = await openStore({ uri: database.uri });
    let pauses = 0;
    const clock = clockWithPauses(async () => {
      if (pauses++ === 0) assert.deepEqual(await rival.writeStates([stateOf('hs', 'a', { leaseHolder: 'rival' })]), ['written']);
    });
    await using store = await openStore({ uri: database.uri, clock });
    await database.failNext('update', 2, { closeConnection: true });
    assert.deepEqual(await store.writeStates([stateOf('hs', 'a', { leaseHolder: 'me' })]), ['conflict']);
    assert.equal(pauses, 1);
    assert.deepEqual((await rival.loadStates('hs')).map(({ leaseHolder }) => leaseHolder), ['rival']);
  });

  test('knows its own write after a rival has written over it', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using rival = await openStore({ uri: database.uri });
    const { way, uri } = await throughWay(database, { retryWrites: 'false' });
    await using _way = way;
    let pauses = 0;
    const clock = clockWithPauses(async () => {
      if (pauses++ === 0) assert.deepEqual(await rival.writeStates([stateOf('hs', 'a', { revision: 2, leaseHolder: 'rival' })]), ['written']);
    });
    await using store = await openStore({ uri, clock });
    // The write is carried out; neither its answer nor, in two tries of the driver, what is read back arrives.
    way.loseAnswers('update', 'find', 'find');
    assert.deepEqual(await store.writeStates([stateOf('hs', 'a', { leaseHolder: 'me' })]), ['written']);
    assert.deepEqual([way.lost, pauses], [['update', 'find', 'find'], 1]);
  });
});
