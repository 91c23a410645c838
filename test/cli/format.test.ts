import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytes, duration, isoTime, timeMsFrom } from '../../src/cli/format.ts';
import { table } from '../../src/cli/table.ts';
import { plainLine } from '../../src/cli/terminal.ts';

test('durations show their two largest units', () => {
  const cases: [number, string][] = [[-5, '0s'], [999, '0s'], [1_000, '1s'], [60_000, '1m'], [200_000, '3m 20s'], [7_500_000, '2h 5m'], [3_600_000, '1h'], [90_061_000, '1d 1h'], [86_400_000 + 5_000, '1d']];
  for (const [ms, text] of cases) assert.equal(duration(ms), text);
});

test('sizes are decimal, with three digits', () => {
  const cases: [number, string][] = [[0, '0 B'], [999, '999 B'], [1_000, '1.0 kB'], [123_456, '123 kB'], [5_250_000, '5.3 MB'], [7e15, '7000 TB']];
  for (const [count, text] of cases) assert.equal(bytes(count), text);
});

test('times are UTC to the second, and a timestamp that is not there is none', () => {
  assert.equal(isoTime(1_234), '1970-01-01T00:00:01Z');
  assert.equal(timeMsFrom({ seconds: 12n, nanos: 345_678_901 }), 12_345);
  assert.equal(timeMsFrom(undefined), null);
});

test('text from elsewhere cannot move the cursor, set a colour or add a line', () => {
  assert.equal(plainLine('a\u001b[2J\u009b31mb\r\nc\u2028d'), 'a [2J 31mb c d');
  assert.equal(table(['id', 'state'], [['x\u001b[31m', 'idle\nfailed']]), 'ID      STATE\nx [31m  idle failed\n');
});

test('columns are as wide as their widest cell, and colours do not count', () => {
  const painted = table(['id', 'state'], [['a', 'idle'], ['long-name', 'failed']], (cell, column) => (column === 1 ? `\u001b[31m${cell}\u001b[0m` : cell));
  assert.equal(painted, 'ID         STATE\na          \u001b[31midle\u001b[0m\nlong-name  \u001b[31mfailed\u001b[0m\n');
});
