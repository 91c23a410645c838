/**
 * What a user query that hangs for its whole time-out costs others: `node bench/unknown-users.ts`. Router, appservices
 * and homeserver in one process, SQLite in a file, real time. Each event is timed from the call to the receipt, and each
 * call to its answer; every tenth event of a run with queries invites an unknown user into a room of its own.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AppserviceRouter } from '../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { systemClock } from '../src/clock.ts';
import { openSqliteStore } from '../src/store/sqlite/sqlite-store.ts';
import { put } from '../test/support/router-home.ts';
import { eventJson, member } from '../test/support/routing.ts';
import { startService } from '../test/support/service-world.ts';

const EVENTS = 1_000;
const ROUNDS = 3;
const INTERVAL_MS = 5;
const QUERY_TIMEOUT_MS = 5_000;
const ATTEMPTS = 3;

interface Figures {
  readonly answers: number[];
  readonly sameAppservice: number[];
  readonly otherAppservice: number[];
  readonly waiting: number[];
}

function yaml(id: string, url: string): string {
  return `id: ${id}\nurl: ${url}\nas_token: as-${id}\nhs_token: hs-${id}\nsender_localpart: ${id}\nnamespaces:\n  users: [{ exclusive: true, regex: '@${id}_' }]\n  rooms: [{ exclusive: false, regex: '!' }]\n`;
}

/** Takes transactions at once; never answers a query. */
async function receiver(took: (eventId: string) => void): Promise<{ url: string } & AsyncDisposable> {
  const server = createServer((request, response) => {
    if (request.method !== 'PUT') return;
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const { events } = JSON.parse(Buffer.concat(parts).toString()) as { events: { event_id: string }[] };
      for (const { event_id: id } of events) took(id);
      response.end('{}');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function measure(hasUnknown: boolean): Promise<Figures> {
  const folder = await mkdtemp(join(tmpdir(), 'bench-unknown-'));
  const sentMs = new Map<string, number>();
  const figures: Figures = { answers: [], sameAppservice: [], otherAppservice: [], waiting: [] };
  let pending = 0;
  const timed = (into: (id: string) => number[]) => (id: string) => {
    into(id).push(performance.now() - (sentMs.get(id) ?? NaN));
    pending -= 1;
  };
  try {
    await using irc = await receiver(timed((id) => (id.startsWith('$held') ? figures.waiting : figures.sameAppservice)));
    await using xmpp = await receiver(timed(() => figures.otherAppservice));
    await using world = await startService({ store: await openSqliteStore({ path: join(folder, 'router.db'), clock: systemClock }), settings: { queryTimeoutMs: QUERY_TIMEOUT_MS, queryAttemptsMax: ATTEMPTS } });
    await put(world.admin, yaml('irc', irc.url));
    await put(world.admin, yaml('xmpp', xmpp.url));
    for (let at = 0; at < EVENTS; at++) {
      const isHeld = at % 10 === 0;
      const ghost = `@irc_${at}:hs.test`;
      const id = `${isHeld && hasUnknown ? '$held' : '$plain'}-${at}`;
      const event = isHeld ? { ...member(id, ghost, 'invite', `!held-${at}`), sender: '@alice:hs.test' } : { id, room: `!room-${at % 50}` };
      pending += 2;
      const beganMs = performance.now();
      sentMs.set(id, beganMs);
      await world.homeserver.call(AppserviceRouter.method.submitEvents, { events: [{ json: eventJson(event) }], unknownUserIds: isHeld && hasUnknown ? [ghost] : [] });
      figures.answers.push(performance.now() - beganMs);
      await systemClock.sleep(Math.max(0, INTERVAL_MS - (performance.now() - beganMs)));
    }
    while (pending > 0) await systemClock.sleep(50);
    return figures;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function shown(all: readonly number[]): string {
  const sorted = all.toSorted((one, other) => one - other);
  const at = (share: number): string => (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN).toFixed(1);
  return all.length === 0 ? '–' : `p50 ${at(0.5)}, p99 ${at(0.99)} ms (${all.length})`;
}

await measure(false);
// In turn, so that whatever else the machine does falls on both.
const rounds = new Map<boolean, Figures[]>([[false, []], [true, []]]);
for (let round = 0; round < ROUNDS; round++) for (const [hasUnknown, all] of rounds) all.push(await measure(hasUnknown));
for (const [hasUnknown, all] of rounds) {
  const [answers, sameAppservice, otherAppservice, waiting] = (['answers', 'sameAppservice', 'otherAppservice', 'waiting'] as const).map((name) => all.flatMap((figures) => figures[name]));
  process.stdout.write(`${hasUnknown ? 'every tenth event waits for a query that hangs' : 'no unknown users'}\n  answers           ${shown(answers ?? [])}\n  same appservice   ${shown(sameAppservice ?? [])}\n  other appservice  ${shown(otherAppservice ?? [])}\n  rooms that wait   ${shown(waiting ?? [])}\n`);
}
