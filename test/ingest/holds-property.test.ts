/**
 * Random histories of two replicas on one log: traffic with and without unknown users, releases, repetitions, crashes,
 * checkpoints, trims, registrations that come and go. Held against the same traffic without unknown users: every
 * appservice gets the same events once, each room's in the same order.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { ParsedSubmission } from '../../src/ingest/submission.ts';
import type { Segment } from '../../src/store/segment.ts';
import { everywhere, invite, upkeepOf } from '../support/holds-world.ts';
import type { LedgerWorld } from '../support/ledger-world.ts';
import { openLedger } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { registration, submission } from '../support/routing.ts';
import type { EventFields } from '../support/routing.ts';

const ROOMS = ['!a', '!b', '!c'];
const USERS = ['@_irc_1:hs.test', '@_irc_2:hs.test', '@_xmpp_1:hs.test', '@alice:hs.test'];
const IDS = ['irc', 'xmpp', 'both'];
const BOTH = registration('both', { namespaces: { users: [{ regex: '@_(irc|xmpp)_', exclusive: false }], aliases: [], rooms: [{ regex: '![ab]', exclusive: false }] } });

const event = fc.record({ room: fc.nat(ROOMS.length - 1), user: fc.nat(USERS.length - 1), isInvite: fc.boolean() });
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('submit' as const), who: fc.nat(1), events: fc.array(event, { minLength: 1, maxLength: 6 }), unknown: fc.subarray(USERS) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('release' as const), who: fc.nat(1), which: fc.nat(8) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('repeat' as const), who: fc.nat(1), back: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('crash' as const), who: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('upkeep' as const), who: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('race' as const), which: fc.nat(8), events: fc.array(event, { minLength: 1, maxLength: 3 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('url' as const), who: fc.nat(1), has: fc.boolean() }) },
);

/** Everything that was ever routed, though it may have been trimmed since. */
class Routed {
  readonly #log: MemoryLog;
  readonly #segments = new Map<number, Segment>();

  constructor(log: MemoryLog) {
    this.#log = log;
  }

  look(): void {
    for (const segment of this.#log.segments) this.#segments.set(segment.firstPosition, segment);
  }

  /** Room and id of each event, in the order of the log. */
  to(appserviceId: string): { room: string; id: string }[] {
    this.look();
    return [...this.#segments.values()]
      .sort((one, other) => one.firstPosition - other.firstPosition)
      .flatMap(({ routes, entries }) => {
        const ranges = routes.find((route) => route.appserviceId === appserviceId)?.ranges ?? [];
        return entries.filter((_, index) => ranges.some((first, at) => at % 2 === 0 && index >= first && index <= (ranges[at + 1] ?? -1)));
      })
      .map(({ json }) => JSON.parse(Buffer.from(json).toString()) as { room_id: string; event_id: string })
      .map(({ room_id: room, event_id: id }) => ({ room, id }));
  }
}

type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never;

class History {
  readonly log = new MemoryLog();
  readonly plainLog = new MemoryLog();
  readonly routed = new Routed(this.log);
  readonly expected = new Routed(this.plainLog);
  readonly #worlds: LedgerWorld[] = [];
  readonly #sent: ParsedSubmission[] = [];
  #plain: LedgerWorld | null = null;
  #count = 0;

  async start(): Promise<void> {
    this.#plain = await openLedger(this.plainLog);
    this.#worlds.push(await openLedger(this.log), await openLedger(this.log));
    for (const one of [everywhere('irc'), everywhere('xmpp'), BOTH]) for (const world of [this.#world(0), this.#plain]) await world.put(one);
  }

  /** In the end everybody has answered. */
  async finish(): Promise<void> {
    for (const who of [0, 1]) {
      await this.#world(who).ledger.flush();
      for (const hold of [...this.#world(who).fold.holds.all()]) await this.#world(who).ledger.release(hold, () => true);
    }
    for (const who of [0, 1]) {
      await this.#world(who).ledger.flush();
      assert.equal(this.#world(who).fold.holds.count, 0);
      assert.equal(this.#world(who).fold.holds.bytes, 0);
    }
  }

  get waiting(): number {
    return this.#world(0).fold.holds.count;
  }

  check(isEnd: boolean): void {
    for (const appserviceId of IDS) {
      const [got, wanted] = [this.routed.to(appserviceId), this.expected.to(appserviceId)];
      for (const room of ROOMS) {
        const [of, from] = [got, wanted].map((events) => events.filter((one) => one.room === room).map(({ id }) => id));
        assert.deepEqual(of, isEnd ? from : from?.slice(0, of?.length), `${appserviceId} in ${room}`);
      }
    }
  }

  async step(one: Step): Promise<void> {
    switch (one.kind) {
      case 'submit':
        return this.#submit(one.who, this.#submission(one.events, one.unknown));
      case 'repeat': {
        const sent = this.#sent.at(-1 - one.back);
        if (sent !== undefined) await this.#world(one.who).ledger.submit(sent);
        return;
      }
      case 'release':
        return this.#release(one.who, one.which);
      case 'race':
        await Promise.all([this.#release(0, one.which), this.#release(1, one.which), this.#submit(1, this.#submission(one.events, USERS))]);
        return;
      case 'crash':
        this.#worlds[one.who] = await openLedger(this.log);
        return;
      case 'upkeep': {
        this.routed.look();
        // Segments stay long enough for every replica to read them.
        for (const world of this.#worlds) await world.ledger.flush();
        this.routed.look();
        const upkeep = upkeepOf(this.#world(one.who), this.log, new Map(IDS.map((id) => [id, Infinity])));
        await upkeep.checkpoint();
        return upkeep.trim();
      }
      case 'url':
        for (const world of [this.#world(one.who), this.#plain]) await world?.put(everywhere('irc', one.has ? {} : { url: null }));
        // The plain log is behind nobody: both know of it before the next event.
        for (const world of this.#worlds) await world.ledger.flush();
    }
  }

  #submission(events: readonly { room: number; user: number; isInvite: boolean }[], unknown: readonly string[]): ParsedSubmission {
    const fields = events.map(({ room, user, isInvite }): EventFields & { at: number } => {
      const at = ++this.#count;
      const [roomId = '', userId = ''] = [ROOMS[room], USERS[user]];
      return { ...(isInvite ? invite(`$${at}`, roomId, userId) : { id: `$${at}`, room: roomId, sender: userId }), at };
    });
    return submission(fields, unknown.length === 0 ? {} : { unknownUserIds: new Set(unknown) });
  }

  async #submit(who: number, parsed: ParsedSubmission): Promise<void> {
    this.#sent.push(parsed);
    const { unknownUserIds: _, ...known } = parsed;
    const [answer, plain] = await Promise.all([this.#world(who).ledger.submit(parsed), this.#plain?.ledger.submit(known)]);
    assert.deepEqual([answer.accepted, answer.routed], [plain?.accepted, plain?.routed]);
  }

  async #release(who: number, which: number): Promise<void> {
    const world = this.#world(who);
    const open = [...world.fold.holds.all()];
    const hold = open[which % Math.max(1, open.length)];
    if (hold !== undefined) await world.ledger.release(hold, () => true);
  }

  #world(who: number): LedgerWorld {
    const world = this.#worlds[who];
    assert.ok(world);
    return world;
  }
}

test('I1 I2 I7 I11 M5 whatever happens, nothing that waits is lost, doubled or overtaken in its room', { timeout: 60_000 }, async () => {
  let waited = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      const history = new History();
      await history.start();
      for (const one of steps) {
        await history.step(one);
        waited = Math.max(waited, history.waiting);
      }
      await history.finish();
      history.check(true);
    }),
    { numRuns: 120, seed: 7 },
  );
  assert.ok(waited >= 5, 'several rooms wait at a time');
});

test('I2 at no moment has an appservice something of a room before what came before it', { timeout: 60_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
      const history = new History();
      await history.start();
      for (const one of steps) {
        await history.step(one);
        history.check(false);
      }
    }),
    { numRuns: 40, seed: 11 },
  );
});
