/** What is wrong with what homeservers, appservices and operators send, through the doors of a whole router: clear refusals, nothing of a refused request applied, other appservices untouched. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import type { DescMessage, DescMethodUnary, MessageInitShape } from '@bufbuild/protobuf';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { errorOf } from '../support/router-client.ts';
import type { RouterClient } from '../support/router-client.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { put } from '../support/router-home.ts';
import { eventJson } from '../support/routing.ts';
import { startService } from '../support/service-world.ts';

const { submitEvents, queryUser, checkNamespace, authenticateAppservice, pingAppservice, listThirdPartyProtocols, queryThirdPartyUsers, getStreamPosition } = AppserviceRouter.method;
const LIMIT = { timeout: 60_000 };
const AS_TOKEN = 'as-Mixed-Case-long-enough';
const FIELD_AT_FAULT = /^(?:ephemeral\[0\]\.json|to_device\[0\]\.to_(?:user|device)_id|unknown_user_ids\[0\])$/;

function yaml(id: string, url: string, asToken = `as-${id}-long-enough`): string {
  return `id: ${id}
url: ${url}
as_token: ${asToken}
hs_token: hs-${id}-long-enough
sender_localpart: _${id}_bot
receive_ephemeral: true
protocols: [wrong, big, endless]
namespaces:
  users: [{ exclusive: true, regex: '@${id}_.*:hs\\.test' }]
  rooms: [{ exclusive: false, regex: '!' }]
`;
}

/** An appservice whose answers are good for nothing, but for its transactions. */
async function hostile(): Promise<{ url: string } & AsyncDisposable> {
  const endless = new Set<ServerResponse>();
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    if (request.method === 'PUT') {
      request.resume().on('end', () => response.end('{}'));
    } else if (path.endsWith('/ping')) response.writeHead(500).end(Buffer.from([0, 1, 255, 254, 128, 13, 10]));
    else if (path.endsWith('/wrong') && path.includes('/protocol/')) response.end('[1, "x", null]');
    else if (path.endsWith('/big')) response.end(`{"fields":"${'x'.repeat(20_000_000)}"}`);
    else if (path.endsWith('/endless')) {
      response.write('{');
      endless.add(response);
    } else if (path.includes('/user/')) response.end('[{"userid": 5}, null, 7, {"userid": "@irc_ok:hs.test", "protocol": "wrong", "fields": {}}]');
    // Nothing that a redirect names is connected to: this port is closed.
    else response.writeHead(302, { location: 'http://127.0.0.1:1/latest/meta-data/' }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
    async [Symbol.asyncDispose]() {
      for (const response of endless) response.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const bytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const receipt = (content: unknown): Buffer => bytes({ type: 'm.receipt', room_id: '!r:hs.test', content });
const read = (value: unknown): Buffer => receipt({ $e: { 'm.read': value } });

async function refusal<I extends DescMessage, O extends DescMessage>(client: RouterClient, method: DescMethodUnary<I, O>, request: MessageInitShape<I>): Promise<{ reason: string | undefined; field: string | undefined; message: string }> {
  try {
    await client.call(method, request);
  } catch (error) {
    const { reason, field, message } = errorOf(error);
    return { reason, field, message };
  }
  return assert.fail('it was taken');
}

test('M11 R83 R85 R89 R119 a bad submission is refused whole at the field at fault, and nobody hears of it', LIMIT, async () => {
  await using receiver = await RecordingReceiver.start();
  await using world = await startService();
  await put(world.admin, yaml('irc', `${receiver.url}/irc`));
  const users = Object.fromEntries(Array.from({ length: 5_000 }, (_, at) => [`@u${at}:hs.test`, { ts: at }]));
  const bad: { ephemeral?: { json: Buffer }[]; toDevice?: { json: Buffer; toUserId?: string }[]; unknownUserIds?: string[] }[] = [
    ...[receipt([]), receipt(null), receipt('x'), receipt({ $e: [] }), read([]), read({ '@a:hs.test': 5 }), read({ '@a:hs.test': { ts: -1 } }), read({ '@a:hs.test': { ts: '1' } }), read({ '@a:hs.test': { ts: 1.5 } }), read(users), bytes({ type: 'm.receipt', content: {} }), bytes({ type: 'm.typing', room_id: '!r:hs.test', content: { user_ids: '@a:hs.test' } }), bytes({ type: 'm.presence', sender: 5, content: {} }), bytes({ type: 'm.tag', content: {} }), bytes([])].map((json) => ({ ephemeral: [{ json }] })),
    { toDevice: [{ json: bytes({ type: 'x', sender: '@a:hs.test', content: {} }) }] },
    { toDevice: [{ json: bytes({ type: 'x', sender: '@a:hs.test', content: {} }), toUserId: '@irc_a:hs.test' }] },
    ...['', 'irc', '@irc_a', `@irc_${'x'.repeat(10_000)}:hs.test`, '@irc_a:elsewhere.test', '@irc_a:hs.test:x'].map((userId) => ({ unknownUserIds: [userId] })),
  ];
  for (const [at, request] of bad.entries()) {
    const { reason, field } = await refusal(world.homeserver, submitEvents, { ...request, events: [{ json: eventJson({ id: `$refused${at}` }), streamPosition: 5n }] });
    assert.equal(reason, 'INVALID_FIELD', `request ${at}`);
    assert.match(field ?? '', FIELD_AT_FAULT, `request ${at}`);
  }
  assert.equal((await world.homeserver.call(getStreamPosition, {})).streamPosition, 0n, 'no position has passed');
  await world.homeserver.call(submitEvents, { events: [{ json: eventJson({ id: '$good' }), streamPosition: 5n }], ephemeral: [{ json: receipt({ $e: { 'org.unknown': { '@a:hs.test': { ts: 1 } } } }), streamPosition: 5n }] });
  await receiver.until(() => receiver.taken('irc').length > 0);
  assert.deepEqual(receiver.taken('irc'), ['$good']);
});

test('R18 R120 R138 odd identifiers and tokens are looked up as they are, or refused, and never told back', LIMIT, async () => {
  await using world = await startService();
  await put(world.admin, yaml('irc', 'http://127.0.0.1:1', AS_TOKEN));
  for (const userId of ['@irc_a/b:hs.test', '@irc_100%:hs.test', '@irc_a%2Fb?#:hs.test', '@irc_\u00e9\u{1f600}:hs.test']) {
    assert.deepEqual((await world.homeserver.call(checkNamespace, { subject: { case: 'userId', value: userId } })).exclusiveAppserviceIds, ['irc'], userId);
  }
  // A dot matches no line feed, as in deployed homeservers; it is nobody's, and nobody is asked.
  assert.equal((await world.homeserver.call(queryUser, { userId: '@irc_a\nb:hs.test' })).exists, false);
  for (const userId of ['', 'irc', '@irc_a', `@irc_${'x'.repeat(10_000)}:hs.test`]) assert.deepEqual((await refusal(world.homeserver, queryUser, { userId })).field, 'user_id');
  for (const asToken of [AS_TOKEN.toUpperCase(), AS_TOKEN.toLowerCase(), `${AS_TOKEN}\n`, ` ${AS_TOKEN}`, '']) {
    const { reason, message } = await refusal(world.homeserver, authenticateAppservice, { asToken });
    assert.equal(reason, 'APPSERVICE_UNKNOWN_TOKEN', JSON.stringify(asToken));
    assert.doesNotMatch(message, /mixed-case/i);
    const { result } = await world.homeserver.call(pingAppservice, { appservice: { case: 'asToken', value: asToken } }).catch(() => ({ result: { case: undefined } as const }));
    if (result.case !== undefined) assert.deepEqual(result.case === 'failure' && result.value.errcode, 'M_FORBIDDEN');
  }
  assert.equal((await world.homeserver.call(authenticateAppservice, { asToken: AS_TOKEN })).appserviceId, 'irc');
});

test('R116 R125 R127 R135 I8 answers of the wrong type, of megabytes, without end, binary, or that lead elsewhere are none, and touch nobody else', LIMIT, async () => {
  await using bad = await hostile();
  await using receiver = await RecordingReceiver.start();
  await using world = await startService({ settings: { queryTimeoutMs: 500, queryAttemptsMax: 1 } });
  await put(world.admin, yaml('irc', bad.url));
  await put(world.admin, yaml('fine', `${receiver.url}/fine`).replace(/^protocols:.*\n/m, ''));
  const pinged = (await world.homeserver.call(pingAppservice, { appservice: { case: 'appserviceId', value: 'irc' } })).result;
  assert.ok(pinged.case === 'failure');
  assert.deepEqual([pinged.value.errcode, pinged.value.httpStatus, pinged.value.status], ['M_BAD_STATUS', 502, 500]);
  for (const protocol of ['wrong', 'big', 'endless']) {
    const { protocols, failedAppserviceIds } = await world.homeserver.call(listThirdPartyProtocols, { protocol });
    assert.ok(failedAppserviceIds.includes('irc'), protocol);
    assert.deepEqual(protocols, [], protocol);
  }
  const { users } = await world.homeserver.call(queryThirdPartyUsers, { query: { case: 'protocol', value: 'wrong' } });
  assert.deepEqual(users.map(({ userId }) => userId), ['@irc_ok:hs.test']);
  // A redirect is an answer and not followed.
  assert.equal((await refusal(world.homeserver, queryUser, { userId: '@irc_x:hs.test' })).reason, 'APPSERVICE_SERVICE_UNAVAILABLE');
  await world.homeserver.call(submitEvents, { events: [{ json: eventJson({ id: '$after' }) }] });
  await receiver.until(() => receiver.taken('fine').length > 0);
  assert.deepEqual(receiver.taken('fine'), ['$after']);
});
