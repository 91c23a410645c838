import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../src/appservice/refusal.ts';
import { parseSubmission } from '../src/homeserver.ts';

const json = Buffer.from('{"event_id":"$e","type":"m.room.message","sender":"@a:hs.test","room_id":"!r:hs.test","content":{}}');

function positionsOf(...positions: readonly number[]): number[] {
  const events = positions.map((streamPosition) => ({ json, streamPosition }));
  return parseSubmission({ stream: '', events, rooms: [] }).events.map(({ streamPosition }) => streamPosition);
}

test('positions that decrease within a request are refused at the place where they do', () => {
  for (const [positions, at] of [[[2, 1], 1], [[1, 5, 5, 4], 3], [[3, 0, 2], 2]] as const) {
    assert.throws(() => positionsOf(...positions), (error) => error instanceof RefusalError && error.reason === 'INVALID_FIELD' && error.details.field === `events[${at}].stream_position`);
  }
});

test('positions may repeat, leave gaps, and be absent in between', () => {
  for (const positions of [[], [7], [1, 1, 9], [0, 0], [4, 0, 4, 0, 5]]) assert.deepEqual(positionsOf(...positions), positions);
});
