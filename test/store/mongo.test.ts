/** The MongoDB store under the conformance suite: a real replica set, and two clients for the cases that race. */
import { after, before, describe, test } from 'node:test';
import { MongoClient } from 'mongodb';
import { systemClock, systemRandom } from '../../src/clock.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import { MONGODB_MISSING, startMongod, testDatabaseName } from '../support/mongod.ts';
import { describeStoreConformance } from './conformance.ts';
import { KeptLog, uriWith } from './mongo-world.ts';

const mongod = await startMongod();

if (mongod === null) {
  test('the MongoDB store passes the conformance suite', { skip: MONGODB_MISSING }, () => undefined);
} else {
  const database = testDatabaseName();
  const uri = uriWith(mongod.uri, { database });
  const client = new MongoClient(mongod.uri);
  describe('MongoDB', () => {
    before(async () => {
      await client.connect();
    });
    describeStoreConformance('MongoDB', {
      open: () => openMongoStore(uri, { clock: systemClock, random: systemRandom, logger: new KeptLog() }),
      allowsTwoHandles: true,
      isDurable: true,
      async passTime(durationMs) {
        const now = async (): Promise<number> => Number((await client.db('admin').command({ hello: 1 }))['localTime']);
        const endMs = (await now()) + durationMs;
        for (let nowMs = endMs - durationMs; nowMs <= endMs; nowMs = await now()) await systemClock.sleep(endMs - nowMs + 1);
      },
    });
    after(async () => {
      await client.db(database).dropDatabase();
      await client.close();
      await mongod.stop();
    });
  });
}
