import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StoreError } from '../../src/store/errors.ts';
import type { RoutedEntry } from '../../src/store/port.ts';
import { collectRouted, decodeSegment, encodeSegment, measureRoute } from '../../src/store/segment-codec.ts';
import type { EntryKind, Segment } from '../../src/store/segment.ts';
import { eventEntries, eventEntry, readable, registrationOf, segmentOf } from './conformance/world.ts';

const kinds: readonly EntryKind[] = ['event', 'ephemeral', 'to_device', 'device_list', 'device_keys', 'mark'];
const entry = fc.record({ kind: fc.constantFrom(...kinds), json: fc.uint8Array({ maxLength: 60 }) }, { noNullPrototype: true });
const delta = fc.oneof(
  fc.record({ kind: fc.constantFrom('joined' as const, 'left' as const), roomId: fc.string({ unit: 'binary' }), userId: fc.string() }, { noNullPrototype: true }),
  fc.record({ kind: fc.constant('aliases' as const), roomId: fc.string(), roomAliases: fc.array(fc.string({ unit: 'binary' })) }, { noNullPrototype: true }),
);
const change = fc.record({ kind: fc.constant('put' as const), appserviceId: fc.string({ unit: 'binary' }), registration: fc.string({ unit: 'binary' }).map(registrationOf), resumeParked: fc.boolean() }, { noNullPrototype: true });
const route = fc.record({ appserviceId: fc.string({ unit: 'binary' }), ranges: fc.array(fc.nat()), entryCount: fc.nat(), bytes: fc.nat() }, { noNullPrototype: true });
const hold = fc.oneof(
  fc.record({ kind: fc.constant('held' as const), appserviceId: fc.string({ unit: 'binary' }), roomId: fc.string({ unit: 'binary' }), userIds: fc.array(fc.string()), indexes: fc.array(fc.nat()) }, { noNullPrototype: true }),
  fc.record({ kind: fc.constant('released' as const), appserviceId: fc.string({ unit: 'binary' }), roomId: fc.string() }, { noNullPrototype: true }),
);
const keys = fc.record({ userId: fc.string({ unit: 'binary' }), deviceId: fc.string(), oneTimeKeyCounts: fc.dictionary(fc.string({ unit: 'binary' }), fc.nat(), { noNullPrototype: true }), unusedFallbackKeyTypes: fc.array(fc.string()) }, { noNullPrototype: true });
const segments: fc.Arbitrary<Segment> = fc.record({
  serverName: fc.string(),
  firstPosition: fc.maxSafeNat(),
  entries: fc.array(entry, { minLength: 1 }),
  routes: fc.array(route),
  roomDeltas: fc.array(delta),
  streamPositions: fc.dictionary(fc.string({ unit: 'binary' }), fc.maxSafeNat(), { noNullPrototype: true }),
  holds: fc.array(hold),
  streamsBefore: fc.dictionary(fc.string({ unit: 'binary' }), fc.maxSafeNat(), { noNullPrototype: true }),
  streamRuns: fc.dictionary(fc.string({ unit: 'binary' }), fc.array(fc.maxSafeNat()), { noNullPrototype: true }),
  deviceKeys: fc.array(keys),
  registrationChanges: fc.array(change),
  registrationsVersion: fc.maxSafeNat(),
  nonce: fc.string({ unit: 'binary' }),
  timeMs: fc.maxSafeNat(),
}, { noNullPrototype: true, requiredKeys: ['serverName', 'firstPosition', 'entries', 'routes', 'roomDeltas', 'streamPositions', 'registrationChanges', 'registrationsVersion', 'nonce', 'timeMs'] });

function decoded(bytes: Uint8Array): Segment {
  return decodeSegment('hs', 1, bytes);
}

function isUnreadable(error: unknown): boolean {
  return error instanceof StoreError && error.kind === 'unreadable';
}

test('I3 gives back any segment exactly', () => {
  fc.assert(
    fc.property(segments, (segment) => {
      assert.deepEqual(readable(decodeSegment(segment.serverName, segment.firstPosition, encodeSegment(segment))), readable(segment));
    }),
    { numRuns: 300 },
  );
});

test('gives views of the bytes it was given, wherever these lie in their buffer', () => {
  const segment = segmentOf('hs', 1, { entries: eventEntries(3), routes: [['irc', [0, 2]]] });
  const bytes = encodeSegment(segment);
  const shifted = new Uint8Array(bytes.byteLength + 7).subarray(3, 3 + bytes.byteLength);
  shifted.set(bytes);
  const back = decoded(shifted);
  assert.deepEqual(readable(back), readable(segment));
  assert.ok(back.entries.every(({ json }) => json.buffer === shifted.buffer));
});

test('I1 calls bytes that are cut short, or longer than they should be, unreadable, at whatever place', () => {
  const bytes = encodeSegment(segmentOf('hs', 1, { entries: eventEntries(3), routes: [['irc', [0, 0, 2, 2]], ['mail', [1, 1]]] }));
  const roomy = new Uint8Array(bytes.byteLength + 1_000).fill(0x20);
  roomy.set(bytes, 100);
  for (let length = 0; length < bytes.byteLength; length++) assert.throws(() => decoded(roomy.subarray(100, 100 + length)), isUnreadable, `${length} of ${bytes.byteLength}`);
  assert.throws(() => decoded(roomy.subarray(100, 100 + bytes.byteLength + 1)), isUnreadable);
  assert.doesNotThrow(() => decoded(roomy.subarray(100, 100 + bytes.byteLength)));
});

test('calls another version, an unknown kind of entry and foreign bytes unreadable', () => {
  const bytes = encodeSegment(segmentOf('hs', 1, { entries: [{ kind: 'mark', json: new Uint8Array(0) }] }));
  assert.throws(() => decoded(Uint8Array.of(2, ...bytes.subarray(1))), isUnreadable);
  assert.throws(() => decoded(Uint8Array.of(...bytes.subarray(0, -5), 200, 0, 0, 0, 0)), isUnreadable);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
      assert.throws(() => decoded(Uint8Array.of(1, ...noise)), isUnreadable);
    }),
  );
});

test('never reads damaged bytes as anything but a segment or unreadable', () => {
  const bytes = encodeSegment(segmentOf('hs', 1, { entries: eventEntries(4), routes: [['irc', [0, 3]]] }));
  fc.assert(
    fc.property(fc.nat({ max: bytes.byteLength - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const damaged = bytes.slice();
      damaged[at] = (damaged[at] ?? 0) ^ flip;
      try {
        assert.ok(decoded(damaged).entries.length <= bytes.byteLength);
      } catch (error) {
        assert.ok(isUnreadable(error), String(error));
      }
    }),
    { numRuns: 1_000 },
  );
});

test('calls a route to an entry that is not there unreadable', () => {
  const segment = segmentOf('hs', 1, { entries: eventEntries(2), routes: [['irc', [1, 2]]] });
  assert.throws(() => collectRouted(segment, 'irc', 0, 10, { entriesMax: 10, bytesMax: 1_000 }, [], 0), isUnreadable);
});

test('R70 adds the entries of one appservice between two positions to those found before, within the limits of all', () => {
  const segment = segmentOf('hs', 11, { entries: ['a', 'bb', 'ccc', 'dddd', 'eeeee'].map(eventEntry), routes: [['irc', [0, 1, 3, 4]]], timeMs: 7 });
  const collected = (after: number, through: number, entriesMax: number, bytesMax: number): [number, number[]] => {
    const found: RoutedEntry[] = [{ position: 5, kind: 'event', json: new Uint8Array(10), timeMs: 1 }];
    const bytes = collectRouted(segment, 'irc', after, through, { entriesMax, bytesMax }, found, 10);
    return [bytes, found.map(({ position }) => position)];
  };
  assert.deepEqual(collected(0, 100, 100, 1_000), [22, [5, 11, 12, 14, 15]]);
  assert.deepEqual(collected(11, 14, 100, 1_000), [16, [5, 12, 14]]);
  assert.deepEqual(collected(0, 100, 3, 1_000), [-1, [5, 11, 12]]);
  assert.deepEqual(collected(0, 100, 100, 17), [-1, [5, 11, 12, 14]]);
  assert.deepEqual(measureRoute(segment, 'irc', 12), { entryCount: 2, bytes: 9 });
  assert.deepEqual(measureRoute(segment, 'nobody', 0), { entryCount: 0, bytes: 0 });
});
