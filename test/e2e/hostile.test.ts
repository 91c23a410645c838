import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { create, toBinary } from '@bufbuild/protobuf';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter, SubmitEventsRequestSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { brokenConversations, grpcCallByHand, grpcFrame, memoryOf, RawConnections } from '../support/hostile-client.ts';
import { close, endless, hang, Receiver, reset } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { errorOf, RouterClient } from '../support/router-client.ts';
import { failedAttempt, put, registrationYaml, RouterHome, statusOf, submit } from '../support/router-home.ts';
import type { RouterProcess } from '../support/router-process.ts';
import { eventJson } from '../support/routing.ts';

const LIMIT = { timeout: 60_000 };
const SUBMIT = '/matrix.appservice.v1.AppserviceRouter/SubmitEvents';
const IDLE_CONNECTIONS = 300;
/** A router at work takes about half of this. */
const MEMORY_MIB_MAX = 400;
const MIB = 1024 * 1024;

let home: RouterHome;
let receiver: RecordingReceiver;
let router: RouterProcess;
let homeserver: RouterClient;
let submitted = 0;

before(async () => {
  home = await RouterHome.make();
  receiver = await RecordingReceiver.start();
  router = await home.start();
  homeserver = router.client('homeserver');
  await put(router.client('admin'), registrationYaml('irc', `${receiver.url}/irc`));
});

after(async () => {
  await home[Symbol.asyncDispose]();
  await receiver[Symbol.asyncDispose]();
});

/** The same process takes an event on each door and delivers both; nothing was a bug. */
async function stillServes(): Promise<void> {
  submitted += 2;
  const { ids } = await submit(homeserver, `served-${submitted}`, 1);
  using fresh = new RouterClient(router.grpcAddress, router.tokens().homeserver);
  const again = await submit(fresh, `fresh-${submitted}`, 1);
  assert.equal((await fetch(`http://${router.httpAddress}/readyz`)).status, 200);
  await receiver.until(() => receiver.taken('irc').length === submitted);
  assert.deepEqual(receiver.taken('irc').slice(-2), [...ids, ...again.ids]);
  assert.equal(router.child.exitCode, null);
  assert.deepEqual(router.lines.filter(({ level }) => level === 'error'), []);
  if (process.platform === 'linux') {
    const { rssMib } = memoryOf(router.child.pid ?? 0);
    assert.ok(rssMib < MEMORY_MIB_MAX, `it takes ${rssMib.toFixed(0)} MiB`);
  }
}

test('garbage in the place of HTTP disturbs nobody, on either port', LIMIT, async () => {
  using connections = new RawConnections();
  for (const address of [router.grpcAddress, router.httpAddress]) {
    for (const bytes of Object.values(brokenConversations())) {
      const socket = await connections.send(address, bytes);
      socket.end();
    }
    await stillServes();
  }
});

test('hundreds of connections that begin a request and fall silent keep nobody out', LIMIT, async () => {
  using connections = new RawConnections();
  const beginnings = ['', 'G', 'POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'];
  for (const address of [router.grpcAddress, router.httpAddress]) {
    for (let n = 0; n < IDLE_CONNECTIONS; n++) await connections.send(address, beginnings[n % beginnings.length] ?? '');
  }
  await stillServes();
});

test('calls that go away in the middle are forgotten', LIMIT, async () => {
  const request = create(SubmitEventsRequestSchema, { events: [{ json: eventJson({ id: '$half' }) }] });
  for (let n = 0; n < 50; n++) {
    using client = new RouterClient(router.grpcAddress, router.tokens().homeserver);
    const call = client.bidi(AppserviceRouter.method.streamEvents);
    call.on('error', () => undefined);
    call.write(create(SubmitEventsRequestSchema, {}));
    await once(call, 'data');
    call.cancel();
  }
  const half = grpcFrame(toBinary(SubmitEventsRequestSchema, request)).subarray(0, -3);
  assert.match(await grpcCallByHand(router.grpcAddress, SUBMIT, router.tokens().homeserver, half), /^(1|3|8|12|13)$|no status/);
  await stillServes();
});

test('messages that are too large, malformed or compressed beyond measure are refused, and take no memory', LIMIT, async () => {
  const { homeserver: token } = router.tokens();
  const bomb = gzipSync(Buffer.alloc(64 * MIB));
  const outcomes: Record<string, string> = {};
  const byHand = async (name: string, body: Uint8Array, headers: Record<string, string> = {}): Promise<void> => {
    outcomes[name] = await grpcCallByHand(router.grpcAddress, SUBMIT, token, body, headers);
  };
  await byHand('9 MiB', grpcFrame(Buffer.alloc(9 * MIB)));
  await byHand('4 GiB announced', grpcFrame(Buffer.alloc(10), false, 0xffff_ffff));
  await byHand('64 MiB in 64 KiB', grpcFrame(bomb, true), { 'grpc-encoding': 'gzip' });
  await byHand('no gzip', grpcFrame(Buffer.from('no gzip'), true), { 'grpc-encoding': 'gzip' });
  await byHand('unknown compression', grpcFrame(Buffer.from('what'), true), { 'grpc-encoding': 'lzma' });
  await byHand('no protobuf', grpcFrame(Buffer.alloc(100, 0xff)));
  await byHand('no message', Buffer.alloc(0));
  await byHand('not gRPC', grpcFrame(Buffer.alloc(0)), { 'content-type': 'text/html' });
  const OK_CODES: Record<string, RegExp> = {
    '9 MiB': /^8$/,
    '4 GiB announced': /^8$/,
    '64 MiB in 64 KiB': /^8$/,
    'no gzip': /^(3|13)$/,
    'unknown compression': /^12$/,
    'no protobuf': /^3$/,
    'no message': /^(13|3|12)$/,
    'not gRPC': /^HTTP 415$/,
  };
  for (const [name, code] of Object.entries(OK_CODES)) assert.match(outcomes[name] ?? '', code, name);

  const json = async (body: string | Buffer<ArrayBuffer>, headers: Record<string, string> = {}): Promise<number> => {
    const response = await fetch(`http://${router.httpAddress}${SUBMIT}`, { method: 'POST', body, headers: { 'content-type': 'application/json', authorization: `Bearer ${token}`, ...headers } });
    await response.arrayBuffer();
    return response.status;
  };
  assert.equal(await json(`{"events":[{"json":"${'A'.repeat(12 * MIB)}"}]}`), 429);
  assert.equal(await json(bomb, { 'content-encoding': 'gzip' }), 429);
  assert.equal(await json(`{"rooms":${'['.repeat(100_000)}`), 400);
  assert.equal(await json('{"events":[{"json":"%%%"}]}'), 400);
  assert.equal(await json('events=1'), 400);
  assert.equal(await json('<xml/>', { 'content-type': 'application/xml' }), 415);
  await stillServes();
});

test('one bad event refuses its request whole, naming the field', LIMIT, async () => {
  const good = { json: eventJson({ id: '$good' }), streamPosition: 1n };
  const event = (changes: object): string => JSON.stringify({ event_id: '$x', room_id: '!r:hs.test', type: 't', sender: '@a:hs.test', content: {}, ...changes });
  const deep = `{"a":`.repeat(200) + '1' + '}'.repeat(200);
  const bad: Record<string, string | Uint8Array> = {
    'too deep': event({}).replace('"content":{}', `"content":${deep}`),
    'as deep as a stack': `{"content":${'['.repeat(200_000)}`,
    'too large': event({ content: { body: 'x'.repeat(600 * 1024) } }),
    'not UTF-8': Buffer.concat([Buffer.from('{"event_id":"$'), Buffer.from([0xc3, 0x28, 0xff]), Buffer.from('"}')]),
    'with a byte order mark': `\uFEFF${event({})}`,
    'no object': '[]',
    'no JSON': 'event_id=$x',
    'cut off': event({}).slice(0, -1),
    'nothing': '',
    'no event_id': event({ event_id: undefined }),
    'no room_id': event({ room_id: undefined }),
    'a sender that is no string': event({ sender: { toString: 1 } }),
    'an empty type': event({ type: '' }),
    'no content': event({ content: undefined }),
    'a state_key that is no string': event({ state_key: null }),
  };
  for (const [name, json] of Object.entries(bad)) {
    const events = [good, { json: Buffer.from(json), streamPosition: 2n }];
    const refused: unknown = await homeserver.call(AppserviceRouter.method.submitEvents, { stream: 'bad', events }).catch((error: unknown) => error);
    assert.ok(refused instanceof Error, name);
    assert.deepEqual([errorOf(refused).code, errorOf(refused).field], [3, 'events[1].json'], name);
  }
  const many = Array.from({ length: 1_001 }, (_, n) => ({ json: eventJson({ id: `$${n}` }), streamPosition: BigInt(n + 1) }));
  const cases: [string, object][] = [
    ['events', { events: many }],
    ['events[1].stream_position', { events: [{ ...good, streamPosition: 2n }, good] }],
    ['events[0].stream_position', { events: [{ ...good, streamPosition: -1n }] }],
    ['rooms[0].room_id', { rooms: [{ roomId: '' }] }],
    ['rooms[0].local_aliases.room_aliases', { rooms: [{ roomId: '!r', localAliases: { roomAliases: Array.from({ length: 1_001 }, () => '#a') } }] }],
  ];
  for (const [field, request] of cases) {
    const refused: unknown = await homeserver.call(AppserviceRouter.method.submitEvents, { stream: 'bad', ...request }).catch((error: unknown) => error);
    assert.ok(refused instanceof Error, field);
    assert.deepEqual([errorOf(refused).code, errorOf(refused).field], [3, field]);
  }
  assert.equal((await homeserver.call(AppserviceRouter.method.getStreamPosition, { stream: 'bad' })).streamPosition, 0n, 'nothing was taken over');
  await stillServes();
});

test('M10 no call gets in without its credential', LIMIT, async () => {
  const tokens = router.tokens();
  const codes = async (token: string | null): Promise<unknown[]> => {
    using client = new RouterClient(router.grpcAddress, token);
    const calls = [client.call(AppserviceRouter.method.submitEvents, {}), client.call(AppserviceAdmin.method.listAppservices, {})];
    return await Promise.all(calls.map((call) => call.then(() => 'OK', (error: unknown) => errorOf(error).code)));
  };
  assert.deepEqual(await codes(null), [16, 16]);
  for (const token of ['guess', tokens.admin.slice(0, -1), `${tokens.admin} ${tokens.admin}`, `${tokens.admin}0`]) assert.deepEqual(await codes(token), [16, 16], token);
  assert.deepEqual(await codes(tokens.homeserver), ['OK', 7]);
  assert.deepEqual(await codes(tokens.admin), [7, 'OK']);
  const status = async (authorization: string): Promise<number> => {
    const response = await fetch(`http://${router.httpAddress}/matrix.appservice.v1.AppserviceAdmin/ListAppservices`, { method: 'POST', body: '{}', headers: { 'content-type': 'application/json', authorization } });
    return response.status;
  };
  assert.deepEqual(await Promise.all([status(tokens.admin), status(`Basic ${tokens.admin}`), status(`bearer ${'x'.repeat(20_000)}`), status(`Bearer ${tokens.admin}`)]), [401, 401, 431, 200]);
  assert.equal((await statusOf(router.client('admin'), 'irc')).appserviceId, 'irc');
  await stillServes();
});

/** What an appservice does to a transaction that it does not simply take. */
const MISCHIEF: Readonly<Record<string, { readonly script: Script; readonly failure: string | null }>> = {
  hangs: { script: hang, failure: 'timeout' },
  trickles: { script: (connection) => void connection.write('HTTP/1.1 200 OK\r\nx-slow: '), failure: 'timeout' },
  resets: { script: reset, failure: 'connection_reset' },
  closes: { script: close, failure: 'connection_reset' },
  'answers a page that never ends': { script: endless('HTTP/1.1 500 No\r\ncontent-type: text/html\r\n\r\n', '<p>no</p>'.repeat(10_000)), failure: null },
  'sends headers that never end': { script: endless('HTTP/1.1 200 OK\r\n', `x: ${'y'.repeat(10_000)}\r\n`), failure: 'bad_response' },
  'does not speak HTTP': { script: endless('', 'what? '.repeat(10_000)), failure: 'bad_response' },
};

test('R63 R64 R67 R73 I8 appservices that misbehave in every way hold up neither each other, nor the one that behaves, nor the homeserver', LIMIT, async () => {
  await using world = await RouterHome.make();
  await using good = await RecordingReceiver.start();
  await using accepting = await Receiver.start(endless('HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n', '<p>yes</p>'.repeat(10_000)));
  const bad = new Map<string, Receiver>();
  await using receivers = new AsyncDisposableStack();
  const process = await world.start({ ROUTER_PUSH_TIMEOUT_MS: '1000' });
  const [admin, submitter] = [process.client('admin'), process.client('homeserver')];
  for (const [id, { script }] of Object.entries(MISCHIEF)) {
    const appservice = receivers.use(await Receiver.start(script));
    bad.set(id, appservice);
    await put(admin, registrationYaml(id, appservice.url).replace(/^(as|hs)_token: .*$/gm, `$1_token: $1-of-${id.replaceAll(' ', '-')}`).replace(/^sender_localpart: .*$/m, `sender_localpart: sender${bad.size}`));
  }
  await put(admin, registrationYaml('good', `${good.url}/good`));
  await put(admin, registrationYaml('accepting', accepting.url));
  // Each has a transaction that it spoils before the rest is submitted.
  const ids = [...(await submit(submitter, 'first', 1)).ids];
  for (const appservice of bad.values()) await appservice.received(1);
  for (let n = 0; n < 30; n++) ids.push(...(await submit(submitter, `more-${n}`, 10)).ids);
  await good.until(() => good.taken('good').length === ids.length);
  assert.deepEqual(good.taken('good'), ids);
  assert.deepEqual(good.violations('good', 0), []);

  for (const [id, { failure }] of Object.entries(MISCHIEF)) {
    const attempt = await failedAttempt(process, id);
    assert.deepEqual([id, attempt['failure'], attempt['http_status']], [id, failure, failure === null ? 500 : null]);
    await bad.get(id)?.received(2);
    const [first, second] = bad.get(id)?.requests ?? [];
    assert.deepEqual([second?.target, second?.body], [first?.target, first?.body], `I3 Frozen: ${id}`);
    const { backlogEntries } = await statusOf(admin, id);
    assert.equal(backlogEntries, BigInt(ids.length), `I1 NoLoss: ${id}`);
  }
  await process.line((line) => line.msg === 'delivery attempt' && line['appservice_id'] === 'accepting' && line['outcome'] === 'delivered');
  if (globalThis.process.platform === 'linux') assert.ok(memoryOf(process.child.pid ?? 0).peakMib < MEMORY_MIB_MAX);
  assert.deepEqual(process.lines.filter(({ level }) => level === 'error'), []);
  assert.equal(await process.terminate(), 0);
});
