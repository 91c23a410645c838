import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toJson } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { AppserviceAdmin, ListAuditEntriesResponseSchema, ListQuarantinedTransactionsResponseSchema, ReplayEventsResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { DeliveryState } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { codeName } from '../../src/rpc/status.ts';
import { call, Doors, failing, failureOf, PROTOCOLS, STATUS, TOKENS } from './doors.ts';

const admin = AppserviceAdmin.method;

for (const protocol of PROTOCOLS) {
  test(`M1 orders reach the house with the credential's name and the reason, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const orders: unknown[] = [];
    for (const name of ['stop', 'skip', 'redeliver', 'discard'] as const) {
      doors.house.admin[name] = (order: object) => {
        orders.push([name, order]);
        return Promise.resolve({ ...STATUS, state: 'failed' });
      };
    }
    doors.house.admin.replay = (order) => {
      orders.push(['replay', order]);
      return Promise.resolve({ status: STATUS, from: 12 });
    };
    for (const name of ['setPaused', 'retryNow', 'deleteRegistration'] as const) {
      const given = doors.house.admin[name] as (...values: unknown[]) => Promise<never>;
      Object.assign(doors.house.admin, { [name]: (...values: unknown[]) => (orders.push([name, ...values]), given(...values)) });
    }
    const order = { appserviceId: 'irc', reason: ' it hangs ' };
    const stopped = await call(doors, protocol, admin.stopAppservice, order, TOKENS.admin);
    assert.equal(stopped.appservice?.state, DeliveryState.FAILED);
    await call(doors, protocol, admin.skipTransaction, { ...order, txnId: '17' }, TOKENS.admin);
    await call(doors, protocol, admin.redeliverTransaction, { ...order, txnId: '17' }, TOKENS.admin);
    await call(doors, protocol, admin.discardTransaction, { ...order, txnId: '17' }, TOKENS.admin);
    const replayed = await call(doors, protocol, admin.replayEvents, { ...order, start: { case: 'fromLogPosition', value: 12n } }, TOKENS.admin);
    assert.equal((toJson(ReplayEventsResponseSchema, replayed) as { fromLogPosition: string }).fromLogPosition, '12');
    await call(doors, protocol, admin.replayEvents, { ...order, start: { case: 'fromTime', value: timestampFromMs(1_700_000_000_250) } }, TOKENS.admin);
    await call(doors, protocol, admin.pauseDelivery, { appserviceId: 'irc' }, TOKENS.admin);
    await call(doors, protocol, admin.retryNow, { appserviceId: 'irc' }, TOKENS.admin);
    await call(doors, protocol, admin.deleteRegistration, { appserviceId: 'irc', backlog: 1 }, TOKENS.admin);
    const given = { appserviceId: 'irc', reason: 'it hangs', actor: 'admin' };
    assert.deepEqual(orders, [
      ['stop', given],
      ...['skip', 'redeliver', 'discard'].map((name) => [name, { ...given, txnId: '17' }]),
      ['replay', { ...given, start: { kind: 'position', position: 12 } }],
      ['replay', { ...given, start: { kind: 'time', timeMs: 1_700_000_000_250 } }],
      ['setPaused', 'irc', true, 'admin'],
      ['retryNow', 'irc', 'admin'],
      ['deleteRegistration', 'irc', 'discard', 'admin'],
    ]);
  });

  test(`M10 a monitor sees what is in quarantine and what was done, but no message of people, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const request = { appserviceId: 'irc' };
    const listed = await call(doors, protocol, admin.listQuarantinedTransactions, request, TOKENS.monitor);
    const transaction = { txnId: '16', reason: 'The appservice answered 413.', time: '2023-11-14T22:13:20Z', firstLogPosition: '3', lastLogPosition: '5', entryCount: 2, entryBytes: '700' };
    assert.deepEqual(toJson(ListQuarantinedTransactionsResponseSchema, listed), { transactions: [transaction], nextPageToken: '17' });
    const refused = failureOf(await failing(call(doors, protocol, admin.listQuarantinedTransactions, { ...request, includeBodies: true }, TOKENS.monitor)));
    assert.deepEqual([codeName(refused.code), refused.reason, refused.field], ['PERMISSION_DENIED', 'ROLE_FORBIDDEN', 'include_bodies']);
    const whole = await call(doors, protocol, admin.listQuarantinedTransactions, { ...request, includeBodies: true }, TOKENS.admin);
    assert.deepEqual(whole.transactions.map(({ body }) => Buffer.from(body ?? []).toString()), ['{"events":[]}']);
    const audit = await call(doors, protocol, admin.listAuditEntries, {}, TOKENS.monitor);
    assert.deepEqual(toJson(ListAuditEntriesResponseSchema, audit), { entries: [{ time: '2023-11-14T22:13:20Z', actor: 'ops', action: 'SkipTransaction', appserviceId: 'irc', txnId: '16', reason: 'poison' }] });
    const order = { ...request, txnId: '1', reason: 'x' };
    const calls = [
      call(doors, protocol, admin.stopAppservice, { ...request, reason: 'x' }, TOKENS.monitor),
      call(doors, protocol, admin.skipTransaction, order, TOKENS.monitor),
      call(doors, protocol, admin.redeliverTransaction, order, TOKENS.monitor),
      call(doors, protocol, admin.discardTransaction, order, TOKENS.monitor),
      call(doors, protocol, admin.replayEvents, { ...request, reason: 'x' }, TOKENS.monitor),
    ];
    for (const outcome of await Promise.allSettled(calls)) assert.equal(outcome.status === 'rejected' && failureOf(outcome.reason).reason, 'ROLE_FORBIDDEN');
  });

  test(`an order without a reason, a transaction or a start, or beyond the bounds, is refused by its field, by ${protocol}`, async () => {
    await using doors = await Doors.open();
    const fields: (string | undefined)[] = [];
    const refused = async (pending: Promise<unknown>): Promise<void> => {
      const { code, field } = failureOf(await failing(pending));
      assert.equal(codeName(code), 'INVALID_ARGUMENT');
      fields.push(field);
    };
    const order = { appserviceId: 'irc', reason: 'x' };
    for (const reason of ['', ' \n\t ', 'é'.repeat(513)]) await refused(call(doors, protocol, admin.stopAppservice, { ...order, reason }, TOKENS.admin));
    await refused(call(doors, protocol, admin.stopAppservice, { ...order, appserviceId: '' }, TOKENS.admin));
    for (const txnId of ['', '1'.repeat(41)]) await refused(call(doors, protocol, admin.skipTransaction, { ...order, txnId }, TOKENS.admin));
    await refused(call(doors, protocol, admin.replayEvents, order, TOKENS.admin));
    for (const value of [0n, -1n, 2n ** 53n]) await refused(call(doors, protocol, admin.replayEvents, { ...order, start: { case: 'fromLogPosition', value } }, TOKENS.admin));
    await refused(call(doors, protocol, admin.listAuditEntries, { pageSize: -1 }, TOKENS.admin));
    await refused(call(doors, protocol, admin.listAuditEntries, { appserviceId: '' }, TOKENS.admin));
    await refused(call(doors, protocol, admin.listQuarantinedTransactions, { appserviceId: 'irc', pageToken: 'x'.repeat(2_000) }, TOKENS.admin));
    assert.deepEqual(fields, [...Array(3).fill('reason'), 'appservice_id', 'txn_id', 'txn_id', 'start', ...Array(3).fill('from_log_position'), 'page_size', 'appservice_id', 'page_token']);
    // The longest reason is taken.
    await call(doors, protocol, admin.stopAppservice, { ...order, reason: 'é'.repeat(512) }, TOKENS.admin);
  });
}
