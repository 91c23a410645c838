import assert from 'node:assert/strict';
import { connect as connectHttp2 } from 'node:http2';
import { test } from 'node:test';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { Doors, MALFORMED, TOKENS } from './doors.ts';

const SUBMIT = `/${AppserviceRouter.typeName}/SubmitEvents`;

test('a malformed message is the caller’s fault at the HTTP port, in protobuf as in JSON, and is counted as such', async () => {
  await using doors = await Doors.open();
  const errorFor = async (contentType: string, body: string | Buffer, path = SUBMIT): Promise<unknown> => {
    const response = await fetch(`http://${doors.http.address}${path}`, { method: 'POST', headers: { 'content-type': contentType, authorization: `Bearer ${TOKENS.homeserver}` }, body });
    const { code, message, details } = (await response.json()) as { code: string; message: string; details: { debug: { reason: string } }[] };
    assert.doesNotMatch(message, /parse binary/);
    return [response.status, code, details.map(({ debug }) => debug.reason)];
  };
  const refused = [400, 'invalid_argument', ['MALFORMED_MESSAGE']];
  for (const bytes of MALFORMED) assert.deepEqual(await errorFor('application/proto', Buffer.from(bytes)), refused);
  for (const text of ['', '{', '[]', '{"events": 1}', '{"events": [{"json": "§"}]}']) assert.deepEqual(await errorFor('application/json', text), refused);
  assert.deepEqual(doors.observed, Array.from({ length: MALFORMED.length + 5 }, () => 'SubmitEvents 3'));
});

test('a malformed message is INVALID_ARGUMENT in gRPC and gRPC-Web at the HTTP port, in unary calls and in streams', async () => {
  await using doors = await Doors.open();
  const malformed = Buffer.from(MALFORMED[0] ?? []);
  const envelope = Buffer.concat([Buffer.from([0, 0, 0, 0, malformed.length]), malformed]);
  const headers = { authorization: `Bearer ${TOKENS.homeserver}` };
  const web = await fetch(`http://${doors.http.address}${SUBMIT}`, { method: 'POST', headers: { ...headers, 'content-type': 'application/grpc-web+proto' }, body: envelope });
  const trailers = `${web.headers.get('grpc-status')} ${await web.text()}`;
  assert.match(trailers, /grpc-status: 3\r\n|^3 /);
  const session = connectHttp2(`http://${doors.http.address}`);
  for (const path of [SUBMIT, SUBMIT.replace('SubmitEvents', 'StreamEvents')]) {
    const call = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/grpc+proto', te: 'trailers', ...headers });
    call.end(envelope);
    const status = new Promise((resolve) => {
      call.on('response', (answer) => answer['grpc-status'] !== undefined && resolve(answer['grpc-status']));
      call.on('trailers', (answer) => resolve(answer['grpc-status']));
    });
    call.resume();
    assert.equal(await status, '3');
  }
  session.destroy();
  assert.deepEqual(doors.observed, ['SubmitEvents 3', 'SubmitEvents 3', 'StreamEvents 3']);
});
