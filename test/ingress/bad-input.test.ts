// What a homeserver, or a broken network between, sends beside sound transactions: nothing good of it is lost.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Ingress } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { RawConnections } from '../support/hostile-client.ts';
import { HS_TOKEN, message, startIngress } from '../support/ingress-world.ts';
import type { IngressWorld } from '../support/ingress-world.ts';

const TRANSACTIONS_MAX = 16;

async function takenUntil({ receiver }: IngressWorld, last: string): Promise<string[]> {
  await receiver.until(() => receiver.taken('irc').includes(last));
  return receiver.received.flatMap(({ eventIds }) => eventIds);
}

async function statusOf({ world }: IngressWorld): Promise<Ingress> {
  const { ingress } = await world.admin.call(AppserviceAdmin.method.listAppservices, {});
  assert.ok(ingress !== undefined);
  return ingress;
}

/** A request that says it has a body of 1,000 bytes and sends fewer. */
function halfRequest(txnId: string, body: string): string {
  return `PUT /_matrix/app/v1/transactions/${txnId} HTTP/1.1\r\nhost: router\r\nauthorization: Bearer ${HS_TOKEN}\r\ncontent-length: 1000\r\n\r\n${body}`;
}

test('I1 I7 the same transaction several times at once is answered each time when it is durable, and counts once', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  const ids = Array.from({ length: 50 }, (_, at) => `$${at}`);
  const body = { events: ids.map((id) => message(id)) };
  const answers = await Promise.all(Array.from({ length: 8 }, () => ingress.client.put('1', body)));
  assert.deepEqual([...new Set(answers.map((answer) => JSON.stringify(answer)))], ['{"status":200,"body":{}}']);
  await ingress.client.put('2', { events: [message('$end')] });
  assert.deepEqual(await takenUntil(ingress, '$end'), [...ids, '$end']);
});

test('I1 one txn id with different events at the same time: all of them are kept, those that both have once', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  await Promise.all([ingress.client.put('1', { events: [message('$a'), message('$both')] }), ingress.client.put('1', { events: [message('$both'), message('$b')] })]);
  await ingress.client.put('2', { events: [message('$end')] });
  assert.deepEqual((await takenUntil(ingress, '$end')).sort(), ['$a', '$b', '$both', '$end']);
});

test('I1 bodies that stop coming take up no more than their places, and of a half one nothing is taken', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  {
    using connections = new RawConnections();
    const half = `{"events":[${JSON.stringify(message('$half'))},`;
    for (let at = 0; at < TRANSACTIONS_MAX; at++) await connections.send(ingress.world.service.httpAddress, halfRequest(`slow${at}`, half));
    let answer = await ingress.client.put('0', {});
    while (answer.status === 200) answer = await ingress.client.put('0', {});
    assert.deepEqual([answer.status, (answer.body as { errcode: string }).errcode], [429, 'M_LIMIT_EXCEEDED']);
    assert.equal((await ingress.client.request('GET', '/_matrix/app/v1/users/%40nobody%3Ahs.test')).status, 404, 'questions are answered meanwhile');
    const { gapSince } = await statusOf(ingress);
    assert.ok(gapSince !== undefined, 'what was refused shows');
  }
  let answer = await ingress.client.put('1', { events: [message('$a')] });
  while (answer.status === 429) answer = await ingress.client.put('1', { events: [message('$a')] });
  assert.deepEqual(answer, { status: 200, body: {} });
  assert.deepEqual(await takenUntil(ingress, '$a'), ['$a']);
  assert.equal((await statusOf(ingress)).gapSince, undefined);
});

test('I1 a request that breaks off in its body is taken whole when it comes again, under the same id', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  {
    using connections = new RawConnections();
    const socket = await connections.send(ingress.world.service.httpAddress, halfRequest('1', `{"events":[${JSON.stringify(message('$a'))},`));
    socket.destroy();
    await once(socket, 'close');
  }
  assert.deepEqual(await ingress.client.put('1', { events: [message('$a'), message('$b')] }), { status: 200, body: {} });
  assert.deepEqual(await takenUntil(ingress, '$b'), ['$a', '$b']);
});

test('I12 a stranger with a slow or a large body is refused by its token, and takes up no place', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  using connections = new RawConnections();
  for (let at = 0; at < 3 * TRANSACTIONS_MAX; at++) await connections.send(ingress.world.service.httpAddress, halfRequest(`s${at}`, '{"events":[').replace(HS_TOKEN, 'wrong'));
  assert.deepEqual(await ingress.client.put('1', { events: [message('$a')] }), { status: 200, body: {} });
  const large = await ingress.client.request('PUT', '/_matrix/app/v1/transactions/2', JSON.stringify({ events: [message('$no', { content: { filler: 'x'.repeat(8_000_000) } })] }), { authorization: 'Bearer wrong' }).catch(() => null);
  assert.ok(large === null || large.status === 403);
  assert.deepEqual(await takenUntil(ingress, '$a'), ['$a']);
});

test('I1 deep, doubled, misspelt and undecodable parts spoil nothing beside them', async () => {
  await using ingress = await startIngress();
  await ingress.register('irc');
  const event = (id: string, more?: Readonly<Record<string, unknown>>): string => JSON.stringify(message(id, more));
  const bodies: readonly Uint8Array[] = [
    Buffer.from(`{"events":[${event('$a')},${event('$deep', { content: {} }).replace('"content":{}', `"content":${'{"a":'.repeat(1_000)}1${'}'.repeat(1_000)}`)},${event('$b')}]}`),
    Buffer.from(`{"events":[${event('$c')}],"events":[${event('$d')}]}`),
    Buffer.from(`{"events":{"0":${event('$none')}},"Events":[${event('$none')}]}`),
    Buffer.concat([Buffer.from(`{"events":[${event('$e')},{"event_id":"$bad`), Buffer.from([0xff, 0xfe]), Buffer.from(`","type":"t"},${event('$f')}]}`)]),
  ];
  for (const [at, body] of bodies.entries()) assert.deepEqual(await ingress.client.put(String(at), body), { status: 200, body: {} });
  assert.deepEqual(await takenUntil(ingress, '$f'), ['$a', '$b', '$c', '$d', '$e', '$f']);
  assert.equal((await statusOf(ingress)).shelvedItems, 3n);
});

test('a router that has taken nothing since its start says so until it takes something', async () => {
  await using ingress = await startIngress();
  const before = await statusOf(ingress);
  assert.ok(before.gapSince !== undefined);
  assert.equal(before.lastTransactionTime, undefined);
  await ingress.client.put('1', { events: [] });
  const after = await statusOf(ingress);
  assert.equal(after.gapSince, undefined);
  assert.ok(after.lastTransactionTime !== undefined);
  await ingress.client.put('2', 'no json');
  assert.ok((await statusOf(ingress)).gapSince !== undefined, 'a refusal begins a gap');
  await ingress.client.put('2', 'no json');
  assert.equal((await statusOf(ingress)).gapSince, undefined);
});
