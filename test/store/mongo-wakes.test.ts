/** What one router's store tells of another's doings, by a change stream. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { systemClock, systemRandom } from '../../src/clock.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import type { Store } from '../../src/store/port.ts';
import { WakeRelay } from '../../src/store/wake-relay.ts';
import { MONGODB_MISSING, startMongod } from '../support/mongod.ts';
import { segmentOf, stateOf } from './conformance/world.ts';
import { KeptLog, MongoTestDatabase, openStore } from './mongo-world.ts';

const mongod = await startMongod();
after(() => mongod?.stop());
const skip = mongod === null && MONGODB_MISSING;

/** A store that watches, with what it was told; resolves once it surely watches. */
async function openWatching(uri: string, other: Store): Promise<{ store: Store; told: string[]; until(text: string): Promise<void> }> {
  const told: string[] = [];
  let changed = Promise.withResolvers<undefined>();
  const tell = (text: string): void => {
    told.push(text);
    changed.resolve(undefined);
    changed = Promise.withResolvers();
  };
  const wakes = new WakeRelay();
  wakes.connect(
    {
      appended: (serverName, position) => tell(`appended ${serverName} ${position}`),
      leaseChanged: (serverName, id, holder) => tell(`lease ${serverName} ${id} ${holder}`),
      replicasChanged: () => tell('replicas'),
    },
    () => true,
  );
  const store = await openMongoStore(uri, { clock: systemClock, random: systemRandom, logger: new KeptLog(), wakes });
  const until = async (text: string): Promise<void> => {
    while (!told.includes(text)) await changed.promise;
  };
  // Nothing is told of what came before the watch began.
  for (let at = 0; told.length === 0; at++) {
    await other.heartbeat(`probe-${at}`, 1_000);
    await Promise.race([until('replicas'), systemClock.sleep(100)]);
  }
  return { store, told, until };
}

test('R61 appended segments, leases that change hands, and replicas that come and go are told; heartbeats and other states are not', { skip }, async () => {
  assert.ok(mongod !== null);
  await using database = new MongoTestDatabase(mongod.uri);
  await using other = await openStore({ uri: database.uri });
  const { store, told, until } = await openWatching(database.uri, other);
  await using watching = store;
  assert.ok(watching);
  await other.append(segmentOf('hs', 1));
  await until('appended hs 1');
  let state = stateOf('hs', 'irc', { leaseHolder: 'r1' });
  await other.writeStates([state]);
  told.length = 0;
  const change = async (parts: Partial<typeof state>): Promise<void> => {
    state = { ...state, ...parts, revision: state.revision + 1 };
    assert.deepEqual(await other.writeStates([state]), ['written']);
  };
  await change({ deliveredEntries: 5 });
  await other.heartbeat('probe-0', 60_000);
  await change({ leaseHolder: 'r2', leaseEpoch: 9 });
  await until('lease hs irc r2');
  await change({ leaseHolder: null });
  await until('lease hs irc null');
  await other.heartbeat('probe-0', 0);
  await until('replicas');
  assert.deepEqual(told, ['lease hs irc r2', 'lease hs irc null', 'replicas']);
});
