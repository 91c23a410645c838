import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { Client, credentials, Server, ServerCredentials } from '@grpc/grpc-js';
import { file_grpc_health_v1_health as healthFile, HealthCheckRequestSchema, HealthCheckResponse_ServingStatus as Serving, HealthCheckResponseSchema } from '../../gen/grpc/health/v1/health_pb.ts';
import { AppserviceRouter, SubmitEventsRequestSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { CONNECTION_WINDOW_BYTES, enlargeReceiveWindows, limitConnections, STREAM_WINDOW_BYTES } from '../../src/rpc/flow-control.ts';
import { HTTP_TIME_LIMITS, isLoopback } from '../../src/rpc/http-server.ts';
import { codeName } from '../../src/rpc/status.ts';
import { RouterClient } from '../support/router-client.ts';
import { Doors, failing, failureOf, MALFORMED, TOKENS } from './doors.ts';

const SUBMIT = `/${AppserviceRouter.typeName}/SubmitEvents`;
const IMPATIENT = { headersMs: 100, requestMs: 200, keepAliveMs: 100, firstBytesMs: 100, checkMs: 20 };

/** All that comes back for some bytes, until the other side closes. */
function exchange(port: number, bytes: Buffer | string): Promise<string> {
  const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
  let text = '';
  socket.on('data', (data) => (text += data.toString('latin1')));
  socket.on('error', () => undefined);
  return new Promise((resolve) => socket.on('close', () => resolve(text)));
}

test('HTTP requests whose headers or body do not come are answered 408, and silent connections closed', async () => {
  await using doors = await Doors.open({ timeLimits: IMPATIENT });
  assert.match(await exchange(doors.httpPort, 'GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: '), /^HTTP\/1\.1 408 /);
  assert.match(await exchange(doors.httpPort, `POST ${SUBMIT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${TOKENS.homeserver}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{`), /^HTTP\/1\.1 408 /);
  assert.equal(await exchange(doors.httpPort, ''), '');
  const session = connectHttp2(`http://${doors.http.address}`);
  session.on('error', () => undefined);
  await once(session, 'close');
  // The control: a request that does come is answered.
  assert.match(await exchange(doors.httpPort, 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 200 /);
});

test('an HTTP/2 request whose body stops coming ends', async () => {
  await using doors = await Doors.open({ timeLimits: IMPATIENT });
  const session = connectHttp2(`http://${doors.http.address}`);
  session.on('error', () => undefined);
  const stream = session.request({ ':method': 'POST', ':path': SUBMIT, 'content-type': 'application/grpc', authorization: `Bearer ${TOKENS.homeserver}` });
  stream.on('error', () => undefined);
  stream.write(Buffer.from([0, 0, 0, 0, 9]));
  await once(stream, 'close');
  session.destroy();
});

test('no time limit of HTTP is switched off', () => {
  for (const [name, value] of Object.entries(HTTP_TIME_LIMITS)) assert.ok(value > 0 && value <= 65_000, name);
});

test('garbage on either port is refused, and the next caller is served', async () => {
  // The next caller is no stranger, and may be slow on a machine that is busy.
  await using doors = await Doors.open({ timeLimits: { ...IMPATIENT, firstBytesMs: 10_000, headersMs: 10_000, requestMs: 10_000 } });
  using client = new RouterClient(doors.grpc.address, TOKENS.homeserver);
  const noise = Buffer.from(Array.from({ length: 100_000 }, (_, at) => (at * 7919 + (at >> 3)) & 0xff));
  const headers = `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`;
  const bombs = [noise, '\0\x01garbage\r\n\r\n', headers, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame', 'GET / HTTP/1.1\r\n\r\n'];
  for (const bytes of bombs) {
    await exchange(doors.httpPort, bytes);
    await exchange(doors.grpcPort, Buffer.concat([Buffer.from(bytes), noise]));
    assert.equal((await client.call(AppserviceRouter.method.submitEvents, {})).logPosition, 9n);
    assert.equal((await fetch(`http://${doors.http.address}/healthz`, { headers: { connection: 'close' } })).status, 200);
  }
  assert.match(await exchange(doors.httpPort, headers), /^HTTP\/1\.1 431 /);
});

test('malformed and oversized messages are refused on the gRPC port, and the connection goes on', async () => {
  await using doors = await Doors.open();
  using client = new RouterClient(doors.grpc.address, TOKENS.homeserver);
  const { submitEvents } = AppserviceRouter.method;
  for (const bytes of MALFORMED) {
    const { code, reason } = failureOf(await failing(client.callRaw(submitEvents, Buffer.from(bytes))));
    assert.deepEqual([codeName(code), reason], ['INVALID_ARGUMENT', 'MALFORMED_MESSAGE']);
  }
  const full = { events: Array.from({ length: 16 }, () => ({ json: new Uint8Array(512 * 1024 - 64) })) };
  assert.equal((await client.call(submitEvents, full)).accepted, 16);
  const failure = failureOf(await failing(client.call(submitEvents, { events: [{ json: new Uint8Array(9 * 1024 * 1024) }] })));
  assert.equal(codeName(failure.code), 'RESOURCE_EXHAUSTED');
  assert.equal((await client.call(submitEvents, {})).accepted, 0);
});

test('what unpacks to more than a request may have is refused at the HTTP door', async () => {
  await using doors = await Doors.open();
  const bytes = toBinary(SubmitEventsRequestSchema, create(SubmitEventsRequestSchema, { events: [{ json: new Uint8Array(64 * 1024 * 1024) }] }));
  const headers = { 'content-type': 'application/proto', 'content-encoding': 'gzip', authorization: `Bearer ${TOKENS.homeserver}` };
  const response = await fetch(`http://${doors.http.address}${SUBMIT}`, { method: 'POST', headers, body: gzipSync(bytes) });
  assert.equal(response.status, 429);
  assert.match(await response.text(), /resource_exhausted/);
});

test('drain of the HTTP door does not wait for idle connections, nor cut a call short', async () => {
  await using doors = await Doors.open();
  let answer = (): void => undefined;
  const reached = new Promise<void>((resolve) => {
    doors.house.router.submit = () =>
      new Promise((give) => {
        answer = () => give({ streamPosition: 1, logPosition: 2, accepted: 0, duplicates: 0, routed: 0, wantedRoomIds: [] });
        resolve();
      });
  });
  using idle = { agent: new Agent({ keepAlive: true }), [Symbol.dispose]: () => idle.agent.destroy() };
  const get = httpRequest({ port: doors.httpPort, host: '127.0.0.1', path: '/healthz', agent: idle.agent });
  get.end();
  const [first] = (await once(get, 'response')) as [NodeJS.ReadableStream];
  first.resume();
  await once(first, 'end');
  const post = httpRequest({ port: doors.httpPort, host: '127.0.0.1', method: 'POST', path: SUBMIT, agent: idle.agent, headers: { 'content-type': 'application/json', authorization: `Bearer ${TOKENS.homeserver}` } });
  post.end('{}');
  const session = connectHttp2(`http://${doors.http.address}`);
  await once(session, 'remoteSettings');
  const silent = connect(doors.httpPort, '127.0.0.1');
  await once(silent, 'connect');
  await reached;
  const drained = doors.http.drain();
  answer();
  const [response] = (await once(post, 'response')) as [NodeJS.ReadableStream & { statusCode: number }];
  response.resume();
  assert.equal(response.statusCode, 200);
  await drained;
});

test('probes: health, readiness with its reasons, metrics; one that fails is answered and logged', async () => {
  const probes = { ready: () => ({ ready: false, detail: { store: 'away' } }), metrics: () => Promise.reject(new Error('registry broke at db.internal')) };
  await using doors = await Doors.open({ probes });
  const get = async (path: string): Promise<[number, string]> => {
    const response = await fetch(`http://${doors.http.address}${path}`);
    return [response.status, await response.text()];
  };
  assert.equal((await get('/healthz'))[0], 200);
  assert.deepEqual(await get('/readyz'), [503, '{"ready":false,"store":"away"}\n']);
  const [status, text] = await get('/metrics');
  assert.equal(status, 500);
  assert.doesNotMatch(text, /db\.internal/);
  assert.match(JSON.stringify(doors.logged), /registry broke/);
  assert.equal((await get('/nothing'))[0], 404);
});

test('metrics are open on a loopback listener only; elsewhere they take the role monitor', async () => {
  // Listens beyond loopback; only loopback calls it.
  await using doors = await Doors.open({ httpListen: '0.0.0.0:0' });
  const statusFor = async (token: string | null): Promise<number> => {
    const headers: Record<string, string> = token === null ? {} : { authorization: `Bearer ${token}` };
    const response = await fetch(`http://127.0.0.1:${doors.httpPort}/metrics`, { headers });
    await response.arrayBuffer();
    return response.status;
  };
  assert.deepEqual([await statusFor(null), await statusFor('guess'), await statusFor(TOKENS.homeserver), await statusFor(TOKENS.monitor)], [401, 401, 401, 200]);
  assert.deepEqual(
    ['127.0.0.1:1', '127.8.9.1:1', '[::1]:1', 'localhost:1', '0.0.0.0:1', '127.0.0.1.example:1', '127.example:1', '[::]:1', '10.0.0.1:1'].map(isLoopback),
    [true, true, true, true, false, false, false, false, false],
  );
});

test('health tells SERVING for the server and each service, without a credential', async () => {
  await using doors = await Doors.open();
  const client = new Client(doors.grpc.address, credentials.createInsecure());
  const statusOf = (service: string): Promise<number> =>
    new Promise((resolve) => {
      const encode = (bytes: Buffer): Buffer => bytes;
      const request = Buffer.from(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service })));
      client.makeUnaryRequest('/grpc.health.v1.Health/Check', encode, (bytes) => fromBinary(HealthCheckResponseSchema, bytes), request, (error, response) => resolve(error?.code ?? response?.status ?? -1));
    });
  for (const service of ['', 'matrix.appservice.v1.AppserviceRouter', 'matrix.appservice.v1.AppserviceAdmin']) assert.equal(await statusOf(service), Serving.SERVING);
  assert.equal(codeName(await statusOf('none')), 'NOT_FOUND');
  client.close();
});

test('the descriptor of health names its map entry as every language wants it', () => {
  const list = healthFile.messages.find(({ name }) => name === 'HealthListResponse');
  assert.deepEqual(list?.proto.nestedType.map(({ name, options }) => [name, options?.mapEntry]), [['StatusesEntry', true]]);
});

test('a server has the larger receive windows, and connections beyond the limit are closed', async () => {
  const server = new Server();
  assert.ok(enlargeReceiveWindows(server) && limitConnections(server, 1));
  const port = await new Promise<number>((resolve, reject) => server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error))));
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  await once(session, 'remoteSettings');
  assert.equal(session.remoteSettings.initialWindowSize, STREAM_WINDOW_BYTES);
  await once(session, 'localSettings').catch(() => undefined);
  assert.ok((session.state.remoteWindowSize ?? 0) <= CONNECTION_WINDOW_BYTES);
  assert.equal(await exchange(port, 'x'), '');
  session.destroy();
  server.forceShutdown();
});

test('a grpc-js without the private method is left as it is', () => {
  const server = new Server();
  Reflect.set(server, 'createHttp2Server', undefined);
  assert.deepEqual([enlargeReceiveWindows(server), limitConnections(server, 1)], [false, false]);
});
