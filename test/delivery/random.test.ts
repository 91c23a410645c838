/**
 * Random histories: traffic, commands, registration changes, failing appservices, a store that loses and refuses,
 * processes that crash, freeze, leave and come; then peace, and the checker. A failure names the seed that repeats it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PushOutcome } from '../../src/delivery/ports.ts';
import { seededRandom } from '../support/clock.ts';
import { violations } from '../support/delivery-checker.ts';
import { DeliveryWorld, DOWN, eventsOf, OK, rejected, TOO_LARGE } from '../support/delivery-world.ts';
import type { ProcessOptions, RouterProcess } from '../support/delivery-world.ts';

const IDS = ['a', 'b', 'c'] as const;
const SETTINGS = { eventsMax: 4, toDeviceMax: 2, bytesMax: 150, backoff: { firstMs: 500, maxMs: 8_000 }, statesMax: 2 };

interface History {
  readonly seed: number;
  readonly exclusive: boolean;
  readonly steps: number;
  /** Operators skip, stop, replay and redeliver as well. */
  readonly hasOperators?: boolean;
  /** Breaks the router, for a control. */
  readonly sabotage?: (world: DeliveryWorld) => void;
}

/** What an appservice refuses as too large, it always refuses: some events alone, some only together. */
function isRefused(events: readonly string[]): boolean {
  const numbers = events.map((event) => Number(/\d+/.exec(event)?.[0]));
  return numbers.some((number) => number % 17 === 0) || (events.length > 2 && numbers.some((number) => number % 5 === 0));
}

/** Returns what the checker finds. */
async function live({ seed, exclusive, steps, hasOperators = false, sabotage }: History): Promise<{ found: string[]; world: DeliveryWorld; interventions: string[] }> {
  const world = new DeliveryWorld();
  sabotage?.(world);
  const random = seededRandom(seed);
  const chance = (likely: number): boolean => random.next() < likely;
  const pick = <Item>(items: readonly Item[]): Item | undefined => items[Math.floor(random.next() * items.length)];
  let isPeace = false;
  let failovers = 0;
  const faultRate = random.next() * 0.15;
  const options: ProcessOptions = {
    exclusive,
    settings: SETTINGS,
    fault: () => (isPeace || !chance(faultRate) ? 'none' : chance(0.5) ? 'not_done' : 'answer_lost'),
  };
  world.answer = async ({ body }): Promise<PushOutcome> => {
    if (isPeace) return OK;
    if (chance(0.3)) await world.clock.sleep(random.next() * 3_000);
    if (isRefused(eventsOf(Buffer.from(body).toString()))) return TOO_LARGE;
    if (chance(0.75)) return OK;
    return chance(0.5) ? DOWN : rejected(503, chance(0.5) ? 2_000 : null);
  };
  const put = (id: string, url?: null): void => world.put(id, { receive_ephemeral: true, ...(url === null ? { url } : {}) });
  for (const id of IDS) put(id);
  const thawing: (() => void)[] = [];
  const frozen = new Set<RouterProcess>();
  const running = (): RouterProcess[] => world.processes.filter((process) => !frozen.has(process));
  const launch = (): void => {
    const process = world.launch(options);
    process.started.catch(() => crash(process));
  };
  const crash = (process: RouterProcess): void => {
    if (!world.processes.includes(process)) return;
    failovers += 1 + process.presence.lapseCount;
    frozen.delete(process);
    world.crash(process);
  };
  const command = async (use: (process: RouterProcess) => Promise<unknown>): Promise<void> => {
    const process = pick(running());
    if (process !== undefined) await world.end(use(process).catch(() => undefined));
  };
  const routeSome = (ids: readonly string[], count: number): void => {
    const first = world.store.tail + 1;
    world.routeKinds(ids, Array.from({ length: count }, (_, at) => ({ kind: chance(0.4) ? 'to_device' : 'event', text: JSON.stringify({ event_id: `e${first + at}` }) })));
  };
  const interventions: string[] = [];
  const revive = (id: string): void => {
    const state = world.store.states.get(id);
    // Not a second time, before it is known where deliveries are made that a new life has begun.
    if (state?.deliveryState !== 'failed' || state.sincePosition !== world.registrations.get(id)?.since) return;
    world.remove(id, 'discard');
    put(id);
  };
  /** Now and then nobody waits for what becomes of a command, and the process may die in it. */
  const intervene = async (name: string, use: (process: RouterProcess) => Promise<unknown>): Promise<void> => {
    const process = pick(running());
    if (process === undefined) return;
    const done = use(process).then(() => interventions.push(name), () => undefined);
    if (chance(0.7)) {
      await world.end(done).catch((error: unknown) => {
        if (!process.connection.isDead) throw error;
      });
    }
    else if (chance(0.5)) crash(process);
  };
  const operate = async (id: string): Promise<void> => {
    const state = world.store.states.get(id);
    if (state === undefined) return;
    const roll = random.next();
    const txnId = state.transaction?.txnId;
    const shelved = pick([...world.store.records.quarantined.values()].filter((one) => one.appserviceId === id));
    if (roll < 0.4 && txnId !== undefined) await intervene('skip', ({ delivery, quarantine }) => delivery.commands.skip(id, txnId, 'poison', () => quarantine.has(id, txnId)));
    else if (roll < 0.65 && shelved !== undefined) await intervene('redeliver', ({ quarantine }) => quarantine.redeliver(id, shelved.txnId));
    else if (roll < 0.85) {
      const position = state.sincePosition + 1 + Math.floor(random.next() * Math.max(1, state.deliveredPosition - state.sincePosition));
      await intervene('replay', ({ delivery }) => delivery.commands.replay(id, { kind: 'position', position }));
    } else if (roll < 0.92) await intervene('stop', ({ delivery }) => delivery.commands.stop(id));
    else revive(id);
  };
  launch();
  for (let step = 0; step < steps; step++) {
    const id = pick(IDS) ?? 'a';
    if (hasOperators && chance(0.3)) {
      await operate(id);
      if (running().length === 0 && world.processes.length === 0) launch();
      continue;
    }
    const roll = random.next();
    if (roll < 0.35) routeSome(IDS.filter(() => chance(0.6)).concat(id).filter((one, at, all) => all.indexOf(one) === at), 1 + Math.floor(random.next() * 9));
    else if (roll < 0.6) await world.advance(random.next() * 2_000);
    else if (roll < 0.65) await command(({ delivery }) => delivery.setPaused(id, chance(0.5)));
    else if (roll < 0.7) await command(({ delivery }) => delivery.retryNow(id));
    else if (roll < 0.75) put(id, chance(0.3) ? null : undefined);
    else if (roll < 0.83) crash(pick(world.processes) ?? world.launch(options));
    else if (roll < 0.87 && !exclusive) {
      const process = pick(running());
      if (process === undefined) continue;
      frozen.add(process);
      // Nothing is half-way between its last look at the lease and its request: no code can close that gap.
      await world.quiet();
      const thaw = world.freeze(process);
      thawing.push(() => {
        frozen.delete(process);
        thaw();
      });
    } else if (roll < 0.91) thawing.shift()?.();
    else if (roll < 0.95) {
      const process = pick(running());
      if (process === undefined) continue;
      failovers += 1 + process.presence.lapseCount;
      await world.stop(process);
    } else await world.quiet();
    if (running().length === 0 || (!exclusive && world.processes.length < 3 && chance(0.1))) {
      if (!exclusive || world.processes.length === 0) launch();
    }
  }
  isPeace = true;
  for (const thaw of thawing) thaw();
  await world.advance(10_000);
  if (world.processes.length === 0) launch();
  for (const id of IDS) {
    revive(id);
    put(id);
  }
  await world.advance(10_000);
  for (const id of IDS) await command(({ delivery }) => delivery.setPaused(id, false));
  await world.advance(60_000);
  failovers += world.processes.reduce((sum, { presence }) => sum + presence.lapseCount, 0);
  const found = violations(world, { failovers, isDrained: true });
  for (const { level, fields, message } of world.logged) if (level === 'error' && fields.kind === 'internal') found.push(`bug: ${message}: ${String(fields.error)}`);
  for (const process of world.processes) {
    for (const { appserviceId, backlogEntries, transaction } of await process.delivery.statuses('', 10)) {
      if (backlogEntries !== 0 || transaction !== null) found.push(`the status of ${appserviceId} tells of ${backlogEntries} entries though all is delivered`);
    }
  }
  return { found, world, interventions };
}

const COUNT = 60;

test(`R62 R72 R91 I1 I2 I3 I4 I5 I6 I10 I11 ${COUNT} random histories of one process that crashes and restarts`, async () => {
  let pushes = 0;
  for (let seed = 1; seed <= COUNT; seed++) {
    const { found, world } = await live({ seed, exclusive: true, steps: 60 });
    assert.deepEqual(found, [], `seed ${seed}`);
    pushes += world.pushes.length;
  }
  assert.ok(pushes > COUNT * 20, `${pushes} pushes`);
});

test(`I1 I2 I3 I4 I5 I6 I10 I11 ${COUNT} random histories of several replicas that crash, freeze, leave and come`, async () => {
  let holders = 0;
  for (let seed = 1001; seed <= 1000 + COUNT; seed++) {
    const { found, world } = await live({ seed, exclusive: false, steps: 60 });
    assert.deepEqual(found, [], `seed ${seed}`);
    holders += new Set(world.pushes.map(({ process }) => process)).size;
  }
  assert.ok(holders > COUNT * 2, `${holders} processes pushed`);
});

for (const exclusive of [true, false]) {
  test(`M1 I1 I2 I4 I6 I11 ${COUNT} random histories in which operators skip, stop, resume, replay and redeliver, ${exclusive ? 'of one process' : 'of several replicas'}`, async () => {
    const done = new Map<string, number>();
    const first = exclusive ? 2001 : 3001;
    for (let seed = first; seed < first + COUNT; seed++) {
      const { found, interventions } = await live({ seed, exclusive, steps: 60, hasOperators: true });
      assert.deepEqual(found, [], `seed ${seed}`);
      for (const name of interventions) done.set(name, (done.get(name) ?? 0) + 1);
    }
    for (const name of ['skip', 'stop', 'replay', 'redeliver']) assert.ok((done.get(name) ?? 0) > COUNT / 4, `${name}: ${done.get(name) ?? 0}`);
  });
}

/** Each loses entries by an operator's word; the checker must see it, or its silence above means nothing. */
const LOSING: readonly { name: string; sabotage: (world: DeliveryWorld) => void }[] = [
  {
    name: 'a skip that puts nothing on the shelf',
    sabotage: ({ store: { records } }) => {
      const change = records.change.bind(records);
      records.change = (wanted) => wanted.kind === 'quarantine' || change(wanted);
    },
  },
  {
    name: 'a redelivery that never reaches the log',
    sabotage: (world) => {
      const route = world.routeKinds.bind(world);
      const texts = new Set<string>();
      world.routeKinds = (ids, items) => {
        const isNew = items.every(({ text }) => !texts.has(text));
        for (const { text } of items) texts.add(text);
        if (isNew) route(ids, items);
      };
    },
  },
];

for (const { name, sabotage } of LOSING) {
  test(`control: the checker finds what is lost by ${name}`, async () => {
    const found: string[] = [];
    for (let seed = 2001; seed < 2021 && !found.some((one) => one.startsWith('I1')); seed++) found.push(...(await live({ seed, exclusive: true, steps: 60, hasOperators: true, sabotage })).found);
    assert.match(found.join('\n'), /I1 NoLoss/);
  });
}
