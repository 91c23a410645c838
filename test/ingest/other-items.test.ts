/** What goes beside room events: who gets it, in which order, and what a repetition does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceKeys } from '../../src/appservice/device-extensions.ts';
import { systemClock } from '../../src/clock.ts';
import type { OtherItems, ParsedSubmission } from '../../src/ingest/submission.ts';
import { Upkeep } from '../../src/ingest/upkeep.ts';
import type { Segment } from '../../src/store/segment.ts';
import { openLedger, silent } from '../support/ledger-world.ts';
import type { LedgerWorld } from '../support/ledger-world.ts';
import { MemoryLog } from '../support/memory-store.ts';
import { member, registration, submission } from '../support/routing.ts';
import type { EventFields } from '../support/routing.ts';

interface Items {
  readonly events?: readonly (EventFields & { at?: number })[];
  readonly toDevice?: readonly { readonly text: string; readonly to: string; readonly at?: number }[];
  readonly lists?: readonly { readonly of: string; readonly rooms?: readonly string[]; readonly left?: boolean; readonly at?: number }[];
  readonly keys?: readonly DeviceKeys[];
}

function submit({ events = [], toDevice = [], lists = [], keys = [] }: Items): ParsedSubmission {
  const others: OtherItems = {
    ephemeral: [],
    toDevice: toDevice.map(({ text, to, at = 0 }) => ({ json: Buffer.from(text), userId: to, streamPosition: at })),
    deviceLists: lists.map(({ of, rooms = [], left = false, at = 0 }) => ({ userId: of, roomIds: rooms, left, streamPosition: at })),
    deviceKeys: keys,
    roomIds: lists.flatMap(({ rooms = [] }) => rooms),
    count: toDevice.length + lists.length + keys.length,
  };
  return submission(events, { others });
}

/** `kind text` of what is routed to the appservice in the whole log, in order. */
function routed({ segments }: { readonly segments: readonly Segment[] }, appserviceId: string): string[] {
  return segments.flatMap(({ entries, routes }) => {
    const ranges = routes.find((route) => route.appserviceId === appserviceId)?.ranges ?? [];
    return entries.flatMap(({ kind, json }, index) => (ranges.some((first, at) => at % 2 === 0 && index >= first && index <= (ranges[at + 1] ?? -1)) ? [`${kind} ${Buffer.from(json).toString()}`] : []));
  });
}

const keysOf = (userId: string, count: number, deviceId = 'D'): DeviceKeys => ({ userId, deviceId, oneTimeKeyCounts: { k: count }, unusedFallbackKeyTypes: [] });
const keysEntry = (userId: string, count: number): string => `device_keys {"${userId}":{"D":{"counts":{"k":${count}},"fallback":[]}}}`;
const ghost = (appserviceId: string, name = 'g'): string => `@_${appserviceId}_${name}:hs.test`;

async function world(log: MemoryLog): Promise<LedgerWorld> {
  const opened = await openLedger(log);
  await opened.put(registration('plain'));
  await opened.put(registration('eph', { receive_ephemeral: true }));
  await opened.put(registration('old', { push_ephemeral_unstable: true }));
  await opened.put(registration('e2e', { device_extensions: true }));
  await opened.put(registration('away', { device_extensions: true, url: null }));
  return opened;
}

test('R89 a to-device message goes to who has its local recipient and opted in, by namespace or as the sender user', async () => {
  const log = new MemoryLog();
  await using opened = await world(log);
  const to = [ghost('plain'), ghost('eph'), ghost('old'), ghost('e2e'), ghost('away'), '@_eph_bot:hs.test', '@_eph_g:far.test', '@nobody:hs.test'];
  const { accepted, routed: count } = await opened.ledger.submit(submit({ toDevice: to.map((user, at) => ({ text: String(at), to: user })) }));
  assert.deepEqual([accepted, count], [8, 4]);
  assert.deepEqual(['plain', 'eph', 'old', 'e2e', 'away'].map((id) => routed(log, id)), [[], ['to_device 1', 'to_device 5'], ['to_device 2'], ['to_device 3'], []]);
});

test('R94 R96 a change of devices goes to who has the user or is interested in a shared room, with msc3202 alone', async () => {
  const log = new MemoryLog();
  await using opened = await world(log);
  await opened.put(registration('other', { device_extensions: true }));
  await opened.ledger.submit(submission([member('$1', ghost('e2e'), 'join', '!r:hs.test'), member('$2', ghost('eph'), 'join', '!r:hs.test')]));
  const before = { e2e: routed(log, 'e2e').length, eph: routed(log, 'eph').length };
  const { routed: count } = await opened.ledger.submit(
    submit({ lists: [{ of: '@far:far.test', rooms: ['!r:hs.test', '!elsewhere:hs.test'] }, { of: ghost('other') }, { of: '@far:far.test' }, { of: '@far:far.test', rooms: ['!r:hs.test'], left: true }] }),
  );
  assert.equal(count, 3);
  assert.deepEqual(routed(log, 'e2e').slice(before.e2e), ['device_list {"user_id":"@far:far.test","left":false}', 'device_list {"user_id":"@far:far.test","left":true}']);
  assert.deepEqual([routed(log, 'other'), routed(log, 'eph').length - before.eph], [['device_list {"user_id":"@_other_g:hs.test","left":false}'], 0]);
});

test('I7 items of several lists share the stream: each at or below the position before the request is a duplicate, whatever its list', async () => {
  const log = new MemoryLog();
  await using opened = await world(log);
  const text = (at: number) => ({ text: String(at), to: ghost('eph'), at });
  const list = (at: number) => ({ of: ghost('e2e', String(at)), at });
  const first = await opened.ledger.submit(submit({ events: [{ id: '$2', at: 2 }, { id: '$5', at: 5 }], toDevice: [text(1), text(4), text(4)], lists: [list(3)] }));
  assert.deepEqual([first.accepted, first.duplicates, first.streamPosition], [6, 0, 5]);
  const again = await opened.ledger.submit(submit({ events: [{ id: '$5', at: 5 }], toDevice: [text(4), text(6)], lists: [list(3), list(7)] }));
  assert.deepEqual([again.accepted, again.duplicates, again.streamPosition], [2, 3, 7]);
  assert.deepEqual([routed(log, 'eph'), routed(log, 'e2e').length], [['to_device 1', 'to_device 4', 'to_device 4', 'to_device 6'], 2]);
});

test('R98 the numbers of keys go along with the first encrypted event of a room and the first message to a user, as last told', async () => {
  const log = new MemoryLog();
  await using opened = await world(log);
  const room = '!r:hs.test';
  const encrypted = (id: string): EventFields => ({ id, room, type: 'm.room.encrypted' });
  const joins = [member('$1', ghost('e2e', 'a'), 'join', room), member('$2', ghost('e2e', 'b'), 'join', room), member('$3', ghost('e2e', 'c'), 'leave', room), member('$4', ghost('eph'), 'join', room)];
  const told = await opened.ledger.submit(submit({ events: joins, keys: ['a', 'b', 'c', 'd'].map((name) => keysOf(ghost('e2e', name), 1)).concat(keysOf(ghost('eph'), 1), keysOf('@far:far.test', 1)) }));
  assert.deepEqual([told.accepted, told.routed], [10, 5]);
  const seen = routed(log, 'e2e').length;
  await opened.ledger.submit(submit({ events: [{ id: '$5', room }, encrypted('$6'), encrypted('$7')], keys: [keysOf(ghost('e2e', 'b'), 2)], toDevice: [{ text: 'm1', to: ghost('e2e', 'd') }, { text: 'm2', to: ghost('e2e', 'd') }, { text: 'm3', to: ghost('e2e', 'a') }] }));
  const kinds = routed(log, 'e2e').slice(seen).map((item) => (item.startsWith('event') ? 'event' : item));
  const both = `device_keys {"${ghost('e2e', 'b')}":{"D":{"counts":{"k":2},"fallback":[]}},"${ghost('e2e', 'a')}":{"D":{"counts":{"k":1},"fallback":[]}}}`;
  const swapped = `device_keys {"${ghost('e2e', 'a')}":{"D":{"counts":{"k":1},"fallback":[]}},"${ghost('e2e', 'b')}":{"D":{"counts":{"k":2},"fallback":[]}}}`;
  assert.ok(kinds[1] === both || kinds[1] === swapped, kinds[1]);
  assert.deepEqual(kinds.toSpliced(1, 1), ['event', 'event', 'event', keysEntry(ghost('e2e', 'd'), 1), 'to_device m1', 'to_device m2', 'to_device m3']);
  assert.ok(!routed(log, 'eph').some((item) => item.startsWith('device_keys')));
});

test('R98 the numbers of keys outlive a restart, before and after a checkpoint', async () => {
  const log = new MemoryLog();
  const delivered = new Map(['plain', 'eph', 'old', 'e2e', 'away'].map((id) => [id, Number.MAX_SAFE_INTEGER]));
  for (const isSaved of [false, true]) {
    const opened = await world(log);
    await opened.ledger.submit(submit({ keys: [keysOf(ghost('e2e'), isSaved ? 8 : 7), keysOf(ghost('plain'), 1)] }));
    const options = { fold: opened.fold, ledger: opened.ledger, store: log, clock: systemClock, logger: silent, deliveredPositions: () => delivered, cutPositions: () => ({ asOfMs: Infinity, positions: delivered }), expired: () => undefined, ephemeralAgeMaxMs: 1, intervalMs: 1, checkpointIntervalMs: 1, dirtyRoomsMax: 1, trimIntervalMs: 1, retentionMs: -60_000, trimSegmentsMax: 100, trimCallsMax: 9 };
    const upkeep = new Upkeep(options, 0);
    if (isSaved) {
      await upkeep.checkpoint();
      await upkeep.trim();
      assert.equal(log.segments.length, 1, 'only the tail is left of the log');
    }
    await opened.ledger[Symbol.asyncDispose]();
    await using next = await openLedger(log);
    const seen = routed(log, 'e2e').length;
    await next.ledger.submit(submit({ toDevice: [{ text: 'm', to: ghost('e2e') }] }));
    assert.deepEqual(routed(log, 'e2e').slice(seen), [keysEntry(ghost('e2e'), isSaved ? 8 : 7), 'to_device m']);
  }
});

test('I7 a group that loses its append is routed anew with everything that is no event', async () => {
  const log = new MemoryLog();
  await using one = await world(log);
  await using other = await openLedger(log);
  const items = (name: string): Items => ({ keys: [keysOf(ghost('e2e'), 3)], toDevice: [{ text: name, to: ghost('e2e') }] });
  await Promise.all([one.ledger.submit(submit(items('one'))), other.ledger.submit(submit(items('other')))]);
  const all = routed(log, 'e2e');
  assert.deepEqual([all.filter((item) => item.startsWith('to_device')).sort(), all.filter((item) => item === keysEntry(ghost('e2e'), 3)).length], [['to_device one', 'to_device other'], 2]);
});
