import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SHELF_ID } from '../../src/ingress/shelf.ts';
import { put } from '../support/router-home.ts';
import { SERVER } from '../support/routing.ts';
import { captured, eventIdsOf, HS_TOKEN, message, startIngress } from '../support/ingress-world.ts';
import type { IngressWorld } from '../support/ingress-world.ts';

const EVERYBODY = 'receive_ephemeral: true\nde.sorunome.msc2409.push_ephemeral: true\norg.matrix.msc3202: true\n';

/** Every event that the appservice took, as often as it came, once `last` is among them. */
async function takenUntil({ receiver }: IngressWorld, last: string, appservice = 'irc'): Promise<string[]> {
  await receiver.until(() => receiver.taken(appservice).includes(last));
  return receiver.received.filter((one) => one.appservice === appservice).flatMap(({ eventIds }) => eventIds);
}

function itemsOf({ receiver }: IngressWorld, key: string, appservice = 'irc'): unknown[] {
  return receiver.received.filter((one) => one.appservice === appservice).flatMap(({ body }) => (body[key] as unknown[] | undefined) ?? []);
}

test('R51 what Synapse sends of a room\'s life is answered {} and delivered in order, the old event keys untouched', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  const requests = [...captured('01'), ...captured('02'), ...captured('03')];
  const answers = await ingress.client.replay(requests);
  assert.deepEqual([...new Set(answers.map((answer) => JSON.stringify(answer)))], ['{"status":200,"body":{}}']);
  const ids = eventIdsOf(requests);
  assert.deepEqual(await takenUntil(ingress, ids.at(-1) ?? ''), ids);
  const sent = requests.flatMap(({ body }) => (body as { events: unknown[] }).events);
  assert.deepEqual(itemsOf(ingress, 'events'), sent);
});

test('I7 what Synapse sends again after a failure counts once, by event id, whatever its txn id and age', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  const requests = captured('15').filter(({ path }) => path.includes('/transactions/'));
  await ingress.client.replay(requests);
  const ids = eventIdsOf(requests);
  await ingress.client.put('9999', { events: [message('$end')] });
  assert.deepEqual(await takenUntil(ingress, '$end'), [...ids, '$end']);
});

test('I7 an old transaction that comes after newer ones, as after a kill of Synapse, adds only what is new', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  const requests = captured('22');
  const ids = eventIdsOf(requests);
  await ingress.client.replay(requests);
  await ingress.client.replay(requests.toReversed());
  await ingress.client.put('1', { events: [message('$end')] });
  assert.deepEqual(await takenUntil(ingress, '$end'), [...ids, '$end']);
});

test('R59 the first body of an event is kept, though a repetition brings it redacted', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  await ingress.client.put('7', { events: [message('$a')] });
  await ingress.client.put('7', { events: [message('$a', { content: {}, unsigned: { redacted_because: {} } }), message('$b')] });
  assert.deepEqual(await takenUntil(ingress, '$b'), ['$a', '$b']);
  assert.deepEqual(itemsOf(ingress, 'events'), [message('$a'), message('$b')]);
});

test('I1 the same txn id with other content is other content: both are kept', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc', EVERYBODY);
  const typing = (userId: string): unknown => ({ type: 'm.typing', room_id: '!r:hs.test', content: { user_ids: [userId] } });
  await ingress.client.put('1', { events: [message('$a')], ephemeral: [typing('@a:hs.test')] });
  await ingress.client.put('1', { events: [message('$b')], ephemeral: [typing('@b:hs.test')] });
  assert.deepEqual(await takenUntil(ingress, '$b'), ['$a', '$b']);
  await ingress.receiver.until(() => itemsOf(ingress, 'ephemeral').length === 2);
});

test('I7 what has no event id counts once for its txn id and content', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc', EVERYBODY);
  const toDevice = { type: 'm.x', sender: '@alice:hs.test', to_user_id: '@_irc_bot:hs.test', to_device_id: 'D', content: { n: 1 } };
  const body = { events: [], 'de.sorunome.msc2409.to_device': [toDevice] };
  for (const txnId of ['5', '5', '6']) await ingress.client.put(txnId, body);
  await ingress.client.put('7', { events: [message('$end')] });
  await takenUntil(ingress, '$end');
  assert.deepEqual(itemsOf(ingress, 'de.sorunome.msc2409.to_device'), [toDevice, toDevice]);
});

test('I1 of a transaction with malformed events the good ones are delivered, and the bad ones are shelved, logged and counted once', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  const bad = [7, null, 'text', [], {}, { event_id: '$bad' }, message('$no-content', { content: 1 }), message('$state', { state_key: 5 }), message('$big', { content: { body: 'x'.repeat(600_000) } })];
  const events = [message('$a'), ...bad, message('$b')];
  for (const txnId of ['1', '1']) assert.deepEqual(await ingress.client.put(txnId, { events }), { status: 200, body: {} });
  assert.deepEqual(await takenUntil(ingress, '$b'), ['$a', '$b']);
  const shelved = await ingress.store.readRecords('quarantine', { serverName: SERVER, appserviceId: SHELF_ID, afterTxnId: null, countMax: 100, withEntries: true });
  assert.deepEqual(shelved.map(({ entries }) => Buffer.concat(entries.map(({ json }) => json)).toString()).sort(), bad.map((item) => JSON.stringify(item).slice(0, 65_536)).sort());
  assert.ok(ingress.warnings.some(({ event_id: id, txn_id: txnId, kind }) => id === '$no-content' && txnId === '1' && kind === 'event'));
  const metrics = await ingress.client.request('GET', '/metrics');
  assert.match(String(metrics.body), /ingress_shelved_items_total\{server_name="hs.test",kind="event"\} 18/);
  assert.match(JSON.stringify((await ingress.client.request('GET', '/readyz')).body), /"ingress":\{"shelved_items":18\}/);
});

test('I1 a body that is no JSON is refused once, in case it was damaged on the way, and shelved when it comes again', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  for (const [at, body] of ['', 'no json', '[]', '{"events":[', `{"events":[${JSON.stringify(message('$kept'))},`].entries()) {
    const first = await ingress.client.put(`t${at}`, body);
    assert.deepEqual([first.status, (first.body as { errcode: string }).errcode], [400, 'M_NOT_JSON'], body);
    assert.deepEqual(await ingress.client.put(`t${at}`, body), { status: 200, body: {} }, body);
  }
  await ingress.client.put('2', { events: [message('$end')] });
  assert.deepEqual(await takenUntil(ingress, '$end'), ['$kept', '$end']);
});

test('a transaction without events, with unknown keys, with null for its lists or with nothing is answered {}', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  for (const body of [{}, { events: [] }, { events: null, ephemeral: null }, { unknown: { deep: [[{}]] }, events: [message('$a')], also: 1.5e3 }]) {
    assert.deepEqual(await ingress.client.put('1', body), { status: 200, body: {} });
  }
  assert.deepEqual(await takenUntil(ingress, '$a'), ['$a']);
  assert.deepEqual(ingress.warnings.filter(({ kind }) => kind !== undefined), []);
});

test('R78 R80 R82 R83 ephemeral data arrives once under either spelling, and a private receipt reaches only who has its user', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc', EVERYBODY);
  await ingress.register('deaf');
  const bobs = `id: bobs\nurl: ${ingress.receiver.url}/bobs\nas_token: as-bobs-long-enough\nhs_token: hs-bobs-long-enough\nsender_localpart: b\nnamespaces: {users: [{regex: '@bob:hs.test', exclusive: false}], rooms: [{regex: '!.*', exclusive: false}]}\nreceive_ephemeral: true\n`;
  await put(ingress.world.admin, bobs);
  await ingress.client.replay(captured('12'));
  await ingress.client.put('9999', { events: [message('$end')] });
  await takenUntil(ingress, '$end', 'irc');
  await takenUntil(ingress, '$end', 'deaf');
  const kinds = (appservice: string): string[] => itemsOf(ingress, 'ephemeral', appservice).map((item) => (item as { type: string }).type);
  assert.equal(kinds('irc').filter((type) => type === 'm.typing').length, 1);
  assert.equal(kinds('irc').filter((type) => type === 'm.receipt').length, 2);
  await takenUntil(ingress, '$end', 'bobs');
  const seesPrivate = (appservice: string): boolean => JSON.stringify(itemsOf(ingress, 'ephemeral', appservice)).includes('m.read.private');
  assert.deepEqual(['irc', 'bobs'].map(seesPrivate), [false, true]);
  assert.deepEqual(kinds('deaf'), []);
});

test('a legacy path, a token in the query and a token in the header do the same', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  const body = (id: string): string => JSON.stringify({ events: [message(id)] });
  assert.equal((await ingress.client.request('PUT', `/transactions/1?access_token=${HS_TOKEN}`, body('$a'), {})).status, 200);
  assert.equal((await ingress.client.request('PUT', '/transactions/2', body('$b'))).status, 200);
  assert.equal((await ingress.client.request('PUT', `/_matrix/app/v1/transactions/3?access_token=${HS_TOKEN}`, body('$c'), {})).status, 200);
  assert.deepEqual(await takenUntil(ingress, '$c'), ['$a', '$b', '$c']);
});

test('I12 without the right token nothing is taken, whatever else is sent along', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  const body = JSON.stringify({ events: [message('$no')] });
  const errcode = async (target: string, headers: Readonly<Record<string, string>>): Promise<unknown[]> => {
    const { status, body: answer } = await ingress.client.request('PUT', target, body, headers);
    return [status, (answer as { errcode: string }).errcode];
  };
  const path = '/_matrix/app/v1/transactions/1';
  assert.deepEqual(await errcode(path, {}), [401, 'M_MISSING_TOKEN']);
  assert.deepEqual(await errcode(`${path}?access_token=wrong`, {}), [403, 'M_FORBIDDEN']);
  assert.deepEqual(await errcode(path, { authorization: 'Bearer wrong' }), [403, 'M_FORBIDDEN']);
  assert.deepEqual(await errcode(path, { authorization: HS_TOKEN }), [403, 'M_FORBIDDEN']);
  assert.deepEqual(await errcode(`${path}?access_token=${HS_TOKEN}`, { authorization: 'Bearer wrong' }), [403, 'M_FORBIDDEN']);
  await ingress.client.put('1', { events: [message('$end')] });
  assert.deepEqual(await takenUntil(ingress, '$end'), ['$end']);
});

test('paths and methods that the API does not have are answered with M_UNRECOGNIZED', async () => {
  await using ingress = await startIngress();
  const coded = async (method: string, target: string): Promise<unknown[]> => {
    const { status, body } = await ingress.client.request(method, target);
    return [status, (body as { errcode: string }).errcode];
  };
  assert.deepEqual(await coded('POST', '/_matrix/app/v1/transactions/1'), [405, 'M_UNRECOGNIZED']);
  assert.deepEqual(await coded('GET', '/_matrix/app/v1/nothing'), [404, 'M_UNRECOGNIZED']);
  assert.deepEqual(await coded('PUT', '/_matrix/app/v1/transactions/%ff'), [400, 'M_INVALID_PARAM']);
  assert.deepEqual(await ingress.client.request('POST', '/_matrix/app/v1/ping', '{"transaction_id":"x"}'), { status: 200, body: {} });
});

test('I1 a body of 100 MB is taken piece by piece and nothing of it is lost', { timeout: 60_000 }, async () => {
  await using ingress = await startIngress();
  const yaml = `id: irc\nurl: ${ingress.receiver.url}/irc\nas_token: as-irc-long-enough\nhs_token: hs-irc-long-enough\nsender_localpart: i\nnamespaces: {rooms: [{regex: '!wanted', exclusive: false}]}\n`;
  await put(ingress.world.admin, yaml);
  const filler = 'x'.repeat(100_000);
  const events = Array.from({ length: 1_000 }, (_, at) => JSON.stringify(message(`$${at}`, { room_id: at % 50 === 49 ? '!wanted' : '!other', content: { filler } })));
  assert.deepEqual(await ingress.client.put('1', `{"events":[${events.join(',')}]}`), { status: 200, body: {} });
  assert.deepEqual(await takenUntil(ingress, '$999'), Array.from({ length: 20 }, (_, at) => `$${at * 50 + 49}`));
});
