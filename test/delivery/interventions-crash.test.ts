/**
 * What an operator commands, cut at every step: the process dies before or after each call of the store, or a call fails
 * or loses its answer; then there is a new process, and the same command is given again.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../src/appservice/refusal.ts';
import { StoreError } from '../../src/store/errors.ts';
import { violations } from '../support/delivery-checker.ts';
import type { StoreFault } from '../support/delivery-store.ts';
import { DeliveryWorld, DOWN, OK } from '../support/delivery-world.ts';
import type { RouterProcess } from '../support/delivery-world.ts';

interface Prepared {
  /** Gives the command. */
  readonly command: (process: RouterProcess) => Promise<unknown>;
  /** What the repetition may be refused with: it was done the first time. */
  readonly mayBeRefused?: RegExp;
  /** Called after the command was given again, with every queue drained. */
  readonly promise: (process: RouterProcess) => Promise<void>;
  readonly isDrained: boolean;
}

interface Intervention {
  readonly name: string;
  readonly prepare: (world: DeliveryWorld, process: RouterProcess) => Promise<Prepared>;
  /** At least so many places where the process can die. */
  readonly pointsMin: number;
}

const SETTINGS = { eventsMax: 3 };

const skip = ({ delivery, quarantine }: RouterProcess, txnId: string): Promise<void> => delivery.commands.skip('a', txnId, 'poison', () => quarantine.has('a', txnId));

/** The first transaction is refused for ever; returns its id and all texts. */
async function poisoned(world: DeliveryWorld): Promise<{ txnId: string; texts: string[] }> {
  world.answer = (_, { txnId }) => (txnId === world.pushes[0]?.txnId ? DOWN : OK);
  const texts = world.routeMany(['a'], 7);
  await world.quiet();
  const txnId = world.state('a').transaction?.txnId;
  assert.ok(txnId);
  return { txnId, texts };
}

/** In the order of their first arrival: a crash may repeat the transaction in flight, and how often the checker counts. */
function arrived(world: DeliveryWorld): string[] {
  return [...new Set(world.received('a'))];
}

const INTERVENTIONS: readonly Intervention[] = [
  {
    name: 'SkipTransaction',
    pointsMin: 14,
    async prepare(world) {
      const { txnId, texts } = await poisoned(world);
      return {
        command: (process) => skip(process, txnId),
        isDrained: true,
        async promise({ delivery, quarantine }) {
          assert.deepEqual(arrived(world), texts.slice(3), 'the queue goes on behind it, in order');
          const { items } = await quarantine.list('a', 10, '', false);
          assert.deepEqual(items.map((item) => [item.txnId, item.entryCount, item.reason]), [[txnId, 3, 'poison']], 'it is in quarantine, once');
          const status = await world.end(delivery.status('a'));
          assert.deepEqual([status.quarantinedEntries, status.backlogEntries, status.state], [3, 0, 'idle']);
        },
      };
    },
  },
  {
    name: 'StopAppservice',
    pointsMin: 2,
    async prepare(world) {
      world.answer = () => DOWN;
      world.routeMany(['a'], 7);
      await world.quiet();
      const { lastTxnId } = world.state('a');
      return {
        command: ({ delivery }) => delivery.commands.stop('a'),
        isDrained: false,
        async promise({ delivery }) {
          world.answer = () => OK;
          world.routeMany(['a'], 2);
          await world.advance(60_000);
          assert.deepEqual(world.received('a'), [], 'nothing is sent any more');
          const status = await world.end(delivery.status('a'));
          assert.deepEqual([status.state, status.transaction, status.backlogEntries], ['failed', null, 0]);
          world.remove('a', 'discard');
          world.put('a');
          const texts = world.routeMany(['a'], 2);
          await world.advance(30_000);
          assert.deepEqual(world.received('a'), texts, 'a new life gets what comes after it began');
          assert.ok(BigInt(world.state('a').lastTxnId) > BigInt(lastTxnId));
        },
      };
    },
  },
  {
    name: 'RedeliverTransaction',
    pointsMin: 12,
    async prepare(world, process) {
      const { txnId, texts } = await poisoned(world);
      await world.end(skip(process, txnId));
      await world.quiet();
      world.answer = () => OK;
      assert.deepEqual(world.received('a'), texts.slice(3));
      return {
        command: ({ quarantine }) => quarantine.redeliver('a', txnId),
        isDrained: true,
        async promise({ delivery, quarantine }) {
          assert.deepEqual(arrived(world), [...texts.slice(3), ...texts.slice(0, 3)], 'it comes at the end');
          assert.deepEqual((await quarantine.list('a', 10, '', false)).items, []);
          assert.equal(world.store.records.quarantined.size, 0);
          assert.equal((await world.end(delivery.status('a'))).quarantinedEntries, 0);
        },
      };
    },
  },
  {
    name: 'DiscardTransaction',
    pointsMin: 6,
    async prepare(world, process) {
      const { txnId, texts } = await poisoned(world);
      await world.end(skip(process, txnId));
      world.answer = () => OK;
      return {
        command: ({ quarantine }) => quarantine.discard('a', txnId),
        mayBeRefused: /no such transaction/,
        isDrained: false,
        async promise() {
          assert.deepEqual(arrived(world), texts.slice(3));
          assert.equal(world.store.records.quarantined.size, 0);
        },
      };
    },
  },
  {
    name: 'ReplayEvents',
    pointsMin: 10,
    async prepare(world) {
      const texts = world.routeMany(['a'], 7);
      await world.quiet();
      assert.deepEqual(world.received('a'), texts);
      world.answer = () => DOWN;
      const more = world.routeMany(['a'], 2);
      await world.quiet();
      world.answer = () => OK;
      return {
        command: ({ delivery }) => delivery.commands.replay('a', { kind: 'position', position: 4 }),
        isDrained: true,
        async promise({ delivery }) {
          const again = world.received('a').slice(texts.length);
          // What had not arrived yet may come first, if the command was cut before it took effect.
          const from = again.indexOf(texts[2] ?? '');
          assert.ok(from >= 0);
          assert.deepEqual(again.slice(again.lastIndexOf(texts[2] ?? '')), [...texts.slice(2), ...more], 'all from there on comes again, in order');
          const status = await world.end(delivery.status('a'));
          assert.deepEqual([status.backlogEntries, status.state, status.deliveredLogPosition], [0, 'idle', world.store.tail]);
        },
      };
    },
  },
];

/** Waits for the command for so long as anything happens; it never ends in a process that died. */
async function given(world: DeliveryWorld, command: Promise<unknown>): Promise<unknown> {
  let outcome: unknown = 'pending';
  command.then(
    () => (outcome = 'done'),
    (error: unknown) => (outcome = error),
  );
  for (let turns = 0; turns < 8 && outcome === 'pending'; turns++) await world.advance(250);
  return outcome;
}

async function again(world: DeliveryWorld, { command, mayBeRefused }: Prepared, process: RouterProcess): Promise<void> {
  for (let tries = 0; ; tries++) {
    const outcome = await given(world, command(process));
    if (outcome === 'done') return;
    if (mayBeRefused !== undefined && outcome instanceof RefusalError && mayBeRefused.test(outcome.message)) return;
    // A state that another replica held until a moment ago, or a transaction on its way to the shelf: the caller is told to ask again.
    if (tries < 5 && (outcome instanceof StoreError || (outcome instanceof RefusalError && /again in a second/.test(outcome.message)))) continue;
    assert.fail(`the repetition ended with ${String(outcome)}`);
  }
}

async function judged(world: DeliveryWorld, prepared: Prepared, process: RouterProcess, failovers: number, where: string): Promise<void> {
  try {
    await world.advance(30_000);
    await prepared.promise(process);
    assert.deepEqual(violations(world, { failovers, isDrained: prepared.isDrained }), []);
  } catch (error) {
    if (error instanceof Error) error.message = `${where}: ${error.message}`;
    throw error;
  }
}

for (const { name, prepare, pointsMin } of INTERVENTIONS) {
  test(`R65 I1 I2 I4 I6 ${name}: a crash at any step loses and doubles nothing, and the command may be given again`, async () => {
    let points = 0;
    for (let at = 1; ; at++) {
      const world = new DeliveryWorld();
      world.put('a');
      const first = await world.start({ settings: SETTINGS });
      const prepared = await prepare(world, first);
      let passed = 0;
      first.connection.diesAt = () => ++passed === at;
      await given(world, prepared.command(first));
      await world.advance(2_000);
      if (!first.connection.isDead) break;
      points++;
      world.crash(first);
      const second = await world.start({ settings: SETTINGS });
      await again(world, prepared, second);
      await judged(world, prepared, second, 1, `crash at point ${at}`);
    }
    assert.ok(points >= pointsMin, `${points} points`);
  });

  for (const fault of ['not_done', 'answer_lost'] satisfies StoreFault[]) {
    test(`I1 I4 I6 ${name}: one store call ${fault === 'not_done' ? 'that fails' : 'whose answer is lost'} loses and doubles nothing`, async () => {
      for (let at = 1; ; at++) {
        const world = new DeliveryWorld();
        world.put('a');
        const process = await world.start({ settings: SETTINGS });
        const prepared = await prepare(world, process);
        let calls = 0;
        process.connection.fault = () => (++calls === at ? fault : 'none');
        await given(world, prepared.command(process));
        await world.advance(2_000);
        process.connection.fault = () => 'none';
        if (calls < at) {
          assert.ok(at > pointsMin / 4, `${at} calls`);
          break;
        }
        await again(world, prepared, process);
        await judged(world, prepared, process, 0, `${fault} at call ${at}`);
      }
    });
  }

  for (const dying of ['the replica that is asked', 'the replica that delivers'] as const) {
    test(`I1 I4 I5 I6 ${name}: with two replicas, ${dying} dies at any step, and the other finishes it`, async () => {
      let points = 0;
      for (let at = 1; ; at++) {
        const world = new DeliveryWorld();
        world.put('a');
        const options = { exclusive: false, settings: SETTINGS };
        const both = [await world.start(options), await world.start(options)];
        await world.advance(5_000);
        const holder = both.find(({ presence }) => presence.replicaId === world.state('a').leaseHolder);
        const other = both.find((process) => process !== holder);
        assert.ok(holder && other);
        const prepared = await prepare(world, holder);
        const victim = dying === 'the replica that is asked' ? other : holder;
        let passed = 0;
        victim.connection.diesAt = () => ++passed === at;
        await given(world, prepared.command(other));
        await world.advance(2_000);
        // Heartbeats and looks go on for ever: what lies beyond is the same again.
        if (!victim.connection.isDead || at > 40) break;
        points++;
        world.crash(victim);
        const survivor = victim === holder ? other : holder;
        await world.advance(30_000);
        await again(world, prepared, survivor);
        await judged(world, prepared, survivor, 1, `${dying} dies at point ${at}`);
      }
      assert.ok(points > 5, `${points} points`);
    });
  }
}
