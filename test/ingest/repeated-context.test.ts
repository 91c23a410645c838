/** A request that is repeated after a lost answer brings the room contexts of its first time again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openLedger, routedIds } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { member, registration, submission } from '../support/routing.ts';

const JOIN = { ...member('$1', '@_irc_a:hs.test', 'join'), at: 1 };
const EMPTY_ROOM = { rooms: [{ roomId: '!r:hs.test', localMembers: [], localAliases: undefined }] };

test('I1 a request repeated with its room context does not undo the joins that it brings', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([JOIN], EMPTY_ROOM));
  const again = await world.ledger.submit(submission([JOIN], EMPTY_ROOM));
  assert.equal(again.duplicates, 1);
  await world.ledger.submit(submission([{ id: '$2', at: 2 }]));
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2']);
});

test('I1 a request repeated in a larger portion goes on from the joins that are taken over already', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([JOIN], EMPTY_ROOM));
  await world.ledger.submit(submission([JOIN, { id: '$2', at: 2 }], EMPTY_ROOM));
  assert.deepEqual(routedIds(log, 'irc'), ['$1', '$2']);
});

test('a request that comes once more after the stream went on says nothing about the room', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  const first = submission([{ id: '$1', at: 1 }], EMPTY_ROOM);
  await world.ledger.submit(first);
  await world.ledger.submit(submission([{ ...JOIN, id: '$2', at: 2 }]));
  await world.ledger.submit(first);
  await world.ledger.submit(submission([{ id: '$3', at: 3 }]));
  assert.deepEqual(routedIds(log, 'irc'), ['$2', '$3']);
});

test('a context that is new in a repeated request holds from then on', async () => {
  const log = new MemoryLog();
  await using world = await openLedger(log);
  await world.put(registration('irc'));
  await world.ledger.submit(submission([{ id: '$1', at: 1 }]));
  await world.ledger.submit(submission([{ id: '$1', at: 1 }], { rooms: [{ roomId: '!r:hs.test', localMembers: [], localAliases: ['#irc_x:hs.test'] }] }));
  await world.ledger.submit(submission([{ id: '$2', at: 2 }]));
  assert.deepEqual(routedIds(log, 'irc'), ['$2']);
});
