import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { TransactionScanner } from '../../src/ingress/transaction-scanner.ts';
import type { ScannedPart } from '../../src/ingress/transaction-scanner.ts';

const LIMITS = { lists: new Set(['events', 'list"\\']), values: new Set(['value']), elementBytesMax: 10_000, valueBytesMax: 10_000, beginningBytes: 8 };

function scan(body: string | Buffer, cuts: readonly number[] = []): { parts: ScannedPart[]; scanner: TransactionScanner } {
  const bytes = Buffer.from(body);
  const scanner = new TransactionScanner(LIMITS);
  const places = [0, ...cuts.map((cut) => cut % (bytes.byteLength + 1)).sort((a, b) => a - b), bytes.byteLength];
  const parts = places.slice(1).flatMap((end, at) => [...scanner.push(bytes.subarray(places[at], end))]);
  return { parts, scanner };
}

const texts = (parts: readonly ScannedPart[]): [string, string][] => parts.map(({ key, json }) => [key, Buffer.from(json).toString()]);

test('I1 cuts any transaction into what JSON.parse finds in it, wherever the network cuts the bytes', () => {
  const element = fc.jsonValue({ maxDepth: 3, noUnicodeString: false });
  const body = fc.record({ events: fc.array(element), other: fc.jsonValue(), value: fc.jsonValue(), ephemeral: fc.array(element) }, { requiredKeys: [] });
  fc.assert(
    fc.property(body, fc.array(fc.nat(), { maxLength: 20 }), fc.constantFrom(0, 2), (object, cuts, indent) => {
      const { parts, scanner } = scan(JSON.stringify(object, null, indent), cuts);
      assert.ok(scanner.isComplete);
      const found = parts.map(({ key, json }) => [key, JSON.parse(Buffer.from(json).toString()) as unknown]);
      const plain = JSON.parse(JSON.stringify(object)) as Partial<Record<'events' | 'value', unknown>>;
      const expected = Object.entries(plain).flatMap(([key, value]) => (key === 'events' && Array.isArray(value) ? value.map((item: unknown) => [key, item]) : key === 'value' ? [[key, value]] : []));
      assert.deepEqual(found, expected);
    }),
    { numRuns: 300 },
  );
});

test('the parts are the bytes that came, not their like written anew', () => {
  const { parts } = scan('{"events":[ {"a" : 1.50,\t"b":"\\u0041"} , "x\\"]" ],"value":{ "k":[1 , 2] } }');
  assert.deepEqual(texts(parts), [['events', '{"a" : 1.50,\t"b":"\\u0041"}'], ['events', '"x\\"]"'], ['value', '{ "k":[1 , 2] }']]);
});

test('I1 a part that is no JSON spoils no other', () => {
  const { parts, scanner } = scan('{"events":[{"a":1},{a:b},{"c":},nul,{"d":2}]}');
  assert.deepEqual(texts(parts).map(([, json]) => json), ['{"a":1}', '{a:b}', '{"c":}', 'nul', '{"d":2}']);
  assert.ok(scanner.isComplete);
});

test('what is found before a frame breaks is found, and nothing after it', () => {
  for (const tail of ['', ',', ']', '] x', ']}}', ']} {"events":[2]}', '],"value"}', '],"value":,1}', ']\u0000}']) {
    const { parts, scanner } = scan(`{"events":[{"a":1}${tail}`);
    assert.deepEqual(texts(parts)[0], ['events', '{"a":1}'], tail);
    assert.equal(scanner.isComplete, false, tail);
  }
  for (const body of ['', '[]', '"x"', '1', 'null', '\ufeff{}']) assert.equal(scan(body).scanner.isComplete, false, body);
});

test('of a part that is too large only the beginning is kept, and the next ones are whole', () => {
  const { parts } = scan(`{"events":[{"a":"${'x'.repeat(20_000)}"},{"b":1}],"value":"${'y'.repeat(20_000)}"}`, [300, 9_000, 15_000]);
  assert.deepEqual(parts.map(({ json, isWhole }) => [Buffer.from(json).toString(), isWhole]), [['{"a":"xx', false], ['{"b":1}', true], ['"yyyyyyy', false]]);
});

test('a list that is none is one part, and a key with an escape is another key', () => {
  assert.deepEqual(texts(scan('{"events":null}').parts), [['events', 'null']]);
  assert.deepEqual(texts(scan('{"events":{"0":1}}').parts), [['events', '{"0":1}']]);
  assert.deepEqual(texts(scan('{"even\\u0074s":[1],"events":[2]}').parts), [['events', '2']]);
});
