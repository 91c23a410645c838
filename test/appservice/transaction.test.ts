import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { BodyKey, RoutedKind } from '../../src/appservice/body-keys.ts';
import { bodyKeysOf, BODY_KEYS, KIND_OF_KEY } from '../../src/appservice/body-keys.ts';
import { deviceKeysEntry, deviceListEntry } from '../../src/appservice/device-extensions.ts';
import { cutTransaction, isChosen, isSameChoice } from '../../src/appservice/transaction.ts';
import type { CutTerms, TransactionEntry } from '../../src/appservice/transaction.ts';
import { transactionBody } from '../../src/appservice/transaction-body.ts';

const entry = (position: number, text: string, kind: RoutedKind = 'event'): TransactionEntry => ({ position, kind, json: Buffer.from(text), timeMs: position });
const TERMS: CutTerms = { eventsMax: 100, ephemeralMax: 100, toDeviceMax: 100, bytesMax: 1_000_000, entriesMax: Infinity, bodyKeys: [], ephemeralFromMs: 0, overtaken: new Set() };
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

test('R50 a body without events is {"events":[]}', () => {
  assert.equal(text(transactionBody([], [])), '{"events":[]}');
});

test('R49 a body joins the texts as they are', () => {
  assert.equal(text(transactionBody([entry(1, '{ "a":1}'), entry(2, '{"b":"é"}')], [])), '{"events":[{ "a":1},{"b":"é"}]}');
});

test('R50 R80 R90 each list has its own key, under every name that was asked for, and events are always there', () => {
  const entries = [entry(1, '{"t":1}', 'to_device'), entry(2, '{"e":1}', 'ephemeral'), entry(3, '{ "t":2}', 'to_device')];
  const keys: BodyKey[] = ['ephemeral', 'de.sorunome.msc2409.ephemeral', 'de.sorunome.msc2409.to_device'];
  const body = '{"events":[],"ephemeral":[{"e":1}],"de.sorunome.msc2409.ephemeral":[{"e":1}],"de.sorunome.msc2409.to_device":[{"t":1},{ "t":2}]}';
  assert.equal(text(transactionBody(entries, keys)), body);
});

test('R95 R97 R99 device lists and counts are merged in the body: the last word on a user and a device counts', () => {
  const device = (userId: string, deviceId: string, count: number) => ({ userId, deviceId, oneTimeKeyCounts: count === 0 ? {} : { signed_curve25519: count }, unusedFallbackKeyTypes: count === 0 ? [] : ['signed_curve25519'] });
  const list = (userId: string, left: boolean): TransactionEntry => entry(1, text(deviceListEntry({ userId, left })), 'device_list');
  const keys = (...devices: Parameters<typeof deviceKeysEntry>[0]): TransactionEntry => entry(1, text(deviceKeysEntry(devices)), 'device_keys');
  const entries = [list('@a', false), keys(device('@a', 'D', 7), device('@b', '__proto__', 1)), list('@b', true), list('@a', true), list('@c', true), list('@c', false), keys(device('@a', 'D', 0), device('@a', '1', 5))];
  const body: unknown = JSON.parse(text(transactionBody(entries, bodyKeysOf({ receive_ephemeral: false, push_ephemeral_unstable: false, device_extensions: true }).slice(1))));
  assert.deepEqual(body, {
    events: [],
    'org.matrix.msc3202.device_lists': { changed: ['@c'], left: ['@a', '@b'] },
    'org.matrix.msc3202.device_one_time_keys_count': { '@a': { D: {}, 1: { signed_curve25519: 5 } }, '@b': { ['__proto__']: { signed_curve25519: 1 } } },
    'org.matrix.msc3202.device_unused_fallback_key_types': { '@a': { D: [], 1: ['signed_curve25519'] }, '@b': { ['__proto__']: ['signed_curve25519'] } },
  });
});

test('R78 R80 R90 R94 a registration reads the keys of its flags', () => {
  const keys = (receive_ephemeral: boolean, push_ephemeral_unstable: boolean, device_extensions: boolean): number[] =>
    bodyKeysOf({ receive_ephemeral, push_ephemeral_unstable, device_extensions }).map((key) => BODY_KEYS.indexOf(key));
  assert.deepEqual([keys(false, false, false), keys(true, false, false), keys(false, true, false), keys(true, true, true), keys(false, false, true)], [[], [0, 2], [1, 2], [0, 1, 2, 3, 4, 5], [2, 3, 4, 5]]);
});

test('R62 R70 R72 a cut is the longest beginning within every limit, less what is left out; its body follows from the choice alone', () => {
  const kind = fc.constantFrom<RoutedKind>('event', 'event', 'ephemeral', 'to_device');
  const items = fc.array(fc.record({ kind, size: fc.integer({ min: 2, max: 60 }) }), { minLength: 1, maxLength: 40 });
  const count = fc.integer({ min: 1, max: 6 });
  const terms = fc.record({ eventsMax: count, ephemeralMax: count, toDeviceMax: count, entriesMax: fc.constantFrom(1, 2, 5, Infinity), bytesMax: fc.integer({ min: 1, max: 600 }), flags: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()) });
  const holds = fc.property(items, terms, fc.integer({ min: 1, max: 130 }), (all, { flags: [stable, unstable, device], ...limits }, through) => {
    const bodyKeys = bodyKeysOf({ receive_ephemeral: stable, push_ephemeral_unstable: unstable, device_extensions: device });
    const entries = all.map(({ kind: of, size }, at) => entry(3 * at + 1, '7'.repeat(size), of));
    const isWanted = ({ kind: of }: TransactionEntry): boolean => of === 'event' || bodyKeys.some((key) => KIND_OF_KEY[key] === of);
    const cut = cutTransaction(entries, 0, through, { ...TERMS, ...limits, bodyKeys });
    assert.ok(cut !== null);
    const dealtWith = entries.filter(({ position }) => position <= cut.through);
    const chosen = entries.filter(({ position }) => isChosen(cut.ranges, position));
    assert.deepEqual(chosen, dealtWith.filter(isWanted));
    assert.deepEqual(cut.body, transactionBody(chosen, cut.bodyKeys));
    assert.deepEqual(cut.settled, { entries: dealtWith.length, bytes: dealtWith.reduce((sum, { json }) => sum + json.byteLength, 0) });
    assert.equal(cut.entryCount, chosen.length);
    const counted = (of: RoutedKind): number => chosen.filter((one) => one.kind === of).length;
    assert.ok(counted('event') <= limits.eventsMax && counted('ephemeral') <= limits.ephemeralMax && counted('to_device') <= limits.toDeviceMax);
    assert.ok(cut.through <= through && cut.entryCount <= limits.entriesMax && (cut.body.byteLength <= limits.bytesMax || cut.entryCount <= 1));
    const next = entries[dealtWith.length];
    if (next === undefined || next.position > through) return;
    assert.ok(cut.isFull && isWanted(next), 'it ends early only at a limit');
    const more = [...chosen, next];
    const most = { event: limits.eventsMax, ephemeral: limits.ephemeralMax, to_device: limits.toDeviceMax, device_list: 0, device_keys: 0 }[next.kind];
    const moreKeys = bodyKeys.filter((key) => more.some((one) => one.kind === KIND_OF_KEY[key]));
    assert.ok(counted(next.kind) >= most || chosen.length >= limits.entriesMax || transactionBody(more, moreKeys).byteLength > limits.bytesMax, 'and there at the first that exceeds it');
  });
  fc.assert(holds, { numRuns: 2_000 });
});

test('R74 nothing routed up to there is no cut', () => {
  assert.equal(cutTransaction([], 0, 100, TERMS), null);
  assert.equal(cutTransaction([entry(5, '{}')], 0, 4, TERMS), null);
});

test('R74 R94 where all is left out there is nothing to send, and all of it is dealt with', () => {
  const cut = cutTransaction([entry(5, '{}', 'to_device'), entry(8, '{}', 'device_list')], 0, 100, TERMS);
  assert.deepEqual([cut?.entryCount, cut?.through, cut?.ranges, cut?.settled], [0, 8, [], { entries: 2, bytes: 4 }]);
});

test('what is left out at either end and between makes gaps in the ranges, and is dealt with', () => {
  const entries = [entry(1, '{}', 'ephemeral'), entry(2, '{"a":1}'), entry(4, '{}', 'ephemeral'), entry(5, '{"b":1}'), entry(9, '{"c":1}'), entry(10, '{}', 'ephemeral')];
  const cut = cutTransaction(entries, 0, 100, TERMS);
  assert.deepEqual([cut?.ranges, cut?.through, cut?.entryCount, text(cut?.body ?? new Uint8Array(0))], [[2, 2, 5, 9], 10, 3, '{"events":[{"a":1},{"b":1},{"c":1}]}']);
});

test('two choices are the same if their ranges and keys are', () => {
  assert.ok(isSameChoice({ ranges: [1, 4, 6, 6] }, { ranges: [1, 4, 6, 6], bodyKeys: [] }));
  assert.ok(!isSameChoice({ ranges: [1, 4] }, { ranges: [1, 4, 6, 6] }));
  assert.ok(!isSameChoice({ ranges: [1, 4] }, { ranges: [1, 5] }));
  assert.ok(!isSameChoice({ ranges: [1, 4] }, { ranges: [1, 4], bodyKeys: ['ephemeral'] }));
  assert.ok(!isChosen([1, 4, 6, 6], 5));
});
