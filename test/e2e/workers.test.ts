/** ROUTER_WORKERS: one address, several replicas behind it. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { after, test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { MongoTestDatabase } from '../store/mongo-world.ts';
import { MONGODB_MISSING, startMongod } from '../support/mongod.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { put, registrationYaml, RouterHome, submit } from '../support/router-home.ts';
import type { LogLine, RouterProcess } from '../support/router-process.ts';

const LIMIT = { timeout: 60_000 };
const IDS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

const mongod = await startMongod();
after(() => mongod?.stop());

const readyWorkers = (router: RouterProcess): LogLine[] => router.lines.filter(({ msg }) => msg === 'worker ready');

test('workers with SQLite are refused with what to do', LIMIT, async () => {
  await using home = await RouterHome.make();
  const { code, text } = await home.startInVain({ ROUTER_WORKERS: '2' });
  assert.equal(code, 2);
  assert.match(text, /With SQLite there is one process: ROUTER_WORKERS must be 1, or ROUTER_STORE must name a MongoDB replica set/);
});

test('R61 R62 workers share the address and the appservices; one that is killed is started again, and all drain on SIGTERM', { ...LIMIT, skip: mongod === null && MONGODB_MISSING }, async () => {
  assert.ok(mongod !== null);
  await using database = new MongoTestDatabase(mongod.uri);
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  await writeFile(home.path('shared.key'), randomBytes(32).toString('base64'), { mode: 0o600 });
  const env = { ROUTER_STORE: database.uri, ROUTER_ENCRYPTION_KEY_FILE: home.path('shared.key'), ROUTER_WORKERS: '2' };
  const router = await home.start(env);
  const second = await router.line((line) => line === readyWorkers(router)[1]);
  const workers = readyWorkers(router);
  assert.deepEqual(workers.at(-1), second);
  for (const worker of workers) assert.equal(worker['grpc_address'], router.grpcAddress);
  const admin = router.client('admin');
  for (const id of IDS) await put(admin, registrationYaml(id, `${receiver.url}/${id}`));
  const holders = async (): Promise<Set<string>> => {
    const { appservices } = await admin.call(AppserviceAdmin.method.listAppservices, {});
    return new Set(appservices.map(({ leaseHolder }) => leaseHolder));
  };
  const ids: string[] = [];
  // Every client is a connection of its own, dealt out in turn; both workers take what comes.
  for (let round = 0; round < 4; round++) ids.push(...(await submit(router.client('homeserver'), `first-${round}`, 3)).ids);
  await receiver.until(() => IDS.every((id) => receiver.taken(id).length === ids.length));
  while ((await holders()).size < 2 || (await holders()).has('')) await receiver.until(() => true);
  process.kill(Number(workers[0]?.['process_id']), 'SIGKILL');
  await router.line(({ msg }) => msg === 'a worker ended; it is started again');
  while (readyWorkers(router).length < 3) await router.line((line) => line === readyWorkers(router)[2]);
  const again = router.client('homeserver');
  ids.push(...(await submit(again, 'again', 5)).ids);
  await receiver.until(() => IDS.every((id) => receiver.taken(id).length === ids.length));
  for (const id of IDS) assert.deepEqual(receiver.taken(id), ids, id);
  assert.equal(await router.terminate(), 0);
});

test('a start with workers that cannot work ends with one clear line, not for ever anew', { ...LIMIT, skip: mongod === null && MONGODB_MISSING }, async () => {
  await using home = await RouterHome.make();
  await writeFile(home.path('shared.key'), randomBytes(32).toString('base64'), { mode: 0o600 });
  const { code, errors } = await home.startInVain({ ROUTER_STORE: 'mongodb://127.0.0.1:1/router?replicaSet=rs', ROUTER_ENCRYPTION_KEY_FILE: home.path('shared.key'), ROUTER_WORKERS: '3' });
  assert.equal(code, 1);
  assert.deepEqual(errors.map(({ msg }) => /no primary of the MongoDB replica set/.test(msg ?? '')), [true]);
});
