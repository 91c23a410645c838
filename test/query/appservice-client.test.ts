import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeliveryOptions, Registration } from '../../src/appservice/registration.ts';
import { AppserviceClient, LEGACY_FIRST_MS } from '../../src/query/appservice-client.ts';
import type { AppserviceResult } from '../../src/query/appservice-client.ts';
import { AppserviceTargets } from '../../src/query/appservice-target.ts';
import { legacyPathOf } from '../../src/query/legacy-paths.ts';
import { HS_TOKEN, PushWorld, registrationFor } from '../support/push-world.ts';
import { answer, close, endless, hang, raw, Receiver, reset } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';

const V1 = '/_matrix/app/v1/transactions/7';
const LEGACY = '/transactions/7';
const BODY = '{"events":[]}';
const UNRECOGNIZED = '{"errcode":"M_UNRECOGNIZED"}';
const ok = answer(200);

/** An appservice that answers each of the two paths by a script of its own. */
function both(v1: Script, legacy: Script): Script {
  return (connection, request) => (request.target.startsWith('/_matrix/app/v1/') ? v1 : legacy)(connection, request);
}

class LegacyWorld implements AsyncDisposable {
  readonly push = new PushWorld();
  readonly clock = this.push.clock;
  readonly appservices = new AppserviceClient({ client: this.push.client, clock: this.push.clock });
  readonly #targets = new AppserviceTargets();

  /** As a PUT with a body; as a GET for any other path. Shown as the path that decided and the status or failure. */
  async ask(registration: Registration, path = V1, timeoutMs = 10_000): Promise<string> {
    const { path: decisive, result } = await this.request(registration, path, timeoutMs);
    return `${decisive} ${result.kind === 'answered' ? result.status : result.kind === 'failed' ? result.failure : result.kind}`;
  }

  request(registration: Registration, path: string, timeoutMs: number, signal = new AbortController().signal): Promise<AppserviceResult> {
    const target = this.#targets.of('example.org', registration);
    assert.ok(target !== null);
    const body = path === V1 ? Buffer.from(BODY) : null;
    return this.appservices.request(target, registration, { method: body === null ? 'GET' : 'PUT', path, body, timeoutMs, bodyTimeoutMs: 1_000 }, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.push[Symbol.asyncDispose]();
  }
}

const at = (receiver: Receiver, legacy_paths: NonNullable<DeliveryOptions['legacy_paths']>, rest: DeliveryOptions = {}): Registration => registrationFor(receiver.url, { delivery_options: { legacy_paths, ...rest } });
const pathsOf = ({ requests }: Receiver): string[] => requests.map(({ target }) => target);

/** What one attempt comes to, and how many requests it took. */
async function outcome(policy: NonNullable<DeliveryOptions['legacy_paths']>, v1: Script, legacy: Script = ok): Promise<string> {
  await using world = new LegacyWorld();
  await using receiver = await Receiver.start(both(v1, legacy));
  return `${await world.ask(at(receiver, policy))} of ${receiver.requests.length}`;
}

test('R107 R108 each endpoint has its exact legacy path, its query included; pings, keys and what is no path of version 1 have none', () => {
  const paths = ['transactions/1', 'users/%40x%3Ay', 'rooms/%23x%3Ay', 'thirdparty/protocol/irc', 'thirdparty/user/irc?nick=a', 'thirdparty/location/irc', 'thirdparty/user?userid=%40x', 'thirdparty/location?alias=%23x'];
  assert.deepEqual(
    paths.map((path) => legacyPathOf(`/_matrix/app/v1/${path}`)?.path),
    ['/transactions/1', '/users/%40x%3Ay', '/rooms/%23x%3Ay', ...paths.slice(3).map((path) => `/_matrix/app/unstable/${path}`)],
  );
  for (const path of ['/_matrix/app/v1/ping', '/_matrix/app/unstable/org.matrix.msc3983/keys/claim', '/_matrix/app/v2/users/x', '/users/x', '/_matrix/app/v1/usersx']) assert.equal(legacyPathOf(path), null, path);
});

test('R103 v1 is asked first, and where it answers with success the legacy path is never tried', async () => {
  for (const policy of ['off', 'unrecognized', 'any_error'] as const) for (const status of [200, 202, 204]) assert.equal(await outcome(policy, answer(status)), `v1 ${status} of 1`);
});

test('R104 without a policy no answer leads to the legacy path', async () => {
  for (const status of [301, 400, 404, 405, 500]) assert.equal(await outcome('off', answer(status, UNRECOGNIZED)), `v1 ${status} of 1`);
});

test('R104 unrecognized: 404 and 405 with M_UNRECOGNIZED, nothing or no JSON, and 400 with M_UNRECOGNIZED lead to the legacy path', async () => {
  for (const status of [404, 405]) {
    for (const body of [UNRECOGNIZED, '{"error":"x","errcode":"M_UNRECOGNIZED"}', '', ' \n', '<html>Cannot PUT</html>', 'Not Found', '{"errcode":']) {
      assert.equal(await outcome('unrecognized', answer(status, body)), 'legacy 200 of 2', `${status} ${body}`);
    }
  }
  assert.equal(await outcome('unrecognized', answer(400, UNRECOGNIZED)), 'legacy 200 of 2');
  assert.equal(await outcome('unrecognized', endless('HTTP/1.1 404 X\r\n\r\n', '<p>not here</p>'.repeat(1_000))), 'legacy 200 of 2');
});

test('R104 R105 unrecognized: no other answer does, a JSON 404 with another errcode, 413, 429 and 503 included', async () => {
  for (const [status, body] of [[404, '{"errcode":"M_NOT_FOUND"}'], [404, '{}'], [404, '[]'], [405, '{"errcode":"M_FORBIDDEN"}'], [400, ''], [400, '<html>'], [400, '{"errcode":"M_BAD_JSON"}']] as const) {
    assert.equal(await outcome('unrecognized', answer(status, body)), `v1 ${status} of 1`, body);
  }
  for (const status of [301, 308, 401, 403, 410, 413, 429, 500, 501, 502, 503]) {
    for (const body of ['', UNRECOGNIZED]) assert.equal(await outcome('unrecognized', answer(status, body)), `v1 ${status} of 1`);
  }
  // Of a JSON answer that does not end the errcode is not known.
  assert.equal(await outcome('unrecognized', endless('HTTP/1.1 404 X\r\n\r\n', '{"errcode":"M_NOT_FOUND","x":"'.repeat(1_000))), 'v1 404 of 1');
});

test('R105 a user, alias or third-party query with a definite no is not asked again at the legacy path', async () => {
  await using world = new LegacyWorld();
  await using receiver = await Receiver.start(answer(404, '{"errcode":"M_NOT_FOUND"}'));
  const paths = ['users/%40x', 'rooms/%23x', 'thirdparty/user/irc'].map((path) => `/_matrix/app/v1/${path}`);
  for (const path of paths) assert.equal(await world.ask(at(receiver, 'unrecognized'), path), 'v1 404');
  assert.deepEqual(pathsOf(receiver), paths);
});

test('R106 any_error: every answer that is no success leads to the legacy path, whatever its body', async () => {
  for (const status of [300, 301, 304, 308, 400, 401, 403, 404, 405, 413, 418, 429, 500, 501, 502, 503, 599]) {
    assert.equal(await outcome('any_error', answer(status, status === 304 ? '' : '{"errcode":"M_UNKNOWN"}')), 'legacy 200 of 2', `${status}`);
  }
});

test('R106 what is no answer never leads to the legacy path', async () => {
  for (const policy of ['unrecognized', 'any_error'] as const) {
    assert.equal(await outcome(policy, reset), 'v1 connection_reset of 1');
    assert.equal(await outcome(policy, close), 'v1 connection_reset of 1');
    assert.equal(await outcome(policy, raw('HTTP/1.1 404 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}')), 'v1 bad_response of 1');
    await using world = new LegacyWorld();
    await using receiver = await Receiver.start(hang);
    const asking = world.ask(at(receiver, policy));
    await receiver.received(1);
    await world.clock.advance(10_000);
    assert.equal(await asking, 'v1 timeout');
    assert.equal(receiver.requests.length, 1);
  }
});

test('R104 R106 the legacy answer decides, whatever it is, where something is served at that path', async () => {
  const unknown = answer(404, UNRECOGNIZED);
  for (const status of [400, 401, 403, 413, 429, 500, 503]) assert.equal(await outcome('unrecognized', unknown, answer(status)), `legacy ${status} of 2`);
  assert.equal(await outcome('unrecognized', unknown, answer(404, '{"errcode":"M_NOT_FOUND"}')), 'legacy 404 of 2');
  assert.equal(await outcome('unrecognized', unknown, reset), 'legacy connection_reset of 2');
  assert.equal(await outcome('any_error', answer(500), answer(403)), 'legacy 403 of 2');
});

test('R106 where nothing is served at the legacy path the answer of version 1 stands', async () => {
  for (const legacy of [answer(404, UNRECOGNIZED), answer(404, '<html>'), answer(405, ''), answer(301, ''), answer(308, '')]) {
    assert.equal(await outcome('any_error', answer(403), legacy), 'v1 403 of 2');
    assert.equal(await outcome('unrecognized', answer(405, ''), legacy), 'v1 405 of 2');
  }
});

test('R71 R106 a 413, a 429 or a 503 of version 1 stands unless the legacy path takes the request', async () => {
  for (const status of [413, 429, 503]) {
    for (const legacy of [answer(500), answer(403), answer(404, '{"errcode":"M_NOT_FOUND"}'), reset]) assert.equal(await outcome('any_error', answer(status), legacy), `v1 ${status} of 2`);
    assert.equal(await outcome('any_error', answer(status), answer(201)), 'legacy 201 of 2');
  }
});

test('R56 R59 both requests of an attempt carry the same method, headers and bytes, and the token where the registration wants it', async () => {
  for (const [legacy_auth, query] of [['off', ''], ['both', `?access_token=${HS_TOKEN}`], ['query_only', `?access_token=${HS_TOKEN}`]] as const) {
    await using world = new LegacyWorld();
    await using receiver = await Receiver.start(both(answer(404, ''), ok));
    assert.equal(await world.ask(at(receiver, 'unrecognized', { legacy_auth })), 'legacy 200');
    const [first, second] = receiver.requests;
    assert.deepEqual([first?.target, second?.target], [`${V1}${query}`, `${LEGACY}${query}`]);
    assert.deepEqual({ ...first, target: null, connection: null }, { ...second, target: null, connection: null });
    assert.equal(second?.body.toString(), BODY);
    assert.equal(second?.headers['authorization'], legacy_auth === 'query_only' ? undefined : `Bearer ${HS_TOKEN}`);
  }
});

test('R56 R107 the token joins the query of a third-party look-up, and both paths stand below that of the url', async () => {
  await using world = new LegacyWorld();
  await using receiver = await Receiver.start(answer(404, ''), ok);
  const registration = registrationFor(`${receiver.url}/base/`, { delivery_options: { legacy_paths: 'unrecognized', legacy_auth: 'both' } });
  assert.equal(await world.ask(registration, '/_matrix/app/v1/thirdparty/user/irc?nick=a'), 'legacy 200');
  assert.deepEqual(pathsOf(receiver), ['v1', 'unstable'].map((version) => `/base/_matrix/app/${version}/thirdparty/user/irc?nick=a&access_token=${HS_TOKEN}`));
});

test('R75 both requests of an attempt end within its one time-out', async () => {
  await using world = new LegacyWorld();
  let answerV1: () => void = () => undefined;
  await using receiver = await Receiver.start(both((connection, request) => void (answerV1 = () => answer(404, '')(connection, request)), hang));
  const asking = world.ask(at(receiver, 'unrecognized'));
  await receiver.received(1);
  await world.clock.advance(9_000);
  answerV1();
  await receiver.received(2);
  await world.clock.advance(1_000);
  assert.equal(await asking, 'legacy timeout');
});

test('an attempt that is aborted between its requests or in the second is over', async () => {
  await using world = new LegacyWorld();
  await using receiver = await Receiver.start(both(answer(404, ''), hang));
  const stop = new AbortController();
  const asking = world.request(at(receiver, 'unrecognized'), V1, 10_000, stop.signal);
  await receiver.received(2);
  stop.abort();
  assert.equal((await asking).result.kind, 'aborted');
  assert.equal(world.clock.sleeperCount, 0);
});

test('R109 a legacy path that took a request goes first for an hour, then version 1 is tried again', async () => {
  await using world = new LegacyWorld();
  await using receiver = await Receiver.start(both(answer(404, ''), ok));
  const registration = at(receiver, 'unrecognized');
  for (let call = 0; call < 3; call++) assert.equal(await world.ask(registration), 'legacy 200');
  assert.deepEqual(pathsOf(receiver), [V1, LEGACY, LEGACY, LEGACY]);
  await world.clock.advance(LEGACY_FIRST_MS - 1);
  await world.ask(registration);
  await world.clock.advance(1);
  await world.ask(registration);
  await world.ask(registration);
  assert.deepEqual(pathsOf(receiver).slice(4), [LEGACY, V1, LEGACY, LEGACY]);
});

test('R109 version 1 is kept to again once it serves, and at once when the registration is put anew', async () => {
  await using world = new LegacyWorld();
  let v1 = answer(404, '');
  await using receiver = await Receiver.start(both((connection, request) => v1(connection, request), ok));
  const registration = at(receiver, 'unrecognized');
  await world.ask(registration);
  v1 = ok;
  assert.equal(await world.ask(registration), 'legacy 200');
  assert.equal(await world.ask({ ...registration }), 'v1 200');
  await world.clock.advance(LEGACY_FIRST_MS);
  assert.equal(await world.ask(registration), 'v1 200');
  assert.equal(await world.ask(registration), 'v1 200');
  assert.deepEqual(pathsOf(receiver), [V1, LEGACY, LEGACY, V1, V1, V1]);
});

test('R109 an appservice that was replaced by one without legacy paths gets the same attempt by version 1', async () => {
  for (const gone of [answer(404, UNRECOGNIZED), answer(404, 'Cannot PUT'), answer(308, '')]) {
    await using world = new LegacyWorld();
    let scripts = both(answer(404, ''), ok);
    await using receiver = await Receiver.start((connection, request) => scripts(connection, request));
    const registration = at(receiver, 'unrecognized');
    await world.ask(registration);
    scripts = both(ok, gone);
    assert.equal(await world.ask(registration), 'v1 200');
    assert.equal(await world.ask(registration), 'v1 200');
    assert.deepEqual(pathsOf(receiver).slice(2), [LEGACY, V1, V1]);
  }
});

test('R109 after a failure at the legacy path version 1 is tried first again; after a refusal that is an answer it is not', async () => {
  for (const [legacy, shown, next] of [[answer(500), 'legacy 500', V1], [reset, 'legacy connection_reset', V1], [answer(403), 'legacy 403', LEGACY], [answer(404, '{"errcode":"M_NOT_FOUND"}'), 'legacy 404', LEGACY]] as const) {
    await using world = new LegacyWorld();
    let script = ok;
    await using receiver = await Receiver.start(both(answer(404, ''), (connection, request) => script(connection, request)));
    const registration = at(receiver, 'any_error');
    await world.ask(registration);
    script = legacy;
    assert.equal(await world.ask(registration), shown);
    script = ok;
    await world.ask(registration);
    assert.deepEqual(pathsOf(receiver).slice(2, 4), [LEGACY, next]);
  }
});

test('R109 only success is remembered, for the endpoint and the appservice that had it', async () => {
  await using world = new LegacyWorld();
  await using refusing = await Receiver.start(both(answer(404, ''), answer(403)));
  const refused = at(refusing, 'unrecognized');
  await world.ask(refused);
  await world.ask(refused);
  assert.deepEqual(pathsOf(refusing), [V1, LEGACY, V1, LEGACY]);
  await using receiver = await Receiver.start(both(answer(404, ''), ok));
  const registration = at(receiver, 'unrecognized');
  await world.ask(registration);
  await world.ask(registration, '/_matrix/app/v1/users/x');
  await world.ask({ ...registration, id: 'other' });
  assert.deepEqual(pathsOf(receiver), [V1, LEGACY, '/_matrix/app/v1/users/x', '/users/x', V1, LEGACY]);
});
