/** What doctor learns of the catch-all registration from a homeserver, whatever that answers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CatchAllFact } from '../../src/cli/doctor/facts.ts';
import { askCatchAll } from '../../src/cli/doctor/gather-catch-all.ts';
import { systemClock } from '../../src/clock.ts';
import { VirtualClock, settle } from '../support/clock.ts';
import { answer, hang, Receiver, reset, unusedPort } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';

const WHOAMI = answer(200, '{"user_id":"@appservice-router:hs.test"}');
const error = (status: number, errcode: string, more = ''): Script => answer(status, `{"errcode":"${errcode}","error":"no"${more}}`);
const known = (errcode: string | null, httpStatus: number | null = null): CatchAllFact => ({ kind: 'known', serverName: 'hs.test', ping: { errcode, httpStatus } });

async function factOf(...scripts: readonly Script[]): Promise<CatchAllFact> {
  await using homeserver = await Receiver.start(...scripts);
  const fact = await askCatchAll(`${homeserver.url}/`, 'the-as-token', systemClock);
  assert.ok(homeserver.requests.every(({ headers }) => headers['authorization'] === 'Bearer the-as-token'));
  return fact;
}

test('the homeserver is asked who the token is, and to ping the router under the name of the sender', async () => {
  await using homeserver = await Receiver.start(WHOAMI, answer(200, '{"duration_ms":3}'));
  assert.deepEqual(await askCatchAll(homeserver.url, 'the-as-token', systemClock), known(null));
  assert.deepEqual(homeserver.requests.map(({ method, target }) => `${method} ${target}`), ['GET /_matrix/client/v3/account/whoami', 'POST /_matrix/client/v1/appservice/appservice-router/ping']);
});

test('each way in which the registration can be wrong is told from the others', async () => {
  assert.deepEqual(await factOf(error(401, 'M_UNKNOWN_TOKEN')), { kind: 'unknown_token' });
  assert.deepEqual(await factOf(WHOAMI, error(502, 'M_BAD_STATUS', ',"status":403,"body":""')), known('M_BAD_STATUS', 403));
  assert.deepEqual(await factOf(WHOAMI, error(400, 'M_URL_NOT_SET')), known('M_URL_NOT_SET'));
  assert.deepEqual(await factOf(WHOAMI, error(504, 'M_CONNECTION_TIMEOUT')), known('M_CONNECTION_TIMEOUT'));
  assert.deepEqual(await factOf(WHOAMI, error(403, 'M_FORBIDDEN')), known('M_FORBIDDEN'));
});

test('what is no homeserver, or none that can ping, is told as that', async () => {
  for (const script of [answer(404, '<h1>'), answer(302, '', { location: 'http://127.0.0.1:1/' }), answer(200, '[]'), answer(200, '{"user_id":7}'), answer(200, '{"user_id":"nobody"}'), error(500, 'M_UNKNOWN')]) {
    assert.equal((await factOf(script)).kind, 'other');
  }
  for (const script of [answer(500, '<h1>'), answer(404, '{}'), reset]) assert.deepEqual(await factOf(WHOAMI, script), { kind: 'known', serverName: 'hs.test', ping: null });
  assert.deepEqual(await askCatchAll(`http://127.0.0.1:${await unusedPort()}`, 'the-as-token', systemClock), { kind: 'unreachable', message: 'The connection failed.' });
});

test('a homeserver that hangs is given up after ten seconds', async () => {
  await using homeserver = await Receiver.start(hang);
  const clock = new VirtualClock();
  const asked = askCatchAll(homeserver.url, 'the-as-token', clock);
  await homeserver.received(1);
  await settle();
  await clock.advance(10_000);
  assert.deepEqual(await asked, { kind: 'unreachable', message: 'It gave no answer within 10 seconds.' });
});
