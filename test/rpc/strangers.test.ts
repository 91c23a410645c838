/** Who has no credential is answered before anything of a body is read, at both doors. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { Doors, TOKENS } from './doors.ts';

const SUBMIT = `/${AppserviceRouter.typeName}/SubmitEvents`;
const STREAM = `/${AppserviceRouter.typeName}/StreamEvents`;
const LENGTH = 10_000_000;

/** The head of a long request over HTTP/1.1, and what is answered before any of its body is sent. */
async function answeredTo(port: number, headers: string): Promise<{ status: string; closed: Promise<unknown> }> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  const closed = once(socket, 'close');
  socket.write(`POST ${SUBMIT} HTTP/1.1\r\nHost: x\r\n${headers}\r\n`);
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  return { status: bytes.toString('latin1').slice(9, 12), closed };
}

test('M10 the HTTP port answers a stranger before the body, whatever the framing, and ends the connection', async () => {
  await using doors = await Doors.open();
  for (const framing of [`Content-Length: ${LENGTH}`, 'Transfer-Encoding: chunked']) {
    for (const type of ['application/json', 'application/proto']) {
      for (const credential of ['', 'Authorization: Bearer wrong\r\n']) {
        const { status, closed } = await answeredTo(doors.httpPort, `${credential}Content-Type: ${type}\r\n${framing}\r\n`);
        assert.equal(status, '401');
        await closed;
      }
    }
  }
  const { status } = await answeredTo(doors.httpPort, `Authorization: Bearer ${TOKENS.monitor}\r\nContent-Type: application/json\r\nContent-Length: ${LENGTH}\r\n`);
  assert.equal(status, '403');
  // gRPC-Web tells its errors beside 200.
  assert.equal((await answeredTo(doors.httpPort, `Content-Type: application/grpc-web+proto\r\nContent-Length: ${LENGTH}\r\n`)).status, '200');
  assert.ok(doors.observed.every((line) => line === 'SubmitEvents 16' || line === 'SubmitEvents 7'));
  assert.equal(doors.observed.length, 10);
});

test('control: with a credential the HTTP port waits for the body', async () => {
  await using doors = await Doors.open({ timeLimits: { headersMs: 100, requestMs: 200, keepAliveMs: 100, firstBytesMs: 100, checkMs: 20 } });
  const { status } = await answeredTo(doors.httpPort, `Authorization: Bearer ${TOKENS.homeserver}\r\nContent-Type: application/json\r\nContent-Length: ${LENGTH}\r\n`);
  assert.equal(status, '408');
});

/** What comes back for the headers of a gRPC call of which no message is sent; null if nothing comes before `other` is answered. */
async function statusOf(address: string, path: string, token: string | null): Promise<string | undefined> {
  const session = connectHttp2(`http://${address}`);
  session.on('error', () => undefined);
  const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers', ...(token === null ? {} : { authorization: `Bearer ${token}` }) });
  stream.on('error', () => undefined);
  const [headers] = (await once(stream, 'response')) as [Record<string, string>];
  const trailers = new Promise<Record<string, string>>((resolve) => stream.on('trailers', resolve).on('end', () => resolve({})));
  stream.resume();
  const status = headers['grpc-status'] ?? (await trailers)['grpc-status'];
  assert.ok(headers['grpc-status-details-bin'] !== undefined || (await trailers)['grpc-status-details-bin'] !== undefined);
  session.destroy();
  return status;
}

test('M10 both ports answer a gRPC call without a credential before its message, with the reason', async () => {
  await using doors = await Doors.open();
  for (const address of [doors.grpc.address, doors.http.address]) {
    for (const path of [SUBMIT, STREAM]) {
      assert.equal(await statusOf(address, path, null), '16');
      assert.equal(await statusOf(address, path, 'wrong'), '16');
      assert.equal(await statusOf(address, path, TOKENS.monitor), '7');
    }
  }
  assert.equal(doors.observed.length, 12);
});
