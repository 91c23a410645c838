import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { createLogger, struckOut } from '../src/logger.ts';
import type { LoggerOptions, LogSink } from '../src/logger.ts';
import { VirtualClock } from './support/clock.ts';

function scripted(options: Partial<LoggerOptions> = {}): { lines: string[]; flushes: () => number; logger: ReturnType<typeof createLogger> } {
  const lines: string[] = [];
  let flushCount = 0;
  const sink: LogSink = { write: (line) => void lines.push(line), flush: () => void (flushCount += 1) };
  const clock = new VirtualClock(Date.UTC(2026, 0, 2, 3, 4, 5, 678));
  return { lines, flushes: () => flushCount, logger: createLogger({ level: 'info', format: 'json', clock, sink, ...options }) };
}

test('writes one JSON line per call with level, time, fields and message', () => {
  const { lines, logger } = scripted();
  using _ = logger;
  logger.info({ appservice_id: 'irc', attempt: 3, delivered: true, through: null, absent: undefined, ids: ['a', 'b'] }, 'attempt ended');
  assert.equal(lines.length, 1);
  assert.ok(lines[0]?.endsWith('}\n'));
  assert.deepEqual(JSON.parse(lines[0] ?? ''), {
    level: 'info',
    time: '2026-01-02T03:04:05.678Z',
    appservice_id: 'irc',
    attempt: 3,
    delivered: true,
    through: null,
    ids: ['a', 'b'],
    msg: 'attempt ended',
  });
});

test('leaves out what is below the level', () => {
  const { lines, logger } = scripted({ level: 'warn' });
  using _ = logger;
  logger.debug({}, 'd');
  logger.info({}, 'i');
  logger.warn({}, 'w');
  logger.error({}, 'e');
  assert.deepEqual(lines.map((line) => JSON.parse(line).msg), ['w', 'e']);
});

test('I12 R18 strikes out fields that are named after a secret, and secrets inside texts', () => {
  for (const format of ['json', 'pretty'] as const) {
    const { lines, logger } = scripted({ format });
    using _ = logger;
    const secret = 's3cr3t-value';
    logger.error({ hs_token: secret, asToken: secret, Authorization: secret, note: `got Authorization: Bearer ${secret}` }, `GET /x?access_token=${secret}&a=b`);
    logger.error({ yaml: `as_token: "${secret}"`, json: `{"hs_token":"${secret}"}`, list: [`Bearer ${secret}`] }, `mongodb://user:${secret}@db.example/router`);
    assert.ok(!lines.join('').includes(secret), lines.join(''));
    assert.ok(lines.join('').includes('a=b') && lines.join('').includes('@db.example/router'));
  }
});

test('strikes out nothing of an ordinary text', () => {
  for (const text of ['The appservice refused the hs_token (HTTP 401).', 'http://as.example:9000/path', 'bearer of news', 'listening on 127.0.0.1:8080']) {
    assert.equal(struckOut(text).replace('[redacted]', 'of'), text);
  }
});

test('the pretty format is one line of text, whatever the fields hold', () => {
  const { lines, logger } = scripted({ format: 'pretty' });
  using _ = logger;
  logger.warn({ appservice_id: 'irc', detail: 'a "b"\n\u001b[31mred', count: 2 }, 'attempt\nfailed \u009b2J');
  assert.deepEqual(lines, ['03:04:05.678 WARN  attempt\\x0afailed \\x9b2J  appservice_id=irc  detail="a \\"b\\"\\n\\u001b[31mred"  count=2\n']);
});

test('disposing of the logger writes out what is held', () => {
  const { flushes, logger } = scripted();
  const before = process.listenerCount('exit');
  logger[Symbol.dispose]();
  assert.equal(flushes(), 1);
  assert.equal(process.listenerCount('exit'), before - 1);
});

test('the last lines reach a pipe although the process ends at once', async () => {
  const program = `
    import { createLogger } from ${JSON.stringify(new URL('../src/logger.ts', import.meta.url).href)};
    import { systemClock } from ${JSON.stringify(new URL('../src/clock.ts', import.meta.url).href)};
    const logger = createLogger({ level: 'info', format: 'json', clock: systemClock });
    for (let at = 0; at < 2000; at++) logger.info({ at }, 'x'.repeat(100));
    process.exit(3);`;
  const run = promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program]).catch((error: unknown) => error);
  const ended = await run;
  assert.ok(typeof ended === 'object' && ended !== null && 'code' in ended && 'stdout' in ended && typeof ended.stdout === 'string');
  assert.equal(ended.code, 3);
  assert.deepEqual(ended.stdout.trim().split('\n').map((line) => JSON.parse(line).at), Array.from({ length: 2_000 }, (_, at) => at));
});
