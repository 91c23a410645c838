/** What an appservice, or who sits in its place, may answer with: each ends bounded in bytes and time, and spoils nothing after it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { OutboundResult } from '../../src/query/http-client.ts';
import { parseOutboundUrl } from '../../src/query/outbound-url.ts';
import { PushWorld } from '../support/push-world.ts';
import { answer, endless, raw, Receiver } from '../support/receiver.ts';
import type { Script } from '../support/receiver.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}';

function get(world: PushWorld, text: string): Promise<OutboundResult> {
  const url = parseOutboundUrl(text);
  assert.ok(url !== null);
  const request = { method: 'GET', path: '/path', headers: {}, body: null, timeoutMs: 10_000, bodyTimeoutMs: 1_000 } as const;
  return world.client.request({ owner: 'one', url, caFile: null, proxy: null }, request, new AbortController().signal);
}

function shown(result: OutboundResult): string {
  if (result.kind === 'failed') return result.failure;
  return result.kind === 'answered' ? `${result.status} ${result.bodyComplete ? 'whole' : 'cut'} ${result.body.byteLength}` : result.kind;
}

/** What the client makes of it; the next request gets its own answer, over a connection of its own. */
async function answeredWith(script: Script): Promise<string> {
  await using world = new PushWorld({ limits: { connectionsMax: 1 } });
  await using receiver = await Receiver.start(script, answer(200, 'sound'));
  const result = shown(await get(world, receiver.url));
  const next = await get(world, receiver.url);
  assert.equal(next.kind === 'answered' && next.body.toString(), 'sound');
  assert.equal(receiver.requests[1]?.connection, 2);
  return result;
}

test('a flood of informational answers ends the request, however fast or slow it comes', async () => {
  assert.equal(await answeredWith(endless('', 'HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n')), 'bad_response');
  assert.equal(await answeredWith(raw(`${'HTTP/1.1 102 Processing\r\n\r\n'.repeat(17)}${OK}`)), 'bad_response');
  await using world = new PushWorld();
  await using receiver = await Receiver.start(raw(`${'HTTP/1.1 102 Processing\r\n\r\n'.repeat(16)}${OK}`));
  assert.equal(shown(await get(world, receiver.url)), '200 whole 2');
});

test('informational answers that trickle in do not put off the time-out', async () => {
  await using world = new PushWorld();
  await using receiver = await Receiver.start(raw('HTTP/1.1 103 Early Hints\r\n\r\n'));
  const result = get(world, receiver.url);
  await receiver.received(1);
  await world.clock.advance(10_000);
  assert.equal(shown(await result), 'timeout');
  await receiver.until(({ openCount }) => openCount === 0);
});

test('an upgrade that nobody asked for is no answer', async () => {
  assert.equal(await answeredWith(raw('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n')), 'bad_response');
});

test('framing that can be read in two ways is read in none', async () => {
  for (const head of [
    'Content-Length: 2\r\nTransfer-Encoding: chunked',
    'Transfer-Encoding: chunked\r\nContent-Length: 2',
    'Content-Length: 2\r\nContent-Length: 3',
    'Content-Length: -2',
    'Content-Length: 0x2',
    'Content-Length : 2',
    'Content-Length: 99999999999999999999999',
  ]) {
    assert.equal(await answeredWith(raw(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n{}`)), 'bad_response', head);
  }
  for (const bytes of ['HTTP/9.9 200 OK\r\n\r\n', 'HTTP/1.1 abc OK\r\n\r\n', 'HTTP/1.1 200 OK\r\nNo colon\r\n\r\n', 'HTTP/1.1 200 OK\r\nX: a\u0000b\r\n\r\n', '<html>502</html>']) {
    assert.equal(await answeredWith(raw(bytes)), 'bad_response', JSON.stringify(bytes));
  }
});

test('a body that breaks off or is framed wrongly leaves the status standing', async () => {
  assert.equal(await answeredWith(raw('HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n')), '404 cut 2');
  assert.equal(await answeredWith((connection) => void connection.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}')), '200 cut 2');
});

test('an answer too many is not taken for that of the next request', async () => {
  const surplus = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged';
  assert.equal(await answeredWith(raw(`HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\n{}${surplus}`)), '404 whole 2');
  assert.equal(await answeredWith(raw(`HTTP/1.1 204 X\r\nContent-Length: ${surplus.length}\r\n\r\n${surplus}`)), '204 whole 0');
});

test('a compressed body stays as it came: none was asked for, and none is unpacked', async () => {
  const bomb = gzipSync(Buffer.alloc(50 * 1024 * 1024));
  await using world = new PushWorld();
  await using receiver = await Receiver.start((connection) => {
    connection.write(`HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ${bomb.byteLength}\r\n\r\n`);
    connection.write(bomb);
  });
  const result = await get(world, receiver.url);
  assert.equal(receiver.requests[0]?.headers['accept-encoding'], undefined);
  assert.ok(result.kind === 'answered' && result.body.equals(bomb.subarray(0, 64 * 1024)));
});

test('trailers without end, and pieces of one byte without end, are dropped at their bounds', async () => {
  const trailers = await answeredWith(endless('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n', `X: ${'x'.repeat(1_000)}\r\n`));
  assert.equal(trailers, '200 cut 2');
  assert.equal(await answeredWith(endless('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', '1\r\nx\r\n'.repeat(1_000))), `200 cut ${64 * 1024}`);
});
