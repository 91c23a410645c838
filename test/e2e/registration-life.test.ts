import assert from 'node:assert/strict';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { AppserviceAdmin, DeleteRegistrationRequest_Backlog as Backlog } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { Appservice_HeldBy as HeldBy } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { errorOf } from '../support/router-client.ts';
import type { RouterClient } from '../support/router-client.ts';
import { failedAttempt, put, registrationYaml, RouterHome, statusOf, submit } from '../support/router-home.ts';

const INVALID_ARGUMENT = 3;
const NOT_FOUND = 5;
const FAILED_PRECONDITION = 9;
const LIMIT = { timeout: 60_000 };

async function remove(admin: RouterClient, appserviceId: string, backlog: Backlog): Promise<void> {
  await admin.call(AppserviceAdmin.method.deleteRegistration, { appserviceId, backlog });
}

const codeOf = (call: Promise<unknown>): Promise<number | string> => call.then(() => 'OK', (error: unknown) => errorOf(error).code);

test('R76 a queue that was discarded does not come back with its id; what is submitted later does', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  receiver.answer = () => 'error';
  const router = await home.start();
  const [admin, homeserver] = [router.client('admin'), router.client('homeserver')];
  await put(admin, registrationYaml('irc', `${receiver.url}/irc`));
  await submit(homeserver, 'old', 5);
  await failedAttempt(router, 'irc');
  await remove(admin, 'irc', Backlog.DISCARD);
  assert.equal(await codeOf(statusOf(admin, 'irc')), NOT_FOUND);
  assert.equal((await submit(homeserver, 'between', 2)).answer.routed, 0);
  receiver.answer = () => 'ok';
  await put(admin, registrationYaml('irc', `${receiver.url}/irc`));
  assert.equal((await statusOf(admin, 'irc')).backlogEntries, 0n);
  const { ids } = await submit(homeserver, 'new', 3);
  await receiver.until(() => receiver.taken('irc').length >= 3);
  assert.deepEqual(receiver.taken('irc'), ids);
});

test('R76 a queue that was parked waits across restarts for resume_parked, and then comes first', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  receiver.answer = () => 'error';
  const yaml = registrationYaml('irc', `${receiver.url}/irc`);
  const first = await home.start();
  await put(first.client('admin'), yaml);
  const old = await submit(first.client('homeserver'), 'old', 150);
  await failedAttempt(first, 'irc');
  await remove(first.client('admin'), 'irc', Backlog.PARK);
  assert.equal(await first.terminate(), 0);

  receiver.answer = () => 'ok';
  const second = await home.start();
  const admin = second.client('admin');
  const { heldBy, backlogEntries } = await statusOf(admin, 'irc');
  assert.deepEqual([heldBy, backlogEntries], [HeldBy.PARKED, 150n]);
  assert.equal((await submit(second.client('homeserver'), 'between', 2)).answer.routed, 0);
  assert.equal(await codeOf(put(admin, yaml)), FAILED_PRECONDITION);
  assert.deepEqual(receiver.taken('irc'), []);
  await put(admin, yaml, { resumeParked: true });
  const fresh = await submit(second.client('homeserver'), 'new', 2);
  await receiver.until(() => receiver.taken('irc').length >= 152);
  assert.deepEqual(receiver.taken('irc'), [...old.ids, ...fresh.ids]);
  assert.deepEqual(receiver.violations('irc', 0), []);
});

test('R76 a parked queue can be given up; its id then begins anew', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  receiver.answer = () => 'error';
  const router = await home.start();
  const admin = router.client('admin');
  await put(admin, registrationYaml('irc', `${receiver.url}/irc`));
  await submit(router.client('homeserver'), 'old', 2);
  await remove(admin, 'irc', Backlog.PARK);
  await remove(admin, 'irc', Backlog.DISCARD);
  assert.equal(await codeOf(remove(admin, 'irc', Backlog.DISCARD)), NOT_FOUND);
  receiver.answer = () => 'ok';
  await put(admin, registrationYaml('irc', `${receiver.url}/irc`));
  const { ids } = await submit(router.client('homeserver'), 'new', 1);
  await receiver.until(() => receiver.taken('irc').length >= 1);
  assert.deepEqual(receiver.taken('irc'), ids);
});

test('R3 R4 R46 an appservice without a url gets nothing queued, a missing url is an error, and a url takes effect at once', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  const router = await home.start();
  const [admin, homeserver] = [router.client('admin'), router.client('homeserver')];
  const missing: unknown = await put(admin, registrationYaml('irc', null).replace('url: null\n', '')).catch((error: unknown) => error);
  assert.deepEqual([errorOf(missing).code, /\burl\b/.test(errorOf(missing).message)], [INVALID_ARGUMENT, true]);
  for (const [id, url] of [['irc', null], ['xmpp', '""']] as const) await put(admin, registrationYaml(id, url));
  assert.equal((await submit(homeserver, 'lost', 5)).answer.routed, 0);
  assert.deepEqual([(await statusOf(admin, 'irc')).backlogEntries, (await statusOf(admin, 'xmpp')).backlogEntries], [0n, 0n]);
  for (const id of ['irc', 'xmpp']) await put(admin, registrationYaml(id, `${receiver.url}/${id}`));
  const { ids } = await submit(homeserver, 'new', 2);
  await receiver.until(() => receiver.taken('irc').length >= 2 && receiver.taken('xmpp').length >= 2);
  assert.deepEqual([receiver.taken('irc'), receiver.taken('xmpp')], [ids, ids]);
});

test('R20 a url that is corrected takes effect for what waits already, without waiting for the next attempt', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  const router = await home.start({ ROUTER_BACKOFF_FIRST_MS: '600000', ROUTER_BACKOFF_MAX_MS: '600000' });
  await put(router.client('admin'), registrationYaml('irc', 'http://127.0.0.1:1'));
  const { ids } = await submit(router.client('homeserver'), 'early', 2);
  await failedAttempt(router, 'irc');
  await put(router.client('admin'), registrationYaml('irc', `${receiver.url}/irc`));
  await receiver.until(() => receiver.taken('irc').length === 2);
  assert.deepEqual(receiver.taken('irc'), ids);
});

test('R11 R14 R20 a directory of registrations is read at the start and on change; a file that breaks leaves in force what was', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  await mkdir(home.path('registrations'));
  const file = home.path('registrations', 'irc.yaml');
  await writeFile(file, registrationYaml('irc', `${receiver.url}/before`, 'x-unknown: 1\n'));
  await writeFile(home.path('registrations', 'xmpp.yaml'), registrationYaml('xmpp', `${receiver.url}/xmpp`));
  const router = await home.start({ ROUTER_REGISTRATIONS: home.path('registrations') });
  const homeserver = router.client('homeserver');
  const readiness = async (): Promise<unknown> => (await fetch(`http://${router.httpAddress}/readyz`)).json();
  const first = await submit(homeserver, 'first', 1);
  await receiver.until(() => receiver.taken('before').length === 1);
  assert.deepEqual(receiver.taken('before'), first.ids);

  await writeFile(file, registrationYaml('irc', `${receiver.url}/after`));
  await router.line((line) => line.msg === 'registration put from a file' && router.lines.filter(({ msg, file: put }) => msg === line.msg && put === file).length === 2);
  const second = await submit(homeserver, 'second', 1);
  await receiver.until(() => receiver.taken('after').length === 1);
  assert.deepEqual([receiver.taken('after'), receiver.taken('before')], [second.ids, first.ids]);

  await writeFile(file, registrationYaml('irc', `${receiver.url}/never`).replace('regex: "!.*"', 'regex: "!(?=x).*"'));
  const problem = await router.line(({ msg }) => msg === 'a registration file is not applied');
  assert.deepEqual([problem['file'], problem['line'], problem['field']], [file, 8, 'namespaces.rooms[0].regex']);
  const told = (await readiness()) as { ready: boolean; registration_files: Record<string, unknown>[] };
  assert.equal(told.ready, true);
  assert.deepEqual(told.registration_files.map((one) => [one['file'], one['line'], one['field']]), [[file, 8, 'namespaces.rooms[0].regex']]);
  const third = await submit(homeserver, 'third', 1);
  await receiver.until(() => receiver.taken('after').length === 2);
  assert.deepEqual(receiver.taken('after'), [...second.ids, ...third.ids]);

  await writeFile(file, registrationYaml('irc', `${receiver.url}/after`));
  await router.line(({ msg }) => msg === 'all registration files are applied again');
  assert.deepEqual(await readiness(), { ready: true });
});

test('R76 an id whose file goes is removed with its backlog parked, and its file brings the backlog back', LIMIT, async () => {
  await using home = await RouterHome.make();
  await using receiver = await RecordingReceiver.start();
  receiver.answer = (appservice) => (appservice === 'irc' ? 'error' : 'ok');
  await mkdir(home.path('registrations'));
  const file = home.path('registrations', 'irc.yaml');
  await writeFile(file, registrationYaml('irc', `${receiver.url}/irc`));
  await writeFile(home.path('registrations', 'xmpp.yaml'), registrationYaml('xmpp', `${receiver.url}/xmpp`));
  const router = await home.start({ ROUTER_REGISTRATIONS: home.path('registrations') });
  const [admin, homeserver] = [router.client('admin'), router.client('homeserver')];
  const old = await submit(homeserver, 'old', 2);
  await failedAttempt(router, 'irc');
  await rename(file, home.path('irc.yaml'));
  await router.line(({ msg }) => msg === 'the registration is in no file any more; it was removed and its backlog parked');
  assert.equal((await statusOf(admin, 'irc')).heldBy, HeldBy.PARKED);
  const between = await submit(homeserver, 'between', 1);
  assert.equal(between.answer.routed, 1, 'for xmpp alone');
  receiver.answer = () => 'ok';
  await rename(home.path('irc.yaml'), file);
  await receiver.until(() => receiver.taken('irc').length >= 2);
  assert.deepEqual(receiver.taken('irc'), old.ids);
  assert.deepEqual(receiver.taken('xmpp'), [...old.ids, ...between.ids]);
  await rm(file);
  await router.line((line) => line.msg === 'the registration is in no file any more; it was removed and its backlog parked' && router.lines.filter(({ msg }) => msg === line.msg).length === 2);

  // What files change is in the audit entries, each change once; what they leave as it is, or cannot change, is not.
  const audited = async (): Promise<string[]> => (await admin.call(AppserviceAdmin.method.listAuditEntries, {})).entries.map(({ actor, action, appserviceId }) => `${actor}: ${action} ${appserviceId}`).reverse();
  const expected = ['PutRegistration irc', 'PutRegistration xmpp', 'DeleteRegistration irc', 'PutRegistration irc', 'DeleteRegistration irc'].map((one) => `registration files: ${one}`);
  assert.deepEqual(await audited(), expected);
  await writeFile(home.path('registrations', 'thief.yaml'), registrationYaml('thief', null).replace('as-thief', 'as-xmpp'));
  await router.line(({ msg, file: named }) => msg === 'a registration file is not applied' && String(named).endsWith('thief.yaml'));
  assert.deepEqual(await audited(), expected);
  assert.equal(await router.terminate(), 0);
  const again = await home.start({ ROUTER_REGISTRATIONS: home.path('registrations') });
  assert.deepEqual((await again.client('admin').call(AppserviceAdmin.method.listAuditEntries, {})).entries.length, expected.length, 'a restart changes nothing');
});
