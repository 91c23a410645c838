import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

const RUN = join(import.meta.dirname, '..', '..', 'setup', 'run.mjs');

test('M15 R69 npm run demo shows a broken appservice getting its backlog in full transactions, and leaves nothing behind', { timeout: 60_000 }, async () => {
  const temporary = await mkdtemp(join(tmpdir(), 'router-demo-test-'));
  try {
    const demo = spawn(process.execPath, [RUN, 'demo'], { env: { ...process.env, TMPDIR: temporary }, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [demo.stdout, demo.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text));
    const ended: unknown[] = await once(demo, 'close');
    assert.equal(ended[0], 0, output);
    assert.match(output, /@alice:localhost in !room1:localhost: is the kettle on\?/);
    assert.doesNotMatch(output, /between us/);
    assert.match(output, /state RETRYING, backlog 601 events\n.*last error: Nothing listens/);
    assert.match(output, /with 1 event\n(?:.*with 100 events\n){6}.*state IDLE, backlog 0 events/);
    const { sent, received } = /events sent +(?<sent>\d+)\n.*events received +(?<received>\d+)/s.exec(output)?.groups ?? {};
    assert.deepEqual([sent, received], ['607', '607']);
    assert.match(output, /largest +100 events\n +in order +yes\n/);
    // Its data directory goes after the router has ended.
    assert.deepEqual(await readdir(temporary), []);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
});
