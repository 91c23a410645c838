/** RotateEncryptionKey on both stores: before, during and after, nothing that is stored becomes unreadable. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { after, test } from 'node:test';
import type { DescMessage, DescMethodUnary } from '@bufbuild/protobuf';
import { MongoClient } from 'mongodb';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { RotateEncryptionKeyResponse } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { failing, failureOf } from '../rpc/doors.ts';
import { MONGODB_MISSING, startMongod, testDatabaseName } from '../support/mongod.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import type { RouterClient } from '../support/router-client.ts';
import { put, registrationYaml, RouterHome, submit } from '../support/router-home.ts';

const admin = AppserviceAdmin.method;
const mongod = await startMongod();
const database = testDatabaseName();
after(async () => {
  if (mongod === null) return;
  const client = new MongoClient(mongod.uri);
  await client.db(database).dropDatabase();
  await client.close();
  await mongod.stop();
});

function mongoUri(): string {
  const uri = new URL(mongod?.uri ?? assert.fail());
  uri.pathname = `/${database}`;
  return uri.toString();
}

async function figures(answer: Promise<RotateEncryptionKeyResponse>): Promise<{ id: string; told: unknown[] }> {
  const { sealingKeyId, keyCreated, resealedCount, keys } = await answer;
  assert.equal(keys[0]?.keyId, sealingKeyId);
  return { id: sealingKeyId, told: [keyCreated, resealedCount, keys.map(({ registrationCount }) => registrationCount)] };
}

/** The appservice that has the as_token of this id. */
async function ownerOf(homeserver: RouterClient, id: string): Promise<string> {
  return (await homeserver.call(AppserviceRouter.method.authenticateAppservice, { asToken: `as-${id}-long-enough` })).appserviceId;
}

const reasonOf = async <I extends DescMessage, O extends DescMessage>(client: RouterClient, method: DescMethodUnary<I, O>, request: Parameters<typeof client.call<I, O>>[1]): Promise<string | undefined> =>
  failureOf(await failing(client.call(method, request))).reason;

test('M10 R20 with SQLite a new key seals everything anew, delivery goes on, and the old key may go', async () => {
  await using receiver = await RecordingReceiver.start();
  await using home = await RouterHome.make();
  const keyPath = home.path('encryption.key');
  const first = await home.start();
  await put(first.client('admin'), registrationYaml('one', `${receiver.url}/one`));
  await put(first.client('admin'), registrationYaml('two', null));
  const old = await readFile(keyPath, 'utf8');

  const rotated = await figures(first.client('admin').call(admin.rotateEncryptionKey, {}));
  assert.deepEqual(rotated.told, [true, 2, [2, 0]]);
  // A repetition of that call, whose answer was lost, makes no further key; nor does one of anything older.
  const oldId = (await first.client('admin').call(admin.rotateEncryptionKey, { replacedKeyId: '00000000' })).keys[1]?.keyId ?? '';
  assert.deepEqual(await figures(first.client('admin').call(admin.rotateEncryptionKey, { replacedKeyId: oldId })), { id: rotated.id, told: [false, 0, [2, 0]] });
  assert.equal(await reasonOf(first.client('admin'), admin.rotateEncryptionKey, { replacedKeyId: 'x' }), 'INVALID_FIELD');
  assert.equal(await reasonOf(first.client('homeserver'), admin.rotateEncryptionKey, {}), 'ROLE_FORBIDDEN');

  const { entries } = await first.client('admin').call(admin.listAuditEntries, {});
  assert.deepEqual(entries.filter(({ action }) => action === 'RotateEncryptionKey').map(({ appserviceId }) => appserviceId), ['', '', '']);

  await put(first.client('admin'), registrationYaml('three', null));
  assert.equal(await ownerOf(first.client('homeserver'), 'one'), 'one');
  await submit(first.client('homeserver'), 'a', 3);
  await receiver.until(() => receiver.taken('one').length === 3);
  assert.equal(await first.terminate(), 0);

  // Without the old key to open with; its line stays as the lookup key, by which tokens are found.
  const lines = (await readFile(keyPath, 'utf8')).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  assert.equal(lines.length, 2);
  assert.ok(old.includes(lines[1] ?? assert.fail()));
  await writeFile(keyPath, `${lines[0]}\nlookup ${lines[1]}\n`);
  const second = await home.start();
  for (const id of ['one', 'two', 'three']) assert.equal(await ownerOf(second.client('homeserver'), id), id);
  assert.equal(await reasonOf(second.client('admin'), admin.putRegistration, { source: { case: 'yaml', value: registrationYaml('thief', null).replace('as-thief', 'as-one') } }), 'REGISTRATION_CONFLICT');
  await submit(second.client('homeserver'), 'b', 2);
  await receiver.until(() => receiver.taken('one').length === 5);
  assert.deepEqual(receiver.violations('one', 0), []);
});

test('M10 a rotation that a crash cut short, or a key put first by hand, is finished by the next call without a further key', async () => {
  await using home = await RouterHome.make();
  const keyPath = home.path('encryption.key');
  const first = await home.start();
  for (const id of ['one', 'two', 'three']) await put(first.client('admin'), registrationYaml(id, null));
  await first.kill();
  // As a crash leaves it that comes right after the file was replaced.
  await writeFile(keyPath, `${Buffer.alloc(32, 5).toString('base64')}\n${await readFile(keyPath, 'utf8')}`);
  const second = await home.start();
  await put(second.client('admin'), registrationYaml('four', null));
  const { told, id } = await figures(second.client('admin').call(admin.rotateEncryptionKey, {}));
  assert.deepEqual(told, [false, 3, [4, 0]]);
  await second.kill();
  const third = await home.start();
  for (const name of ['one', 'two', 'three', 'four']) assert.equal(await ownerOf(third.client('homeserver'), name), name);
  const next = await figures(third.client('admin').call(admin.rotateEncryptionKey, { replacedKeyId: id }));
  assert.deepEqual(next.told, [true, 4, [4, 0, 0]]);
});

test('M10 with MongoDB a router that reads the same key file learns the new key, and both go on', { skip: mongod === null ? MONGODB_MISSING : false }, async () => {
  await using one = await RouterHome.make();
  await using other = await RouterHome.make();
  const keyPath = one.path('shared.key');
  await writeFile(keyPath, Buffer.alloc(32, 1).toString('base64'), { mode: 0o600 });
  const env = { ROUTER_STORE: mongoUri(), ROUTER_ENCRYPTION_KEY_FILE: keyPath };
  const first = await one.start(env);
  const second = await other.start(env);
  for (const id of ['one', 'two']) await put(first.client('admin'), registrationYaml(id, null));
  // Nobody can tell from here whether the others read this file.
  assert.equal(await reasonOf(first.client('admin'), admin.rotateEncryptionKey, {}), 'KEY_ROTATION_FORBIDDEN');
  assert.deepEqual((await figures(first.client('admin').call(admin.rotateEncryptionKey, { sharedKeyFile: true }))).told, [true, 2, [2, 0]]);
  // The other one writes after it, so it has read what the first has sealed anew.
  await put(second.client('admin'), registrationYaml('three', null));
  for (const id of ['one', 'two', 'three']) assert.equal(await ownerOf(second.client('homeserver'), id), id);
  const { told } = await figures(second.client('admin').call(admin.rotateEncryptionKey, { sharedKeyFile: true }));
  assert.deepEqual(told, [true, 3, [3, 0, 0]]);
  await put(first.client('admin'), registrationYaml('four', null));
  assert.deepEqual((await figures(first.client('admin').call(admin.rotateEncryptionKey, { sharedKeyFile: true, replacedKeyId: '00000000' }))).told, [false, 0, [4, 0, 0]]);
  assert.deepEqual([first, second].flatMap(({ lines }) => lines.filter(({ level }) => level === 'error')), []);
});
