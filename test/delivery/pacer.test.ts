import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pacer } from '../../src/delivery/pacer.ts';
import { VirtualClock } from '../support/clock.ts';

interface Counted {
  cuts: number;
  wake(): void;
}

function senders(count: number, pacer: () => Pacer): Counted[] {
  return Array.from({ length: count }, () => {
    const sender: Counted = {
      cuts: 0,
      wake: () => {
        if (pacer().admits(sender)) sender.cuts++;
      },
    };
    return sender;
  });
}

const LIMITS = { cutsPerSecondMin: 100, cutsPerSecondMax: 1000, burstMax: 10, busyLoad: 0.8, judgeMs: 20, turnMs: 2 };
const idle = (): number => 0;

test('while there are tokens everybody cuts at once, and no timer runs', () => {
  const clock = new VirtualClock();
  const pacer = new Pacer(clock, idle, LIMITS);
  const all = senders(10, () => pacer);
  for (const sender of all) sender.wake();
  assert.deepEqual(all.map(({ cuts }) => cuts), Array.from({ length: 10 }, () => 1));
  assert.equal(clock.sleeperCount, 0);
});

test('I8 I10 beyond them each waits its turn, in order, and nobody is passed over', async () => {
  const clock = new VirtualClock();
  const pacer = new Pacer(clock, idle, LIMITS);
  const all = senders(110, () => pacer);
  for (const sender of all) sender.wake();
  assert.equal(all.filter(({ cuts }) => cuts > 0).length, 10);
  await clock.advance(50);
  assert.equal(all.findLastIndex(({ cuts }) => cuts > 0), all.filter(({ cuts }) => cuts > 0).length - 1, 'those who came first go first');
  await clock.advance(60);
  assert.ok(all.every(({ cuts }) => cuts === 1));
  assert.equal(clock.sleeperCount, 0);
});

test('a sender that asks again while it waits keeps its place and takes one token', async () => {
  const clock = new VirtualClock();
  const pacer = new Pacer(clock, idle, { ...LIMITS, burstMax: 1 });
  const [first, second, third] = senders(3, () => pacer);
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  first.wake();
  for (let times = 0; times < 5; times++) second.wake();
  third.wake();
  await clock.advance(4);
  assert.deepEqual([first.cuts, second.cuts, third.cuts], [1, 1, 1]);
});

test('the rate holds over time, whatever is asked', async () => {
  const clock = new VirtualClock();
  const pacer = new Pacer(clock, idle, LIMITS);
  const all = senders(50, () => pacer);
  for (let step = 0; step < 100; step++) {
    for (const sender of all) sender.wake();
    await clock.advance(10);
  }
  const cuts = all.reduce((sum, sender) => sum + sender.cuts, 0);
  assert.ok(cuts > 900 && cuts <= 1010, `${cuts} cuts in a second`);
});

test('the rate falls while the event loop is busy and rises again when it is not', async () => {
  const clock = new VirtualClock();
  let load = 1;
  const pacer = new Pacer(clock, () => load, LIMITS);
  const all = senders(50, () => pacer);
  const second = async (): Promise<number> => {
    const before = all.reduce((sum, sender) => sum + sender.cuts, 0);
    for (let step = 0; step < 100; step++) {
      for (const sender of all) sender.wake();
      await clock.advance(10);
    }
    return all.reduce((sum, sender) => sum + sender.cuts, 0) - before;
  };
  await second();
  assert.equal(pacer.cutsPerSecond, LIMITS.cutsPerSecondMin);
  const slow = await second();
  load = 0.3;
  await second();
  assert.equal(pacer.cutsPerSecond, LIMITS.cutsPerSecondMax);
  assert.ok(slow <= 110 && (await second()) > 900);
});
