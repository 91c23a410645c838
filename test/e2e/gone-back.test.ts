/** A store that has gone back: restored from an older copy, or without its end. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFile, rm, writeFile } from 'node:fs/promises';
import { after, test } from 'node:test';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { MongoTestDatabase } from '../store/mongo-world.ts';
import { MONGODB_MISSING, startMongod } from '../support/mongod.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { put, registrationYaml, RouterHome } from '../support/router-home.ts';
import type { RouterProcess } from '../support/router-process.ts';
import { eventJson } from '../support/routing.ts';

const LIMIT = { timeout: 60_000 };
const { method } = AppserviceRouter;

const mongod = await startMongod();
after(() => mongod?.stop());

async function submitThrough(router: RouterProcess, from: number, through: number): Promise<void> {
  const events = Array.from({ length: through - from + 1 }, (_, at) => ({ json: eventJson({ id: `$${from + at}` }), streamPosition: BigInt(from + at) }));
  await router.client('homeserver').call(method.submitEvents, { stream: 's', events });
}

const toldOf = (router: RouterProcess): unknown[] => router.lines.flatMap((line) => (/the store has gone back/.test(line.msg ?? '') ? [[line['log_position'], line['known_log_position']]] : []));

test('R57 I11 a restored older copy is said to be one, GetStreamPosition shows it, and what is submitted again goes out under new txn ids', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  const ids = (): Set<string> => new Set(receiver.received.map(({ txnId }) => txnId));
  const first = await home.start();
  await put(first.client('admin'), registrationYaml('irc', `${receiver.url}/irc`));
  await submitThrough(first, 1, 5);
  await receiver.until(() => receiver.taken('irc').length === 5);
  assert.equal(await first.terminate(), 0);
  await copyFile(home.path('router.db'), home.path('copy.db'));
  const second = await home.start();
  assert.deepEqual(toldOf(second), []);
  await submitThrough(second, 6, 10);
  await receiver.until(() => receiver.taken('irc').length === 10);
  assert.equal(await second.terminate(), 0);
  const before = ids();

  for (const end of ['', '-wal', '-shm']) await rm(home.path(`router.db${end}`), { force: true });
  await copyFile(home.path('copy.db'), home.path('router.db'));
  const third = await home.start();
  const [told] = toldOf(third);
  assert.ok(Array.isArray(told) && Number(told[0]) < Number(told[1]), 'it says so, with both positions');
  const { streamPosition } = await third.client('homeserver').call(method.getStreamPosition, { stream: 's' });
  assert.equal(streamPosition, 5n);
  const countBefore = receiver.received.length;
  await submitThrough(third, 6, 12);
  await receiver.until(() => receiver.taken('irc').length === 12);
  const newest = [...before].reduce((most, id) => (BigInt(id) > most ? BigInt(id) : most), 0n);
  for (const { txnId } of receiver.received.slice(countBefore)) assert.ok(BigInt(txnId) > newest, 'no txn id comes back with other content');
  assert.equal(await third.terminate(), 0);
  const fourth = await home.start();
  assert.deepEqual(toldOf(fourth), [], 'said once');
});

test('M10 a second router on one MongoDB with another encryption key is refused and says which key is missing; the first goes on', { ...LIMIT, skip: mongod === null && MONGODB_MISSING }, async () => {
  assert.ok(mongod !== null);
  await using database = new MongoTestDatabase(mongod.uri);
  await using one = await RouterHome.make();
  await using other = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  const environment = async (home: RouterHome): Promise<Record<string, string>> => {
    await writeFile(home.path('own.key'), randomBytes(32).toString('base64'), { mode: 0o600 });
    return { ROUTER_STORE: database.uri, ROUTER_ENCRYPTION_KEY_FILE: home.path('own.key') };
  };
  const first = await one.start(await environment(one));
  await put(first.client('admin'), registrationYaml('irc', `${receiver.url}/irc`));
  const { code, errors } = await other.startInVain(await environment(other));
  assert.equal(code, 1);
  assert.match(JSON.stringify(errors), /appservice \\?"irc\\?" is sealed with the key \w+, and the encryption key file holds \w+/);
  await submitThrough(first, 1, 3);
  await receiver.until(() => receiver.taken('irc').length === 3);
});
