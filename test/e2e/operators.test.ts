/** The operator's half of AppserviceAdmin, through the door, on both stores; with MongoDB by two routers in turn. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { AppserviceAdmin, DeleteRegistrationRequest_Backlog as Backlog } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { DeliveryState } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { systemClock, systemRandom } from '../../src/clock.ts';
import { openMongoStore } from '../../src/store/mongo/open.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { silent } from '../support/ledger-world.ts';
import { MONGODB_MISSING, startMongod, testDatabaseName } from '../support/mongod.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { errorOf } from '../support/router-client.ts';
import type { RouterClient } from '../support/router-client.ts';
import { put, registrationYaml, statusOf, submit } from '../support/router-home.ts';
import { startService } from '../support/service-world.ts';
import type { ServiceWorld } from '../support/service-world.ts';
import { uriWith } from '../store/mongo-world.ts';

const admin = AppserviceAdmin.method;
const NOT_FOUND = 5;
const FAILED_PRECONDITION = 9;
const LIMIT = { timeout: 60_000 };
const DAY_MS = 86_400_000;
const SETTINGS = { logRetentionMs: DAY_MS, delivery: { eventsMax: 3, ephemeralMax: 100, toDeviceMax: 100, bytesMax: 1_000_000, ephemeralAgeMaxMs: DAY_MS, backoff: { firstMs: 5, maxMs: 20 } } };

const mongod = await startMongod();
after(async () => {
  await mongod?.stop();
});

const reasonOf = (call: Promise<unknown>): Promise<[number, string | undefined]> =>
  call.then(
    () => [0, undefined],
    (error: unknown) => {
      const { code, reason } = errorOf(error);
      return [code, reason];
    },
  );

/** Until the state of the appservice is so. */
async function until(client: RouterClient, holds: (status: Awaited<ReturnType<typeof statusOf>>) => boolean): Promise<Awaited<ReturnType<typeof statusOf>>> {
  for (;;) {
    const status = await statusOf(client, 'irc');
    if (holds(status)) return status;
    await systemClock.sleep(5);
  }
}

async function story(routers: readonly ServiceWorld[]): Promise<void> {
  await using receiver = await RecordingReceiver.start();
  let turn = 0;
  /** Each call goes to another router than the one before. */
  const next = (): ServiceWorld => {
    const router = routers[turn++ % routers.length];
    assert.ok(router);
    return router;
  };
  const order = { appserviceId: 'irc', reason: 'poison' };
  await put(next().admin, registrationYaml('irc', `${receiver.url}/irc`));
  const first = await submit(next().homeserver, 'first', 2);
  await receiver.until(() => receiver.taken('irc').length === 2);
  const firstAt = first.answer.logPosition - 1n;

  // Skip: the first transaction goes to quarantine, the next is delivered.
  receiver.answer = () => 'error';
  const skipped = await submit(next().homeserver, 'skipped', 3);
  const behind = await submit(next().homeserver, 'behind', 1);
  const { transaction } = await until(next().admin, (status) => (status.transaction?.attemptCount ?? 0) > 0);
  const txnId = transaction?.txnId ?? '';
  assert.deepEqual(await reasonOf(next().admin.call(admin.skipTransaction, { ...order, txnId: '99999999999999999' })), [NOT_FOUND, 'TRANSACTION_NOT_FOUND']);
  await next().admin.call(admin.skipTransaction, { ...order, txnId });
  receiver.answer = () => 'ok';
  await receiver.until(() => receiver.taken('irc').length === 3);
  assert.deepEqual(receiver.taken('irc'), [...first.ids, ...behind.ids]);
  await next().admin.call(admin.skipTransaction, { ...order, txnId });
  const { transactions } = await next().client('monitor-token').call(admin.listQuarantinedTransactions, { appserviceId: 'irc' });
  assert.deepEqual(transactions.map((one) => [one.txnId, one.reason, one.entryCount, one.body]), [[txnId, 'poison', 3, undefined]]);
  const [withBody] = (await next().admin.call(admin.listQuarantinedTransactions, { appserviceId: 'irc', includeBodies: true })).transactions;
  const body = JSON.parse(Buffer.from(withBody?.body ?? []).toString()) as { events: { event_id: string }[] };
  assert.deepEqual(body.events.map(({ event_id }) => event_id), skipped.ids);

  // Redeliver: once, under a new id.
  await next().admin.call(admin.redeliverTransaction, { ...order, txnId });
  await receiver.until(() => receiver.taken('irc').length === 6);
  await next().admin.call(admin.redeliverTransaction, { ...order, txnId }).catch(() => undefined);
  assert.deepEqual(await reasonOf(next().admin.call(admin.discardTransaction, { ...order, txnId })), [NOT_FOUND, 'TRANSACTION_NOT_FOUND']);
  assert.equal((await until(next().admin, ({ backlogEntries }) => backlogEntries === 0n)).quarantinedEntries, 0n);
  assert.deepEqual(receiver.received.filter(({ eventIds, answer }) => answer === 'ok' && eventIds.includes(skipped.ids[0] ?? '')).map(({ eventIds }) => eventIds), [skipped.ids]);

  // Replay: all again, in order, under new ids.
  const before = receiver.received.length;
  const { fromLogPosition } = await next().admin.call(admin.replayEvents, { ...order, start: { case: 'fromLogPosition', value: firstAt } });
  assert.equal(fromLogPosition, firstAt);
  const again = (): string[] => receiver.received.slice(before).flatMap(({ eventIds }) => eventIds);
  await receiver.until(() => again().length >= 9);
  assert.deepEqual(again(), [...first.ids, ...skipped.ids, ...behind.ids, ...skipped.ids]);
  assert.equal(new Set(receiver.received.map(({ txnId: id, bodyHash }) => `${id} ${bodyHash}`)).size, new Set(receiver.received.map(({ txnId: id }) => id)).size);
  assert.deepEqual(await reasonOf(next().admin.call(admin.replayEvents, { ...order, start: { case: 'fromLogPosition', value: 1n } })), [FAILED_PRECONDITION, 'POSITION_NOT_RETAINED']);
  const future = timestampFromMs(Date.now() + DAY_MS);
  assert.deepEqual(await reasonOf(next().admin.call(admin.replayEvents, { ...order, start: { case: 'fromTime', value: future } })), [FAILED_PRECONDITION, 'DELIVERY_STATE_FORBIDS']);
  assert.deepEqual(await reasonOf(next().admin.call(admin.replayEvents, { ...order, start: { case: 'fromLogPosition', value: 10_000n } })), [FAILED_PRECONDITION, 'DELIVERY_STATE_FORBIDS']);

  // Stop: nothing any more, and the way out.
  const stopped = await next().admin.call(admin.stopAppservice, { ...order, reason: 'gone for good' });
  assert.equal(stopped.appservice?.state, DeliveryState.FAILED);
  await submit(next().homeserver, 'late', 2);
  assert.deepEqual(await reasonOf(next().admin.call(admin.resumeDelivery, { appserviceId: 'irc' })), [FAILED_PRECONDITION, 'DELIVERY_STATE_FORBIDS']);
  assert.deepEqual(await reasonOf(next().admin.call(admin.deleteRegistration, { appserviceId: 'irc', backlog: Backlog.PARK })), [FAILED_PRECONDITION, 'DELIVERY_STATE_FORBIDS']);
  await next().admin.call(admin.deleteRegistration, { appserviceId: 'irc', backlog: Backlog.DISCARD });
  const seen = receiver.received.length;
  await put(next().admin, registrationYaml('irc', `${receiver.url}/irc`));
  const anew = await submit(next().homeserver, 'anew', 2);
  await receiver.until(() => receiver.received.length > seen);
  assert.deepEqual(receiver.received.slice(seen).flatMap(({ eventIds }) => eventIds).slice(0, 2), anew.ids);

  // All of it was entered, the newest first, and nothing that was refused.
  const entries = [];
  for (let pageToken = ''; ; ) {
    const page = await next().admin.call(admin.listAuditEntries, { appserviceId: 'irc', pageSize: 3, pageToken });
    entries.push(...page.entries);
    if (page.nextPageToken === '') break;
    pageToken = page.nextPageToken;
  }
  const audited = entries.map(({ action, actor, txnId: id, reason }) => [action, actor, id, reason]).reverse();
  const redelivered = audited.filter(([action]) => action === 'RedeliverTransaction').length;
  assert.deepEqual(audited, [
    ['PutRegistration', 'ops', undefined, ''],
    ['SkipTransaction', 'ops', txnId, 'poison'],
    ['SkipTransaction', 'ops', txnId, 'poison'],
    ...Array.from({ length: redelivered }, () => ['RedeliverTransaction', 'ops', txnId, 'poison']),
    ['ReplayEvents', 'ops', undefined, 'poison'],
    ['StopAppservice', 'ops', undefined, 'gone for good'],
    ['DeleteRegistration', 'ops', undefined, ''],
    ['PutRegistration', 'ops', undefined, ''],
  ]);
  assert.deepEqual((await next().admin.call(admin.listAuditEntries, { appserviceId: 'nobody' })).entries, []);
}

test('M1 I1 I11 an operator skips, redelivers, replays, stops and starts anew with SQLite, and all of it is in the audit entries', LIMIT, async () => {
  await using world = await startService({ settings: SETTINGS });
  await story([world]);
});

test('M1 I1 I11 the same with MongoDB, each call at another of two routers', { ...LIMIT, skip: mongod === null ? MONGODB_MISSING : false }, async () => {
  assert.ok(mongod);
  const uri = uriWith(mongod.uri, { database: testDatabaseName() });
  const open = () => openMongoStore(uri, { clock: systemClock, random: systemRandom, logger: silent });
  const options = { settings: SETTINGS, isStoreExclusive: false };
  await using one = await startService({ ...options, store: await open() });
  await using other = await startService({ ...options, store: await open() });
  await story([one, other]);
});

test('without retention what is delivered and removed cannot be replayed, and the answer says from where it can', LIMIT, async () => {
  const store = await openSqliteStore({ path: ':memory:', clock: systemClock });
  await using world = await startService({ store, settings: { ...SETTINGS, logRetentionMs: 0 } });
  await using receiver = await RecordingReceiver.start();
  await put(world.admin, registrationYaml('irc', `${receiver.url}/irc`));
  for (let at = 1; at <= 4; at++) {
    await submit(world.homeserver, `s${at}`, 1);
    await receiver.until(() => receiver.taken('irc').length === at);
  }
  await until(world.admin, ({ deliveredEntries }) => deliveredEntries === 4n);
  const { nextAfter } = await store.trim('hs.test', { after: 0, through: 4, beforeMs: Number.MAX_SAFE_INTEGER, deliveredPositions: new Map(), segmentsMax: 100 });
  assert.equal(nextAfter, null);
  const replay = (value: bigint) => world.admin.call(admin.replayEvents, { appserviceId: 'irc', reason: 'x', start: { case: 'fromLogPosition', value } });
  const error = await replay(2n).then(() => assert.fail('it was replayed'), errorOf);
  assert.deepEqual([error.code, error.reason, error.metadata['oldest_log_position']], [FAILED_PRECONDITION, 'POSITION_NOT_RETAINED', '5']);
  await replay(5n);
  await receiver.until(() => receiver.received.length === 5);
  assert.deepEqual(receiver.received.at(-1)?.eventIds, ['$s4-1']);
});
