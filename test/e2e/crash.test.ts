import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MongoClient } from 'mongodb';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { seededRandom } from '../support/clock.ts';
import { MONGODB_MISSING, startMongod, testDatabaseName } from '../support/mongod.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { RouterProcess } from '../support/router-process.ts';
import { member } from '../support/routing.ts';
import { Submitter } from '../support/submitter.ts';

const KILLS = 6;
const EVENTS = 3000;
const APPSERVICES = ['alpha', 'beta', 'gamma'];

/**
 * Kills the router again and again, at moments that a seed picks, while a homeserver submits and appservices fail in
 * every way they can; then lets everything settle and judges what the appservices got.
 */
async function killLoop(storeEnv: Readonly<Record<string, string>>, seed: number): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), 'router-crash-'));
  const { next } = seededRandom(seed);
  await using receiver = await RecordingReceiver.start();
  receiver.delayMs = 2;
  let isFaulty = true;
  receiver.answer = () => {
    const dice = next();
    if (!isFaulty || dice > 0.15) return 'ok';
    return dice < 0.05 ? 'error' : dice < 0.1 ? 'lost_answer' : 'reset';
  };
  const env = { ROUTER_BACKOFF_FIRST_MS: '20', ROUTER_BACKOFF_MAX_MS: '100', ROUTER_LOG_LEVEL: 'warn', ...storeEnv };
  const submitter = new Submitter('main');
  for (const id of APPSERVICES) submitter.add(member(`$join-${id}`, `@_${id}_bot:hs.test`, 'join'));
  for (let n = 0; n < EVENTS; n++) submitter.add({ id: `$${n}` });
  let lostAnswers = 0;
  try {
    for (let life = 0; life <= KILLS; life++) {
      await using router = await RouterProcess.start(dataDir, { ...env, ROUTER_LOG_LEVEL: 'info' });
      if (life === 0) {
        const admin = router.client('admin');
        for (const id of APPSERVICES) {
          const source = { case: 'yaml' as const, value: `id: ${id}\nurl: ${receiver.url}/${id}\nas_token: as-${id}-long-enough\nhs_token: hs-${id}-long-enough\nsender_localpart: _${id}_bot\nnamespaces: {}\n` };
          await admin.call(AppserviceAdmin.method.putRegistration, { source });
        }
      }
      const submitting = submitter.run(router.client('homeserver'), 1 + Math.floor(next() * 20));
      if (life < KILLS) {
        const until = receiver.received.length + 5 + Math.floor(next() * 40);
        await Promise.race([receiver.until(() => receiver.received.length >= until), submitting]);
        await router.kill();
        await submitting;
        continue;
      }
      isFaulty = false;
      assert.equal(await submitting, true);
      await receiver.until(() => APPSERVICES.every((id) => receiver.taken(id).length >= EVENTS));
      lostAnswers = receiver.received.filter(({ answer }) => answer === 'lost_answer').length;
      assert.equal(await router.terminate(), 0);
    }
    for (const id of APPSERVICES) {
      // R30: each appservice's own join is an event of its own user; the joins of the others before it are not its affair.
      const from = APPSERVICES.indexOf(id);
      assert.deepEqual(receiver.taken(id), submitter.eventIds.slice(from), `I1 NoLoss, I2 Order for ${id}`);
      assert.deepEqual(receiver.violations(id, KILLS + lostAnswers), [], id);
    }
  } finally {
    await rm(dataDir, { recursive: true, force: true });
  }
}

test('R57 R59 R60 R61 R62 R65 M2 M4 I1 I2 I3 I4 kill -9 at any moment loses nothing acknowledged and reorders nothing (SQLite)', { timeout: 120_000 }, async () => {
  await killLoop({}, 1);
});

const mongod = await startMongod();
after(() => mongod?.stop());
test('R57 R59 R60 R61 R62 R65 M2 M4 I1 I2 I3 I4 kill -9 at any moment loses nothing acknowledged and reorders nothing (MongoDB)', { timeout: 180_000, skip: mongod === null && MONGODB_MISSING }, async () => {
  assert.ok(mongod !== null);
  const database = new URL(mongod.uri);
  database.pathname = `/${testDatabaseName()}`;
  const keyDir = await mkdtemp(join(tmpdir(), 'router-key-'));
  const keyFile = join(keyDir, 'encryption.key');
  await writeFile(keyFile, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
  try {
    await killLoop({ ROUTER_STORE: database.href, ROUTER_ENCRYPTION_KEY_FILE: keyFile }, 2);
  } finally {
    const client = new MongoClient(mongod.uri);
    await client.db(database.pathname.slice(1)).dropDatabase();
    await client.close();
    await rm(keyDir, { recursive: true, force: true });
  }
});
