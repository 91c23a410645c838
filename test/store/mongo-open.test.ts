/** Opening the MongoDB store: what it refuses, how it says so, and what it asks of the database whatever the URI says. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { MongoMemoryServer } from 'mongodb-memory-server-core';
import { StoreError } from '../../src/store/errors.ts';
import type { StoreErrorKind } from '../../src/store/errors.ts';
import { deploymentFault } from '../../src/store/mongo/deployment.ts';
import { databaseNameOf } from '../../src/store/mongo/open.ts';
import { findMongod } from '../support/mongod-binary.ts';
import { MONGODB_MISSING, startMongod } from '../support/mongod.ts';
import { ALL_ENTRIES, ALL_SEGMENTS, appendAll, routedSegments, roomOf, stateOf } from './conformance/world.ts';
import { KeptLog, LossyWay, MongoTestDatabase, openStore, uriWith } from './mongo-world.ts';

const mongod = await startMongod();
const skip = mongod === null && MONGODB_MISSING;
const serverUri = mongod?.uri ?? 'mongodb://127.0.0.1';
after(() => mongod?.stop());

const QUICK = { serverSelectionTimeoutMs: 1_000, connectTimeoutMs: 500 };

/** The error with which the store refuses to open; nothing it says may hold `secret`. */
async function refusal(uri: string, kind: StoreErrorKind, secret?: string): Promise<string> {
  const logger = new KeptLog();
  const error: unknown = await openStore({ uri, logger, limits: QUICK }).then(
    () => assert.fail('it opened'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof StoreError);
  assert.equal(error.kind, kind, error.message);
  if (secret !== undefined) assert.ok(![error.message, ...logger.lines].some((text) => text.includes(secret)));
  return error.message;
}

describe('opening the MongoDB store', () => {
  for (const uri of ['', 'http://127.0.0.1/db', 'mongodb://', 'mongodb://someone:hunter2@', 'mongodb://someone:hunter2@host:notaport/db', 'mongodb://someone:hunter2@host/?unknownOption=1', 'mongodb://someone:hunter2@host/a%ZZ']) {
    test(`I12 refuses the URI ${JSON.stringify(uri)} as unsuitable, without its password`, async () => {
      assert.match(await refusal(uri, 'unsuitable', 'hunter2'), /must read mongodb:\/\//);
    });
  }

  test('I12 is unavailable where nothing listens', async () => {
    assert.match(await refusal('mongodb://someone:hunter2@127.0.0.1:1/db?replicaSet=rs0', 'unavailable', 'hunter2'), /no primary/);
  });

  test('takes the database that the URI names, or appservice_router', () => {
    assert.equal(databaseNameOf('mongodb://a:1,b:2/own%20name?replicaSet=rs0'), 'own name');
    for (const rest of ['', '/', '/?replicaSet=rs0', '?replicaSet=rs0']) assert.equal(databaseNameOf(`mongodb://user:p%2Fw@a:1,b:2${rest}`), 'appservice_router');
    assert.equal(databaseNameOf('mongodb+srv://cluster.example.org/db'), 'db');
  });

  test('tells a deployment that will not do by its hello', () => {
    const good = { setName: 'rs0', maxWireVersion: 17 };
    assert.equal(deploymentFault(good), null);
    assert.match(deploymentFault({ ...good, maxWireVersion: 13 }) ?? '', /too old/);
    assert.match(deploymentFault({ maxWireVersion: 17 }) ?? '', /standalone/);
    assert.match(deploymentFault({ maxWireVersion: 17, msg: 'isdbgrid' }) ?? '', /mongos/);
    assert.match(deploymentFault({ maxWireVersion: 17, isreplicaset: true }) ?? '', /rs\.initiate/);
  });

  test('refuses a standalone, and says how to make it a replica set', { skip }, async (context) => {
    const binary = await findMongod();
    if (binary === null) return context.skip(MONGODB_MISSING);
    const dbPath = await mkdtemp(join(tmpdir(), 'standalone-'));
    const server = await MongoMemoryServer.create({ binary: { systemBinary: binary.path, version: binary.version }, instance: { dbPath, storageEngine: 'wiredTiger', args: ['--wiredTigerCacheSizeGB', '0.25'] } });
    try {
      assert.match(await refusal(server.getUri(), 'unsuitable'), /standalone.*rs\.initiate/);
      assert.match(await refusal(uriWith(server.getUri(), { options: { replicaSet: 'rs0' } }), 'unsuitable'), /Correct replicaSet/);
      assert.match(await refusal(uriWith(server.getUri(), { options: { directConnection: 'true' } }), 'unsuitable'), /standalone/);
    } finally {
      await server.stop({ doCleanup: false });
      await rm(dbPath, { recursive: true });
    }
  });

  test('refuses a set of another name, and a user that the server does not know', { skip }, async () => {
    assert.match(await refusal(uriWith(serverUri, { options: { replicaSet: 'another' } }), 'unsuitable'), /Correct replicaSet/);
    await refusal(uriWith(serverUri, { user: 'nobody:hunter2' }), 'unsuitable', 'hunter2');
  });

  test('refuses a database that a newer release has written', { skip }, async () => {
    await using database = new MongoTestDatabase(serverUri);
    await (await openStore({ uri: database.uri }))[Symbol.asyncDispose]();
    await database.collection('meta').updateOne({ version: 1 }, { $set: { version: 2 } });
    assert.match(await refusal(database.uri, 'unreadable'), /schema version 2; this release knows 1/);
  });

  test('lets several routers open an empty database at once', { skip }, async () => {
    await using database = new MongoTestDatabase(serverUri);
    const stores = await Promise.all(Array.from({ length: 6 }, () => openStore({ uri: database.uri })));
    assert.deepEqual(await Promise.all(stores.map((store) => store.loadStates('hs'))), stores.map(() => []));
    for (const store of stores) await store[Symbol.asyncDispose]();
  });
});

describe('what the MongoDB store asks of the database', { skip }, () => {
  test('R61 is majority and journal for every write, and the majority after all it has seen for every read, whatever the URI says', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using way = await LossyWay.to(database);
    const uri = uriWith(database.uri, { host: way.host, options: { directConnection: 'true', w: '1', journal: 'false', readPreference: 'secondaryPreferred', readConcernLevel: 'local' } });
    await using store = await openStore({ uri });
    await appendAll(store, 'hs', routedSegments(3, 2, 'irc'));
    way.commands.length = 0;
    await store.append({ serverName: 'hs', firstPosition: 7, entries: [{ kind: 'mark', json: new Uint8Array(0) }], routes: [], roomDeltas: [], streamPositions: {}, registrationChanges: [], registrationsVersion: 0, nonce: 'n', timeMs: 1 });
    assert.deepEqual(way.commands.map((command) => Object.keys(command)[0]), ['insert'], 'an append is one round trip');
    await store.readSegments('hs', 1, ALL_SEGMENTS);
    await store.readRoute('hs', 'irc', 1, 7, ALL_ENTRIES);
    await store.measureRoutes('hs', new Map([['irc', 1]]), 7);
    await store.writeStates([stateOf('hs', 'irc')]);
    await store.saveFold('hs', { rooms: [roomOf('!r', 1)], registrations: [], checkpoint: { position: 1, streamPositions: {}, registrationsVersion: 0 } });
    await store.loadFold('hs');
    await store.trim('hs', { after: 0, through: 1, beforeMs: 0, deliveredPositions: new Map(), segmentsMax: 10 });
    await store.heartbeat('r', 1_000);
    const writes = way.commands.filter((command) => 'insert' in command || 'update' in command || 'delete' in command);
    const reads = way.commands.filter((command) => 'find' in command || 'aggregate' in command);
    assert.ok(writes.length >= 7 && reads.length >= 8);
    for (const { writeConcern } of writes) assert.deepEqual({ w: writeConcern.w, j: writeConcern.j }, { w: 'majority', j: true });
    for (const { readConcern, maxTimeMS } of reads) assert.deepEqual([readConcern.level, 'afterClusterTime' in readConcern, maxTimeMS > 0], ['majority', true, true]);
  });

  test('is served by indexes throughout', async () => {
    await using database = new MongoTestDatabase(serverUri);
    await using store = await openStore({ uri: database.uri, limits: { tombstoneKeptMs: 0 } });
    await appendAll(store, 'hs', routedSegments(40, 2, 'irc'));
    await appendAll(store, 'other', routedSegments(40, 2, 'irc'));
    await store.saveFold('hs', { rooms: [roomOf('!r', 1)], registrations: [], checkpoint: { position: 1, streamPositions: {}, registrationsVersion: 0 } });
    await database.command({ profile: 2 });
    await store.readSegments('hs', 41, ALL_SEGMENTS);
    await store.readRoute('hs', 'irc', 60, 70, ALL_ENTRIES);
    await store.measureRoutes('hs', new Map([['irc', 61]]), 70);
    await store.trim('hs', { after: 0, through: 4, beforeMs: 2_000_000_000_000, deliveredPositions: new Map([['irc', 4]]), segmentsMax: 2 });
    await store.loadRooms('hs', ['!r', '!s']);
    await store.loadFold('hs');
    await store.loadStates('hs');
    await store.wholeFrom('hs', 50, 60, 20);
    await store.readRecords('quarantine', { serverName: 'hs', appserviceId: 'irc', afterTxnId: null, countMax: 10, withEntries: false });
    await store.readRecords('audit', { serverName: 'hs', appserviceId: null, beforeId: null, countMax: 10 });
    await database.command({ profile: 0 });
    const profile = await database.collection('system.profile').find({ ns: { $not: /system\.profile$/ }, planSummary: { $exists: true } }).toArray();
    const looked = profile.map(({ ns, op, planSummary, docsExamined }) => ({ collection: String(ns).split('.').at(-1), op, planSummary: String(planSummary), docsExamined: Number(docsExamined) }));
    assert.ok(looked.length >= 12);
    // A collection that does not exist has no index: nothing is looked at.
    assert.deepEqual(looked.filter(({ planSummary }) => /COLLSCAN/.test(planSummary)), []);
    const ofSegments = looked.filter(({ collection }) => collection === 'segments');
    assert.deepEqual(ofSegments.filter(({ docsExamined }) => docsExamined > 20), [], 'nobody else\'s segments are looked at');
    assert.ok(ofSegments.some(({ planSummary }) => planSummary.includes('routes.appservice_id')));
  });
});
