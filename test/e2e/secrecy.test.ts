import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import type { DescMessage, DescMethodUnary, MessageInitShape } from '@bufbuild/protobuf';
import { create, toBinary, toJson } from '@bufbuild/protobuf';
import type { ServiceError } from '@grpc/grpc-js';
import { AppserviceAdmin, DeleteRegistrationRequest_Backlog as Backlog } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter, AuthorizeIdentifierRequest_Action as Action } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { LeakDetector } from '../support/leaks.ts';
import { answer, Receiver, raw } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';
import { RouterClient } from '../support/router-client.ts';
import { failedAttempt, put, registrationYaml, RouterHome, submit } from '../support/router-home.ts';
import type { RouterProcess } from '../support/router-process.ts';

/** In the form of an errcode, so that what lets those through lets these through. */
const secret = (name: string): string => `${name}_${randomBytes(12).toString('hex').toUpperCase()}`;

const SECRETS = {
  'as_token of talker': secret('AS'),
  'hs_token of talker': secret('HS'),
  'as_token of filed': secret('AS_FILED'),
  'hs_token of filed': secret('HS_FILED'),
  'as_token of a registration that was refused': secret('AS_REFUSED'),
  'hs_token of a registration that was refused': secret('HS_REFUSED'),
  'token of a caller nobody knows': secret('CALLER'),
};

const admin = AppserviceAdmin.method;
const router = AppserviceRouter.method;

function yaml(id: string, url: string, asToken: string, hsToken: string): string {
  return registrationYaml(id, url).replace(`as-${id}-long-enough`, asToken).replace(`hs-${id}-long-enough`, hsToken);
}

/** Answers by which an appservice hands back what it was sent. */
const indiscreet: readonly Script[] = [
  (connection, request) => answer(500, `<h1>${request.headers['authorization']}</h1>`, { 'content-type': 'text/html', 'x-echo': request.headers['authorization'] ?? '' })(connection, request),
  (connection, request) => answer(403, JSON.stringify({ errcode: request.headers['authorization']?.slice('Bearer '.length), error: request.headers['authorization'] }))(connection, request),
  (connection, request) => answer(302, '', { location: `http://127.0.0.1:1/?access_token=${request.headers['authorization']?.slice(7)}` })(connection, request),
  (connection, request) => answer(429, '', { 'retry-after': request.headers['authorization'] ?? '' })(connection, request),
  (connection, request) => raw(`${request.headers['authorization']} is no HTTP\r\n\r\n`)(connection, request),
  (connection) => void connection.resetAndDestroy(),
  answer(413),
  answer(200),
];

/** Calls over gRPC and over Connect with JSON; everything that comes back is seen, errors with all their details. */
class Listener {
  readonly #router: RouterProcess;
  readonly #detector: LeakDetector;

  constructor(process: RouterProcess, detector: LeakDetector) {
    this.#router = process;
    this.#detector = detector;
  }

  async call<I extends DescMessage, O extends DescMessage>(method: DescMethodUnary<I, O>, role: 'homeserver' | 'admin' | { readonly token: string }, request: MessageInitShape<I>): Promise<void> {
    const token = typeof role === 'string' ? this.#router.tokens()[role] : role.token;
    using client = new RouterClient(this.#router.grpcAddress, token);
    const place = `an answer of ${method.name}`;
    await client.call(method, request).then(
      (response) => this.#detector.see(place, toBinary(method.output, response)),
      (error: unknown) => this.#seeError(place, error),
    );
    const response = await fetch(`http://${this.#router.httpAddress}/${method.parent.typeName}/${method.name}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify(toJson(method.input, create(method.input, request))),
    });
    this.#detector.see(`${place} in JSON`, `${JSON.stringify([...response.headers])} ${await response.text()}`);
  }

  async get(path: string): Promise<void> {
    const response = await fetch(`http://${this.#router.httpAddress}${path}`);
    this.#detector.see(path.split('?')[0] ?? path, `${JSON.stringify([...response.headers])} ${await response.text()}`);
  }

  #seeError(place: string, error: unknown): void {
    const { message, details, metadata } = error as ServiceError;
    this.#detector.see(place, `${message} ${details}`);
    for (const key of Object.keys(metadata.getMap())) for (const value of metadata.get(key)) this.#detector.see(`${place}, in ${key}`, value);
  }
}

test('I12 R18 R19 M10 no token comes out: not in logs at level debug, answers, errors, watches, metrics, nor in the clear in the store', { timeout: 60_000 }, async () => {
  const [asToken, hsToken, asFiled, hsFiled, asRefused, hsRefused, unknownCaller] = Object.values(SECRETS) as [string, string, string, string, string, string, string];
  await using home = await RouterHome.make();
  await using appservice = await Receiver.start(...indiscreet);
  await mkdir(home.path('registrations'));
  const file = home.path('registrations', 'filed.yaml');
  await writeFile(file, yaml('filed', 'http://127.0.0.1:1', asFiled, hsFiled));
  const process = await home.start({ ROUTER_LOG_LEVEL: 'debug', ROUTER_REGISTRATIONS: home.path('registrations') });
  const tokens = process.tokens();
  const detector = new LeakDetector({ ...SECRETS, 'token of the homeserver': tokens.homeserver, 'token of the operator': tokens.admin });
  const listener = new Listener(process, detector);
  const watch = process.client('admin').watch(admin.watchEvents, {});
  watch.on('error', () => undefined);
  watch.on('data', (message) => detector.see('WatchEvents', toBinary(admin.watchEvents.output, message)));

  await put(process.client('admin'), yaml('talker', appservice.url, asToken, hsToken));
  await submit(process.client('homeserver'), 'told', 3);
  await appservice.received(indiscreet.length);
  await failedAttempt(process, 'filed');

  const named = { appserviceId: 'talker' };
  const text = (value: string) => ({ source: { case: 'yaml' as const, value } });
  const message = (changes: object) => ({ source: { case: 'registration' as const, value: { id: 'third', url: 'http://127.0.0.1:1', asToken: asRefused, hsToken: hsRefused, senderLocalpart: 'third', namespaces: {}, ...changes } } });
  const refused = yaml('third', 'http://127.0.0.1:1', asRefused, hsRefused);
  const puts: MessageInitShape<typeof admin.putRegistration.input>[] = [
    text(yaml('talker', appservice.url, asToken, hsToken)),
    { ...message({}), validateOnly: true },
    text(yaml('third', 'http://127.0.0.1:1', asToken, hsRefused)),
    text(yaml('third', 'http://127.0.0.1:1', asFiled, hsRefused)),
    text(refused.replace(asRefused, `"${asRefused}`)),
    text(refused.replace(asRefused, `[${asRefused}]`)),
    text(refused.replace(asRefused, `&x !secret ${asRefused}`)),
    text(`${refused}\nas_token: ${asRefused}\n`),
    text(refused.replace('as_token:', 'as_tokn:')),
    text(refused.replace('id: third', `id: "third|${asRefused}"`)),
    text(refused.replace('http://127.0.0.1:1', `http://user:${hsRefused}@127.0.0.1:1/?access_token=${hsRefused}`)),
    text(refused.replace('"!.*"', '"!(?=.*"')),
    text(`${asRefused}: ${hsRefused}`),
    text(asRefused),
    message({ asToken }),
    message({ url: `http://127.0.0.1:1/?access_token=${hsRefused}` }),
    message({ hsToken: '' }),
  ];
  for (const request of puts) await listener.call(admin.putRegistration, 'admin', request);
  await listener.call(admin.putRegistration, 'homeserver', puts[0] ?? {});
  await listener.call(admin.putRegistration, { token: unknownCaller }, puts[0] ?? {});
  await listener.call(admin.getRegistration, 'admin', named);
  await listener.call(admin.listRegistrations, 'admin', {});
  await listener.call(admin.getAppservice, 'admin', named);
  await listener.call(admin.getAppservice, 'admin', { appserviceId: 'filed' });
  await listener.call(admin.getAppservice, 'admin', { appserviceId: 'nobody' });
  await listener.call(admin.listAppservices, 'admin', {});
  await listener.call(admin.pauseDelivery, 'admin', named);
  await listener.call(admin.retryNow, 'admin', named);
  await listener.call(admin.resumeDelivery, 'admin', named);
  await listener.call(admin.retryNow, 'admin', { appserviceId: 'filed' });
  const subject = { case: 'userId' as const, value: '@someone:hs.test' };
  await listener.call(router.checkNamespace, 'homeserver', { subject });
  for (const value of [asToken, asRefused]) await listener.call(router.authorizeIdentifier, 'homeserver', { subject, action: Action.CREATE, actor: { case: 'asToken', value } });
  for (const value of [asToken, asRefused, asToken.toLowerCase(), `${asToken}\n`]) {
    await listener.call(router.authenticateAppservice, 'homeserver', { asToken: value, userId: `@${value}:hs.test`, deviceId: 'D' });
    if (value !== asToken) await listener.call(router.pingAppservice, 'homeserver', { appservice: { case: 'asToken', value }, transactionId: 'T' });
  }
  await listener.call(router.pingAppservice, 'homeserver', { appservice: { case: 'asToken', value: asFiled } });
  await listener.call(router.getStreamPosition, { token: unknownCaller }, {});
  await listener.call(router.submitEvents, 'homeserver', { events: [{ json: Buffer.from(`{"as_token":"${asRefused}"`) }] });

  await writeFile(file, yaml('filed', 'http://127.0.0.1:1', `"${asFiled}`, hsFiled));
  await process.line(({ msg }) => msg === 'a registration file is not applied');
  for (const path of ['/healthz', '/readyz', '/metrics', `/nowhere?access_token=${asToken}`]) await listener.get(path);
  await listener.call(admin.deleteRegistration, 'admin', { ...named, backlog: Backlog.PARK });

  const store = async (): Promise<void> => {
    for (const name of await readdir(home.dir)) if (name.startsWith('router.db')) detector.see(`the file ${name}`, await readFile(home.path(name)));
  };
  await store();
  await process.kill();
  const again = await home.start({ ROUTER_LOG_LEVEL: 'debug' });
  await again.terminate();
  await store();
  detector.see('the log', [...process.lines, ...again.lines].map((line) => JSON.stringify(line)).join('\n'));
  detector.see('beside the log', process.otherOutput.join('\n'));

  assert.ok(appservice.requests.every(({ headers }) => headers['authorization'] === `Bearer ${hsToken}`), 'R55: what must travel travels');
  for (const place of ['the log', 'WatchEvents', 'the file router.db', 'the file router.db-wal', '/metrics', 'an answer of PutRegistration, in grpc-status-details-bin']) assert.ok(detector.bytesSeen(place) > 0, place);
  assert.ok(process.lines.some(({ level }) => level === 'debug'), 'the log is at level debug');
  assert.deepEqual(detector.leaks(), []);
});

test('control: a secret is found in every form it may take', () => {
  const detector = new LeakDetector({ it: 'HS_SECRET/+1' });
  const bytes = Buffer.from('HS_SECRET/+1');
  const forms = [bytes.toString(), bytes.toString('hex'), 'HS_SECRET%2F%2B1', ...['', 'x', 'xy'].map((before) => Buffer.from(`${before}HS_SECRET/+1 and more`).toString('base64'))];
  forms.forEach((form, at) => detector.see(`place ${at}`, `{"a": "${form}"}`));
  assert.deepEqual(detector.leaks(), forms.map((_, at) => `it in place ${at}`));
});
