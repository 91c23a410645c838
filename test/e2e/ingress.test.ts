import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { after, test } from 'node:test';
import { MongoClient } from 'mongodb';
import { seededRandom } from '../support/clock.ts';
import { AS_TOKEN, HS_TOKEN, IngressClient, message } from '../support/ingress-world.ts';
import type { IngressAnswered } from '../support/ingress-world.ts';
import { MONGODB_MISSING, startMongod, testDatabaseName } from '../support/mongod.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { put, registrationYaml, RouterHome } from '../support/router-home.ts';
import type { Environment } from '../support/router-home.ts';

async function withTokens(home: RouterHome): Promise<Environment> {
  const file = home.path('tokens.json');
  await writeFile(file, JSON.stringify({ hs_token: HS_TOKEN, as_token: AS_TOKEN }), { mode: 0o600 });
  return { ROUTER_INGRESS_TOKEN_FILE: file };
}

/**
 * Sends transactions as Synapse does, one at a time and each until it is answered, while the router is killed again and
 * again: sometimes with the append done and the answer not yet sent. A repetition has another age in every event.
 */
async function killLoop(env: Environment, kills: number, seed: number): Promise<void> {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  const { next } = seededRandom(seed);
  const tokens = await withTokens(home);
  const ids: string[] = [];
  let txnId = 0;
  const transaction = (): string[] => Array.from({ length: 1 + Math.floor(next() * 5) }, () => `$${ids.length}-${Math.floor(next() * 1e9)}`);
  let pending: string[] | null = null;
  for (let life = 0; life <= kills; life++) {
    await using router = await home.start({ ...env, ...tokens });
    if (life === 0) await put(router.client('admin'), registrationYaml('irc', `${receiver.url}/irc`));
    const client = new IngressClient(router.httpAddress);
    const rounds = 10 + Math.floor(next() * 20);
    for (let round = 0; round < rounds; round++) {
      if (pending === null) {
        pending = transaction();
        ids.push(...pending);
        txnId++;
      }
      const events: unknown[] = pending.map((id: string) => message(id, { age: Math.floor(next() * 1e6) }));
      const answering: Promise<IngressAnswered | null> = client.put(String(txnId), { events }).catch(() => null);
      if (life < kills && round === rounds - 1) {
        const first = pending[0] ?? '';
        // The event is delivered, so the append is durable; this homeserver has not read the answer.
        if (next() < 0.7) await receiver.until(() => receiver.taken('irc').includes(first));
        await router.kill();
        await answering;
        break;
      }
      assert.deepEqual(await answering, { status: 200, body: {} });
      pending = null;
    }
    if (life < kills) continue;
    await receiver.until(() => receiver.taken('irc').length >= ids.length);
    assert.equal(await router.terminate(), 0);
  }
  assert.deepEqual(receiver.taken('irc'), ids, 'I1 NoLoss, I2 Order');
  assert.deepEqual(receiver.violations('irc', kills), []);
}

test('I1 I2 I6 I7 kill -9 between append and answer: what Synapse sends again is delivered once, in order (SQLite)', { timeout: 120_000 }, async () => {
  await killLoop({}, 6, 1);
});

const mongod = await startMongod();
after(() => mongod?.stop());
test('I1 I2 I6 I7 kill -9 between append and answer: what Synapse sends again is delivered once, in order (MongoDB)', { timeout: 180_000, skip: mongod === null && MONGODB_MISSING }, async () => {
  assert.ok(mongod !== null);
  await using home = await RouterHome.make();
  const database = new URL(mongod.uri);
  database.pathname = `/${testDatabaseName()}`;
  const keyFile = home.path('encryption.key');
  await writeFile(keyFile, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
  try {
    await killLoop({ ROUTER_STORE: database.href, ROUTER_ENCRYPTION_KEY_FILE: keyFile }, 3, 2);
  } finally {
    const client = new MongoClient(mongod.uri);
    await client.db(database.pathname.slice(1)).dropDatabase();
    await client.close();
  }
});

test('without a token file the HTTP port serves no homeserver, and with one that is missing the router does not start', async () => {
  await using home = await RouterHome.make();
  const router = await home.start();
  const { status } = await new IngressClient(router.httpAddress).put('1', { events: [] });
  assert.equal(status, 404);
  await router.terminate();
  const { code, errors } = await home.startInVain({ ROUTER_INGRESS_TOKEN_FILE: home.path('nowhere.json') });
  assert.equal(code, 1);
  assert.match(String(errors[0]?.msg), /There is no ingress token file .*nowhere\.json/);
});
