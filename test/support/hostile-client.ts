/** Callers that do not speak as they should: raw bytes, and gRPC framing by hand over HTTP/2. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectHttp2, constants } from 'node:http2';
import type { IncomingHttpHeaders, IncomingHttpStatusHeader } from 'node:http2';
import { connect } from 'node:net';
import type { Socket } from 'node:net';

function endpointOf(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}

export class RawConnections implements Disposable {
  readonly #sockets: Socket[] = [];

  /** Connects and writes; what comes back is read and thrown away, and so are errors. */
  async send(address: string, bytes: string | Uint8Array): Promise<Socket> {
    const socket = connect(endpointOf(address));
    this.#sockets.push(socket);
    socket.on('error', () => undefined);
    socket.resume();
    await once(socket, 'connect');
    socket.write(bytes);
    return socket;
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

/** One HTTP/2 frame, RFC 9113 section 4.1; `length` if it lies. */
export function frame(type: number, flags: number, stream: number, body: Uint8Array = Buffer.alloc(0), length = body.byteLength): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, body]);
}

const DATA = 0;
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const CONTINUATION = 9;
const END_HEADERS = 4;

/** Ways to break HTTP/2 and HTTP/1.1, by what they are. */
export function brokenConversations(): Record<string, Buffer> {
  const opening = Buffer.concat([Buffer.from(PREFACE), frame(SETTINGS, 0, 0)]);
  const http2 = (...frames: Buffer[]): Buffer => Buffer.concat([opening, ...frames]);
  const many = (count: number, make: (n: number) => Buffer): Buffer[] => Array.from({ length: count }, (_, n) => make(n));
  // A literal header with an index that is not there, an indexed `:method: GET`, and one that is never complete.
  const headers = Buffer.from([0x82, 0x86, 0x84]);
  return {
    'random bytes': Buffer.from(Array.from({ length: 4_096 }, (_, n) => (n * 7_919) % 251)),
    'a TLS handshake': Buffer.concat([Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]), Buffer.alloc(600, 0x41)]),
    'a request line without end': Buffer.from(`GET /${'a'.repeat(100_000)}`),
    'a header without end': Buffer.from(`GET / HTTP/1.1\r\nhost: x\r\nx-y: ${'a'.repeat(100_000)}`),
    'ten thousand headers': Buffer.from(`GET / HTTP/1.1\r\n${'x: y\r\n'.repeat(10_000)}\r\n`),
    'two framings at once': Buffer.from('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n'),
    'a content length that is none': Buffer.from('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n'),
    'a chunk that lies': Buffer.from('POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffff\r\nx'),
    'half an HTTP/2 preface': Buffer.from(PREFACE.slice(0, 9)),
    'a preface and then HTTP/1.1': Buffer.from(`${PREFACE}GET / HTTP/1.1\r\n\r\n`),
    'a truncated frame': http2(frame(HEADERS, END_HEADERS, 1, headers, 1_000)),
    'a frame above the limit': http2(frame(DATA, 0, 1, Buffer.alloc(20_000), 16_000_000)),
    'data on a stream that is not open': http2(frame(DATA, 0, 7, Buffer.alloc(100))),
    'headers that do not decode': http2(frame(HEADERS, END_HEADERS, 1, Buffer.alloc(200, 0xff))),
    'an even stream': http2(frame(HEADERS, END_HEADERS, 2, headers)),
    'headers that go on for ever': http2(frame(HEADERS, 0, 1, headers), ...many(2_000, () => frame(CONTINUATION, 0, 1, Buffer.alloc(512, 0x82)))),
    'a flood of settings': http2(...many(5_000, () => frame(SETTINGS, 0, 0, Buffer.from([0, 4, 0, 0, 255, 255])))),
    'a flood of pings': http2(...many(5_000, () => frame(PING, 0, 0, Buffer.alloc(8)))),
    'a flood of resets': http2(...many(2_000, (n) => Buffer.concat([frame(HEADERS, END_HEADERS, 2 * n + 1, headers), frame(RST_STREAM, 0, 2 * n + 1, Buffer.from([0, 0, 0, 8]))]))),
  };
}

/** What a gRPC call with this as its body comes to: the status of its trailers, or what became of it instead. */
export function grpcCallByHand(address: string, path: string, token: string, body: Uint8Array, headers: Readonly<Record<string, string>> = {}): Promise<string> {
  return new Promise((resolve) => {
    const session = connectHttp2(`http://${address}`);
    const end = (what: string): void => {
      session.destroy();
      resolve(what);
    };
    session.on('error', () => end('connection error'));
    const call = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: path,
      'content-type': 'application/grpc',
      te: 'trailers',
      authorization: `Bearer ${token}`,
      ...headers,
    });
    let status: string | undefined;
    const read = (fields: IncomingHttpHeaders & IncomingHttpStatusHeader): void => {
      const value = fields['grpc-status'];
      if (typeof value === 'string') status = value;
      else if (fields[':status'] !== undefined && fields[':status'] !== 200) status = `HTTP ${fields[':status']}`;
    };
    call.on('response', read);
    call.on('trailers', read);
    call.on('error', () => undefined);
    call.on('close', () => end(status ?? 'no status'));
    call.resume();
    call.end(body);
  });
}

/** A message in gRPC's framing; `length` if it lies. */
export function grpcFrame(message: Uint8Array, compressed = false, length = message.byteLength): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(compressed ? 1 : 0, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** Memory of a process in MiB, now and at its highest (Linux). */
export function memoryOf(pid: number): { rssMib: number; peakMib: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mib = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024;
  return { rssMib: mib('VmRSS'), peakMib: mib('VmHWM') };
}
