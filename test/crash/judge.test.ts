/** That the judge of the crash loop sees what it is there for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PushRecord } from '../support/delivery-world.ts';
import { seededRandom } from '../support/clock.ts';
import { Judge } from './judge.ts';
import { EventSource } from './traffic.ts';
import type { TrafficEvent } from './traffic.ts';

const APPSERVICES = [
  { id: 'all', namespaces: '', wants: () => true },
  { id: 'some', namespaces: '', wants: (event: TrafficEvent) => event.stream === 's1' },
];

interface History {
  readonly s0: readonly string[];
  readonly s1: readonly string[];
  push(id: string, txnId: number, texts: readonly string[], answered?: 'delivered' | 'rejected'): void;
}

/** Two events on each of two streams; the violations that the judge finds in what `tell` says came. */
function judged(tell: (history: History) => void, failovers = 0): readonly string[] {
  const judge = new Judge(APPSERVICES);
  const pushes: PushRecord[] = [];
  let order = 0;
  const { next } = seededRandom(1);
  const [s0, s1] = ['s0', 's1'].map((stream) => {
    const source = new EventSource(stream, next);
    const events = [source.next(), source.next()];
    for (const event of events) judge.submitting(event);
    return events.map(({ text }) => text);
  });
  tell({
    s0: s0 ?? [],
    s1: s1 ?? [],
    push: (appserviceId, txnId, texts, answered = 'delivered') =>
      void pushes.push({ process: '', appserviceId, url: null, txnId: String(txnId), text: `{"events":[${texts.join(',')}]}`, timeMs: 0, beganAt: ++order, answeredAt: ++order, answered, heard: null }),
  });
  judge.missing(pushes);
  return judge.verdict(pushes, () => failovers, true).violations.map((text) => text.split(':')[0] ?? '');
}

test('what is right has no violations', () => {
  const right = ({ s0, s1, push }: History): void => {
    push('all', 1, [...s0, ...s1]);
    push('some', 1, s1, 'rejected');
    push('some', 1, s1);
  };
  assert.deepEqual(judged(right), []);
});

test('control: each violation is seen', () => {
  const cases: Record<string, (history: History) => void> = {
    'I1 NoLoss': ({ s0, s1, push }) => {
      push('all', 1, [...s0, ...s1]);
      push('some', 1, s1.slice(1));
    },
    'I2 Order': ({ s0, s1, push }) => {
      push('all', 1, [...s0, ...s1]);
      push('some', 1, s1.toReversed());
    },
    'I3 Frozen': ({ s0, s1, push }) => {
      push('all', 1, [...s0, ...s1]);
      push('some', 1, s1.slice(0, 1), 'rejected');
      push('some', 1, s1);
    },
    'I4 NoGapSkip': ({ s0, s1, push }) => {
      push('all', 1, [...s0, ...s1]);
      push('some', 1, s1.slice(0, 1), 'rejected');
      push('some', 2, s1);
    },
    'I6 BoundedDuplicates': ({ s0, s1, push }) => {
      push('all', 1, [...s0, ...s1]);
      push('some', 1, s1);
      push('some', 1, s1);
    },
  };
  for (const [name, tell] of Object.entries(cases)) assert.ok(judged(tell).includes(name), `${name}: ${judged(tell).join(', ')}`);
});

test('control: an event that nobody wants there, one under two ids, and a stream out of order are seen', () => {
  const wrong = judged(({ s0, s1, push }) => {
    push('all', 1, [...s0, ...s1]);
    push('some', 1, [...s1, ...s0.slice(0, 1)]);
  });
  assert.deepEqual(wrong, ['I2 Order']);
  const twice = judged(({ s0, s1, push }) => {
    push('all', 1, [...s0, ...s1]);
    push('some', 1, s1);
    push('some', 2, s1);
  }, 5);
  assert.ok(twice.every((name) => name === 'I6 BoundedDuplicates') && twice.length > 0);
  const disordered = judged(({ s0, s1, push }) => {
    push('all', 1, [...s0.toReversed(), ...s1]);
    push('some', 1, s1);
  });
  assert.deepEqual(disordered, ['I2 Order']);
});

test('a transaction that repeats once for each fail-over is no violation, not even behind a newer one', () => {
  const repeated = ({ s0, s1, push }: History): void => {
    push('all', 1, [...s0, ...s1]);
    push('some', 1, s1.slice(0, 1));
    push('some', 2, s1.slice(1));
    push('some', 1, s1.slice(0, 1));
  };
  assert.deepEqual(judged(repeated, 1), []);
  assert.ok(judged(repeated, 0).length > 0);
});
