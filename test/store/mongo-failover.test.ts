/** A replica set of three whose primary is killed under load: nothing acknowledged is lost, nothing is there twice. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MONGODB_MISSING, startMongod } from '../support/mongod.ts';
import { ALL_SEGMENTS, segmentOf, stateOf } from './conformance/world.ts';
import { MongoTestDatabase, openStore } from './mongo-world.ts';

const APPENDS = 300;
const KILL_AT = 100;

test('I1 I5 R61 R62 keeps everything it answered for when the primary of three is killed', async (context) => {
  await using mongod = await startMongod({ count: 3, own: true });
  if (mongod === null) return context.skip(MONGODB_MISSING);
  const database = new MongoTestDatabase(mongod.uri);
  // The set is thrown away as a whole: no primary need be there to drop the database.
  await using client = { [Symbol.asyncDispose]: () => database.close() };
  assert.ok(client);
  await using writer = await openStore({ uri: database.uri });
  await using reader = await openStore({ uri: database.uri });
  const { pid } = await database.admin({ serverStatus: 1 });
  const answered: string[] = [];
  let state = stateOf('hs', 'irc');
  assert.deepEqual(await writer.writeStates([state]), ['written']);
  let written: Promise<void> = Promise.resolve();
  for (let position = 1; position <= APPENDS; position++) {
    if (position === KILL_AT) process.kill(Number(pid), 'SIGKILL');
    const nonce = `n${position}`;
    // The state is written while the append is under way, so both are hit.
    written = written.then(async () => {
      state = { ...state, revision: state.revision + 1, deliveredPosition: position };
      assert.deepEqual(await writer.writeStates([state]), ['written']);
    });
    assert.deepEqual(await writer.append(segmentOf('hs', position, { nonce })), { kind: 'appended' });
    answered.push(nonce);
    if (position % 10 === 0) await written;
  }
  await written;
  for (const store of [writer, reader]) {
    const segments = await store.readSegments('hs', 1, ALL_SEGMENTS);
    assert.deepEqual(segments.map(({ firstPosition, nonce }) => [firstPosition, nonce]), answered.map((nonce, at) => [at + 1, nonce]));
    assert.deepEqual(await store.loadStates('hs'), [state]);
  }
  const { electionId } = await database.admin({ hello: 1 });
  assert.notEqual(String(electionId), '7fffffff0000000000000001', 'another member was elected');
});
