import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolCache, PROTOCOL_CACHE_LIMITS } from '../../src/query/protocol-cache.ts';
import { VirtualClock } from '../support/clock.ts';
import { registration } from '../support/routing.ts';

test('R130 a failure that comes late from a registration that was replaced takes over nothing of its successor\'s answer', () => {
  const cache = new ProtocolCache(new VirtualClock(), PROTOCOL_CACHE_LIMITS);
  const [before, after] = [registration('irc'), registration('irc')];
  const metadata = { common: {}, instances: [], droppedCount: 0 };
  assert.deepEqual(cache.learn('hs.test', after, 'irc', { kind: 'value', value: { metadata, bytes: 2 }, droppedCount: 0 }), { ask: false, metadata, hasFailed: false });
  assert.deepEqual(cache.learn('hs.test', before, 'irc', { kind: 'failed', failure: 'timeout' }), { ask: false, metadata: null, hasFailed: true });
  assert.deepEqual(cache.known('hs.test', after, 'irc'), { ask: true, metadata: null, hasFailed: false });
  assert.equal(cache.size, 0);
});
