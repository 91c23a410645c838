/**
 * A lean gRPC load generator: bare HTTP/2 with requests encoded beforehand, so that what is measured is the server.
 *
 * `node bench/load-client.ts '{"target": "127.0.0.1:50051", "token": "…", "method": "SubmitEvents", "mode": "unary",
 *   "connections": 8, "inFlight": 64, "seconds": 5, "files": "DIR"}'`
 * The directory holds encoded SubmitEventsRequest messages, sent in turn. Prints one line of JSON with the rate and latencies.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from 'node:http2';
import type { ClientHttp2Session } from 'node:http2';

interface LoadOptions {
  readonly target: string;
  readonly token: string;
  readonly mode: 'unary' | 'stream';
  readonly connections: number;
  /** Calls outstanding, or streams with one message outstanding each, over all connections. */
  readonly inFlight: number;
  /** Messages outstanding on each stream. */
  readonly window: number;
  readonly seconds: number;
  readonly files: string;
  /** 0 = as fast as answers come. */
  readonly ratePerSecond: number;
}

const options = { window: 1, ratePerSecond: 0, ...JSON.parse(process.argv[2] ?? '{}') } as LoadOptions;
const SERVICE = '/matrix.appservice.v1.AppserviceRouter/';

function frame(message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

const messages = readdirSync(options.files).map((name) => frame(readFileSync(join(options.files, name))));
let turn = 0;
const nextMessage = (): Buffer => messages[turn++ % messages.length] ?? Buffer.alloc(5);

let sent = 0;
let done = 0;
let failed = 0;
let firstFailure = '';
const latenciesMs: number[] = [];
const startMs = performance.now();
const endMs = startMs + options.seconds * 1000;

function headers(method: string): Record<string, string> {
  return { ':method': 'POST', ':path': SERVICE + method, 'content-type': 'application/grpc', te: 'trailers', authorization: `Bearer ${options.token}` };
}

function open(): ClientHttp2Session {
  const session = connect(`http://${options.target}`, { settings: { initialWindowSize: 1 << 20 } });
  session.on('connect', () => session.setLocalWindowSize(8 << 20));
  session.on('error', (error) => fail(error.message));
  return session;
}

function fail(message: string): void {
  failed++;
  if (firstFailure === '') firstFailure = message;
}

function unary(session: ClientHttp2Session, message: Buffer, ended: () => void): void {
  const beganMs = performance.now();
  const stream = session.request(headers('SubmitEvents'));
  let status = '';
  stream.on('response', (head) => {
    status = String(head['grpc-status'] ?? '');
  });
  stream.on('trailers', (trailers) => {
    status = `${String(trailers['grpc-status'])} ${String(trailers['grpc-message'] ?? '')}`;
  });
  stream.on('data', () => undefined);
  stream.on('error', (error) => fail(error.message));
  stream.on('close', () => {
    if (status.startsWith('0')) done++;
    else fail(status);
    latenciesMs.push(performance.now() - beganMs);
    ended();
  });
  sent++;
  stream.end(message);
}

/** Keeps one call outstanding until time is up. */
function loop(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve) => {
    const next = (): void => {
      if (performance.now() >= endMs) resolve();
      else unary(session, nextMessage(), next);
    };
    next();
  });
}

/** Begins calls at a steady rate, whether or not answers come. */
function paced(sessions: readonly ClientHttp2Session[]): Promise<void> {
  return new Promise((resolve) => {
    let open = 0;
    const tick = setInterval(() => {
      const nowMs = performance.now();
      const due = Math.floor(((Math.min(nowMs, endMs) - startMs) / 1000) * options.ratePerSecond);
      while (sent < due) {
        const session = sessions[sent % sessions.length];
        if (session === undefined) break;
        open++;
        unary(session, stamped(nextMessage()), () => {
          open--;
          if (performance.now() >= endMs && open === 0) resolve();
        });
      }
      if (nowMs >= endMs) clearInterval(tick);
    }, 1);
  });
}

const STAMP = Buffer.from('"sent_ms":');

/** Writes the wall clock into the thirteen digits and three decimals that stand behind `"sent_ms":`. */
function stamped(message: Buffer): Buffer {
  const copy = Buffer.from(message);
  const at = copy.indexOf(STAMP);
  if (at >= 0) copy.write((performance.timeOrigin + performance.now()).toFixed(3), at + STAMP.length, 'latin1');
  return copy;
}

/** One stream with `window` messages outstanding until time is up. */
function streaming(session: ClientHttp2Session): Promise<void> {
  return new Promise((resolve) => {
    const stream = session.request(headers('StreamEvents'));
    const began: number[] = [];
    let rest: Buffer = Buffer.alloc(0);
    let ended = false;
    const send = (): void => {
      if (performance.now() >= endMs) {
        if (!ended) stream.end();
        ended = true;
        return;
      }
      began.push(performance.now());
      sent++;
      stream.write(nextMessage());
    };
    stream.on('data', (data: Buffer) => {
      rest = rest.length === 0 ? data : Buffer.concat([rest, data]);
      while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
        rest = rest.subarray(5 + rest.readUInt32BE(1));
        done++;
        latenciesMs.push(performance.now() - (began.shift() ?? 0));
        send();
      }
    });
    stream.on('trailers', (trailers) => {
      if (trailers['grpc-status'] !== '0') fail(`${String(trailers['grpc-status'])} ${String(trailers['grpc-message'] ?? '')}`);
    });
    stream.on('error', (error) => fail(error.message));
    stream.on('close', () => resolve());
    for (let at = 0; at < options.window; at++) send();
  });
}

const sessions = Array.from({ length: options.connections }, open);
const perSession = Array.from({ length: options.inFlight }, (_, at) => sessions[at % sessions.length]).filter((session) => session !== undefined);
if (options.ratePerSecond > 0) await paced(sessions);
else await Promise.all(perSession.map((session) => (options.mode === 'unary' ? loop(session) : streaming(session))));
const elapsedMs = performance.now() - startMs;
for (const session of sessions) session.close();
latenciesMs.sort((a, b) => a - b);
const quantile = (share: number): number => latenciesMs[Math.min(latenciesMs.length - 1, Math.floor(latenciesMs.length * share))] ?? 0;
console.log(JSON.stringify({ sent, done, failed, firstFailure, elapsedMs, perSecond: (done / elapsedMs) * 1000, p50Ms: quantile(0.5), p99Ms: quantile(0.99) }));
