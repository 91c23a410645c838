/**
 * The client's half of one HTTP/2 connection for gRPC, reduced to what a load generator needs: requests whose header block
 * is encoded beforehand, flow control in both directions, and of the answers only how many messages they held. It costs a
 * few microseconds a call, where node:http2 costs as much as the server that is measured.
 *
 * A call counts as answered if a message came before its end: a gRPC error comes without one. The server is told to keep
 * no header table, so header blocks may be skipped.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';

export interface Call {
  /** A message of the answer arrived. */
  message(): void;
  /** The call is over; `error` is null if the server ended it in order. */
  ended(error: string | null): void;
}

interface OpenCall {
  readonly id: number;
  readonly call: Call;
  /** Bytes the server takes on this call. */
  window: number;
  /** Frames to send once the windows are open. */
  readonly waiting: Buffer[];
  endsAfter: boolean;
  received: Buffer;
}

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8 } as const;
const FLAG = { end: 1, headersEnd: 4 } as const;
const SETTING = { headerTableSize: 1, initialWindowSize: 4 } as const;
const WINDOW_DEFAULT = 65_535;
const WINDOW_MAX = 2 ** 31 - 1;
const FRAME_BYTES_MAX = 16_384;
const HEAD_BYTES = 9;
/** The server's window for the connection is opened again after so many bytes. */
const REPLENISH_BYTES = 1 << 26;

export class Http2Connection {
  readonly #socket: Socket;
  readonly #calls = new Map<number, OpenCall>();
  #nextId = 1;
  #window = WINDOW_DEFAULT;
  #initialWindow = WINDOW_DEFAULT;
  #received: Buffer = Buffer.alloc(0);
  #receivedBytes = 0;
  /** Calls whose frames wait for a window. */
  readonly #blocked = new Set<OpenCall>();

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (bytes: Buffer) => this.#read(bytes));
    socket.on('error', (error) => this.#fail(error.message));
    socket.on('close', () => this.#fail('the server closed the connection'));
    socket.write(Buffer.concat([Buffer.from(PREFACE), frame(FRAME.settings, 0, 0, settings()), windowUpdate(WINDOW_MAX - WINDOW_DEFAULT)]));
  }

  static async open(target: string): Promise<Http2Connection> {
    const colon = target.lastIndexOf(':');
    const socket = connect({ host: target.slice(0, colon), port: Number(target.slice(colon + 1)) });
    await once(socket, 'connect');
    return new Http2Connection(socket);
  }

  /** Begins a call; `headerBlock` is of {@link requestHeaders}. What is sent in one turn of the event loop leaves in one write. */
  begin(headerBlock: Buffer, call: Call): number {
    const id = this.#nextId;
    this.#nextId += 2;
    const open: OpenCall = { id, call, window: this.#initialWindow, waiting: [], endsAfter: false, received: Buffer.alloc(0) };
    this.#calls.set(id, open);
    this.#write(frame(FRAME.headers, FLAG.headersEnd, id, headerBlock));
    return id;
  }

  /** Sends a message with its gRPC prefix; `ends` if it is the last. */
  send(id: number, message: Buffer, ends: boolean): void {
    const open = this.#calls.get(id);
    if (open === undefined) return;
    for (let at = 0; at < message.length; at += FRAME_BYTES_MAX) open.waiting.push(message.subarray(at, at + FRAME_BYTES_MAX));
    if (ends) open.endsAfter = true;
    this.#flush(open);
  }

  /** Ends the request of a call that may have been sending. */
  end(id: number): void {
    const open = this.#calls.get(id);
    if (open === undefined || open.endsAfter) return;
    open.waiting.push(Buffer.alloc(0));
    open.endsAfter = true;
    this.#flush(open);
  }

  close(): void {
    this.#socket.removeAllListeners('close');
    this.#socket.destroy();
  }

  #write(bytes: Buffer): void {
    if (this.#socket.writableCorked === 0) {
      this.#socket.cork();
      setImmediate(() => this.#socket.uncork());
    }
    this.#socket.write(bytes);
  }

  #flush(open: OpenCall): void {
    for (let part = open.waiting[0]; part !== undefined; part = open.waiting[0]) {
      if (part.length > open.window || part.length > this.#window) {
        this.#blocked.add(open);
        return;
      }
      open.waiting.shift();
      open.window -= part.length;
      this.#window -= part.length;
      this.#write(frameHead(FRAME.data, open.endsAfter && open.waiting.length === 0 ? FLAG.end : 0, open.id, part.length));
      if (part.length > 0) this.#write(part);
    }
    this.#blocked.delete(open);
  }

  #read(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    let at = 0;
    for (const all = this.#received; all.length - at >= HEAD_BYTES; ) {
      const length = all.readUIntBE(at, 3);
      if (all.length - at < HEAD_BYTES + length) break;
      const id = all.readUInt32BE(at + 5) & WINDOW_MAX;
      const start = at + HEAD_BYTES;
      at = start + length;
      this.#frame(all[start - HEAD_BYTES + 3] ?? 0, all[start - HEAD_BYTES + 4] ?? 0, id, all.subarray(start, at));
    }
    this.#received = this.#received.subarray(at);
  }

  #frame(type: number, flags: number, id: number, content: Buffer): void {
    const isEnd = (flags & FLAG.end) !== 0;
    switch (type) {
      case FRAME.data:
        this.#data(id, content);
        if (isEnd) this.#ended(id, null);
        return;
      case FRAME.headers:
        if (isEnd) this.#ended(id, null);
        return;
      case FRAME.reset:
        return this.#ended(id, `the server reset the call with code ${content.readUInt32BE(0)}`);
      case FRAME.settings:
        if (!isEnd) this.#settings(content);
        return;
      case FRAME.ping:
        if (!isEnd) this.#write(frame(FRAME.ping, FLAG.end, 0, content));
        return;
      case FRAME.goAway:
        return this.#fail(`the server closed the connection with code ${content.readUInt32BE(4)}`);
      case FRAME.windowUpdate:
        return this.#opened(id, content.readUInt32BE(0));
    }
  }

  #data(id: number, content: Buffer): void {
    this.#receivedBytes += content.length;
    if (this.#receivedBytes >= REPLENISH_BYTES) {
      this.#write(windowUpdate(this.#receivedBytes));
      this.#receivedBytes = 0;
    }
    const open = this.#calls.get(id);
    if (open === undefined) return;
    let rest = open.received.length === 0 ? content : Buffer.concat([open.received, content]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      rest = rest.subarray(5 + rest.readUInt32BE(1));
      open.call.message();
    }
    open.received = rest;
  }

  #settings(content: Buffer): void {
    for (let at = 0; at + 6 <= content.length; at += 6) {
      if (content.readUInt16BE(at) !== SETTING.initialWindowSize) continue;
      const window = content.readUInt32BE(at + 2);
      for (const open of this.#calls.values()) open.window += window - this.#initialWindow;
      this.#initialWindow = window;
    }
    this.#write(frame(FRAME.settings, FLAG.end, 0, Buffer.alloc(0)));
    this.#unblock();
  }

  #opened(id: number, bytes: number): void {
    if (id === 0) this.#window += bytes;
    else {
      const open = this.#calls.get(id);
      if (open !== undefined) open.window += bytes;
    }
    this.#unblock();
  }

  #unblock(): void {
    for (const open of this.#blocked) this.#flush(open);
  }

  #ended(id: number, error: string | null): void {
    const open = this.#calls.get(id);
    if (open === undefined) return;
    this.#calls.delete(id);
    this.#blocked.delete(open);
    open.call.ended(error);
  }

  #fail(message: string): void {
    for (const id of [...this.#calls.keys()]) this.#ended(id, message);
  }
}

/** The header block of a call of `path` (HPACK, RFC 7541, literals without indexing). */
export function requestHeaders(path: string, authority: string, token: string): Buffer {
  return Buffer.concat([
    Buffer.from([0x83, 0x86]),
    literal(4, path),
    literal(1, authority),
    literal(31, 'application/grpc'),
    Buffer.concat([Buffer.from([0]), text('te'), text('trailers')]),
    literal(23, `Bearer ${token}`),
  ]);
}

function literal(nameIndex: number, value: string): Buffer {
  const name = nameIndex < 15 ? [nameIndex] : [15, nameIndex - 15];
  return Buffer.concat([Buffer.from(name), text(value)]);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1');
  const { length } = bytes;
  if (length < 127) return Buffer.concat([Buffer.from([length]), bytes]);
  const rest = length - 127;
  return Buffer.concat([Buffer.from(rest < 128 ? [127, rest] : [127, (rest & 127) | 128, rest >> 7]), bytes]);
}

function frameHead(type: number, flags: number, id: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(HEAD_BYTES);
  head.writeUIntBE(length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(id, 5);
  return head;
}

function frame(type: number, flags: number, id: number, content: Buffer): Buffer {
  return Buffer.concat([frameHead(type, flags, id, content.length), content]);
}

/** No header table, and a window that is never used up. */
function settings(): Buffer {
  const content = Buffer.alloc(12);
  content.writeUInt16BE(SETTING.headerTableSize, 0);
  content.writeUInt32BE(0, 2);
  content.writeUInt16BE(SETTING.initialWindowSize, 6);
  content.writeUInt32BE(WINDOW_MAX, 8);
  return content;
}

function windowUpdate(bytes: number): Buffer {
  const content = Buffer.alloc(4);
  content.writeUInt32BE(bytes, 0);
  return frame(FRAME.windowUpdate, 0, 0, content);
}
