import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { Appservice_HeldBy as HeldBy, DeliveryState } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { AppserviceRouter, SubmitEventsRequestSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { hang, Receiver } from '../support/receiver.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { errorOf } from '../support/router-client.ts';
import type { RouterClient } from '../support/router-client.ts';
import { failedAttempt, put, registrationYaml, RouterHome, statusOf, submit } from '../support/router-home.ts';
import { eventJson } from '../support/routing.ts';

const UNAVAILABLE = 14;
const LIMIT = { timeout: 60_000 };

test('the ready line tells the addresses, and the probes answer on them', LIMIT, async () => {
  await using home = await RouterHome.make();
  const router = await home.start();
  const ready = await router.line(({ msg }) => msg === 'ready');
  assert.match(String(ready['grpc_address']), /^127\.0\.0\.1:[1-9]\d+$/);
  assert.match(String(ready['http_address']), /^127\.0\.0\.1:[1-9]\d+$/);
  assert.deepEqual([ready.level, ready['store'], ready['server_name']], ['info', `sqlite:${home.path('router.db')}`, 'hs.test']);
  assert.deepEqual(router.otherOutput, [], 'every line is JSON');
  const fetched = async (path: string): Promise<[number, string]> => {
    const response = await fetch(`http://${router.httpAddress}${path}`);
    return [response.status, await response.text()];
  };
  assert.deepEqual(await fetched('/healthz'), [200, '{"status":"ok"}\n']);
  assert.deepEqual(await fetched('/readyz'), [200, '{"ready":true}\n']);
  const [status, metrics] = await fetched('/metrics');
  assert.equal(status, 200);
  assert.match(metrics, /^appservice_router_build_info\{version="[^"]+"\} 1$/m);
  assert.equal((await fetched('/nowhere'))[0], 404);
  await submit(router.client('homeserver'), 'over-grpc', 1);
});

test('the first start creates credentials, key and store for the owner alone; the second keeps them', LIMIT, async () => {
  await using home = await RouterHome.make();
  const files = ['credentials.json', 'encryption.key', 'router.db'];
  const first = await home.start();
  assert.deepEqual(files.map((file) => statSync(home.path(file)).mode & 0o777), [0o600, 0o600, 0o600]);
  const { homeserver, admin } = first.tokens();
  assert.ok(homeserver.length >= 32 && admin.length >= 32 && homeserver !== admin);
  await put(first.client('admin'), registrationYaml('irc', 'http://127.0.0.1:1'));
  const kept = files.slice(0, 2).map((file) => readFileSync(home.path(file), 'utf8'));
  assert.equal(await first.terminate(), 0);
  const second = await home.start();
  assert.deepEqual(files.slice(0, 2).map((file) => readFileSync(home.path(file), 'utf8')), kept);
  assert.equal((await statusOf(second.client('admin'), 'irc')).appserviceId, 'irc');
});

/** Calls until one fails; the ids of what was acknowledged, in order, and the code of the failure. */
async function submitUntilRefused(client: RouterClient, name: string): Promise<{ acknowledged: string[]; code: number }> {
  const acknowledged: string[] = [];
  for (let n = 1; ; n++) {
    try {
      acknowledged.push(...(await submit(client, `${name}-${n}`, 7)).ids);
    } catch (error) {
      return { acknowledged, code: errorOf(error).code };
    }
  }
}

/** The same on one stream, with a few messages under way. */
async function streamUntilRefused(client: RouterClient): Promise<{ acknowledged: string[]; code: number }> {
  const call = client.bidi(AppserviceRouter.method.streamEvents);
  const acknowledged: string[] = [];
  let sent = 0;
  const send = (): void => {
    sent += 1;
    if (call.writable) call.write(create(SubmitEventsRequestSchema, { events: [{ json: eventJson({ id: `$streamed-${sent}` }) }] }));
  };
  call.on('data', () => {
    acknowledged.push(`$streamed-${acknowledged.length + 1}`);
    send();
  });
  for (let n = 0; n < 5; n++) send();
  const failed: unknown[] = await once(call, 'error');
  return { acknowledged, code: errorOf(failed[0]).code };
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`R57 R60 R65 I1 I2 I6 ${signal} under traffic ends with exit code 0; callers see UNAVAILABLE alone, and nothing acknowledged is lost or repeated`, LIMIT, async () => {
    await using home = await RouterHome.make();
    await using receiver = await RecordingReceiver.start();
    receiver.delayMs = 3;
    const appservices = ['alpha', 'beta'];
    const router = await home.start();
    for (const id of appservices) await put(router.client('admin'), registrationYaml(id, `${receiver.url}/${id}`));
    const callers = ['one', 'two', 'three'].map((name) => submitUntilRefused(router.client('homeserver'), name));
    const stream = streamUntilRefused(router.client('homeserver'));
    await receiver.until(() => receiver.received.length >= 30);
    router.child.kill(signal);
    const ends = await Promise.all([...callers, stream]);
    assert.deepEqual(ends.map(({ code }) => code), [UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE]);
    assert.equal(await router.exited, 0);
    assert.ok(router.lines.some(({ msg }) => msg === 'drained'));
    assert.deepEqual(router.lines.filter(({ level }) => level === 'error'), []);

    const again = await home.start();
    const { ids: last } = await submit(again.client('homeserver'), 'last', 1);
    for (const id of appservices) {
      await receiver.until(() => receiver.taken(id).includes(last[0] ?? ''));
      const taken = receiver.taken(id);
      for (const { acknowledged } of ends) {
        assert.ok(acknowledged.length > 0);
        // What was taken over and not answered any more may follow.
        const mine = taken.filter((eventId) => eventId.startsWith((acknowledged[0] ?? '').replace(/\d.*$/, '')));
        assert.deepEqual(mine.slice(0, acknowledged.length), acknowledged);
      }
      assert.deepEqual(receiver.violations(id, 0), []);
    }
  });
}

test('R65 a drain does not wait for ever for an appservice that hangs, nor does an operator who says so again; the transaction goes out again', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using hanging = await Receiver.start(hang);
  const first = await home.start();
  await put(first.client('admin'), registrationYaml('slow', hanging.url));
  const { ids } = await submit(first.client('homeserver'), 'held', 2);
  await hanging.received(1);
  assert.equal(await first.terminate(), 0);

  const second = await home.start();
  await hanging.received(2);
  // Signals close together are one request, so an impatient operator repeats it.
  const impatient = setInterval(() => second.child.kill('SIGTERM'), 200);
  assert.equal(await second.exited, null, 'it was killed');
  clearInterval(impatient);

  await home.start();
  await hanging.received(3);
  const bodies = hanging.requests.map(({ target, body }) => [target, body.toString()]);
  assert.deepEqual(bodies[1], bodies[0], 'I3 Frozen');
  assert.deepEqual(bodies[2], bodies[0], 'I3 Frozen');
  const { events } = JSON.parse(String(bodies[0]?.[1])) as { events: { event_id: string }[] };
  assert.deepEqual(events.map((event) => event.event_id), ids);
});

test('R60 R65 R69 a start takes up the backlog without new traffic, in full transactions behind the one that was attempted', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  receiver.answer = () => 'error';
  const first = await home.start();
  await put(first.client('admin'), registrationYaml('irc', `${receiver.url}/irc`));
  const homeserver = first.client('homeserver');
  const attempted = await submit(homeserver, 'attempted', 1);
  await failedAttempt(first, 'irc');
  const waiting = await submit(homeserver, 'waiting', 250);
  assert.equal(await first.terminate(), 0);
  receiver.answer = () => 'ok';
  await home.start();
  await receiver.until(() => receiver.taken('irc').length === 251);
  assert.deepEqual(receiver.taken('irc'), [...attempted.ids, ...waiting.ids]);
  assert.deepEqual(receiver.received.filter(({ answer }) => answer === 'ok').map(({ eventIds }) => eventIds.length), [1, 100, 100, 50]);
  assert.deepEqual(receiver.violations('irc', 0), []);
});

test('a pause survives a restart: nothing is attempted until an operator resumes', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  const first = await home.start();
  const operator = first.client('admin');
  for (const id of ['paused', 'other']) await put(operator, registrationYaml(id, `${receiver.url}/${id}`));
  await operator.call(AppserviceAdmin.method.pauseDelivery, { appserviceId: 'paused' });
  const before = await submit(first.client('homeserver'), 'before', 3);
  assert.equal(await first.terminate(), 0);

  const second = await home.start();
  const after = await submit(second.client('homeserver'), 'after', 2);
  const ids = [...before.ids, ...after.ids];
  await receiver.until(() => receiver.taken('other').length === ids.length);
  const { paused, heldBy, state, backlogEntries, attempts } = await statusOf(second.client('admin'), 'paused');
  assert.deepEqual([paused, heldBy, state, backlogEntries, attempts], [true, HeldBy.PAUSED, DeliveryState.IDLE, 5n, 0n]);
  assert.deepEqual(receiver.taken('paused'), []);
  await second.client('admin').call(AppserviceAdmin.method.resumeDelivery, { appserviceId: 'paused' });
  await receiver.until(() => receiver.taken('paused').length === ids.length);
  assert.deepEqual(receiver.taken('paused'), ids);
});
