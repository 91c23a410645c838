/** doctor and status between a homeserver and the router: what is wrong there, as the homeserver itself shows it. */
import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { cli } from '../support/cli.ts';
import { AS_TOKEN, HS_TOKEN, IngressClient, message } from '../support/ingress-world.ts';
import { answer, Receiver, unusedPort } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';
import { put, registrationYaml, RouterHome } from '../support/router-home.ts';
import type { Environment } from '../support/router-home.ts';

interface CatchAll {
  /** Of the router's HTTP port, as the homeserver has it. */
  readonly url: string;
  readonly hsToken?: string;
}

/** A homeserver that has this catch-all registration, as far as doctor asks. */
function homeserverWith(catchAll: () => CatchAll): Script {
  return (connection, request) => {
    const { url, hsToken = HS_TOKEN } = catchAll();
    const say = (status: number, body: unknown): void => answer(status, JSON.stringify(body))(connection, request);
    if (request.headers['authorization'] !== `Bearer ${AS_TOKEN}`) return say(401, { errcode: 'M_UNKNOWN_TOKEN', error: 'no' });
    if (request.target === '/_matrix/client/v3/account/whoami') return say(200, { user_id: `@appservice-router:hs.test` });
    if (request.target !== '/_matrix/client/v1/appservice/appservice-router/ping') return say(404, { errcode: 'M_UNRECOGNIZED', error: 'no' });
    fetch(`${url}/_matrix/app/v1/ping`, { method: 'POST', headers: { authorization: `Bearer ${hsToken}` }, body: '{}' }).then(
      ({ ok, status }) => say(ok ? 200 : 502, ok ? { duration_ms: 1 } : { errcode: 'M_BAD_STATUS', error: 'no', status, body: '' }),
      () => say(502, { errcode: 'M_CONNECTION_FAILED', error: 'no' }),
    );
  };
}

async function codes(home: RouterHome, env: Environment): Promise<string[]> {
  const { out, err } = await cli(['--json', 'doctor'], { cwd: home.dir, env });
  assert.equal(err, '');
  for (const token of [AS_TOKEN, HS_TOKEN]) assert.ok(!out.includes(token), 'I12 no token is shown');
  return (JSON.parse(out) as { findings: readonly { readonly code: string }[] }).findings.map(({ code }) => code);
}

test('I12 doctor finds what is wrong between the homeserver and the router, and shows no token of theirs', async () => {
  await using home = await RouterHome.make();
  const tokenFile = home.path('ingress-tokens.json');
  const writeTokens = (text: string): void => writeFileSync(tokenFile, text, { mode: 0o600 });
  writeTokens(JSON.stringify({ hs_token: HS_TOKEN, as_token: AS_TOKEN }));
  const tokens = { ROUTER_INGRESS_TOKEN_FILE: tokenFile, ROUTER_SERVER_NAME: 'hs.test' };
  const router = await home.start(tokens);
  const routerUrl = `http://${router.httpAddress}`;
  let catchAll: CatchAll = { url: routerUrl };
  await using homeserver = await Receiver.start(homeserverWith(() => catchAll));
  const env: Environment = { ...tokens, ROUTER_DATA_DIR: home.dir, ROUTER_ADDRESS: router.grpcAddress, ROUTER_HTTP_LISTEN: router.httpAddress, ROUTER_HOMESERVER_URL: homeserver.url };
  assert.deepEqual(await codes(home, env), [], 'a sound one');
  assert.equal(homeserver.requests.length, 2);

  catchAll = { url: routerUrl, hsToken: 'another-hs-token' };
  chmodSync(tokenFile, 0o644);
  await new IngressClient(router.httpAddress).put('1', { events: [{}] });
  assert.deepEqual(await codes(home, env), ['INGRESS_TOKENS_READABLE', 'CATCH_ALL_HS_TOKEN_REFUSED', 'INGRESS_ITEMS_SHELVED']);
  writeTokens('{}');
  assert.deepEqual(await codes(home, env), ['INGRESS_TOKENS_UNUSABLE', 'INGRESS_TOKENS_READABLE', 'INGRESS_ITEMS_SHELVED']);
});

test('status shows how the homeserver\'s traffic stands, to people and to programs, and what may wait there after a restart', async () => {
  await using home = await RouterHome.make();
  writeFileSync(home.path('tokens.json'), JSON.stringify({ hs_token: HS_TOKEN, as_token: AS_TOKEN }), { mode: 0o600 });
  await using homeserver = await Receiver.start(answer(401, '{"errcode":"M_UNKNOWN_TOKEN","error":"no"}'));
  const router = await home.start({ ROUTER_INGRESS_TOKEN_FILE: home.path('tokens.json'), ROUTER_HOMESERVER_URL: homeserver.url });
  const options = { cwd: home.dir, env: { ROUTER_DATA_DIR: home.dir, ROUTER_ADDRESS: router.grpcAddress } };
  const shown = async (): Promise<Record<string, unknown>> => (JSON.parse((await cli(['--json', 'status'], options)).out) as { ingress: Record<string, unknown> }).ingress;

  assert.match((await cli(['status'], options)).out, /^ingress: no transaction since the router started\n {2}for \S+ nothing was taken: if the homeserver was restarted meanwhile, what waits there comes with its next event in any room\n$/m);
  const before = await shown();
  assert.ok(typeof before['gap_since'] === 'string' && !('last_transaction_time' in before));

  await put(router.client('admin'), registrationYaml('irc', `http://127.0.0.1:${await unusedPort()}`).replace('rooms:\n    - regex: "!.*"', 'users:\n    - regex: "@irc_.*"'));
  await new IngressClient(router.httpAddress).put('1', { events: [message('$a', { room_id: '!old:hs.test' }), {}] });
  const { out } = await cli(['status'], options);
  assert.match(out, /^ingress: last transaction .+ ago; 1 items shelved; 1 rooms not known yet, such as !old:hs\.test\n {2}The homeserver does not know the as_token/m);
  assert.doesNotMatch(out, /nothing was taken/);
  const { gap_since: gap, last_transaction_time: last, ...after } = await shown();
  assert.equal(gap, undefined);
  assert.equal(typeof last, 'string');
  assert.deepEqual(after, { shelved_items: '1', unknown_rooms: '1', unknown_room_ids: ['!old:hs.test'], problem: 'The homeserver does not know the as_token of the ingress token file. Let its catch-all registration have the same, and restart it.' });
});
