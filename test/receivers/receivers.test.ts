/** Published appservice libraries judge what the router puts on the wire. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Registration } from '../../src/appservice/registration.ts';
import { AS_TOKEN, HS_TOKEN, PushWorld, registrationFor } from '../support/push-world.ts';
import { answer, Receiver } from '../support/receiver.ts';
import { startBotSdk } from '../support/receiver-bot-sdk.ts';
import { startBotSdkLegacy } from '../support/receiver-bot-sdk-legacy.ts';
import { startMatrixAppservice } from '../support/receiver-matrix-appservice.ts';
import { StubHomeserver } from '../support/stub-homeserver.ts';

function events(from: number, count: number): Record<string, unknown>[] {
  return Array.from({ length: count }, (_, at) => ({
    event_id: `$${from + at}`,
    type: 'm.room.message',
    sender: '@alice:example.org',
    room_id: '!room:example.org',
    origin_server_ts: 1_767_225_600_000 + at,
    content: { msgtype: 'm.text', body: `Nº ${from + at} 🦊 "quoted" \\ \u2028` },
    unsigned: { age: 12 },
  }));
}

const body = (list: readonly unknown[]): string => JSON.stringify({ events: list });

test('R49 R62 matrix-appservice emits exactly what was pushed, in order', async () => {
  await using world = new PushWorld();
  await using receiver = await startMatrixAppservice({ hsToken: HS_TOKEN });
  const registration = registrationFor(receiver.url);
  const all: unknown[] = [];
  for (let txn = 0; txn < 5; txn++) {
    const list = events(txn * 100, 100);
    all.push(...list);
    assert.deepEqual(await world.send(registration, String(1_767_225_600_000_000 + txn), body(list)), { kind: 'delivered', httpStatus: 200 });
  }
  assert.deepEqual(receiver.events, all);
});

test('R59 matrix-appservice emits a transaction once that is sent again under its id', async () => {
  await using world = new PushWorld();
  await using receiver = await startMatrixAppservice({ hsToken: HS_TOKEN });
  const registration = registrationFor(receiver.url);
  for (const txnId of ['7', '7', '8']) assert.equal((await world.send(registration, txnId, body(events(Number(txnId), 1)))).kind, 'delivered');
  assert.deepEqual(receiver.events, [...events(7, 1), ...events(8, 1)]);
});

test('R50 matrix-appservice takes a transaction without events', async () => {
  await using world = new PushWorld();
  await using receiver = await startMatrixAppservice({ hsToken: HS_TOKEN });
  assert.equal((await world.send(registrationFor(receiver.url), '1', body([]))).kind, 'delivered');
  assert.deepEqual(receiver.events, []);
});

test('R55 matrix-appservice refuses a wrong token, and the outcome reads like the misconfiguration it is', async () => {
  await using world = new PushWorld();
  await using receiver = await startMatrixAppservice({ hsToken: 'another' });
  assert.deepEqual(await world.send(registrationFor(receiver.url), '1', body(events(1, 1))), {
    kind: 'rejected',
    httpStatus: 403,
    misconfiguration: true,
    retryAfterMs: null,
    message: "The appservice refused the hs_token (HTTP 403, M_FORBIDDEN). Make the hs_token the same in its own registration file and in the router's.",
  });
  assert.deepEqual(receiver.events, []);
});

test('R71 matrix-appservice answers 413 to more than five megabytes, and takes the same events in smaller parts', async () => {
  await using world = new PushWorld();
  await using receiver = await startMatrixAppservice({ hsToken: HS_TOKEN });
  const registration = registrationFor(receiver.url);
  const [one, other] = ['a', 'b'].map((letter, at) => ({ ...events(at, 1)[0], content: { body: letter.repeat(3_000_000) } }));
  assert.equal((await world.send(registration, '1', body([one, other]))).kind, 'too_large');
  assert.deepEqual(receiver.events, []);
  assert.equal((await world.send(registration, '2', body([one]))).kind, 'delivered');
  assert.equal((await world.send(registration, '3', body([other]))).kind, 'delivered');
  assert.deepEqual(receiver.events, [one, other]);
});

test('R67 matrix-appservice that throws in its handler has not taken the transaction', async () => {
  await using world = new PushWorld();
  await using receiver = await startMatrixAppservice({ hsToken: HS_TOKEN });
  const emitted = receiver.emitted.bind(receiver);
  receiver.emitted = () => {
    throw new Error('the handler of the program fails');
  };
  const registration = registrationFor(receiver.url);
  const outcome = await world.send(registration, '1', body(events(1, 1)));
  assert.equal(outcome.kind === 'rejected' && outcome.httpStatus, 500);
  assert.ok(outcome.kind === 'rejected' && !outcome.message.includes('handler of the program'));
  receiver.emitted = emitted;
  assert.equal((await world.send(registration, '1', body(events(1, 1)))).kind, 'delivered');
  assert.deepEqual(receiver.events, events(1, 1));
});

test('R55 R56 matrix-bot-sdk 0.5 knows no bearer token: rejected and reported as misconfiguration, until the registration asks for the query', async () => {
  await using world = new PushWorld();
  await using homeserver = await StubHomeserver.start();
  await using receiver = await startBotSdkLegacy({ hsToken: HS_TOKEN, asToken: AS_TOKEN, homeserverUrl: homeserver.url });
  assert.deepEqual(homeserver.requests, ['POST /_matrix/client/r0/register']);
  const outcome = await world.send(registrationFor(receiver.url), '1', body(events(1, 1)));
  assert.equal(outcome.kind === 'rejected' && outcome.misconfiguration && outcome.httpStatus, 401);
  assert.match(outcome.kind === 'rejected' ? outcome.message : '', /hs_token \(HTTP 401, AUTH_FAILED\)/);
  assert.deepEqual(receiver.events, []);
  const outdated = registrationFor(receiver.url, { delivery_options: { legacy_auth: 'both' } });
  assert.equal((await world.send(outdated, '1', body(events(1, 1)))).kind, 'delivered');
  assert.equal(receiver.events.length, 1);
});

test('R106 matrix-appservice redirects legacy paths, so a refusal by version 1 is what is told, and nothing is followed', async () => {
  await using world = new PushWorld();
  await using receiver = await startMatrixAppservice({ hsToken: 'another' });
  const outcome = await world.send(registrationFor(receiver.url, { delivery_options: { legacy_paths: 'any_error' } }), '1', body(events(1, 1)));
  assert.match(outcome.kind === 'rejected' ? outcome.message : '', /hs_token \(HTTP 403, M_FORBIDDEN\)/);
  assert.equal(outcome.path, undefined);
});

test('R71 R106 matrix-appservice that finds a transaction too large is sent smaller ones, legacy paths or not', async () => {
  await using world = new PushWorld();
  await using receiver = await startMatrixAppservice({ hsToken: HS_TOKEN });
  const large = { ...events(1, 1)[0], content: { body: 'a'.repeat(6_000_000) } };
  assert.equal((await world.send(registrationFor(receiver.url, { delivery_options: { legacy_paths: 'any_error' } }), '1', body([large]))).kind, 'too_large');
});

test('R56 R107 matrix-bot-sdk 0.5 takes a transaction by the legacy path with the token in the query alone', async () => {
  await using world = new PushWorld();
  await using homeserver = await StubHomeserver.start();
  await using receiver = await startBotSdkLegacy({ hsToken: HS_TOKEN, asToken: AS_TOKEN, homeserverUrl: homeserver.url });
  await using front = await withoutVersion1(receiver.url);
  const outdated = (legacy_auth: 'off' | 'query_only'): Registration => registrationFor(front.url, { delivery_options: { legacy_paths: 'unrecognized', legacy_auth } });
  const refused = await world.send(outdated('off'), '1', body(events(1, 1)));
  assert.deepEqual([refused.kind === 'rejected' && refused.httpStatus, refused.path], [401, 'legacy']);
  assert.deepEqual(await world.send(outdated('query_only'), '1', body(events(1, 1))), { kind: 'delivered', httpStatus: 200, path: 'legacy' });
  assert.equal(receiver.events.length, 1);
});

/** The appservice as it was before version 1: what it does not know it answers as Express does. */
function withoutVersion1(url: string): Promise<Receiver> {
  return Receiver.start((connection, request) => {
    if (request.target.startsWith('/_matrix/')) return answer(404, '<!DOCTYPE html><pre>Cannot PUT</pre>')(connection, request);
    const { host: _host, connection: _connection, ...headers } = request.headers;
    void fetch(url + request.target, { method: request.method, headers, body: new Uint8Array(request.body) }).then(async (response) => {
      answer(response.status, await response.text())(connection, request);
    });
  });
}

test('R49 R62 matrix-bot-sdk 0.8 emits exactly what was pushed, in order', async () => {
  await using world = new PushWorld();
  await using homeserver = await StubHomeserver.start();
  await using receiver = await startBotSdk({ hsToken: HS_TOKEN, asToken: AS_TOKEN, homeserverUrl: homeserver.url });
  assert.deepEqual(homeserver.requests, ['POST /_matrix/client/v3/register']);
  const registration = registrationFor(receiver.url);
  const all: unknown[] = [];
  for (let txn = 0; txn < 5; txn++) {
    const list = events(txn * 100, 100);
    all.push(...list);
    assert.deepEqual(await world.send(registration, String(1_767_225_600_000_000 + txn), body(list)), { kind: 'delivered', httpStatus: 200 });
  }
  assert.deepEqual(receiver.events, all);
});

test('R59 matrix-bot-sdk 0.8 emits a transaction once that is sent again under its id, even long after', async () => {
  await using world = new PushWorld();
  await using homeserver = await StubHomeserver.start();
  await using receiver = await startBotSdk({ hsToken: HS_TOKEN, asToken: AS_TOKEN, homeserverUrl: homeserver.url });
  const registration = registrationFor(receiver.url);
  for (const txnId of ['7', '7', '8', '7']) assert.equal((await world.send(registration, txnId, body(events(Number(txnId), 1)))).kind, 'delivered');
  assert.deepEqual(receiver.events, [...events(7, 1), ...events(8, 1)]);
});

test('R55 matrix-bot-sdk 0.8 refuses a wrong token, and a body without events', async () => {
  await using world = new PushWorld();
  await using homeserver = await StubHomeserver.start();
  await using receiver = await startBotSdk({ hsToken: HS_TOKEN, asToken: AS_TOKEN, homeserverUrl: homeserver.url });
  const wrong = await world.send(registrationFor(receiver.url, { hs_token: 'wrong' }), '1', body(events(1, 1)));
  assert.equal(wrong.kind === 'rejected' && wrong.misconfiguration && wrong.httpStatus, 401);
  const empty = await world.send(registrationFor(receiver.url), '1', '{}');
  assert.equal(empty.kind === 'rejected' && !empty.misconfiguration && empty.httpStatus, 400);
  assert.equal((await world.send(registrationFor(receiver.url), '1', body([]))).kind, 'delivered');
  assert.deepEqual(receiver.events, []);
});
