import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import type { PushOutcome } from '../../src/delivery/ports.ts';
import { systemNetwork } from '../../src/query/connect.ts';
import { AS_TOKEN, HS_TOKEN, PushWorld, registrationFor } from '../support/push-world.ts';
import { answer, close, endless, hang, raw, Receiver, reset, unusedPort } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';

const REJECTED = { kind: 'rejected', misconfiguration: false, retryAfterMs: null } as const;

/** The outcome of one push to an appservice that answers so; its message is judged here and left out. */
async function outcomeOf(...scripts: readonly Script[]): Promise<Omit<PushOutcome, 'message'>> {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(...scripts);
  const { message, ...outcome } = { message: 'None was needed.', ...(await world.send(registrationFor(receiver.url))) };
  assert.match(message, /^[A-Z][^\n]{10,200}\.$/);
  return outcome;
}

test('R49 R55 sends one PUT with exactly the bearer header, the type and the bytes', async () => {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(answer(200));
  const body = '{"events":[{"content":{"body":"é"},"type":"m.room.message"}]}';
  assert.deepEqual(await world.send(registrationFor(receiver.url), '1767225600000001', body), { kind: 'delivered', httpStatus: 200 });
  assert.equal(receiver.requests.length, 1);
  const [request] = receiver.requests;
  assert.equal(request?.method, 'PUT');
  assert.equal(request?.target, '/_matrix/app/v1/transactions/1767225600000001');
  assert.equal(request?.body.toString(), body);
  const { host, connection, ...headers } = request?.headers ?? {};
  assert.equal(host, `127.0.0.1:${receiver.port}`);
  assert.notEqual(connection, 'close');
  assert.deepEqual(headers, {
    'content-type': 'application/json',
    authorization: `Bearer ${HS_TOKEN}`,
    'content-length': String(Buffer.byteLength(body)),
  });
});

test('R55 R56 the hs_token stands in the query only if the registration says so, and then beside the header', async () => {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(answer(200));
  for (const legacy_auth of [undefined, 'off', 'both', 'query_only'] as const) {
    const delivery_options = legacy_auth === undefined ? {} : { legacy_auth };
    assert.equal((await world.send(registrationFor(receiver.url, { hs_token: 'a+b/c&d', delivery_options }), '7')).kind, 'delivered');
  }
  const [inHeader, inBoth] = ['/_matrix/app/v1/transactions/7', '/_matrix/app/v1/transactions/7?access_token=a%2Bb%2Fc%26d'];
  assert.deepEqual(
    receiver.requests.map(({ target, headers }) => [target, headers.authorization]),
    [[inHeader, 'Bearer a+b/c&d'], [inHeader, 'Bearer a+b/c&d'], [inBoth, 'Bearer a+b/c&d'], [inBoth, undefined]],
  );
});

for (const [path, target] of [
  ['', '/_matrix/app/v1/transactions/7'],
  ['/', '/_matrix/app/v1/transactions/7'],
  ['/bridge', '/bridge/_matrix/app/v1/transactions/7'],
  ['/bridge/', '/bridge/_matrix/app/v1/transactions/7'],
  ['/a%2Fb//', '/a%2Fb/_matrix/app/v1/transactions/7'],
] as const) {
  test(`R5 joins a url that ends in "${path}" with exactly one slash`, async () => {
    await using world = new PushWorld();
    await using receiver = await Receiver.start(answer(200));
    await world.send(registrationFor(receiver.url + path), '7');
    assert.equal(receiver.requests[0]?.target, target);
  });
}

test('R67 R73 takes a 2xx as delivered whatever its body', async () => {
  assert.deepEqual(await outcomeOf(answer(200, '<html>hello</html>', { 'content-type': 'text/html' })), { kind: 'delivered', httpStatus: 200 });
  assert.deepEqual(await outcomeOf(answer(200, '')), { kind: 'delivered', httpStatus: 200 });
  assert.deepEqual(await outcomeOf(answer(202, '{"errcode":"M_UNKNOWN"}')), { kind: 'delivered', httpStatus: 202 });
  assert.deepEqual(await outcomeOf(raw('HTTP/1.1 204 No Content\r\n\r\n')), { kind: 'delivered', httpStatus: 204 });
  assert.deepEqual(await outcomeOf(raw('HTTP/1.1 299 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n')), { kind: 'delivered', httpStatus: 299 });
});

test('R73 takes a 2xx as delivered although its body ends early', async () => {
  const cut: Script = (connection) => connection.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{', () => connection.destroy());
  assert.deepEqual(await outcomeOf(cut), { kind: 'delivered', httpStatus: 200 });
});

test('R71 tells a 413 apart, HTML body and all', async () => {
  const html = `<html>${'x'.repeat(2_000)}</html>`;
  assert.deepEqual(await outcomeOf(answer(413, html, { 'content-type': 'text/html' })), { kind: 'too_large', httpStatus: 413 });
});

test('R71 hears a 413 that comes while the body is still on its way', async () => {
  const head = 'HTTP/1.1 413 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}';
  const rude = [(connection: Socket) => void connection.write(head), (connection: Socket) => void connection.pause().end(head)];
  for (const speak of rude) {
    await using world = new PushWorld();
    await using receiver = await Receiver.startWith({ scripts: [], onConnection: (connection) => void connection.once('data', () => speak(connection)) });
    const outcome = await world.send(registrationFor(receiver.url), '1', 'x'.repeat(6_000_000));
    assert.equal(outcome.kind, 'too_large');
  }
});

test('R67 R68 rejects every other status', async () => {
  for (const status of [400, 408, 409, 410, 418, 429, 500, 501, 502, 503, 504, 599]) {
    assert.deepEqual(await outcomeOf(answer(status)), { ...REJECTED, httpStatus: status });
  }
});

test('reports 401, 403, 404 and 405 as misconfiguration', async () => {
  for (const status of [401, 403, 404, 405]) {
    assert.deepEqual(await outcomeOf(answer(status)), { ...REJECTED, httpStatus: status, misconfiguration: true });
  }
});

test('honours Retry-After of 429 and 503, in seconds and as a date, within bounds', async () => {
  const waits: (number | null)[] = [];
  const headers = ['7', '0', 'Thu, 01 Jan 2026 00:01:00 GMT', 'Wed, 31 Dec 2025 00:00:00 GMT', '999999', 'soon', '-1', '1.5', ''];
  for (const header of headers) {
    const outcome = await outcomeOf(answer(429, '{}', { 'retry-after': header }));
    waits.push('retryAfterMs' in outcome && (typeof outcome.retryAfterMs === 'number' || outcome.retryAfterMs === null) ? outcome.retryAfterMs : -1);
  }
  assert.deepEqual(waits, [7_000, 0, 60_000, 0, 600_000, null, null, null, null]);
  assert.deepEqual(await outcomeOf(answer(503, '', { 'retry-after': '3' })), { ...REJECTED, httpStatus: 503, retryAfterMs: 3_000 });
  assert.deepEqual(await outcomeOf(answer(500, '', { 'retry-after': '3' })), { ...REJECTED, httpStatus: 500 });
});

test('R67 never follows a redirect', async () => {
  for (const status of [301, 302, 303, 307, 308]) {
    await using world = new PushWorld();
    await using target = await Receiver.start(answer(200));
    await using receiver = await Receiver.start(answer(status, '', { location: `${target.url}/_matrix/app/v1/transactions/1` }));
    const outcome = await world.send(registrationFor(receiver.url));
    assert.equal(outcome.kind === 'rejected' && outcome.misconfiguration && outcome.httpStatus, status);
    assert.equal(receiver.requests.length, 1);
    assert.equal(target.connectionCount, 0);
  }
});

test('R67 does not connect to the metadata address that a redirect names', async () => {
  const dialled: string[] = [];
  await using receiver = await Receiver.start(answer(301, '', { location: 'http://169.254.169.254/latest/meta-data/' }));
  const network = systemNetwork();
  await using world = new PushWorld({
    network: {
      dial: (target, signal) => {
        dialled.push(target.kind === 'tcp' ? target.addresses.join() : target.path);
        return network.dial(target, signal);
      },
    },
  });
  assert.equal((await world.send(registrationFor(receiver.url))).kind, 'rejected');
  assert.deepEqual(dialled, ['127.0.0.1']);
});

test('classifies answers that are none', async () => {
  const unreachable = (failure: string) => ({ kind: 'unreachable', failure });
  assert.deepEqual(await outcomeOf(reset), unreachable('connection_reset'));
  assert.deepEqual(await outcomeOf(close), unreachable('connection_reset'));
  assert.deepEqual(await outcomeOf(raw('SSH-2.0-OpenSSH_9.7\r\n')), unreachable('bad_response'));
  assert.deepEqual(await outcomeOf(raw('\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00')), unreachable('bad_response'));
  assert.deepEqual(await outcomeOf(raw('HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}')), unreachable('bad_response'));
  assert.deepEqual(await outcomeOf(raw('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n')), unreachable('bad_response'));
  assert.deepEqual(await outcomeOf(raw(`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`)), unreachable('bad_response'));
  const halfHead: Script = (connection) => connection.write('HTTP/1.1 200 OK\r\nContent-Le', () => connection.resetAndDestroy());
  assert.deepEqual(await outcomeOf(halfHead), unreachable('connection_reset'));
});

test('endless headers end as a bad response, with bounded memory', async () => {
  assert.deepEqual(await outcomeOf(endless('HTTP/1.1 200 OK\r\n', `X: ${'x'.repeat(1_000)}\r\n`)), { kind: 'unreachable', failure: 'bad_response' });
});

test('reads past informational answers', async () => {
  assert.deepEqual(await outcomeOf(raw('HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}')), {
    kind: 'delivered',
    httpStatus: 200,
  });
});

test('an unasked 100 Continue, which the HTTP client does not take, is told as a bad response', async () => {
  assert.deepEqual(await outcomeOf(raw('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}')), { kind: 'unreachable', failure: 'bad_response' });
});

test('classifies a port that nothing listens on', async () => {
  await using world = new PushWorld();
  const outcome = await world.send(registrationFor(`http://127.0.0.1:${await unusedPort()}`));
  assert.equal(outcome.kind === 'unreachable' && outcome.failure, 'connection_refused');
});

test('R75 ends a push at the time-out of its appservice, and the connection with it', async () => {
  await using world = new PushWorld({ pushTimeoutMs: 60_000 });
  await using receiver = await Receiver.start(hang);
  const push = world.send(registrationFor(receiver.url, { delivery_options: { push_timeout_ms: 5_000 } }));
  await receiver.received(1);
  let ended = false;
  void push.then(() => (ended = true));
  await world.clock.advance(4_999);
  assert.equal(ended, false);
  await world.clock.advance(1);
  const outcome = await push;
  assert.equal(outcome.kind === 'unreachable' && outcome.failure, 'timeout');
  assert.match(outcome.kind === 'unreachable' ? outcome.message : '', /5000 ms/);
  await receiver.until(({ openCount }) => openCount === 0);
  assert.equal(receiver.requests.length, 1);
});

test('R75 a head that trickles in does not put off the time-out', async () => {
  await using world = new PushWorld({ pushTimeoutMs: 3_000 });
  await using receiver = await Receiver.start(raw('HTTP/1.1 200 OK\r\n'));
  const push = world.send(registrationFor(receiver.url));
  await receiver.received(1);
  await world.clock.advance(3_000);
  const outcome = await push;
  assert.equal(outcome.kind === 'unreachable' && outcome.failure, 'timeout');
});

test('R67 does not wait for the body of a 2xx for longer than a second', async () => {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(raw('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{'));
  const push = world.send(registrationFor(receiver.url));
  await receiver.received(1);
  // The status is with the client once a sleeper for the body stands beside the one for the whole.
  while (world.clock.sleeperCount < 2) await world.clock.pause();
  await world.clock.advance(1_000);
  assert.deepEqual(await push, { kind: 'delivered', httpStatus: 200 });
  await receiver.until(({ openCount }) => openCount === 0);
});

test('drops a connection whose answer never ends', async () => {
  for (const status of [200, 500]) {
    await using world = new PushWorld();
    await using receiver = await Receiver.start(endless(`HTTP/1.1 ${status} X\r\nContent-Type: text/html\r\n\r\n`, '<p>sorry</p>'.repeat(1_000)));
    const outcome = await world.send(registrationFor(receiver.url));
    assert.equal(outcome.kind, status === 200 ? 'delivered' : 'rejected');
    await receiver.until(({ openCount }) => openCount === 0);
  }
});

test('megabytes of HTML are cut short', async () => {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(answer(502, `<html>${'x'.repeat(8 * 1024 * 1024)}`), answer(200));
  const registration = registrationFor(receiver.url);
  assert.deepEqual((await world.send(registration)).kind, 'rejected');
  assert.deepEqual((await world.send(registration)).kind, 'delivered');
  assert.equal(receiver.requests[1]?.connection, 2);
});

test('one connection serves push after push', async () => {
  await using world = new PushWorld({ limits: { connectionsMax: 1 } });
  await using receiver = await Receiver.start(answer(200));
  const registration = registrationFor(receiver.url);
  for (let txnId = 1; txnId <= 20; txnId++) await world.send(registration, String(txnId));
  assert.equal(receiver.connectionCount, 1);
  assert.deepEqual(receiver.requests.map(({ target }) => target.split('/').at(-1)), Array.from({ length: 20 }, (_, at) => String(at + 1)));
});

test('I6 a connection that dies under a request costs one attempt, and the request is not sent again by itself', async () => {
  await using world = new PushWorld({ limits: { connectionsMax: 1 } });
  await using receiver = await Receiver.start(answer(200), reset, answer(200));
  const registration = registrationFor(receiver.url);
  assert.equal((await world.send(registration, '1')).kind, 'delivered');
  const outcome = await world.send(registration, '2');
  assert.equal(outcome.kind === 'unreachable' && outcome.failure, 'connection_reset');
  assert.equal(receiver.requests.length, 2);
  assert.equal(receiver.connectionCount, 1);
  assert.equal((await world.send(registration, '2')).kind, 'delivered');
  assert.equal(receiver.requests.length, 3);
  assert.equal(receiver.connectionCount, 2);
});

test('a connection that was closed between two pushes is not used for the second', async () => {
  await using world = new PushWorld();
  const answerAndClose: Script = (connection) => void connection.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}');
  await using receiver = await Receiver.start(answerAndClose, answer(200));
  const registration = registrationFor(receiver.url);
  assert.equal((await world.send(registration, '1')).kind, 'delivered');
  await receiver.until(({ openCount }) => openCount === 0);
  assert.equal((await world.send(registration, '2')).kind, 'delivered');
  assert.deepEqual(receiver.requests.map(({ connection }) => connection), [1, 2]);
});

test('an aborted push ends at once and says nothing of the appservice', async () => {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(hang);
  const stop = new AbortController();
  const push = world.send(registrationFor(receiver.url), '1', '{}', stop.signal);
  await receiver.received(1);
  stop.abort();
  assert.deepEqual(await push, { kind: 'aborted' });
  await receiver.until(({ openCount }) => openCount === 0);
  assert.deepEqual(await world.send(registrationFor(receiver.url), '2', '{}', stop.signal), { kind: 'aborted' });
  assert.equal(receiver.requests.length, 1);
  assert.equal(world.clock.sleeperCount, 0);
});

test('I12 a message tells the errcode of a refusal and nothing else of what the peer wrote', async () => {
  await using world = new PushWorld();
  const bodies = [
    ['{"errcode":"M_FORBIDDEN","error":"Bad token hs-secret-9f2c"}', /\(HTTP 403, M_FORBIDDEN\)/],
    ['{"errcode":"IO.ELEMENT.MSC4350_NO"}', /\(HTTP 403, IO\.ELEMENT\.MSC4350_NO\)/],
    [`{"errcode":"M_${HS_TOKEN}"}`, /\(HTTP 403\)/],
    ['{"errcode":"M_X\\u001b[31m"}', /\(HTTP 403\)/],
    [`{"errcode":"M_${'X'.repeat(500)}"}`, /\(HTTP 403\)/],
    ['{"errcode":17}', /\(HTTP 403\)/],
    ['[{"errcode":"M_FORBIDDEN"}]', /\(HTTP 403\)/],
    ['{"errcode":"M_FORBIDDEN"', /\(HTTP 403\)/],
    ['<html>M_FORBIDDEN</html>', /\(HTTP 403\)/],
  ] as const;
  for (const [body, expected] of bodies) {
    await using receiver = await Receiver.start(answer(403, body));
    const outcome = await world.send(registrationFor(receiver.url));
    assert.match(outcome.kind === 'rejected' ? outcome.message : '', expected);
    assert.ok(!JSON.stringify(outcome).includes(HS_TOKEN) && !JSON.stringify(outcome).includes(AS_TOKEN));
  }
});

test('R20 a new url and hs_token hold from the next attempt', async () => {
  await using world = new PushWorld();
  await using before = await Receiver.start(answer(500));
  await using after = await Receiver.start(answer(200));
  await world.send(registrationFor(before.url));
  await world.send(registrationFor(after.url, { hs_token: 'changed' }));
  assert.equal(before.requests.length, 1);
  assert.equal(after.requests[0]?.headers['authorization'], 'Bearer changed');
});

test('a registration without a usable url is unreachable, not a crash', async () => {
  await using world = new PushWorld();
  for (const url of ['ftp://127.0.0.1/', 'http://', 'no url', 'http://user:pw@127.0.0.1:1/', 'http://127.0.0.1:1/?a=b', 'unix:relative']) {
    const outcome = await world.send(registrationFor(url));
    assert.equal(outcome.kind === 'unreachable' && outcome.failure, 'address_refused', url);
  }
});

test('I8 R63 one appservice that hangs holds up no other', async () => {
  await using world = new PushWorld({ limits: { connectionsMax: 1 } });
  await using hanging = await Receiver.start(hang);
  await using quick = await Receiver.start(answer(200));
  const first = world.send(registrationFor(hanging.url));
  await hanging.received(1);
  const impatient = registrationFor(hanging.url, { delivery_options: { push_timeout_ms: 5_000 } });
  const waiting = Array.from({ length: 4 }, (_, at) => world.send(impatient, `1${at}`));
  assert.equal((await world.send(registrationFor(quick.url, { id: 'quick' }))).kind, 'delivered');
  await world.clock.advance(60_000);
  for (const outcome of await Promise.all([first, ...waiting])) assert.equal(outcome.kind === 'unreachable' && outcome.failure, 'timeout');
  // What waited for the one connection until its time was up has never been sent.
  assert.equal(hanging.requests.length, 1);
});

test('pushes to a unix socket', async () => {
  const folder = await mkdtemp(`${tmpdir()}/push-`);
  const targets: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    targets.push(request.url);
    response.end('{}');
  });
  server.listen(`${folder}/as.sock`);
  await once(server, 'listening');
  try {
    await using world = new PushWorld();
    assert.deepEqual(await world.send(registrationFor(`unix://${folder}/as.sock`), '9'), { kind: 'delivered', httpStatus: 200 });
    assert.deepEqual(targets, ['/_matrix/app/v1/transactions/9']);
    await using strict = new PushWorld({ policy: { mode: 'strict' } });
    assert.equal((await strict.send(registrationFor(`unix:${folder}/as.sock`), '10')).kind, 'unreachable');
    await using listed = new PushWorld({ policy: { mode: 'strict', allow: [`unix:${folder}/as.sock`] } });
    assert.equal((await listed.send(registrationFor(`unix:${folder}/as.sock`), '10')).kind, 'delivered');
  } finally {
    server.close();
    server.closeAllConnections();
    await rm(folder, { recursive: true });
  }
});

test('R59 R104 I3 one push that tries both paths sends the same bytes under the same txn id, and has one outcome that says by which', async () => {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(answer(404, ''), answer(200), answer(500));
  const registration = registrationFor(receiver.url, { delivery_options: { legacy_paths: 'unrecognized' } });
  const body = '{"events":[{"content":{"body":"é"}}]}';
  assert.deepEqual(await world.send(registration, '17', body), { kind: 'delivered', httpStatus: 200, path: 'legacy' });
  assert.deepEqual(receiver.requests.map(({ method, target, body: bytes }) => [method, target, bytes.toString()]), [
    ['PUT', '/_matrix/app/v1/transactions/17', body],
    ['PUT', '/transactions/17', body],
  ]);
  const failed = await world.send(registration, '18', body);
  assert.deepEqual([failed.kind, failed.path, receiver.requests.at(-1)?.target, receiver.requests.length], ['rejected', 'legacy', '/transactions/18', 3]);
});

test('R71 R106 a 413 or a Retry-After of version 1 is not covered up by a legacy path that fails', async () => {
  for (const legacy of [answer(404), answer(404, ''), answer(308, ''), answer(500), reset]) {
    await using world = new PushWorld();
    await using receiver = await Receiver.start(answer(413), legacy, answer(429, '', { 'retry-after': '7' }), legacy);
    const registration = registrationFor(receiver.url, { delivery_options: { legacy_paths: 'any_error' } });
    const large = await world.send(registration);
    assert.deepEqual([large.kind, large.path], ['too_large', undefined]);
    const busy = await world.send(registration);
    assert.deepEqual([busy.kind === 'rejected' && busy.retryAfterMs, busy.path], [7_000, undefined]);
    assert.equal(receiver.requests.length, 4);
  }
});
