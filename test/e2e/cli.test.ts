/** The command line against a real router: what people see, what programs get, and how it ends. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { cli, CliProcess } from '../support/cli.ts';
import type { CliOptions } from '../support/cli.ts';
import { answer, Receiver } from '../support/receiver.ts';
import { failedAttempt, registrationYaml, RouterHome, submit } from '../support/router-home.ts';
import type { RouterProcess } from '../support/router-process.ts';

function at(home: RouterHome, router: RouterProcess): CliOptions {
  return { cwd: home.dir, env: { ROUTER_ADDRESS: router.grpcAddress, ROUTER_DATA_DIR: home.dir } };
}

test('an operator registers, looks, pauses, resumes and removes, in words', async () => {
  await using home = await RouterHome.make();
  await using receiver = await Receiver.start(answer(200));
  const router = await home.start();
  const options = at(home, router);
  writeFileSync(home.path('irc.yaml'), registrationYaml('irc', receiver.url, 'rate_limited: false\n'));
  assert.deepEqual(await cli(['list'], options), { code: 0, out: 'No appservice is registered. "appservice-router register FILE" registers one.\n', err: '' });
  const checked = await cli(['register', '--validate-only', 'irc.yaml'], options);
  assert.deepEqual([checked.code, checked.out.split('\n')[0], checked.err], [0, '✔ irc.yaml: "irc" can be put', '']);
  const registered = await cli(['register', '-'], { ...options, input: registrationYaml('irc', receiver.url, 'rate_limited: false\n') });
  assert.deepEqual([registered.code, registered.out.split('\n')[0], registered.err], [0, '✔ -: "irc" is in force', '']);
  assert.deepEqual(await cli(['list'], options), {
    code: 0,
    out: `ID   URL${' '.repeat(receiver.url.length - 3)}  SENDER    USERS  ALIASES  ROOMS  PROTOCOLS\nirc  ${receiver.url}  _irc_bot  -      -        1      -\n`,
    err: '',
  });
  const paused = `appservice   irc
state        idle, paused
backlog      nothing waits
delivered    0 entries, through log position 1
attempts     0, of which 0 failed
transaction  none
quarantine   empty
last error   none
`;
  // Once the router has begun to hold it, its id is in a line too.
  assert.deepEqual(withoutHolder(await cli(['pause', 'irc'], options)), { code: 0, out: paused, err: '' });
  assert.deepEqual(withoutHolder(await cli(['resume', 'irc'], options)), { code: 0, out: paused.replace(', paused', ''), err: '' });
  assert.match((await cli(['ping', 'irc'], options)).out, /^✔ "irc" answered within \d+ ms\n$/);
  assert.deepEqual(await cli(['remove', 'irc', '--backlog', 'discard'], options), { code: 0, out: '"irc" is removed; its backlog is discarded\n', err: '' });
  assert.deepEqual(await cli(['status'], options), { code: 0, out: 'No appservice is registered. "appservice-router register FILE" registers one.\n', err: '' });
});

function withoutHolder<Ran extends { readonly out: string }>(ran: Ran): Ran {
  return { ...ran, out: ran.out.replace(/^held by {6}router [0-9a-f]{24}\n/m, '') };
}

test('status shows the stuck ones first and says why; programs get the names of the contract', async () => {
  await using home = await RouterHome.make();
  await using receiver = await Receiver.start(answer(200));
  await using broken = await Receiver.start(answer(403, '{"errcode":"M_FORBIDDEN"}'));
  const router = await home.start({ ROUTER_BACKOFF_FIRST_MS: '3600000', ROUTER_BACKOFF_MAX_MS: '3600000' });
  const options = at(home, router);
  const yaml = [registrationYaml('a-fine', receiver.url), registrationYaml('b-broken', broken.url), registrationYaml('c-paused', receiver.url)];
  for (const input of yaml) assert.equal((await cli(['register', '-'], { ...options, input })).code, 0);
  await cli(['pause', 'c-paused'], options);
  await submit(router.client('homeserver'), 'one', 3);
  await failedAttempt(router, 'b-broken');
  await receiver.received(1);
  const { out, code } = await cli(['status'], options);
  assert.equal(code, 0);
  const lines = out.split('\n');
  assert.deepEqual(lines.slice(1, 4).map((line) => line.split(/ {2,}/).slice(0, 3).join('|')), ['b-broken|retrying|3', 'c-paused|idle, paused|3', 'a-fine|idle|0']);
  assert.match(lines[1] ?? '', /rejected 403$/);
  assert.equal(lines[5], 'b-broken: The appservice refused the hs_token (HTTP 403, M_FORBIDDEN). Make the hs_token the same in its own registration file and in the router\'s.');

  const json = JSON.parse((await cli(['--json', 'status', 'b-broken'], options)).out) as Record<string, unknown>;
  const { transaction, last_error: lastError } = json as { transaction: Record<string, unknown>; last_error: Record<string, unknown> };
  assert.deepEqual([json['appservice_id'], json['state'], json['backlog_entries'], transaction['event_count'], transaction['attempt_count'], lastError['http_status']], ['b-broken', 'DELIVERY_STATE_RETRYING', '3', 3, 1, 403]);
});

test('watch and the live status go on until Ctrl-C, which is no error', async () => {
  await using home = await RouterHome.make();
  await using receiver = await Receiver.start(answer(200));
  const router = await home.start();
  const options = at(home, router);
  await cli(['register', '-'], { ...options, input: registrationYaml('irc', receiver.url) });
  await using watching = new CliProcess(['--json', 'watch', 'irc'], options);
  await using live = new CliProcess(['status', '--watch'], options);
  await live.until((out) => out.includes('irc  idle'));
  // A watch tells what happens after it began, and says nothing of having begun.
  for (let n = 1; !watching.out.includes('events_delivered'); n++) {
    await submit(router.client('homeserver'), `n${n}`, 1);
    await receiver.received(n);
  }
  const told = watching.out.trim().split('\n').map((line) => JSON.parse(line) as Record<string, Record<string, unknown>>);
  const delivered = told.find((line) => line['events_delivered'] !== undefined)?.['events_delivered'];
  assert.deepEqual([delivered?.['service_id'], delivered?.['event_count']], ['irc', 1]);
  for (const process of [watching, live]) {
    process.child.kill('SIGINT');
    const { code, err } = await process.result();
    assert.deepEqual([code, err], [0, '']);
  }
});

test('the exit code tells a wrong command, a router that is away, a token that may not, and a refusal', async () => {
  await using home = await RouterHome.make();
  const router = await home.start();
  const options = at(home, router);
  writeFileSync(home.path('wrong'), 'no-such-token\n');
  writeFileSync(home.path('homeserver'), router.tokens().homeserver);
  const cases: [string[], number, RegExp][] = [
    [['stauts'], 2, /unknown command .stauts.[^]*Did you mean status/],
    [['pause'], 2, /missing required argument .id./],
    [['remove', 'irc', '--backlog', 'keep'], 2, /discard or park/],
    [['--token-file', 'none', 'list'], 2, /none cannot be read \(ENOENT\)/],
    [['--config', 'none.yaml', 'config'], 2, /none\.yaml of --config cannot be read/],
    [['--address', '127.0.0.1:1', 'list'], 3, /^No router answers at 127\.0\.0\.1:1\. Start it with "appservice-router serve"/],
    [['--token-file', 'wrong', 'list'], 4, /No credential of this router has the token/],
    [['--token-file', 'homeserver', 'list'], 4, /has the role homeserver, which may not call/],
    [['pause', 'nobody'], 1, /There is no appservice "nobody"/],
    [['register', 'none.yaml'], 1, /none\.yaml cannot be read \(ENOENT\)/],
  ];
  for (const [args, code, err] of cases) {
    const result = await cli(args, options);
    assert.equal(result.code, code, `${args.join(' ')}: ${result.err}`);
    assert.match(result.err, err);
    assert.equal(result.out, '');
    assert.doesNotMatch(result.err, /no-such-token|at .*\.ts:/);
  }
  const refused = await cli(['--json', 'pause', 'nobody'], options);
  assert.deepEqual([refused.code, JSON.parse(refused.out)], [1, { error: { kind: 'refused', reason: 'APPSERVICE_NOT_FOUND', message: 'There is no appservice "nobody". ListAppservices tells which there are.', violations: [] } }]);
});

test('I12 config shows the settings in force and where they were said, without the password of a store', async () => {
  await using home = await RouterHome.make();
  writeFileSync(home.path('settings.yaml'), 'push_timeout_ms: 5000\n');
  const env = { ROUTER_STORE: 'mongodb://user:hunter2@db.test/x', ROUTER_ENCRYPTION_KEY_FILE: 'key', NO_COLOR: '1' };
  const { code, out } = await cli(['--config', 'settings.yaml', '--json', 'config'], { cwd: home.dir, env });
  assert.equal(code, 0);
  assert.doesNotMatch(out, /hunter2/);
  const { push_timeout_ms: push, store, query_timeout_ms: query } = JSON.parse(out) as Record<string, unknown>;
  assert.deepEqual([push, store, query], [{ value: 5000, source: 'file' }, { value: 'mongodb://db.test', source: 'environment' }, { value: 5000, source: 'default' }]);
  const schema = JSON.parse((await cli(['config', '--schema'], { cwd: home.dir })).out) as { properties: Record<string, unknown> };
  assert.ok('grpc_listen' in schema.properties);
});

test('explain tells who gets an event, why, and where it is', async () => {
  await using home = await RouterHome.make();
  await using receiver = await Receiver.start(answer(200));
  const router = await home.start();
  const options = at(home, router);
  await cli(['register', '-'], { ...options, input: registrationYaml('irc', receiver.url) });
  await cli(['register', '-'], { ...options, input: registrationYaml('other', receiver.url).replace('"!.*"', '"!elsewhere:.*"') });
  const { ids } = await submit(router.client('homeserver'), 'one', 1);
  await receiver.received(1);
  const json = JSON.stringify({ event_id: '$new', type: 'm.room.message', room_id: '!r:hs.test', sender: '@alice:hs.test', content: {} });
  const { code, out, err } = await cli(['explain', '-'], { ...options, input: json });
  assert.deepEqual([code, err], [0, '']);
  const lines = out.trimEnd().split('\n');
  assert.match(lines[0] ?? '', /^\$new in !r:hs\.test \(/);
  assert.match(out, /irc +yes +room !r:hs\.test, namespace "!\.\*"/);
  assert.match(out, /other +no /);
  const found = await cli(['--json', 'explain', ids[0] ?? ''], options);
  assert.equal(found.code, 0);
  const { event_id: eventId, appservices } = JSON.parse(found.out) as { event_id: string; appservices: { appservice_id: string }[] };
  assert.deepEqual([eventId, appservices.map(({ appservice_id: id }) => id).sort()], [ids[0], ['irc', 'other']]);
  const missing = await cli(['explain', 'none.json'], options);
  assert.deepEqual([missing.code, missing.out], [2, '']);
  assert.match(missing.err, /none\.json cannot be read \(ENOENT\)/);
});

test('an operator gets a queue going that a poison transaction stops, and finds all of it in the audit', async () => {
  await using home = await RouterHome.make();
  await using receiver = await Receiver.start(answer(500), answer(200));
  const router = await home.start({ ROUTER_BACKOFF_FIRST_MS: '3600000', ROUTER_BACKOFF_MAX_MS: '3600000' });
  const options = at(home, router);
  await cli(['register', '-'], { ...options, input: registrationYaml('irc', receiver.url) });
  const { ids } = await submit(router.client('homeserver'), 'poison', 2);
  await failedAttempt(router, 'irc');
  const { transaction } = JSON.parse((await cli(['--json', 'status', 'irc'], options)).out) as { transaction: { txn_id: string } };
  assert.deepEqual((await cli(['skip', 'irc', transaction.txn_id], options)).code, 2, 'a reason is needed');
  const skipped = await cli(['skip', 'irc', transaction.txn_id, '--reason', 'it kills the bot'], options);
  assert.equal(skipped.code, 0, skipped.err);
  let shelf = await cli(['quarantine', 'irc'], options);
  while (shelf.out.startsWith('Nothing')) shelf = await cli(['quarantine', 'irc'], options);
  assert.match(shelf.out.split('\n')[1] ?? '', new RegExp(`^${transaction.txn_id} .* 2 .*it kills the bot$`));
  assert.equal((await cli(['redeliver', 'irc', transaction.txn_id, '--reason', 'the bot is mended'], options)).code, 0);
  await receiver.received(2);
  assert.deepEqual((JSON.parse(receiver.requests[1]?.body.toString() ?? '') as { events: { event_id: string }[] }).events.map(({ event_id: id }) => id), ids);
  assert.equal((await cli(['skip', 'irc', '1', '--reason', 'x'], options)).code, 1);
  assert.equal((await cli(['replay', 'irc', '--from', 'yesterday', '--reason', 'x'], options)).code, 2);
  const audit = await cli(['audit', 'irc'], options);
  assert.equal(audit.code, 0);
  assert.match(audit.out, /the bot is mended[^]*it kills the bot/);
});

test('M10 an operator rotates the encryption key, says why, and sees which keys still seal something', async () => {
  await using home = await RouterHome.make();
  const router = await home.start();
  const options = at(home, router);
  for (const id of ['one', 'two']) await cli(['register', '-'], { ...options, input: registrationYaml(id, null) });
  const missing = await cli(['rotate-key'], options);
  assert.deepEqual([missing.code, missing.out], [2, '']);
  assert.match(missing.err, /required option .--reason/);
  assert.equal((await cli(['rotate-key', '--reason', 'x', '--replaced-key', 'all'], options)).code, 2);
  const rotated = await cli(['rotate-key', '--reason', 'a year is over'], options);
  assert.deepEqual([rotated.code, rotated.err], [0, '']);
  const [said, , headings, first, second] = rotated.out.split('\n');
  assert.match(said ?? '', /^✔ The new key [0-9a-f]{8} seals from now on; 2 registrations were sealed anew\./);
  assert.match(headings ?? '', /^KEY +SEALS +REGISTRATIONS$/);
  const replaced = /^([0-9a-f]{8}) +no +0$/.exec(second ?? '')?.[1] ?? assert.fail(rotated.out);
  assert.match(first ?? '', /^[0-9a-f]{8} +yes +2$/);
  // The same command once more, as after a lost answer.
  const again = await cli(['--json', 'rotate-key', '--reason', 'a year is over', '--replaced-key', replaced], options);
  const { key_created: created, keys } = JSON.parse(again.out) as { key_created?: boolean; keys: { key_id: string }[] };
  assert.deepEqual([again.code, created ?? false, keys.length], [0, false, 2]);
  assert.match((await cli(['rotate-key', '--reason', 'x', '--replaced-key', replaced], options)).out, /seals everything already; no key was made/);
  assert.match((await cli(['audit'], options)).out, /RotateEncryptionKey.*a year is over/);
});
