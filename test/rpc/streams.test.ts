import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { createClient } from '@connectrpc/connect';
import type { ClientDuplexStream } from '@grpc/grpc-js';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { SubmitEventsRequest, SubmitEventsResponse } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { create } from '@bufbuild/protobuf';
import { SubmitEventsRequestSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { SubmissionResult } from '../../src/rpc/ports.ts';
import { codeName } from '../../src/rpc/status.ts';
import { RouterClient } from '../support/router-client.ts';
import { accepted, Doors, failing, failureOf, TOKENS, transportOf } from './doors.ts';
import type { CallError } from './doors.ts';

type Stream = ClientDuplexStream<SubmitEventsRequest, SubmitEventsResponse>;

/** What a stream brought: the number of events of each answer, and how it ended. */
function collected(stream: Stream): { answers: number[]; ended: Promise<CallError | null> } {
  const answers: number[] = [];
  stream.on('data', ({ accepted: count }: SubmitEventsResponse) => void answers.push(count));
  const ended = new Promise<CallError | null>((resolve) => {
    stream.on('error', (error) => resolve(failureOf(error)));
    stream.on('status', ({ code }) => {
      if (code === 0) resolve(null);
    });
  });
  return { answers, ended };
}

function message(eventCount: number, jsonBytes = 0): SubmitEventsRequest {
  return create(SubmitEventsRequestSchema, { events: Array.from({ length: eventCount }, () => ({ json: new Uint8Array(jsonBytes) })) });
}

const BAD = create(SubmitEventsRequestSchema, { events: [{ streamPosition: -1n }] });

/** A house that holds back each answer until the test gives it. */
function heldHouse(doors: Doors): { held: { count: number; bytes: number; give(): void }[]; arrived(count: number): Promise<void> } {
  const held: { count: number; bytes: number; give(): void }[] = [];
  let look: () => void = () => undefined;
  doors.house.router.submit = ({ events }) =>
    new Promise<SubmissionResult>((resolve) => {
      const bytes = events.reduce((sum, { json }) => sum + json.byteLength, 0);
      held.push({ count: events.length, bytes, give: () => resolve(accepted(events.length)) });
      look();
    });
  const arrived = (count: number): Promise<void> =>
    new Promise((resolve) => {
      look = () => {
        if (held.length >= count) resolve();
      };
      look();
    });
  return { held, arrived };
}

test('StreamEvents answers in request order although the house finishes out of order', async () => {
  await using doors = await Doors.open();
  const { held, arrived } = heldHouse(doors);
  using client = new RouterClient(doors.grpc.address, TOKENS.homeserver);
  const stream = client.bidi(AppserviceRouter.method.streamEvents);
  const { answers, ended } = collected(stream);
  for (const count of [1, 2, 3]) stream.write(message(count));
  stream.end();
  // Several messages are in the house at once: that is what lets them share a group commit.
  await arrived(3);
  for (const one of held.toReversed()) one.give();
  assert.equal(await ended, null);
  assert.deepEqual(answers, [1, 2, 3]);
  assert.deepEqual(doors.observed, ['StreamEvents 0']);
});

for (const halfClosed of [true, false]) {
  test(`a bad message ends StreamEvents with its status after the answers before it, ${halfClosed ? 'half-closed' : 'while the caller still writes'}`, async () => {
    await using doors = await Doors.open();
    using client = new RouterClient(doors.grpc.address, TOKENS.homeserver);
    const stream = client.bidi(AppserviceRouter.method.streamEvents);
    const { answers, ended } = collected(stream);
    for (const one of [message(1), message(2), BAD]) stream.write(one);
    if (halfClosed) stream.end();
    const failure = await ended;
    assert.deepEqual([codeName(failure?.code ?? 0), failure?.reason, failure?.field], ['INVALID_ARGUMENT', 'INVALID_FIELD', 'events[0].stream_position']);
    assert.deepEqual(answers, [1, 2]);
    assert.deepEqual(doors.observed, ['StreamEvents 3']);
  });
}

test('StreamEvents without a credential ends as UNAUTHENTICATED', async () => {
  await using doors = await Doors.open();
  using client = new RouterClient(doors.grpc.address, null);
  const stream = client.bidi(AppserviceRouter.method.streamEvents);
  const { ended } = collected(stream);
  stream.write(message(1));
  assert.equal((await ended)?.reason, 'CREDENTIAL_MISSING');
});

test('StreamEvents holds a bounded number of messages and of bytes in the house', async () => {
  await using doors = await Doors.open();
  const { held, arrived } = heldHouse(doors);
  using client = new RouterClient(doors.grpc.address, TOKENS.homeserver);
  for (const { jsonBytes, messageCount, inFlight } of [
    { jsonBytes: 0, messageCount: 100, inFlight: 32 },
    { jsonBytes: 3 * 1024 * 1024, messageCount: 5, inFlight: 3 },
  ]) {
    held.length = 0;
    const stream = client.bidi(AppserviceRouter.method.streamEvents);
    const { answers, ended } = collected(stream);
    for (let at = 0; at < messageCount; at++) stream.write(message(1, jsonBytes));
    stream.end();
    await arrived(inFlight);
    // A unary call made now goes through the whole door; had the stream gone on reading, its message would be there.
    let unary = 0;
    const heldSubmit = doors.house.router.submit;
    doors.house.router.submit = (submission) => (submission.stream === 'probe' ? Promise.resolve(accepted(++unary)) : heldSubmit(submission));
    for (let at = 0; at < 20; at++) await client.call(AppserviceRouter.method.submitEvents, { stream: 'probe' });
    assert.equal(held.length, inFlight);
    for (let at = 0; at < messageCount; at++) {
      await arrived(at + 1);
      held[at]?.give();
    }
    assert.equal(await ended, null);
    assert.equal(answers.length, messageCount);
    doors.house.router.submit = heldSubmit;
  }
});

test('a caller who goes away ends StreamEvents, and it is counted as cancelled', async () => {
  await using doors = await Doors.open();
  using client = new RouterClient(doors.grpc.address, TOKENS.homeserver);
  const stream = client.bidi(AppserviceRouter.method.streamEvents);
  stream.on('error', () => undefined);
  stream.write(message(1));
  await once(stream, 'data');
  stream.cancel();
  await doors.ended(1);
  assert.deepEqual(doors.observed, ['StreamEvents 1']);
});

test('drain answers what was read, then ends open streams as UNAVAILABLE with a delay', async () => {
  await using doors = await Doors.open();
  const { held, arrived } = heldHouse(doors);
  using client = new RouterClient(doors.grpc.address, TOKENS.homeserver);
  using operator = new RouterClient(doors.grpc.address, TOKENS.admin);
  const watch = operator.watch(AppserviceAdmin.method.watchEvents, {});
  watch.resume();
  const watchEnded = new Promise<CallError>((resolve) => watch.on('error', (error) => resolve(failureOf(error))));
  const stream = client.bidi(AppserviceRouter.method.streamEvents);
  const { answers, ended } = collected(stream);
  stream.write(message(4));
  await arrived(1);
  const drained = doors.grpc.drain();
  held[0]?.give();
  for (const failure of [await ended, await watchEnded]) {
    assert.deepEqual([codeName(failure?.code ?? 0), failure?.reason, failure?.retryDelayMs], ['UNAVAILABLE', 'DRAINING', 1_000]);
  }
  assert.deepEqual(answers, [4]);
  await drained;
  const late = failureOf(await failing(client.call(AppserviceRouter.method.submitEvents, {})));
  assert.equal(codeName(late.code), 'UNAVAILABLE');
});

test('M8 WatchEvents tells every kind of domain event, and how many a slow reader lost', async () => {
  await using doors = await Doors.open();
  const asked: (readonly string[])[] = [];
  doors.house.admin.watch = async function* (ids) {
    asked.push(ids);
    const common = { serverName: 'a.test', timeMs: 1_700_000_000_000 };
    yield await Promise.resolve({ record: { ...common, event: { kind: 'events_delivered', service_id: 'irc', transaction_id: '7', event_count: 3 } as const }, droppedCount: 0 });
    yield { record: { ...common, event: { kind: 'delivery_failed', service_id: 'irc', transaction_id: '8', retry_count: 2 } as const }, droppedCount: 5 };
    yield { record: { ...common, event: { kind: 'state_changed', service_id: 'irc', state: 'failed', paused: false } as const }, droppedCount: 0 };
    yield { record: { ...common, event: { kind: 'user_provisioned', service_id: 'irc', user_id: '@irc_x:a.test' } as const }, droppedCount: 0 };
    yield { record: { ...common, event: { kind: 'alias_provisioned', service_id: 'irc', alias: '#irc_x:a.test' } as const }, droppedCount: 0 };
    yield { record: { ...common, event: { kind: 'escalation', service_id: 'irc', error_rate: 0.0625 } as const }, droppedCount: 0 };
  };
  const expected = [
    ['eventsDelivered', 0n, { serviceId: 'irc', transactionId: '7', eventCount: 3 }],
    ['deliveryFailed', 5n, { serviceId: 'irc', transactionId: '8', retryCount: 2 }],
    ['stateChanged', 0n, { serviceId: 'irc', state: 4, paused: false }],
    ['userProvisioned', 0n, { serviceId: 'irc', userId: '@irc_x:a.test' }],
    ['aliasProvisioned', 0n, { serviceId: 'irc', alias: '#irc_x:a.test' }],
    ['escalation', 0n, { serviceId: 'irc', errorRate: 0.0625 }],
  ];
  const seen: unknown[] = [];
  for (const protocol of ['Connect with JSON', 'Connect with protobuf', 'gRPC-Web', 'gRPC on the HTTP port'] as const) {
    seen.length = 0;
    const client = createClient(AppserviceAdmin, transportOf(doors, protocol));
    for await (const { event, droppedCount, time } of client.watchEvents({ appserviceIds: ['irc'] }, { headers: { authorization: `Bearer ${TOKENS.monitor}` } })) {
      assert.equal(time?.seconds, 1_700_000_000n);
      const { $typeName, ...fields } = event.value ?? { $typeName: '' };
      seen.push([event.case, droppedCount, fields]);
      assert.ok($typeName);
    }
    assert.deepEqual(seen, expected, protocol);
  }
  assert.deepEqual(asked, Array.from({ length: 4 }, () => ['irc']));
  assert.deepEqual(doors.observed, Array.from({ length: 4 }, () => 'WatchEvents 0'));
});

test('a stream that fails at the HTTP door is counted by its code', async () => {
  await using doors = await Doors.open();
  const client = createClient(AppserviceAdmin, transportOf(doors, 'Connect with JSON'));
  const read = async (): Promise<void> => {
    for await (const event of client.watchEvents({}, { headers: { authorization: 'Bearer guess' } })) assert.fail(event.$typeName);
  };
  assert.equal(failureOf(await failing(read())).reason, 'CREDENTIAL_UNKNOWN');
  assert.deepEqual(doors.observed, ['WatchEvents 16']);
});

/** A stream's request of no fields, in the envelope of Connect and gRPC-Web. */
const EMPTY_MESSAGE = Buffer.from([0, 0, 0, 0, 0]);
const EMPTY_JSON = Buffer.from([0, 0, 0, 0, 2, 0x7b, 0x7d]);

test('M8 WatchEvents sends its headers at once, by every protocol, and tells whatever happens after them', async () => {
  await using doors = await Doors.open();
  let emit: () => void = () => undefined;
  // As the event feed does it: what happens from the call on is kept for the reader.
  doors.house.admin.watch = (_ids, signal) => {
    const happened = new Promise<void>((resolve) => {
      emit = resolve;
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    return (async function* () {
      await happened;
      if (!signal.aborted) yield { record: { serverName: 'a.test', timeMs: 0, event: { kind: 'user_provisioned', service_id: 'irc', user_id: '@irc_x:a.test' } as const }, droppedCount: 0 };
    })();
  };
  for (const address of [doors.grpc.address, doors.http.address]) {
    using client = new RouterClient(address, TOKENS.admin);
    const watch = client.watch(AppserviceAdmin.method.watchEvents, {});
    await once(watch, 'metadata');
    emit();
    await once(watch, 'data');
    watch.on('error', () => undefined);
    watch.cancel();
  }
  for (const [contentType, body] of [['application/connect+json', EMPTY_JSON], ['application/connect+proto', EMPTY_MESSAGE], ['application/grpc-web+proto', EMPTY_MESSAGE]] as const) {
    const response = await fetch(`http://${doors.http.address}/${AppserviceAdmin.typeName}/WatchEvents`, { method: 'POST', body, headers: { 'content-type': contentType, authorization: `Bearer ${TOKENS.admin}` } });
    assert.deepEqual([response.status, response.headers.get('content-type')], [200, contentType]);
    emit();
    const reader = response.body?.getReader();
    assert.ok(((await reader?.read())?.value?.byteLength ?? 0) > 20, contentType);
    await reader?.cancel();
  }
  await doors.ended(5);
});
