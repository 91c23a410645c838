/** What a refused message of StreamEvents leaves behind: nothing of what was written after it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { AppserviceRouter, SubmitEventsRequestSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { eventJson } from '../support/routing.ts';
import { startService } from '../support/service-world.ts';

const { method } = AppserviceRouter;

test('I1 after a message of a stream is refused none after it is taken over, so nothing is a duplicate when it is sent again', { timeout: 20_000 }, async () => {
  await using world = await startService();
  const stream = world.homeserver.bidi(method.streamEvents);
  stream.on('data', () => undefined);
  const failed = once(stream, 'error').catch((error: unknown) => [error]);
  for (let at = 1; at <= 20; at++) {
    const json = at === 5 ? Buffer.from('{"not":"an event"}') : eventJson({ id: `$${at}` });
    stream.write(create(SubmitEventsRequestSchema, { events: [{ json, streamPosition: BigInt(at) }] }));
  }
  await failed;
  const { streamPosition } = await world.homeserver.call(method.getStreamPosition, {});
  assert.equal(streamPosition, 4n);
});
