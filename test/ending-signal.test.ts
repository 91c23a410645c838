import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { endingSignal } from '../src/ending-signal.ts';
import { VirtualClock } from './support/clock.ts';

test('the first signal drains, the launcher’s copy of it within a second does nothing, a later one ends at once', async () => {
  const clock = new VirtualClock();
  const source = new EventEmitter();
  const endedBy: string[] = [];
  const ending = endingSignal({ source, clock, endAtOnce: (signal) => void endedBy.push(signal) });
  source.emit('SIGINT', 'SIGINT');
  source.emit('SIGINT', 'SIGINT');
  await clock.advance(999);
  source.emit('SIGTERM', 'SIGTERM');
  assert.equal(await ending, 'SIGINT');
  assert.deepEqual(endedBy, []);
  await clock.advance(1);
  source.emit('SIGTERM', 'SIGTERM');
  assert.deepEqual(endedBy, ['SIGTERM']);
});
