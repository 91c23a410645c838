/** Stream positions that appservices have acknowledged: against a model that knows every item. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { deliveredStreamPositions } from '../../src/delivery/delivered-positions.ts';
import type { OtherItems } from '../../src/ingest/submission.ts';
import { StoreError } from '../../src/store/errors.ts';
import { openLedger } from '../support/ledger-world.ts';
import type { LedgerWorld } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { registration, SERVER, submission } from '../support/routing.ts';

const IDS = ['a', 'b'];
const STREAMS = ['', 'to_device', '__proto__'];
const USERS = ['@_a_x:hs.test', '@_b_x:hs.test', '@nobody:hs.test'];

interface Item {
  readonly id: string;
  readonly isEvent: boolean;
  readonly user: number;
  readonly gap: number;
}

const item: fc.Arbitrary<Item> = fc.record({ id: fc.uuid(), isEvent: fc.boolean(), user: fc.nat({ max: 2 }), gap: fc.integer({ min: 1, max: 3 }) });
const calls = fc.array(fc.record({ stream: fc.constantFrom(...STREAMS), items: fc.array(item, { minLength: 1, maxLength: 8 }) }), { minLength: 1, maxLength: 12 });

/** Every item of a stream with who gets it. */
interface Known {
  readonly stream: string;
  readonly streamPosition: number;
  readonly id: string;
  readonly appserviceId: string | undefined;
}

async function submitAll(world: LedgerWorld, all: readonly { stream: string; items: readonly Item[] }[]): Promise<Known[]> {
  const known: Known[] = [];
  const last = new Map<string, number>();
  for (const { stream, items } of all) {
    const placed = items.map((one) => {
      const streamPosition = (last.get(stream) ?? 0) + one.gap;
      last.set(stream, streamPosition);
      known.push({ stream, streamPosition, id: one.id, appserviceId: IDS[one.user] });
      return { ...one, streamPosition };
    });
    const events = placed.filter(({ isEvent }) => isEvent).map(({ id, user, streamPosition }) => ({ id, room: '!r:hs.test', sender: USERS[user] ?? '', at: streamPosition }));
    const toDevice = placed.filter(({ isEvent }) => !isEvent).map(({ id, user, streamPosition }) => ({ json: Buffer.from(JSON.stringify({ event_id: id })), userId: USERS[user] ?? '', streamPosition }));
    const others: OtherItems = { ephemeral: [], toDevice, deviceLists: [], deviceKeys: [], roomIds: [], count: toDevice.length };
    await world.ledger.submit(submission(events, { stream, others }));
  }
  await world.ledger.flush();
  return known;
}

/** Log position of each routed item, by its id. */
function positionsOf(log: MemoryLog): Map<string, number> {
  const entries = log.segments.flatMap(({ firstPosition, entries: all }) => all.map(({ json }, at) => ({ position: firstPosition + at, text: Buffer.from(json).toString() })));
  return new Map(entries.filter(({ text }) => text !== '').map(({ position, text }) => [(JSON.parse(text) as { event_id: string }).event_id, position]));
}

test('R92 I11 never beyond what is acknowledged, exact where it stands in the segment in question, never back, and whole once nothing waits', async () => {
  const holds = fc.asyncProperty(calls, async (all) => {
    const log = new MemoryLog();
    await using world = await openLedger(log);
    for (const id of IDS) await world.put(registration(id, { receive_ephemeral: true }));
    const known = await submitAll(world, all);
    const at = positionsOf(log);
    const { tail, streams } = world.fold;
    const before = new Map<string, number>();
    for (let delivered = 0; delivered <= tail; delivered++) {
      // What is trimmed meanwhile changes nothing.
      await log.trim(SERVER, { after: 0, through: tail, beforeMs: Infinity, deliveredPositions: new Map(IDS.map((id) => [id, delivered])), segmentsMax: 1_000 });
      for (const stream of STREAMS) {
        const streamPosition = streams.durablePosition(stream);
        const told = await deliveredStreamPositions(log, SERVER, { stream, streamPosition, tail }, new Map(IDS.map((id) => [id, delivered])));
        for (const { appserviceId, streamPosition: position } of told) {
          const open = known.filter((one) => one.appserviceId === appserviceId && (at.get(one.id) ?? 0) > delivered);
          const openHere = open.filter((one) => one.stream === stream);
          const exact = openHere.length === 0 ? streamPosition : Math.min(...openHere.map((one) => one.streamPosition)) - 1;
          assert.ok(position <= exact, `${position} of ${exact} at ${delivered}`);
          if (open.every((one) => one.stream === stream)) assert.equal(position, exact);
          assert.ok(position >= (before.get(`${appserviceId} ${stream}`) ?? 0), 'it goes back');
          before.set(`${appserviceId} ${stream}`, position);
          if (delivered === tail) assert.equal(position, streamPosition);
        }
      }
    }
    assert.ok(log.segments.length <= 1);
  });
  await fc.assert(holds, { numRuns: 60 });
});

test('R92 a segment that went while it was asked about is no answer, and one of an older release counts as nothing', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('a', { receive_ephemeral: true }));
  await submitAll(world, [{ stream: '', items: [{ id: 'x', isEvent: false, user: 0, gap: 5 }] }]);
  const ask = (read: (segment: (typeof log.segments)[number]) => typeof log.segments) =>
    deliveredStreamPositions({ measureRoutes: (...args) => log.measureRoutes(...args), readSegments: async (...args) => (await log.readSegments(...args)).flatMap(read) }, SERVER, { stream: '', streamPosition: 5, tail: world.fold.tail }, new Map([['a', 1]]));
  assert.deepEqual(await ask((segment) => [segment]), [{ appserviceId: 'a', streamPosition: 4 }]);
  await assert.rejects(ask(() => []), (error) => error instanceof StoreError && error.kind === 'unavailable');
  assert.deepEqual(await ask(({ streamRuns: _runs, streamsBefore: _before, ...segment }) => [{ ...segment, streamPositions: {} }]), [{ appserviceId: 'a', streamPosition: 0 }]);
});
