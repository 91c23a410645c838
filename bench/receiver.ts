/**
 * Appservices for the bench, in one process: takes every transaction, answers it and counts.
 *
 * `node bench/receiver.ts DELAY_MS MODE`; in mode `hang` it never answers. Prints {"port": N}. With a delay each answer comes that long after the request
 * began to arrive; then only one appservice may live here, since waiting blocks the process (a timer would be up to a
 * millisecond late, and turning in circles would take a processor from the router). In mode `parse` the bodies are parsed
 * and the age of their `sent_ms` stamps is noted; in mode `count` events are only counted.
 *
 * GET /stats answers {@link ReceiverStats} and resets it. GET /down makes it refuse with 503 until GET /up.
 */
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';

export interface ReceiverStats {
  readonly transactions: number;
  readonly events: number;
  /** Transactions of 100 events. */
  readonly fullTransactions: number;
  readonly bytes: number;
  /** Time between the arrival of requests and their answers, added up. */
  readonly answerMs: number;
  /** Wall clock of the first and the last transaction. */
  readonly firstMs: number;
  readonly lastMs: number;
  /** Event counts of the first and the last transaction, which may be short. */
  readonly firstEvents: number;
  readonly lastEvents: number;
  readonly measured: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

const TRANSACTION_EVENTS_MAX = 100;
/** Shorter than any event of the bench, longer than the way from one event's id to its own end. */
const EVENT_BYTES_MIN = 400;
const NEEDLE = Buffer.from('"event_id"');

const delayMs = Number(process.argv[2] ?? 0);
const parse = process.argv[3] === 'parse';
const hangs = process.argv[3] === 'hang';
const blocker = new Int32Array(new SharedArrayBuffer(4));
let isDown = false;
let stats = fresh();

function fresh() {
  return { transactions: 0, events: 0, fullTransactions: 0, bytes: 0, answerMs: 0, firstMs: 0, lastMs: 0, firstEvents: 0, lastEvents: 0, latenciesMs: [] as number[] };
}

function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

function answer(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length });
  response.end(body);
}

function eventsOf(body: Buffer): number {
  if (!parse) {
    let events = 0;
    for (let at = body.indexOf(NEEDLE); at >= 0; at = body.indexOf(NEEDLE, at + EVENT_BYTES_MIN)) events++;
    return events;
  }
  const receivedMs = nowMs();
  const { events } = JSON.parse(body.toString()) as { events: { content: { sent_ms?: number } }[] };
  for (const { content } of events) if (content.sent_ms !== undefined) stats.latenciesMs.push(receivedMs - content.sent_ms);
  return events.length;
}

function count(body: Buffer): void {
  const events = eventsOf(body);
  stats.transactions++;
  stats.events += events;
  stats.bytes += body.length;
  if (events === TRANSACTION_EVENTS_MAX) stats.fullTransactions++;
  stats.lastMs = nowMs();
  stats.lastEvents = events;
  if (stats.firstMs !== 0) return;
  stats.firstMs = stats.lastMs;
  stats.firstEvents = events;
}

function takeStats(): ReceiverStats {
  const { latenciesMs, ...counts } = stats;
  stats = fresh();
  latenciesMs.sort((a, b) => a - b);
  const at = (share: number): number => latenciesMs[Math.min(latenciesMs.length - 1, Math.floor(latenciesMs.length * share))] ?? 0;
  return { ...counts, measured: latenciesMs.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

function serve(request: IncomingMessage, response: ServerResponse): void {
  if (request.url === '/stats') return answer(response, 200, JSON.stringify(takeStats()));
  if (request.url === '/down' || request.url === '/up') {
    isDown = request.url === '/down';
    return answer(response, 200, '{}');
  }
  // Takes the request, and that is all.
  if (hangs) return void request.resume();
  const arrivedMs = nowMs();
  const parts: Buffer[] = [];
  request.on('data', (part: Buffer) => parts.push(part));
  request.on('end', () => {
    if (isDown) return answer(response, 503, '{"errcode":"M_UNKNOWN"}');
    const [only] = parts;
    count(parts.length === 1 && only !== undefined ? only : Buffer.concat(parts));
    const leftMs = arrivedMs + delayMs - nowMs();
    if (leftMs > 0) Atomics.wait(blocker, 0, 0, leftMs);
    stats.answerMs += nowMs() - arrivedMs;
    answer(response, 200, '{}');
  });
}

const server = createServer({ keepAliveTimeout: 60_000 }, serve);
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  console.log(JSON.stringify({ port: typeof address === 'object' && address !== null ? address.port : 0 }));
});
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));
