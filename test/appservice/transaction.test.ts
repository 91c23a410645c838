import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cutTransaction, entryBytes, isChosen, isSameChoice, transactionBody } from '../../src/appservice/transaction.ts';

const entry = (position: number, text: string) => ({ position, json: Buffer.from(text), timeMs: position });

test('R50 a body without events is {"events":[]}', () => {
  assert.equal(Buffer.from(transactionBody([])).toString(), '{"events":[]}');
});

test('R49 a body joins the texts as they are', () => {
  assert.equal(Buffer.from(transactionBody([entry(1, '{ "a":1}'), entry(2, '{"b":"é"}')])).toString(), '{"events":[{ "a":1},{"b":"é"}]}');
});

test('R70 R62 a cut is the longest beginning that fits, at least one entry, and its body follows from the choice alone', () => {
  const texts = fc.array(fc.integer({ min: 2, max: 60 }), { minLength: 1, maxLength: 40 });
  const holds = fc.property(texts, fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 130 }), (sizes, entriesMax, bytesMax, through) => {
    const entries = sizes.map((size, at) => entry(3 * at + 1, '7'.repeat(size)));
    const cut = cutTransaction(entries, 0, through, { entriesMax, bytesMax });
    assert.ok(cut !== null);
    const chosen = entries.filter(({ position }) => isChosen(cut.ranges, position));
    assert.deepEqual(chosen, entries.slice(0, cut.entryCount));
    assert.deepEqual(cut.body, transactionBody(chosen));
    assert.equal(cut.through, chosen.at(-1)?.position);
    assert.equal(entryBytes(cut.body.byteLength, cut.entryCount), chosen.reduce((sum, { json }) => sum + json.byteLength, 0));
    assert.ok(cut.entryCount <= entriesMax && cut.through <= through);
    assert.ok(cut.body.byteLength <= bytesMax || cut.entryCount === 1);
    const next = entries[cut.entryCount];
    const canTakeMore = next !== undefined && next.position <= through && cut.entryCount < entriesMax && cut.body.byteLength + 1 + next.json.byteLength <= bytesMax;
    assert.equal(canTakeMore, false);
  });
  fc.assert(holds);
});

test('R74 nothing routed up to there is no cut', () => {
  assert.equal(cutTransaction([], 0, 100, { entriesMax: 1, bytesMax: 1 }), null);
  assert.equal(cutTransaction([entry(5, '{}')], 0, 4, { entriesMax: 1, bytesMax: 100 }), null);
});

test('two choices are the same if their ranges are', () => {
  assert.ok(isSameChoice({ ranges: [1, 4, 6, 6] }, { ranges: [1, 4, 6, 6] }));
  assert.ok(!isSameChoice({ ranges: [1, 4] }, { ranges: [1, 4, 6, 6] }));
  assert.ok(!isSameChoice({ ranges: [1, 4] }, { ranges: [1, 5] }));
  assert.ok(!isChosen([1, 4, 6, 6], 5));
});
