import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { systemNetwork } from '../../src/query/connect.ts';
import type { DialTarget, Network } from '../../src/query/connect.ts';
import type { OutboundResult } from '../../src/query/http-client.ts';
import { parseOutboundUrl } from '../../src/query/outbound-url.ts';
import { PushWorld } from '../support/push-world.ts';
import { answer, endless, hang, raw, Receiver, unusedPort } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';

const system = systemNetwork();

interface GetOptions {
  readonly owner?: string;
  readonly caFile?: string;
  readonly proxy?: string;
  readonly timeoutMs?: number;
  readonly bodyTimeoutMs?: number;
}

function get(world: PushWorld, text: string, { owner = 'one', caFile, proxy, timeoutMs = 10_000, bodyTimeoutMs = 10_000 }: GetOptions = {}): Promise<OutboundResult> {
  const url = parseOutboundUrl(text);
  assert.ok(url !== null);
  return world.client.request({ owner, url, caFile: caFile ?? null, proxy: proxy ?? null }, { method: 'GET', path: '/path', headers: {}, body: null, timeoutMs, bodyTimeoutMs }, new AbortController().signal);
}

function failureOf(result: OutboundResult): string {
  return result.kind === 'failed' ? result.failure : result.kind;
}

/** A resolver with fixed answers and a dialler that keeps what it was asked for; only loopback is really dialled. */
function scriptedNetwork(answers: Readonly<Record<string, readonly string[]>>): { network: Network; dialled: string[] } {
  const dialled: string[] = [];
  const network: Network = {
    resolve: (host) => {
      const addresses = answers[host];
      return addresses === undefined ? Promise.reject(new Error('ENOTFOUND')) : Promise.resolve(addresses);
    },
    dial(target: DialTarget, signal: AbortSignal): Promise<Socket> {
      const addresses = target.kind === 'tcp' ? target.addresses : [];
      dialled.push(...addresses);
      const loopback = addresses.filter((address) => address === '127.0.0.1' || address === '::1');
      if (target.kind === 'unix' || loopback.length === 0) return Promise.reject(Object.assign(new Error('no way'), { code: 'EHOSTUNREACH' }));
      return system.dial({ ...target, addresses: loopback }, signal);
    },
  };
  return { network, dialled };
}

test('connects to no address that is refused, whatever name it hides behind', async () => {
  const answers = { 'rebound.example': ['169.254.169.254'], 'six.example': ['64:ff9b::a9fe:a9fe', '::ffff:169.254.169.254'], 'none.example': [] };
  const { network, dialled } = scriptedNetwork(answers);
  await using world = new PushWorld({ network });
  for (const url of ['http://rebound.example/', 'https://rebound.example/', 'http://six.example:81/', 'http://169.254.169.254/', 'http://[::ffff:169.254.169.254]/', 'http://[fe80::1]/']) {
    const result = await get(world, url);
    assert.equal(failureOf(result), 'address_refused', url);
    assert.match(result.kind === 'failed' ? (result.sentence ?? '') : '', /never connects/);
  }
  assert.equal(failureOf(await get(world, 'http://none.example/')), 'dns');
  assert.equal(failureOf(await get(world, 'http://unknown.example/')), 'dns');
  assert.deepEqual(dialled, []);
});

test('of several addresses of a name only those that may be are dialled', async () => {
  await using receiver = await Receiver.start(answer(200));
  const { network, dialled } = scriptedNetwork({ 'mixed.example': ['169.254.169.254', '127.0.0.1', '0.0.0.0'] });
  await using world = new PushWorld({ network });
  assert.equal(failureOf(await get(world, `http://mixed.example:${receiver.port}/`)), 'answered');
  assert.deepEqual(dialled, ['127.0.0.1']);
  assert.equal(receiver.requests[0]?.headers['host'], `mixed.example:${receiver.port}`);
});

test('a name is judged again for each connection', async () => {
  await using receiver = await Receiver.start((connection) => connection.end('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'));
  const answers: Record<string, readonly string[]> = { 'moving.example': ['127.0.0.1'] };
  const { network, dialled } = scriptedNetwork(answers);
  await using world = new PushWorld({ network });
  const url = `http://moving.example:${receiver.port}/`;
  assert.equal(failureOf(await get(world, url)), 'answered');
  answers['moving.example'] = ['169.254.169.254'];
  await receiver.until(({ openCount }) => openCount === 0);
  assert.equal(failureOf(await get(world, url)), 'address_refused');
  assert.deepEqual(dialled, ['127.0.0.1']);
});

test("does not connect to the router's own listeners", async () => {
  await using receiver = await Receiver.start(answer(200));
  await using world = new PushWorld({ policy: { ownListeners: () => [{ address: '127.0.0.1', port: receiver.port }] } });
  assert.equal(failureOf(await get(world, receiver.url)), 'address_refused');
  assert.equal(receiver.connectionCount, 0);
});

test('strict refuses a name that came to a private address unless the name is listed', async () => {
  await using receiver = await Receiver.start(answer(200));
  const { network } = scriptedNetwork({ 'as.internal': ['127.0.0.1'], 'other.internal': ['127.0.0.1'] });
  await using world = new PushWorld({ network, policy: { mode: 'strict', allow: ['as.internal'] } });
  assert.equal(failureOf(await get(world, `http://other.internal:${receiver.port}/`)), 'address_refused');
  assert.equal(failureOf(await get(world, `http://as.internal:${receiver.port}/`)), 'answered');
});

test('tries the next address when one refuses', async () => {
  await using receiver = await Receiver.start(answer(200));
  await using world = new PushWorld({ network: { resolve: () => Promise.resolve(['::1', '127.0.0.1']) } });
  assert.equal(failureOf(await get(world, `http://both.example:${receiver.port}/`)), 'answered');
});

test('classifies what the network says', async () => {
  const { network } = scriptedNetwork({ 'far.example': ['192.0.2.1'] });
  await using world = new PushWorld({ network });
  assert.equal(failureOf(await get(world, 'http://far.example/')), 'no_route');
  assert.equal(failureOf(await get(world, `http://127.0.0.1:${await unusedPort()}/`)), 'connection_refused');
});

test('a resolver or a dialler that never answers ends with the connect time-out', async () => {
  const never = (): Promise<never> => new Promise(() => undefined);
  for (const network of [{ resolve: never }, { resolve: () => Promise.resolve(['192.0.2.1']), dial: never }]) {
    await using world = new PushWorld({ network });
    const result = get(world, 'http://slow.example/', { timeoutMs: 60_000 });
    await world.clock.advance(10_000);
    assert.equal(failureOf(await result), 'timeout');
  }
});

test('a connection that comes after its time-out is closed and used by nobody', async () => {
  await using receiver = await Receiver.start(answer(200));
  let connect: (socket: Socket) => void = () => undefined;
  await using world = new PushWorld({ network: { dial: () => new Promise((resolve) => (connect = resolve)) } });
  const result = get(world, receiver.url, { timeoutMs: 60_000 });
  await world.clock.advance(10_000);
  assert.equal(failureOf(await result), 'timeout');
  connect(await system.dial({ kind: 'tcp', addresses: ['127.0.0.1'], port: receiver.port }, new AbortController().signal));
  await receiver.until(({ connectionCount, openCount }) => connectionCount === 1 && openCount === 0);
  assert.equal(receiver.requests.length, 0);
});

test('reads a body up to its bound and says that it is not whole', async () => {
  await using world = new PushWorld({ limits: { responseBytesMax: 10 } });
  await using receiver = await Receiver.start(answer(200, '0123456789'), answer(200, '0123456789a'));
  const whole = await get(world, receiver.url);
  assert.deepEqual(whole.kind === 'answered' && [whole.body.toString(), whole.bodyComplete], ['0123456789', true]);
  const cut = await get(world, receiver.url);
  assert.deepEqual(cut.kind === 'answered' && [cut.body.toString(), cut.bodyComplete], ['0123456789', false]);
});

test('a body that stops in the middle ends with its own time-out, not before', async () => {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(raw('HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 9\r\n\r\nabc'));
  const result = get(world, receiver.url, { timeoutMs: 9_000, bodyTimeoutMs: 2_000 });
  await receiver.received(1);
  while (world.clock.sleeperCount < 2) await world.clock.pause();
  await world.clock.advance(2_000);
  const ended = await result;
  assert.deepEqual(ended.kind === 'answered' && [ended.status, ended.header('x-a'), ended.header('x-b'), ended.body.toString(), ended.bodyComplete], [200, '1', null, 'abc', false]);
});

test('each owner has a pool of its own, and pools that are not used go', async () => {
  await using world = new PushWorld({ limits: { poolIdleMs: 60_000 } });
  await using receiver = await Receiver.start(answer(200));
  for (const owner of ['one', 'two', 'one', 'three']) await get(world, receiver.url, { owner });
  assert.equal(world.client.poolCount, 3);
  assert.equal(new Set(receiver.requests.map(({ connection }) => connection)).size >= 3, true);
  await world.clock.advance(60_000);
  await get(world, receiver.url, { owner: 'four' });
  assert.equal(world.client.poolCount, 1);
  await receiver.until(({ openCount }) => openCount === 1);
});

test('idle pools are bounded in number, the least recently used goes first, one in use stays', async () => {
  await using world = new PushWorld({ limits: { idlePoolsMax: 2 } });
  await using hanging = await Receiver.start(hang);
  await using receiver = await Receiver.start(answer(200));
  const stuck = get(world, hanging.url, { owner: 'stuck' });
  await hanging.received(1);
  for (let at = 0; at < 10; at++) await get(world, receiver.url, { owner: `owner-${at}` });
  assert.equal(world.client.poolCount, 2);
  assert.equal(hanging.openCount, 1);
  await world.clock.advance(10_000);
  assert.equal(failureOf(await stuck), 'timeout');
});

test('disposing of the client ends what is in flight', async () => {
  const world = new PushWorld();
  await using receiver = await Receiver.start(hang);
  const result = get(world, receiver.url);
  await receiver.received(1);
  await world[Symbol.asyncDispose]();
  assert.deepEqual(await result, { kind: 'aborted' });
  assert.deepEqual(await get(world, receiver.url), { kind: 'aborted' });
  await receiver.until(({ openCount }) => openCount === 0);
  assert.equal(world.clock.sleeperCount, 0);
});

test('TLS: trusts the ca_file of the appservice and nothing instead of it', async (t) => {
  const folder = await mkdtemp(`${tmpdir()}/tls-`);
  t.after(() => rm(folder, { recursive: true }));
  const [key, cert, other] = [`${folder}/key.pem`, `${folder}/cert.pem`, `${folder}/other.pem`];
  const make = (subject: string, keyOut: string, out: string): Promise<unknown> =>
    promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', `/CN=${subject}`, '-addext', 'subjectAltName=IP:127.0.0.1,DNS:as.example', '-keyout', keyOut, '-out', out]);
  try {
    await make('receiver', key, cert);
    await make('other', `${folder}/other-key.pem`, other);
  } catch {
    return t.skip('openssl is not installed');
  }
  await writeFile(`${folder}/empty.pem`, 'nothing\n');
  const tls = { key: await readFile(key, 'utf8'), cert: await readFile(cert, 'utf8') };
  await using receiver = await Receiver.startWith({ scripts: [answer(200)], tls });
  await using world = new PushWorld({ network: { resolve: () => Promise.resolve(['127.0.0.1']) } });
  const result = async (url: string, caFile?: string): Promise<string> => failureOf(await get(world, url, caFile === undefined ? {} : { caFile }));
  assert.equal(await result(receiver.url, cert), 'answered');
  assert.equal(await result(`https://as.example:${receiver.port}`, cert), 'answered');
  assert.equal(await result(`https://elsewhere.example:${receiver.port}`, cert), 'tls');
  await using proxy = await Receiver.start(tunnelTo(receiver.port));
  const hostBefore = receiver.requests.length;
  assert.equal(failureOf(await get(world, 'https://as.example:9000/base', { caFile: cert, proxy: `http://user:p%40ss@127.0.0.1:${proxy.port}` })), 'answered');
  const [asked] = proxy.requests;
  assert.deepEqual([asked?.method, asked?.target, asked?.headers['proxy-authorization'], asked?.headers['authorization']], ['CONNECT', 'as.example:9000', `Basic ${Buffer.from('user:p@ss').toString('base64')}`, undefined]);
  const inside = receiver.requests[hostBefore];
  assert.deepEqual([inside?.target, inside?.headers['host'], inside?.headers['proxy-authorization']], ['/base/path', 'as.example:9000', undefined]);
  assert.equal(await result(`https://as.example.:${receiver.port}`, cert), 'answered');
  assert.equal(await result(receiver.url), 'tls');
  assert.equal(await result(receiver.url, other), 'tls');
  assert.equal(await result(receiver.url, `${folder}/missing.pem`), 'local_error');
  assert.equal(await result(receiver.url, `${folder}/empty.pem`), 'local_error');
  await writeFile(`${folder}/large.pem`, (await readFile(cert, 'utf8')).padEnd(1024 * 1024 + 1, '\n'));
  await promisify(execFile)('mkfifo', [`${folder}/pipe.pem`]);
  // Neither ends by itself: a device gives bytes for ever, a pipe waits for a writer.
  for (const caFile of ['/dev/zero', `${folder}/pipe.pem`, `${folder}/large.pem`, folder]) assert.equal(await result(receiver.url, caFile), 'local_error', caFile);
  await using plain = await Receiver.startWith({ scripts: [], onConnection: (connection) => connection.write('HTTP/1.1 400 Bad Request\r\n\r\n') });
  assert.equal(await result(plain.url.replace('http:', 'https:'), cert), 'tls');
});

/** A proxy that connects to this port whatever name it is asked for. */
function tunnelTo(port: number): Script {
  return (connection) => {
    connection.removeAllListeners('data');
    const onward = connect(port, '127.0.0.1', () => {
      connection.write('HTTP/1.1 200 Connection established\r\n\r\n');
      connection.pipe(onward).pipe(connection);
    });
    onward.on('error', () => connection.destroy());
    connection.on('close', () => onward.destroy());
  };
}

test('hands a request that is not encrypted to the proxy of the appservice, which resolves the name', async () => {
  await using proxy = await Receiver.start(answer(200));
  const { network, dialled } = scriptedNetwork({});
  await using world = new PushWorld({ network });
  const at = `http://user:p%40ss@127.0.0.1:${proxy.port}`;
  for (let call = 0; call < 3; call++) assert.equal(failureOf(await get(world, 'http://inside.example:9000/base/', { proxy: at })), 'answered');
  assert.equal(failureOf(await get(world, 'http://[2606:4700::1]', { proxy: `http://127.0.0.1:${proxy.port}` })), 'answered');
  assert.deepEqual(new Set(dialled), new Set(['127.0.0.1']));
  const proof = `Basic ${Buffer.from('user:p@ss').toString('base64')}`;
  assert.deepEqual(
    proxy.requests.slice(2).map(({ method, target, headers }) => [method, target, headers['host'], headers['proxy-authorization']]),
    [['GET', 'http://inside.example:9000/base/path', 'inside.example:9000', proof], ['GET', 'http://[2606:4700::1]/path', '[2606:4700::1]', undefined]],
  );
});

test('what a proxy refuses is no answer of the appservice', async () => {
  await using proxy = await Receiver.start(answer(407, 'who are you?'));
  await using world = new PushWorld();
  const refused = await get(world, 'http://x.example/', { proxy: `http://127.0.0.1:${proxy.port}` });
  assert.equal(failureOf(refused), 'connection_refused');
  assert.match(refused.kind === 'failed' ? (refused.sentence ?? '') : '', /proxy .*HTTP 407/);
  await using appservice = await Receiver.start(answer(407));
  assert.equal(failureOf(await get(world, appservice.url)), 'answered');
});

test('a proxy is no way around the policy, and its refusals are told', async () => {
  await using proxy = await Receiver.start(answer(407, ''), raw('SSH-2.0-x\r\n\r\n'), (connection) => connection.end());
  const { network, dialled } = scriptedNetwork({});
  await using world = new PushWorld({ network });
  const at = `http://127.0.0.1:${proxy.port}/`;
  assert.equal(failureOf(await get(world, 'http://169.254.169.254/', { proxy: at })), 'address_refused');
  assert.equal(failureOf(await get(world, 'http://x.example/', { proxy: 'http://169.254.169.254:3128/' })), 'address_refused');
  assert.equal(failureOf(await get(world, 'http://x.example/', { proxy: 'socks5://127.0.0.1:1' })), 'address_refused');
  assert.deepEqual(dialled, []);
  const refused = await get(world, 'https://x.example/', { proxy: at });
  assert.match(refused.kind === 'failed' ? (refused.sentence ?? '') : '', /HTTP 407/);
  assert.equal(failureOf(await get(world, 'https://x.example/', { proxy: at })), 'connection_refused');
  assert.equal(failureOf(await get(world, 'https://x.example/', { proxy: at })), 'connection_reset');
  await proxy.until(({ openCount }) => openCount === 0);
});

test("neither through a proxy nor as a proxy are the router's own listeners reached", async () => {
  await using receiver = await Receiver.start(answer(200));
  await using proxy = await Receiver.start(answer(200));
  await using world = new PushWorld({ policy: { ownListeners: () => [{ address: '127.0.0.1', port: receiver.port }] } });
  for (const url of [receiver.url, receiver.url.replace('http:', 'https:')]) assert.equal(failureOf(await get(world, url, { proxy: proxy.url })), 'address_refused');
  assert.equal(failureOf(await get(world, 'http://x.example/', { proxy: receiver.url })), 'address_refused');
  assert.deepEqual([receiver.connectionCount, proxy.connectionCount], [0, 0]);
});

test('a proxy whose head never ends is given up at a bound', async () => {
  await using proxy = await Receiver.start(endless('HTTP/1.1 200 OK\r\n', `X: ${'x'.repeat(1_000)}\r\n`));
  await using world = new PushWorld();
  assert.equal(failureOf(await get(world, 'https://x.example/', { proxy: proxy.url })), 'connection_reset');
  await proxy.until(({ openCount }) => openCount === 0);
});

test('a proxy that never answers ends with the connect time-out', async () => {
  await using proxy = await Receiver.start(hang);
  await using world = new PushWorld();
  const result = get(world, 'https://x.example/', { proxy: `http://127.0.0.1:${proxy.port}`, timeoutMs: 60_000 });
  await proxy.received(1);
  await world.clock.advance(10_000);
  assert.equal(failureOf(await result), 'timeout');
  await proxy.until(({ openCount }) => openCount === 0);
});
