/**
 * A lean gRPC load generator: requests are encoded beforehand, so that what is measured is the server.
 *
 * `node bench/load-client.ts OPTIONS` with {@link LoadOptions} as JSON; prints {"began": true} when it begins to send and
 * {@link LoadResult} at the end, as lines of JSON.
 */
import { readFileSync } from 'node:fs';
import { Http2Connection, requestHeaders } from './http2-connection.ts';

export interface LoadOptions {
  readonly target: string;
  readonly token: string;
  readonly mode: 'unary' | 'stream';
  readonly connections: number;
  /** Calls outstanding over all connections; in mode `stream`, streams. */
  readonly inFlight: number;
  /** Messages outstanding on each stream. */
  readonly window: number;
  /** A file of SubmitEventsRequest messages, each with its gRPC prefix; they are sent in turn. */
  readonly messages: string;
  /** How long to send; answers are counted until then. */
  readonly seconds: number;
  /** If above 0, this many messages are sent instead, however long it takes. */
  readonly count: number;
  /** If above 0, calls begin at this rate, whether or not answers come; else as fast as answers come. */
  readonly ratePerSecond: number;
}

export interface LoadResult {
  readonly sent: number;
  /** Messages answered in time. */
  readonly done: number;
  /** Messages answered after the end. */
  readonly late: number;
  readonly failed: number;
  readonly firstFailure: string;
  readonly elapsedMs: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU time of this process while it sent. */
  readonly cpuMs: number;
}

const options = JSON.parse(process.argv[2] ?? '') as LoadOptions;
const SERVICE = '/matrix.appservice.v1.AppserviceRouter/';
const STAMP = Buffer.from('"sent_ms":');
/** What is still unanswered so long after the end counts as failed. */
const ANSWER_TIMEOUT_MS = 15_000;

const messages = readMessages(options.messages);
const headers = requestHeaders(SERVICE + (options.mode === 'unary' ? 'SubmitEvents' : 'StreamEvents'), options.target, options.token);
const latenciesMs: number[] = [];
let sent = 0;
let done = 0;
let late = 0;
let failed = 0;
let firstFailure = '';
let startMs = 0;
let endMs = 0;

function readMessages(file: string): Buffer[] {
  const all = readFileSync(file);
  const found: Buffer[] = [];
  for (let at = 0; at < all.length; at += 5 + all.readUInt32BE(at + 1)) found.push(all.subarray(at, at + 5 + all.readUInt32BE(at + 1)));
  return found;
}

function nextMessage(): Buffer {
  const message = messages[sent++ % messages.length];
  if (message === undefined) throw new Error('there are no messages to send');
  return options.ratePerSecond > 0 ? stamped(message) : message;
}

/** Writes the wall clock into the thirteen digits and three decimals that stand behind `"sent_ms":`. */
function stamped(message: Buffer): Buffer {
  const at = message.indexOf(STAMP);
  if (at >= 0) message.write((performance.timeOrigin + performance.now()).toFixed(3), at + STAMP.length, 'latin1');
  // The connection may hold it until the end of this turn.
  return Buffer.from(message);
}

function isOver(): boolean {
  return options.count > 0 ? sent >= options.count : performance.now() >= endMs;
}

function answered(beganMs: number): void {
  const nowMs = performance.now();
  if (options.count > 0 || nowMs <= endMs) {
    done++;
    latenciesMs.push(nowMs - beganMs);
  } else late++;
}

function fail(error: string | null): void {
  failed++;
  if (firstFailure === '') firstFailure = error ?? 'the server answered with an error';
}

function unary(connection: Http2Connection, ended: () => void): void {
  const beganMs = performance.now();
  let hasMessage = false;
  const id = connection.begin(headers, {
    message() {
      hasMessage = true;
    },
    ended(error) {
      if (hasMessage && error === null) answered(beganMs);
      else fail(error);
      ended();
    },
  });
  connection.send(id, nextMessage(), true);
}

/** Keeps one call outstanding until it is over. */
function loop(connection: Http2Connection): Promise<void> {
  return new Promise((resolve) => {
    const next = (): void => {
      // A server that only fails is not worth the time.
      if (isOver() || failed > 1_000) resolve();
      else unary(connection, next);
    };
    next();
  });
}

/** One stream with `window` messages outstanding. */
function streaming(connection: Http2Connection): Promise<void> {
  return new Promise((resolve) => {
    const began: number[] = [];
    const send = (): void => {
      if (isOver()) return connection.end(id);
      began.push(performance.now());
      connection.send(id, nextMessage(), false);
    };
    const id = connection.begin(headers, {
      message() {
        answered(began.shift() ?? 0);
        send();
      },
      ended(error) {
        if (error !== null || began.length > 0) fail(error);
        resolve();
      },
    });
    for (let at = 0; at < options.window; at++) send();
  });
}

/** Begins calls at a steady rate. */
function paced(connections: readonly Http2Connection[]): Promise<void> {
  return new Promise((resolve) => {
    let open = 0;
    const tick = setInterval(() => {
      const nowMs = performance.now();
      const due = Math.floor(((Math.min(nowMs, endMs) - startMs) / 1000) * options.ratePerSecond);
      while (sent < due) {
        const connection = connections[sent % connections.length];
        if (connection === undefined) break;
        open++;
        unary(connection, () => {
          open--;
          if (performance.now() >= endMs && open === 0) resolve();
        });
      }
      if (nowMs < endMs) return;
      clearInterval(tick);
      if (open === 0) resolve();
    }, 1);
  });
}

process.on('disconnect', () => process.exit(1));
const connections = await Promise.all(Array.from({ length: options.connections }, () => Http2Connection.open(options.target)));
console.log(JSON.stringify({ began: true }));
const cpuBefore = process.cpuUsage();
startMs = performance.now();
endMs = startMs + options.seconds * 1000;
const slots = Array.from({ length: options.inFlight }, (_, at) => connections[at % connections.length]).filter((connection) => connection !== undefined);
const sending = options.ratePerSecond > 0 ? paced(connections) : Promise.all(slots.map((connection) => (options.mode === 'unary' ? loop(connection) : streaming(connection))));
const overdue = new Promise<'overdue'>((resolve) => {
  if (options.count === 0) setTimeout(resolve, options.seconds * 1000 + ANSWER_TIMEOUT_MS, 'overdue').unref();
});
if ((await Promise.race([sending, overdue])) === 'overdue') {
  failed += sent - done - late - failed;
  firstFailure ||= `there was no answer ${ANSWER_TIMEOUT_MS / 1000} s after the end`;
}
const elapsedMs = options.count > 0 ? performance.now() - startMs : options.seconds * 1000;
const { user, system } = process.cpuUsage(cpuBefore);
for (const connection of connections) connection.close();
latenciesMs.sort((a, b) => a - b);
const quantile = (share: number): number => latenciesMs[Math.min(latenciesMs.length - 1, Math.floor(latenciesMs.length * share))] ?? 0;
const result: LoadResult = {
  sent,
  done,
  late,
  failed,
  firstFailure,
  elapsedMs,
  perSecond: (done / elapsedMs) * 1000,
  p50Ms: quantile(0.5),
  p99Ms: quantile(0.99),
  cpuMs: (user + system) / 1000,
};
console.log(JSON.stringify(result));
// With nobody left to notice, the channel keeps the process alive no longer.
process.removeAllListeners('disconnect');
