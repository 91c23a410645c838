/**
 * Appservices for the bench, in one process: answers every transaction after a given delay and counts.
 * `node bench/receiver.ts DELAY_MS [parse]`; prints {"port": N}. GET /stats answers and resets the counts.
 */
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';

const delayMs = Number(process.argv[2] ?? 0);
const parse = process.argv[3] === 'parse';
const NEEDLE = Buffer.from('"event_id"');

let stats = fresh();

function fresh() {
  return { transactions: 0, events: 0, fullTransactions: 0, bytes: 0, firstMs: 0, lastMs: 0, latenciesMs: [] as number[] };
}

function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** Answers no sooner than `atMs` and hardly later: a timer alone is up to a millisecond late. */
function answerAt(atMs: number, response: ServerResponse): void {
  const left = atMs - nowMs();
  if (left > 1.5) setTimeout(answerAt, left - 1.5, atMs, response);
  else if (left > 0) setImmediate(answerAt, atMs, response);
  else {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end('{}');
  }
}

function count(body: Buffer): void {
  let events = 0;
  if (parse) {
    const { events: received } = JSON.parse(body.toString()) as { events: { content: { sent_ms?: number } }[] };
    events = received.length;
    const receivedMs = nowMs();
    for (const { content } of received) if (content.sent_ms !== undefined) stats.latenciesMs.push(receivedMs - content.sent_ms);
  } else for (let at = body.indexOf(NEEDLE); at >= 0; at = body.indexOf(NEEDLE, at + 400)) events++;
  stats.transactions++;
  stats.events += events;
  stats.bytes += body.length;
  if (events === 100) stats.fullTransactions++;
  stats.lastMs = nowMs();
  if (stats.firstMs === 0) stats.firstMs = stats.lastMs;
}

function serve(request: IncomingMessage, response: ServerResponse): void {
  if (request.url === '/stats') {
    const { latenciesMs, ...counts } = stats;
    latenciesMs.sort((a, b) => a - b);
    const at = (share: number): number => latenciesMs[Math.min(latenciesMs.length - 1, Math.floor(latenciesMs.length * share))] ?? 0;
    stats = fresh();
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ ...counts, measured: latenciesMs.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }));
    return;
  }
  const arrivedMs = nowMs();
  const parts: Buffer[] = [];
  request.on('data', (part: Buffer) => parts.push(part));
  request.on('end', () => {
    count(Buffer.concat(parts));
    answerAt(arrivedMs + delayMs, response);
  });
}

const server = createServer({ keepAliveTimeout: 60_000 }, serve);
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  console.log(JSON.stringify({ port: typeof address === 'object' && address !== null ? address.port : 0 }));
});
process.on('SIGTERM', () => {
  server.closeAllConnections();
  server.close();
});
