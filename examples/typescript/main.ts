/** A homeserver that registers an appservice, submits a room's life and watches it being delivered. See README.md. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { create } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import type { Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from '../../gen/google/rpc/error_details_pb.ts';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter, AuthorizeIdentifierRequest_Action as Action, SubmitEventsRequestSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';

const ATTEMPTS_MAX = 5;
const DELIVERY_TIMEOUT_MS = 20_000;

const baseUrl = `http://${process.env['ROUTER_HTTP_ADDRESS'] ?? '127.0.0.1:8080'}`;
const admin = createClient(AppserviceAdmin, transportFor('ROUTER_ADMIN_TOKEN'));
const router = createClient(AppserviceRouter, transportFor('ROUTER_HOMESERVER_TOKEN'));

function transportFor(tokenName: string): ReturnType<typeof createConnectTransport> {
  const token = process.env[tokenName];
  if (token === undefined) throw new Error(`Set ${tokenName}; the router's first start wrote it to data/credentials.json.`);
  const authorize: Interceptor = (next) => (request) => {
    request.header.set('authorization', `Bearer ${token}`);
    return next(request);
  };
  return createConnectTransport({ baseUrl, httpVersion: '1.1', interceptors: [authorize] });
}

/** Repeats a call while the router cannot take it. Safe for submissions: their stream positions make a repetition a duplicate. */
async function retried<Answer>(call: () => Promise<Answer>): Promise<Answer> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const failure = ConnectError.from(error);
      if (attempt === ATTEMPTS_MAX || (failure.code !== Code.Unavailable && failure.code !== Code.ResourceExhausted)) throw error;
      const delay = failure.findDetails(RetryInfoSchema)[0]?.retryDelay;
      const delayMs = delay === undefined ? 1_000 : Number(delay.seconds) * 1_000 + delay.nanos / 1e6;
      console.log(`${Code[failure.code]}: again in ${delayMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, delayMs));
    }
  }
}

/** The other side: an appservice takes transactions and says so with 200. It would also remember their ids. */
const received: string[] = [];
const appservice = createServer((request, response) => {
  let body = '';
  request.setEncoding('utf8').on('data', (text: string) => (body += text));
  request.on('end', () => {
    for (const { event_id: id } of (JSON.parse(body || '{"events":[]}') as { events: { event_id: string }[] }).events) received.push(id);
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  });
}).listen(0, '127.0.0.1');
await once(appservice, 'listening');

const yaml = `id: example-typescript
url: http://127.0.0.1:${(appservice.address() as AddressInfo).port}
as_token: example-secret-that-the-appservice-sends-ts
hs_token: example-secret-that-the-router-sends-ts
sender_localpart: example-typescript
rate_limited: false
namespaces:
  aliases:
    - regex: "#example_.*"
      exclusive: true
`;
const { registration, warnings } = await admin.putRegistration({ source: { case: 'yaml', value: yaml } });
console.log(`registered ${registration?.id}`, warnings.map(({ code }) => code).join(' '));

// The watch begins before the first event, so that it misses none.
const watching = new AbortController();
let delivered = 0;
const watched = (async () => {
  for await (const { event } of admin.watchEvents({ appserviceIds: ['example-typescript'] }, { signal: watching.signal })) {
    if (event.case === 'eventsDelivered') delivered += event.value.eventCount;
  }
})().catch((error: unknown) => {
  if (!watching.signal.aborted) throw error;
});

const run = Date.now();
const roomId = `!ts${run}:localhost`;
const common = { room_id: roomId, sender: '@alice:localhost', origin_server_ts: run };
const life = [
  { type: 'm.room.create', state_key: '', content: { room_version: '11' } },
  { type: 'm.room.member', state_key: '@alice:localhost', content: { membership: 'join' } },
  ...['Hello', 'Anybody here?', 'Bye'].map((body) => ({ type: 'm.room.message', content: { msgtype: 'm.text', body } })),
];
const submission = create(SubmitEventsRequestSchema, {
  // A stream of its own, so that the example can be run again on the same router.
  stream: `ts-${run}`,
  rooms: [{ roomId, localAliases: { roomAliases: ['#example_tea:localhost'] }, localMembers: { userIds: [] } }],
  events: life.map((event, at) => ({ json: new TextEncoder().encode(JSON.stringify({ event_id: `$ts${run}-${at}`, ...common, ...event })), streamPosition: BigInt(at + 1) })),
});
const first = await retried(() => router.submitEvents(submission));
console.log(`submitted: ${first.accepted} accepted, ${first.routed} routed, stream position ${first.streamPosition}`);
const second = await retried(() => router.submitEvents(submission));
console.log(`submitted again: ${second.duplicates} duplicates`);

const claim = await router.checkNamespace({ subject: { case: 'roomAlias', value: '#example_tea:localhost' } });
console.log(`#example_tea:localhost is claimed by ${claim.exclusiveAppserviceIds.join(', ')}, exclusively: ${claim.exclusive}`);
const refusal = await router
  .authorizeIdentifier({ subject: { case: 'roomAlias', value: '#example_new:localhost' }, action: Action.CREATE, actor: { case: 'personUserId', value: '@alice:localhost' } })
  .then(() => null, (error: unknown) => ConnectError.from(error).findDetails(ErrorInfoSchema)[0]);
console.log(`@alice:localhost may not create #example_new:localhost: ${refusal?.reason}, answer ${refusal?.metadata['http_status']} ${refusal?.metadata['errcode']}`);
const malformed = await router
  .submitEvents({ events: [{ json: new TextEncoder().encode('{"type": 7}') }] })
  .then(() => null, (error: unknown) => ConnectError.from(error).findDetails(BadRequestSchema)[0]?.fieldViolations[0]);
console.log(`an event that is none: ${malformed?.field}: ${malformed?.description}`);

for (const untilMs = Date.now() + DELIVERY_TIMEOUT_MS; (delivered < life.length || received.length < life.length) && Date.now() < untilMs; ) await new Promise((resolve) => setTimeout(resolve, 20));
watching.abort();
await watched;
appservice.close();
appservice.closeAllConnections();
const isComplete = received.length === life.length && received.every((id, at) => id === `$ts${run}-${at}`) && second.duplicates === life.length && refusal?.reason === 'APPSERVICE_NAMESPACE_CONFLICT' && malformed?.field === 'events[0].json';
console.log(`${isComplete ? 'done' : 'FAILED'}: ${received.length} of ${life.length} events received in order, ${delivered} seen delivered, ${second.duplicates} duplicates recognised`);
process.exitCode = isComplete ? 0 : 1;
