/** A ping on the wire and what it comes to: R108, R132 to R136. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PingFailure, PingOutcome } from '../../src/appservice/ping.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { boundedText, Ping, PING_LIMITS } from '../../src/query/ping.ts';
import type { PingOptions } from '../../src/query/ping.ts';
import type { LogFields, Logger } from '../../src/logger.ts';
import { HS_TOKEN, PushWorld, registrationFor } from '../support/push-world.ts';
import type { PushWorldOptions } from '../support/push-world.ts';
import { answer, close, endless, hang, raw, Receiver, reset, unusedPort } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';

const KIB_64 = 64 * 1024;

class PingWorld extends PushWorld {
  readonly logged: LogFields[] = [];
  readonly ping: Ping;

  constructor(options: Partial<PingOptions> = {}, pushOptions: PushWorldOptions = {}) {
    super(pushOptions);
    const log = (fields: LogFields): void => void this.logged.push(fields);
    const logger: Logger = { debug: log, info: log, warn: log, error: log };
    this.ping = new Ping({ client: this.client, clock: this.clock, logger, timeoutMs: 10_000, ...PING_LIMITS, ...options });
  }

  to(url: string | null, transactionId?: string, rest: Parameters<typeof registrationFor>[1] = {}): Promise<PingOutcome> {
    return this.ping.ping('example.org', registrationFor('', { ...rest, url }), transactionId);
  }
}

function failureOf(outcome: PingOutcome): PingFailure {
  assert.equal(outcome.kind, 'failed');
  return outcome.failure;
}

async function failureWith(script: Script): Promise<PingFailure> {
  await using world = new PingWorld();
  await using receiver = await Receiver.start(script);
  const failure = failureOf(await world.to(receiver.url));
  assert.equal(receiver.requests.length, 1, 'a ping is sent once');
  return failure;
}

const CONNECTION_FAILED: PingFailure = { errcode: 'M_CONNECTION_FAILED', httpStatus: 502, answer: null };
const CONNECTION_TIMEOUT: PingFailure = { errcode: 'M_CONNECTION_TIMEOUT', httpStatus: 504, answer: null };

test('R133 R134 a ping is a POST with the transaction_id as it came, and its time is whole milliseconds', async () => {
  await using world = new PingWorld();
  await using receiver = await Receiver.start(answer(200));
  assert.deepEqual(await world.to(`${receiver.url}/base/`, ' "ünï" \u2028 \\ '), { kind: 'answered', durationMs: 0 });
  const [request] = receiver.requests;
  assert.deepEqual([request?.method, request?.target, request?.headers['authorization'], request?.headers['content-type']], ['POST', '/base/_matrix/app/v1/ping', `Bearer ${HS_TOKEN}`, 'application/json']);
  assert.deepEqual(JSON.parse(request?.body.toString() ?? ''), { transaction_id: ' "ünï" \u2028 \\ ' });
});

test('R133 without a transaction_id the body is an empty object, and an empty one is none that is absent', async () => {
  await using world = new PingWorld();
  await using receiver = await Receiver.start(answer(200));
  await world.to(receiver.url);
  await world.to(receiver.url, '');
  assert.deepEqual(receiver.requests.map(({ body }) => body.toString()), ['{}', '{"transaction_id":""}']);
});

test('R134 every 2xx is a success, whatever its body', async () => {
  await using world = new PingWorld();
  await using receiver = await Receiver.start(answer(200, 'no JSON'), raw('HTTP/1.1 204 X\r\n\r\n'), answer(299, ''), endless('HTTP/1.1 200 OK\r\n\r\n', 'x'.repeat(1_000)));
  for (let n = 0; n < 4; n++) assert.equal((await world.to(receiver.url)).kind, 'answered');
});

test('R134 the duration is the time until the answer', async () => {
  await using world = new PingWorld();
  const held: (() => void)[] = [];
  await using receiver = await Receiver.start((connection, request) => void held.push(() => answer(200)(connection, request)));
  const ping = world.to(receiver.url);
  await receiver.received(1);
  await world.clock.advance(1_234);
  held[0]?.();
  assert.deepEqual(await ping, { kind: 'answered', durationMs: 1_234 });
});

test('R55 R56 the token stands where it stands in a push', async () => {
  await using world = new PingWorld();
  await using receiver = await Receiver.start(answer(200));
  for (const legacy_auth of ['both', 'query_only'] as const) await world.to(receiver.url, undefined, { delivery_options: { legacy_auth } });
  const target = `/_matrix/app/v1/ping?access_token=${HS_TOKEN}`;
  assert.deepEqual(receiver.requests.map(({ target: path, headers }) => [path, headers['authorization']]), [[target, `Bearer ${HS_TOKEN}`], [target, undefined]]);
});

test('R132 without a url nothing is asked', async () => {
  await using world = new PingWorld({}, { network: { resolve: () => assert.fail('resolved'), dial: () => assert.fail('dialled') } });
  assert.deepEqual(failureOf(await world.to(null)), { errcode: 'M_URL_NOT_SET', httpStatus: 400, answer: null });
});

test('R135 anything but 2xx is told with its status and body; a redirect is not followed', async () => {
  for (const [status, body] of [[300, ''], [302, 'elsewhere'], [400, '{"errcode":"M_UNRECOGNIZED"}'], [404, '<html>\u0000 ünï 🦊</html>'], [500, '\ufeffoops'], [599, '{}']] as const) {
    assert.deepEqual(await failureWith(answer(status, body, { location: 'http://127.0.0.1:1/' })), { errcode: 'M_BAD_STATUS', httpStatus: 502, answer: { status, body } });
  }
});

test('R108 a ping never goes to a legacy path', async () => {
  await using world = new PingWorld();
  for (const legacy_paths of ['unrecognized', 'any_error'] as const) {
    await using receiver = await Receiver.start(answer(404, '{"errcode":"M_UNRECOGNIZED"}'));
    await world.to(receiver.url, undefined, { delivery_options: { legacy_paths } });
    assert.deepEqual(receiver.requests.map(({ target }) => target), ['/_matrix/app/v1/ping']);
  }
});

test('R135 a body that goes on is cut at 64 KiB', async () => {
  const failure = await failureWith(endless('HTTP/1.1 500 X\r\n\r\n', 'x'.repeat(1_000)));
  assert.deepEqual(failure.answer, { status: 500, body: 'x'.repeat(KIB_64) });
});

test('R135 a body that stalls is told as far as it came, before the time limit', async () => {
  await using world = new PingWorld();
  await using receiver = await Receiver.start(raw('HTTP/1.1 503 X\r\ncontent-length: 100\r\n\r\nbusy'));
  let outcome: PingOutcome | undefined;
  const ping = world.to(receiver.url).then((value) => (outcome = value));
  await receiver.received(1);
  // The head has to be read before its time runs.
  while (outcome === undefined) await world.clock.advance(100);
  assert.deepEqual(failureOf(await ping).answer, { status: 503, body: 'busy' });
});

test('R135 a body is text of at most 64 KiB, whatever its bytes', () => {
  const bounded = (bytes: Uint8Array): string => {
    const text = boundedText(bytes, KIB_64);
    assert.ok(text.isWellFormed() && Buffer.byteLength(text) <= KIB_64);
    return text;
  };
  assert.equal(bounded(Buffer.alloc(0)), '');
  assert.equal(bounded(Buffer.from('ü'.repeat(KIB_64 / 2))), 'ü'.repeat(KIB_64 / 2));
  assert.equal(bounded(Buffer.from(`x${'ü'.repeat(KIB_64 / 2)}`)), `x${'ü'.repeat(KIB_64 / 2 - 1)}`, 'cut between characters');
  assert.equal(bounded(Buffer.alloc(KIB_64, 0xff)), '\ufffd'.repeat(Math.floor(KIB_64 / 3)));
  assert.equal(bounded(Buffer.from([0x61, 0xf0, 0x9f])), 'a\ufffd');
  assert.equal(bounded(Buffer.from('\ufeff{}')), '\ufeff{}');
});

test('R136 what gives no answer is a failed connection', async () => {
  for (const script of [reset, close, raw('SSH-2.0-OpenSSH_9.7\r\n')]) assert.deepEqual(await failureWith(script), CONNECTION_FAILED);
  await using world = new PingWorld({}, { network: { resolve: () => Promise.reject(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' })) } });
  const port = await unusedPort();
  for (const url of [`http://127.0.0.1:${port}`, 'http://nowhere.test', 'http://169.254.169.254/', 'no url']) assert.deepEqual(failureOf(await world.to(url)), CONNECTION_FAILED, url);
  await using plain = await Receiver.startWith({ scripts: [hang], onConnection: (connection) => void connection.write('HTTP/1.1 400 X\r\n\r\n') });
  assert.deepEqual(failureOf(await world.to(plain.url.replace('http:', 'https:'))), CONNECTION_FAILED, 'TLS');
});

test('R136 no answer within the time limit is a time-out, and the connection is dropped', async () => {
  await using world = new PingWorld({ timeoutMs: 3_000 });
  await using receiver = await Receiver.start(hang);
  let ended = false;
  const ping = world.to(receiver.url).finally(() => (ended = true));
  await receiver.received(1);
  await world.clock.advance(2_999);
  assert.equal(ended, false);
  await world.clock.advance(1);
  assert.deepEqual(failureOf(await ping), CONNECTION_TIMEOUT);
  await receiver.until(({ openCount }) => openCount === 0);
});

const isRefusedAs = (reason: string) => (error: unknown): boolean => error instanceof RefusalError && error.reason === reason && error.details.retryDelayMs === 1_000;

test('at most so many pings are under way, of one appservice and together; those that ended make room', async () => {
  await using world = new PingWorld({ timeoutMs: 3_000, pingsMax: 3, appservicePingsMax: 2 });
  await using receiver = await Receiver.start(hang, hang, hang, answer(200));
  const under = ['a', 'a', 'b'].map((id) => world.to(receiver.url, undefined, { id }));
  await receiver.received(3);
  await assert.rejects(world.to(receiver.url, undefined, { id: 'c' }), isRefusedAs('TOO_MANY_PINGS'));
  await world.clock.advance(3_000);
  await Promise.all(under);
  assert.equal((await world.to(receiver.url, undefined, { id: 'a' })).kind, 'answered');

  await using other = new PingWorld({ pingsMax: 100, appservicePingsMax: 1 });
  await using hanging = await Receiver.start(hang, answer(200));
  const held = other.to(hanging.url, undefined, { id: 'a' });
  await hanging.received(1);
  await assert.rejects(other.to(hanging.url, undefined, { id: 'a' }), isRefusedAs('TOO_MANY_PINGS'));
  assert.equal((await other.to(hanging.url, undefined, { id: 'b' })).kind, 'answered');
  await other.clock.advance(10_000);
  assert.deepEqual(failureOf(await held), CONNECTION_TIMEOUT);
});

test('I8 pings that hang leave connections for the transactions of the same appservice', async () => {
  await using world = new PingWorld({}, {});
  await using receiver = await Receiver.start(hang, hang, answer(200));
  const held = [world.to(receiver.url), world.to(receiver.url)];
  await receiver.received(2);
  assert.equal((await world.send(registrationFor(receiver.url))).kind, 'delivered');
  await world.clock.advance(10_000);
  await Promise.all(held);
});

test('a ping that is under way when the router ends is refused as one that came too late', async () => {
  await using world = new PingWorld();
  await using receiver = await Receiver.start(hang);
  const ping = world.to(receiver.url);
  await receiver.received(1);
  await Promise.all([assert.rejects(ping, isRefusedAs('DRAINING')), world.ping[Symbol.asyncDispose]()]);
});

test('I12 a ping leaves one line in the log, without tokens and without what the appservice wrote', async () => {
  await using world = new PingWorld();
  await using receiver = await Receiver.start(answer(403, `{"error":"${HS_TOKEN} is wrong"}`));
  await world.to(receiver.url, 'txn');
  assert.deepEqual(world.logged, [{ server_name: 'example.org', appservice_id: 'logger', outcome: 'M_BAD_STATUS', http_status: 403, duration_ms: 0 }]);
});
