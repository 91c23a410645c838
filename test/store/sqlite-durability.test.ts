/** The SQLite store through kills, full disks, torn files and second processes. The processes are real. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { appendFile, chmod, copyFile, mkdir, mkdtemp, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { StoreError } from '../../src/store/errors.ts';
import type { StoreErrorKind } from '../../src/store/errors.ts';
import type { Store } from '../../src/store/port.ts';
import { lastPosition } from '../../src/store/segment.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { VirtualClock } from '../support/clock.ts';
import { ALL_ENTRIES, ALL_SEGMENTS, appendAll, eventEntry, readable, routedSegments, segmentOf, stateOf } from './conformance/world.ts';
import { LOGS, STATES } from './sqlite-child.ts';

const folder = await mkdtemp(join(tmpdir(), 'router-durability-'));
after(async () => {
  await rm(folder, { recursive: true });
});

let files = 0;
function freshPath(): string {
  return join(folder, `store-${++files}`, 'router.db');
}

function open(path: string, parts: { pagesMax?: number } = {}): Promise<Store> {
  return openSqliteStore({ path, clock: new VirtualClock(), ...parts });
}

function ofKind(kind: StoreErrorKind, pattern = /./): (error: unknown) => boolean {
  return (error) => error instanceof StoreError && error.kind === kind && pattern.test(error.message);
}

interface Child {
  readonly process: ChildProcess;
  /** Everything said so far. */
  readonly lines: string[];
  /** Resolves with the line once the child has said so many; with undefined if it ends before. */
  line(count: number): Promise<string | undefined>;
  ended: Promise<void>;
}

function startChild(mode: string, path: string): Child {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'sqlite-child.ts'), mode, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout });
  const waiting: { count: number; resolve(line: string | undefined): void }[] = [];
  const tell = (hasEnded: boolean): void => {
    for (const { count, resolve } of waiting) if (hasEnded || lines.length >= count) resolve(lines[count - 1]);
  };
  reader.on('line', (line) => {
    lines.push(line);
    tell(false);
  });
  const ended = new Promise<void>((resolve) => {
    reader.on('close', () => {
      tell(true);
      resolve();
    });
  });
  const line = (count: number): Promise<string | undefined> =>
    new Promise((resolve) => {
      waiting.push({ count, resolve });
      tell(false);
    });
  return { process: child, lines, line, ended };
}

/** The greatest number said behind each name. */
function answered(lines: readonly string[]): Map<string, number> {
  const greatest = new Map<string, number>();
  for (const text of lines) {
    const [name = '', number = '0'] = text.split(' ');
    greatest.set(name, Math.max(greatest.get(name) ?? 0, Number(number)));
  }
  return greatest;
}

/** Works on the file in another process and kills that in the middle of its writes. Returns what it was answered. */
async function writeAndKill(path: string, lineCount: number): Promise<Map<string, number>> {
  const child = startChild('write', path);
  assert.equal(await child.line(1), 'opened', child.lines.join());
  await child.line(lineCount);
  child.process.kill('SIGKILL');
  await child.ended;
  return answered(child.lines);
}

/** Checks that each log is without a hole and its routes agree with it. Returns tail or revision by name. */
async function found(store: Store): Promise<Map<string, number>> {
  const numbers = new Map<string, number>();
  for (const name of LOGS) {
    let tail = 0;
    for (const segment of await store.readSegments(name, 1, ALL_SEGMENTS)) {
      assert.equal(segment.firstPosition, tail + 1);
      tail = lastPosition(segment);
    }
    numbers.set(name, tail);
    const [measure] = await store.measureRoutes(name, new Map([['irc', 0]]), tail);
    assert.equal(measure?.entryCount, tail);
  }
  for (const name of STATES) {
    const [state] = await store.loadStates(name);
    if (state !== undefined) assert.equal(state.deliveredPosition, state.revision * 10);
    numbers.set(name, state?.revision ?? 0);
  }
  return numbers;
}

test('R65 I1 M4 kill -9 in the middle of its writes loses nothing that was answered, and the file opens at once', async () => {
  const path = freshPath();
  for (let round = 1; round <= 4; round++) {
    const said = await writeAndKill(path, 150 * round);
    await using store = await open(path);
    const numbers = await found(store);
    for (const name of [...LOGS, ...STATES]) assert.ok((numbers.get(name) ?? 0) >= (said.get(name) ?? 0), `${name}: ${numbers.get(name)} of ${said.get(name)}`);
    assert.ok([...LOGS, ...STATES].every((name) => (said.get(name) ?? 0) > 0), 'every writer was answered something');
  }
});

test('R65 a write torn by the kill is left out, and nothing answered is', async () => {
  const path = freshPath();
  const said = await writeAndKill(path, 100);
  const whole = `${path}-wal`;
  for (const torn of [1, 31, 4_000, 9_999]) {
    const copy = join(folder, `torn-${torn}.db`);
    await copyFile(path, copy);
    await copyFile(whole, `${copy}-wal`);
    await appendFile(`${copy}-wal`, Buffer.alloc(torn, 0x5a));
    await using store = await open(copy);
    const numbers = await found(store);
    for (const [name, number] of said) if (name !== 'opened') assert.ok((numbers.get(name) ?? 0) >= number, name);
  }
});

test('a write-ahead log that lost its end still opens, to an earlier moment without holes', async () => {
  const path = freshPath();
  const said = await writeAndKill(path, 100);
  const { size } = await stat(`${path}-wal`);
  for (const share of [0, 0.3, 0.6, 0.9]) {
    const copy = join(folder, `cut-${share}.db`);
    await copyFile(path, copy);
    await copyFile(`${path}-wal`, `${copy}-wal`);
    await truncate(`${copy}-wal`, Math.floor(size * share));
    await using store = await open(copy);
    const numbers = await found(store);
    for (const name of LOGS) assert.ok((numbers.get(name) ?? 0) <= (said.get(name) ?? 0) + 50);
    assert.equal(await appendAll(store, 'log-1', [{}], numbers.get('log-1') ?? 0), (numbers.get('log-1') ?? 0) + 1);
  }
});

test('a second process is refused with one clear sentence, and let in once the first is gone', async () => {
  const path = freshPath();
  const store = await open(path);
  await appendAll(store, 'hs', [{}]);
  const refused = startChild('open', path);
  const line = await refused.line(1);
  assert.match(line ?? '', /^unsuitable the database .*router\.db cannot be used: another process has it open\. End that process, or choose another file in ROUTER_STORE$/);
  await refused.ended;
  assert.deepEqual((await store.readSegments('hs', 1, ALL_SEGMENTS)).length, 1);
  assert.equal(await appendAll(store, 'hs', [{}], 1), 2);
  await store[Symbol.asyncDispose]();
  const admitted = startChild('open', path);
  assert.equal(await admitted.line(1), 'opened');
  await admitted.ended;
});

test('a second handle of the same process is refused too, and the first goes on', async () => {
  const path = freshPath();
  await using store = await open(path);
  await assert.rejects(open(path), ofKind('unsuitable', /another process has it open/));
  assert.equal(await appendAll(store, 'hs', [{}]), 1);
});

test('the file of a process that was killed while idle opens at once', async () => {
  const path = freshPath();
  const holder = startChild('hold', path);
  assert.equal(await holder.line(1), 'opened');
  await assert.rejects(open(path), ofKind('unsuitable'));
  holder.process.kill('SIGKILL');
  await holder.ended;
  await using store = await open(path);
  assert.deepEqual(await store.loadStates('hs'), []);
});

test('a replica of the process before does not count as alive, however long it said it would be', async () => {
  const path = freshPath();
  {
    await using store = await open(path);
    await store.heartbeat('before', 3_600_000);
  }
  await using store = await open(path);
  assert.deepEqual(await store.heartbeat('now', 1_000), ['now']);
});

test('R65 a full disk refuses with `exhausted`, leaves nothing half done, and serves again once there is room', async () => {
  await using store = await open(freshPath(), { pagesMax: 400 });
  await store.writeStates([stateOf('hs', 'irc')]);
  const large = { entries: Array.from({ length: 10 }, () => eventEntry(`"${'x'.repeat(10_000)}"`)), routes: [['irc', [0, 9]] as const, ['mail', [0, 0]] as const] };
  let tail = 0;
  await assert.rejects(async () => {
    for (;;) tail = await appendAll(store, 'hs', [large], tail);
  }, ofKind('exhausted', /disk is full/));
  assert.ok(tail >= 50);
  const before = (await store.readSegments('hs', 1, ALL_SEGMENTS)).map(readable);
  await assert.rejects(store.append(segmentOf('hs', tail + 1, large)), ofKind('exhausted'));
  assert.deepEqual((await store.readSegments('hs', 1, ALL_SEGMENTS)).map(readable), before);
  assert.deepEqual((await store.readRoute('hs', 'irc', tail, tail + 10, ALL_ENTRIES)).length, 0);
  assert.deepEqual((await store.measureRoutes('hs', new Map([['mail', 0]]), tail)).map(({ entryCount }) => entryCount), [tail / 10]);
  const trimmed = await store.trim('hs', { after: 0, through: tail, beforeMs: Number.MAX_SAFE_INTEGER, deliveredPositions: new Map(), segmentsMax: 3 });
  assert.equal(trimmed.removedSegments, 3);
  assert.equal(await appendAll(store, 'hs', [large], tail), tail + 10);
  assert.deepEqual(await store.writeStates([stateOf('hs', 'irc', { revision: 2 })]), ['written']);
});

test('R63 a write that has no room takes none of those beside it along', async () => {
  await using store = await open(freshPath(), { pagesMax: 400 });
  const huge = segmentOf('large', 1, { entries: [eventEntry(`"${'x'.repeat(3_000_000)}"`)], routes: [['irc', [0, 0]]] });
  const results = await Promise.allSettled([store.append(segmentOf('small', 1)), store.writeStates([stateOf('small', 'irc')]), store.append(huge), store.append(segmentOf('small', 2)), store.writeStates([stateOf('large', 'irc')])]);
  assert.deepEqual(results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason instanceof StoreError && result.reason.kind)), [{ kind: 'appended' }, ['written'], 'exhausted', { kind: 'appended' }, ['written']]);
  assert.deepEqual(await store.readSegments('large', 1, ALL_SEGMENTS), []);
  assert.equal(await appendAll(store, 'large', [{}]), 1);
});

test('a write that a caller got wrong takes none of those beside it along, and leaves nothing of itself', async () => {
  await using store = await open(':memory:');
  await store.writeStates([stateOf('known', 'irc')]);
  await appendAll(store, 'known', routedSegments(1, 1, 'irc'));
  // While the thread is busy with the first, the others gather into one transaction.
  const busy = store.append(segmentOf('busy', 1, { entries: [eventEntry(`"${'x'.repeat(8_000_000)}"`)] }));
  const [known] = routedSegments(1, 1, 'irc');
  const results = await Promise.allSettled([
    store.writeStates([stateOf('known', 'irc', { revision: 2 })]),
    store.append(segmentOf('known', 2, known)),
    store.append(segmentOf('new', 1, known)),
    store.append(segmentOf('other', 5)),
    store.append(segmentOf('new', 2)),
    store.writeStates([stateOf('other', 'irc')]),
  ]);
  await busy;
  assert.deepEqual(results.map((result) => (result.status === 'fulfilled' ? result.value : 'rejected')), [['written'], { kind: 'appended' }, { kind: 'appended' }, 'rejected', { kind: 'appended' }, ['written']]);
  assert.deepEqual((await store.measureRoutes('known', new Map([['irc', 0]]), 2)).map(({ entryCount }) => entryCount), [2]);
  assert.deepEqual((await store.measureRoutes('new', new Map([['irc', 0]]), 2)).map(({ entryCount }) => entryCount), [1]);
  for (const name of ['later', 'latest']) assert.equal(await appendAll(store, name, routedSegments(2, 1, 'irc')), 2);
  assert.deepEqual((await store.measureRoutes('new', new Map([['irc', 0]]), 2)).map(({ entryCount }) => entryCount), [1]);
  assert.deepEqual(await store.readSegments('other', 1, ALL_SEGMENTS), []);
});

test('M4 a state written beside writes that fail is written once, however they fall together', async () => {
  await using store = await open(':memory:');
  const results = await Promise.allSettled(
    Array.from({ length: 40 }, (_, at) => [store.writeStates([stateOf('hs', `appservice-${at}`)]), store.append(segmentOf('hs', 9, { nonce: `hole-${at}` }))]).flat(),
  );
  assert.deepEqual(results.map((result) => (result.status === 'fulfilled' ? result.value : 'rejected')), Array.from({ length: 40 }, () => [['written'], 'rejected']).flat());
  assert.ok((await store.loadStates('hs')).every(({ revision }) => revision === 1));
});

test('what is trimmed makes room for what comes: neither the file nor its write-ahead log grows for ever', async () => {
  const path = freshPath();
  await using store = await open(path);
  let tail = 0;
  const sizes: number[] = [];
  for (let round = 0; round < 12; round++) {
    tail = await appendAll(store, 'hs', Array.from({ length: 40 }, () => ({ entries: [eventEntry(`"${'x'.repeat(100_000)}"`)], routes: [['irc', [0, 0]] as const] })), tail);
    await store.readRoute('hs', 'irc', tail - 20, tail, { entriesMax: 3, bytesMax: 1 });
    await store.readSegments('hs', tail - 20, { segmentsMax: 10, bytesMax: 1 });
    await store.trim('hs', { after: 0, through: tail, beforeMs: Number.MAX_SAFE_INTEGER, deliveredPositions: new Map([['irc', tail]]), segmentsMax: 1_000 });
    sizes.push((await stat(path)).size);
  }
  assert.ok((sizes.at(-1) ?? Infinity) <= 2 * (sizes[3] ?? 0), sizes.join());
  assert.ok((await stat(`${path}-wal`)).size <= 40 * 1024 * 1024);
});

test('I12 only the owner may read the files, also if they were there before', async () => {
  const path = freshPath();
  for (let round = 0; round < 2; round++) {
    await using store = await open(path);
    await appendAll(store, 'hs', routedSegments(1, 1, 'irc'), round);
    for (const name of [path, `${path}-wal`]) assert.equal((await stat(name)).mode & 0o777, 0o600, name);
    await chmod(path, 0o644);
  }
  assert.equal((await stat(join(path, '..'))).mode & 0o777, 0o700);
});

test('a path that can hold no file is refused with what to do', async () => {
  const path = freshPath();
  await mkdir(path, { recursive: true });
  await assert.rejects(open(path), ofKind('unsuitable', /cannot be .* ROUTER_STORE/));
  await appendFile(join(folder, 'plain-file'), 'x');
  await assert.rejects(open(join(folder, 'plain-file', 'router.db')), ofKind('unsuitable', /ROUTER_STORE/));
});
