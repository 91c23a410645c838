import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DomainEventRecord } from '../../src/appservice/domain-event.ts';
import type { Provision, ProvisionSubject } from '../../src/appservice/provisioning.ts';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import type { LogFields, Logger } from '../../src/logger.ts';
import { systemNetwork } from '../../src/query/connect.ts';
import type { Network } from '../../src/query/connect.ts';
import { Provisioning, PROVISIONING_LIMITS } from '../../src/query/provisioning.ts';
import type { ProvisioningOptions } from '../../src/query/provisioning.ts';
import { seededRandom, settle } from '../support/clock.ts';
import { AS_TOKEN, HS_TOKEN, PushWorld, registrationFor } from '../support/push-world.ts';
import type { PushWorldOptions } from '../support/push-world.ts';
import { answer, close, hang, raw, Receiver, reset, unusedPort } from '../support/receiver.ts';

const USER: ProvisionSubject = { kind: 'users', identifier: '@irc_x:example.org' };
const ALIAS: ProvisionSubject = { kind: 'aliases', identifier: '#irc_x:example.org' };
const NO: Provision = { exists: false, appserviceId: undefined };
const yes = answer(200);
const no = answer(404);

/** Queries over the client and the clock of a PushWorld. */
class QueryWorld implements AsyncDisposable {
  readonly push: PushWorld;
  readonly clock: PushWorld['clock'];
  readonly events: DomainEventRecord[] = [];
  readonly logged: { readonly level: string; readonly fields: LogFields; readonly message: string }[] = [];
  readonly provisioning: Provisioning;

  constructor(changes: Partial<ProvisioningOptions> = {}, push: PushWorldOptions = {}) {
    this.push = new PushWorld(push);
    this.clock = this.push.clock;
    const log = (level: string) => (fields: LogFields, message: string) => void this.logged.push({ level, fields, message });
    const logger: Logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };
    this.provisioning = new Provisioning({
      client: this.push.client,
      clock: this.clock,
      random: seededRandom(1),
      logger,
      events: { emit: (record) => void this.events.push(record) },
      queryTimeoutMs: 5_000,
      attemptsMax: 3,
      ...PROVISIONING_LIMITS,
      ...changes,
    });
  }

  ask(candidates: readonly Registration[], subject: ProvisionSubject = USER): Promise<Provision> {
    return this.provisioning.query('example.org', subject, candidates);
  }

  /** Lets time pass until the query has ended; fails if that takes longer than `limitMs`. */
  async ended<Value>(pending: Promise<Value>, limitMs = 200_000): Promise<{ readonly afterMs: number }> {
    const beganMs = this.clock.nowMs();
    let isOver = false;
    const over = (): void => void (isOver = true);
    pending.then(over, over);
    await settle();
    while (!isOver) {
      assert.ok(this.clock.nowMs() - beganMs < limitMs, 'the query goes on');
      await this.clock.advance(this.clock.sleeperCount === 0 ? 0 : 50);
    }
    return { afterMs: this.clock.nowMs() - beganMs };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.provisioning[Symbol.asyncDispose]();
    await this.push[Symbol.asyncDispose]();
  }
}

function refusedWith(reason: string, metadata?: Record<string, string>): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof RefusalError);
    assert.equal(error.reason, reason);
    if (metadata !== undefined) assert.deepEqual(error.details.metadata, metadata);
    return true;
  };
}

const as = (id: string, receiver: Receiver, rest: Partial<Registration> = {}): Registration => registrationFor(receiver.url, { id, ...rest });

test('R55 R113 M8 a user and an alias are asked for at their own paths with the hs_token, and a yes is told as a domain event', async () => {
  await using world = new QueryWorld();
  await using receiver = await Receiver.start(yes);
  assert.deepEqual(await world.ask([as('irc', receiver)]), { exists: true, appserviceId: 'irc' });
  assert.deepEqual(await world.ask([as('irc', receiver)], ALIAS), { exists: true, appserviceId: 'irc' });
  assert.deepEqual(
    receiver.requests.map(({ method, target, headers, body }) => [method, target, headers['authorization'], headers['content-type'], body.byteLength]),
    [
      ['GET', '/_matrix/app/v1/users/%40irc_x%3Aexample.org', `Bearer ${HS_TOKEN}`, undefined, 0],
      ['GET', '/_matrix/app/v1/rooms/%23irc_x%3Aexample.org', `Bearer ${HS_TOKEN}`, undefined, 0],
    ],
  );
  const common = { serverName: 'example.org', timeMs: world.clock.nowMs() };
  assert.deepEqual(world.events, [
    { ...common, event: { kind: 'user_provisioned', service_id: 'irc', user_id: '@irc_x:example.org' } },
    { ...common, event: { kind: 'alias_provisioned', service_id: 'irc', alias: '#irc_x:example.org' } },
  ]);
});

test('R120 whatever stands in an identifier, it is one segment of the path that decodes to the same', async () => {
  await using world = new QueryWorld();
  await using receiver = await Receiver.start(no);
  const identifiers = ['@a/b?c#d%2Fe:example.org', "@ü🦊 !'()*;&=+$,[]\\:example.org", '@../..:example.org', '@\u0000\r\nx:example.org:8448'];
  for (const identifier of identifiers) await world.ask([as('irc', receiver)], { kind: 'users', identifier });
  const segments = receiver.requests.map(({ target }) => target.replace('/_matrix/app/v1/users/', ''));
  for (const segment of segments) assert.match(segment, /^[A-Za-z0-9._~%-]+$/);
  assert.deepEqual(segments.map(decodeURIComponent), identifiers);
});

test('R56 the token stands in the query too for an appservice that wants it there', async () => {
  await using world = new QueryWorld();
  await using receiver = await Receiver.start(no);
  await world.ask([as('irc', receiver, { delivery_options: { legacy_auth: 'both' } })]);
  assert.equal(receiver.requests[0]?.target, `/_matrix/app/v1/users/%40irc_x%3Aexample.org?access_token=${HS_TOKEN}`);
  assert.equal(receiver.requests[0]?.headers['authorization'], `Bearer ${HS_TOKEN}`);
});

test('R104 R105 R107 users and aliases are asked for at their legacy paths only where v1 knows no such route', async () => {
  await using world = new QueryWorld();
  await using receiver = await Receiver.start(answer(404, '{"errcode":"M_NOT_FOUND"}'), answer(404, ''), yes, answer(404, 'Cannot GET'), answer(404, '{"errcode":"M_NOT_FOUND"}'));
  const irc = as('irc', receiver, { delivery_options: { legacy_paths: 'unrecognized' } });
  assert.deepEqual(await world.ask([irc]), NO);
  assert.equal(receiver.requests.length, 1);
  assert.deepEqual(await world.ask([irc]), { exists: true, appserviceId: 'irc' });
  assert.deepEqual(await world.ask([irc], ALIAS), NO);
  assert.deepEqual(receiver.requests.slice(2).map(({ target }) => target), ['/users/%40irc_x%3Aexample.org', '/_matrix/app/v1/rooms/%23irc_x%3Aexample.org', '/rooms/%23irc_x%3Aexample.org']);
  assert.deepEqual(world.logged.map(({ fields }) => [fields['outcome'], fields['path'], fields['attempt_count']]), [['no', 'v1', 1], ['yes', 'legacy', 1], ['no', 'legacy', 1]]);
});

test('R117 a query answered with a redirect to a metadata address fails, and nothing is dialled there', async () => {
  for (const legacy_paths of ['off', 'unrecognized', 'any_error'] as const) {
    const dialled: string[] = [];
    const network = systemNetwork();
    const dial: Network['dial'] = (target, signal) => {
      dialled.push(target.kind === 'tcp' ? target.addresses.join() : target.path);
      return network.dial(target, signal);
    };
    await using world = new QueryWorld({}, { network: { dial } });
    await using receiver = await Receiver.start(answer(302, '', { location: 'http://169.254.169.254/latest/meta-data/' }));
    await assert.rejects(world.ask([as('irc', receiver, { delivery_options: { legacy_paths } })]), refusedWith('APPSERVICE_SERVICE_UNAVAILABLE'));
    assert.deepEqual(new Set(dialled), new Set(['127.0.0.1']));
    assert.equal(receiver.requests.length, legacy_paths === 'any_error' ? 2 : 1);
  }
});

test('R111 without a candidate the answer is no, and nothing is sent, told or logged', async () => {
  await using world = new QueryWorld();
  assert.deepEqual(await world.ask([]), NO);
  assert.deepEqual([world.events, world.logged, world.push.client.poolCount], [[], [], 0]);
});

test('R115 R118 candidates are asked in order until one says yes, and 404 from all is a definite no', async () => {
  await using world = new QueryWorld();
  await using first = await Receiver.start(no);
  await using second = await Receiver.start(yes, no);
  await using third = await Receiver.start(no);
  const candidates = [as('first', first), as('second', second), as('third', third)];
  assert.deepEqual(await world.ask(candidates), { exists: true, appserviceId: 'second' });
  assert.deepEqual([first.requests.length, second.requests.length, third.requests.length], [1, 1, 0]);
  assert.deepEqual(await world.ask(candidates), NO);
  assert.deepEqual([first.requests.length, second.requests.length, third.requests.length], [2, 2, 1]);
  assert.equal(world.events.length, 1);
});

test('R117 M9 a failure is neither a no nor asked again: the call fails, its line differs from that of a no, and the next call asks anew', async () => {
  for (const status of [204, 301, 400, 401, 403, 429, 500, 502, 503]) {
    await using world = new QueryWorld();
    await using receiver = await Receiver.start(answer(status, ''), no, yes);
    const candidates = [as('irc', receiver)];
    await assert.rejects(world.ask(candidates), (error) => {
      assert.ok(error instanceof RefusalError);
      assert.deepEqual([error.reason, error.message], ['APPSERVICE_SERVICE_UNAVAILABLE', 'Application service is currently unavailable']);
      assert.deepEqual(error.details, { metadata: { errcode: 'M_UNKNOWN', http_status: '503', appservice_ids: 'irc' }, retryDelayMs: 5_000 });
      return true;
    });
    assert.equal(receiver.requests.length, 1);
    assert.deepEqual(await world.ask(candidates), NO);
    assert.deepEqual(await world.ask(candidates), { exists: true, appserviceId: 'irc' });
    assert.deepEqual(
      world.logged.map(({ level, message, fields }) => [level, message, fields['outcome'], fields['http_status'], fields['attempt_count'], fields['user_id']]),
      [
        ['warn', 'query failed', 'failed', status, 1, USER.identifier],
        ['info', 'query', 'no', 404, 1, USER.identifier],
        ['info', 'query', 'yes', 200, 1, USER.identifier],
      ],
    );
    assert.ok(!JSON.stringify(world.logged).includes(HS_TOKEN) && !JSON.stringify(world.logged).includes(AS_TOKEN));
  }
});

test('R117 R118 behind one that failed the next is asked; its yes counts, its no does not', async () => {
  await using world = new QueryWorld();
  await using broken = await Receiver.start(answer(500));
  await using sound = await Receiver.start(yes, no);
  const candidates = [as('broken', broken), as('sound', sound)];
  assert.deepEqual(await world.ask(candidates), { exists: true, appserviceId: 'sound' });
  await assert.rejects(world.ask(candidates), refusedWith('APPSERVICE_SERVICE_UNAVAILABLE', { errcode: 'M_UNKNOWN', http_status: '503', appservice_ids: 'broken' }));
});

test('R116 no answer is tried again after a short pause, and an answer then counts', async () => {
  await using world = new QueryWorld();
  await using receiver = await Receiver.start(reset, close, yes);
  const asking = world.ask([as('irc', receiver)]);
  const { afterMs } = await world.ended(asking);
  assert.deepEqual(await asking, { exists: true, appserviceId: 'irc' });
  assert.equal(receiver.requests.length, 3);
  assert.ok(afterMs >= 100 && afterMs <= 1_000, `${afterMs}`);
  assert.deepEqual(world.logged.map(({ fields }) => [fields['outcome'], fields['attempt_count']]), [['yes', 3]]);
});

test('R116 after the last attempt the call is a timeout that the caller can turn into 408', async () => {
  for (const script of [hang, reset, raw('no HTTP at all\r\n\r\n')]) {
    await using world = new QueryWorld({ attemptsMax: 2 });
    await using receiver = await Receiver.start(script);
    const asking = world.ask([as('irc', receiver)]);
    const { afterMs } = await world.ended(asking);
    await assert.rejects(asking, refusedWith('APPSERVICE_QUERY_TIMEOUT', { errcode: 'M_UNKNOWN', http_status: '408', appservice_ids: 'irc' }));
    assert.equal(receiver.requests.length, 2);
    if (script === hang) assert.ok(afterMs >= 10_100 && afterMs <= 10_300, `${afterMs}`);
    assert.deepEqual(world.logged.map(({ level, message, fields }) => [level, message, fields['outcome'], fields['attempt_count']]), [['warn', 'query failed', 'no_answer', 2]]);
  }
});

test('R116 an appservice that does not run is a timeout too; beside one that failed the timeout is told', async () => {
  await using world = new QueryWorld();
  await using broken = await Receiver.start(answer(500));
  const asking = world.ask([as('broken', broken), registrationFor(`http://127.0.0.1:${await unusedPort()}`, { id: 'gone' })]);
  await world.ended(asking);
  await assert.rejects(asking, refusedWith('APPSERVICE_QUERY_TIMEOUT', { errcode: 'M_UNKNOWN', http_status: '408', appservice_ids: 'gone' }));
});

test('an address that is refused, and a url that is none, are not tried again', async () => {
  await using world = new QueryWorld();
  for (const url of ['http://169.254.169.254', 'ftp://example.org']) {
    await assert.rejects(world.ask([registrationFor(url)]), refusedWith('APPSERVICE_QUERY_TIMEOUT'));
  }
  assert.deepEqual(world.logged.map(({ fields }) => fields['failure']), ['address_refused', 'address_refused']);
});

test('the query_timeout_ms of a registration goes before the setting', async () => {
  await using world = new QueryWorld({ attemptsMax: 1 });
  await using receiver = await Receiver.start(hang);
  const asking = world.ask([as('irc', receiver, { delivery_options: { query_timeout_ms: 700 } })]);
  const { afterMs } = await world.ended(asking);
  assert.equal(afterMs, 700);
  await assert.rejects(asking, refusedWith('APPSERVICE_QUERY_TIMEOUT'));
});

test('all attempts of all candidates end within the total time-out', async () => {
  await using world = new QueryWorld({ totalTimeoutMs: 12_000 });
  await using receiver = await Receiver.start(hang);
  const asking = world.ask([as('a', receiver), as('b', receiver), as('c', receiver)]);
  const { afterMs } = await world.ended(asking);
  assert.equal(afterMs, 12_000);
  await assert.rejects(asking, refusedWith('APPSERVICE_QUERY_TIMEOUT', { errcode: 'M_UNKNOWN', http_status: '408', appservice_ids: 'a,b,c' }));
});

test('R121 M8 queries with some candidates in common ask each of those once, and a yes is told once', async () => {
  await using world = new QueryWorld();
  const held: (() => void)[] = [];
  await using first = await Receiver.start((connection, request) => void held.push(() => yes(connection, request)));
  await using second = await Receiver.start(no);
  const [irc, other] = [as('irc', first), as('other', second)];
  const alone = world.ask([irc]);
  await first.received(1);
  const both = world.ask([other, irc]);
  const again = world.ask([irc]);
  await second.received(1);
  await settle();
  held[0]?.();
  for (const answered of [alone, both, again]) assert.deepEqual(await answered, { exists: true, appserviceId: 'irc' });
  assert.deepEqual([first.requests.length, second.requests.length, world.events.length], [1, 1, 1]);
});

test('R20 a registration that changed is asked anew while the old one still hangs', async () => {
  await using world = new QueryWorld();
  await using old = await Receiver.start(hang);
  await using changed = await Receiver.start(yes);
  const hanging = assert.rejects(world.ask([as('irc', old)]), refusedWith('APPSERVICE_QUERY_TIMEOUT'));
  await old.received(1);
  assert.deepEqual(await world.ask([as('irc', changed), as('second', changed)]), { exists: true, appserviceId: 'irc' });
  await world.ended(hanging);
});

test('R121 queries for the same identifier that overlap are one; for others, and once it has ended, they are not', async () => {
  await using world = new QueryWorld();
  await using receiver = await Receiver.start(hang, yes);
  const candidates = [as('irc', receiver)];
  const same = Array.from({ length: 20 }, () => world.ask(candidates));
  await receiver.received(1);
  assert.equal(world.provisioning.underWayCount, 1);
  assert.deepEqual(await world.ask(candidates, ALIAS), { exists: true, appserviceId: 'irc' });
  assert.deepEqual(await world.ask(candidates, { kind: 'users', identifier: '@irc_y:example.org' }), { exists: true, appserviceId: 'irc' });
  assert.deepEqual(await world.provisioning.query('other.org', USER, candidates), { exists: true, appserviceId: 'irc' });
  receiver.dropConnections();
  await world.ended(Promise.all(same));
  assert.deepEqual(await Promise.all(same), same.map(() => ({ exists: true, appserviceId: 'irc' })));
  assert.equal(receiver.requests.length, 5);
  assert.equal(world.provisioning.underWayCount, 0);
  await world.ask(candidates);
  assert.equal(receiver.requests.length, 6);
});

test('R119 queries that hang hold up neither transactions to the same appservice nor queries to another', async () => {
  await using world = new QueryWorld();
  await using hanging = await Receiver.startWith({ scripts: [(connection, request) => (request.method === 'PUT' ? answer(200) : hang)(connection, request)] });
  await using other = await Receiver.start(yes);
  const registration = as('slow', hanging);
  const asking = Array.from({ length: 20 }, (_, at) => world.ask([registration], { kind: 'users', identifier: `@irc_${at}:example.org` }));
  await hanging.received(8);
  assert.deepEqual(await world.push.send(registration), { kind: 'delivered', httpStatus: 200 });
  assert.deepEqual(await world.ask([as('other', other)]), { exists: true, appserviceId: 'other' });
  await world.provisioning[Symbol.asyncDispose]();
  for (const one of asking) await assert.rejects(one, refusedWith('DRAINING'));
});

test('R119 more queries than may be under way, of one appservice or together, are refused at once, and are taken again later', async () => {
  await using world = new QueryWorld({ queriesMax: 3, appserviceQueriesMax: 2 });
  await using hanging = await Receiver.start(hang, hang, hang, yes);
  await using sound = await Receiver.start(yes);
  const user = (at: number): ProvisionSubject => ({ kind: 'users', identifier: `@irc_${at}:example.org` });
  const asking = [world.ask([as('a', hanging)], user(1)), world.ask([as('a', hanging)], user(2))];
  await hanging.received(2);
  await assert.rejects(world.ask([as('a', hanging)], user(3)), refusedWith('QUEUE_FULL'));
  assert.equal((await world.ask([as('sound', sound)], user(4))).exists, true);
  asking.push(world.ask([as('b', hanging)], user(5)));
  await hanging.received(3);
  await assert.rejects(world.ask([as('sound', sound)], user(6)), refusedWith('QUEUE_FULL'));
  hanging.dropConnections();
  await world.ended(Promise.all(asking));
  assert.equal((await world.ask([as('a', hanging)], user(3))).exists, true);
});
