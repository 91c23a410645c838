/**
 * A process of its own that works on a SQLite file and says what it was answered, for sqlite-durability.test.ts.
 *
 *   write PATH   appends to two logs and rewrites two states until it is killed; a line `NAME NUMBER` for each answer
 *   open PATH    opens the file, says `opened` or `KIND MESSAGE`, and ends
 *   hold PATH    opens the file, says `opened`, and waits to be killed
 */
import { writeSync } from 'node:fs';
import { systemClock } from '../../src/clock.ts';
import { StoreError } from '../../src/store/errors.ts';
import type { Store } from '../../src/store/port.ts';
import { lastPosition } from '../../src/store/segment.ts';
import { openSqliteStore } from '../../src/store/sqlite/sqlite-store.ts';
import { ALL_SEGMENTS, eventEntries, segmentOf, stateOf } from './conformance/world.ts';

export const LOGS = ['log-1', 'log-2'];
const PAUSE = new Int32Array(new SharedArrayBuffer(4));

export const STATES = ['state-1', 'state-2'];

/** Written at once, so that an answer that was heard is an answer that was given. */
function say(line: string): void {
  for (;;) {
    try {
      writeSync(1, `${line}\n`);
      return;
    } catch (error) {
      // The reader is behind; a line is short enough to be written whole or not at all.
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
      Atomics.wait(PAUSE, 0, 0, 1);
    }
  }
}

async function appendForEver(store: Store, serverName: string): Promise<never> {
  let tail = 0;
  for (const segment of await store.readSegments(serverName, 1, ALL_SEGMENTS)) tail = lastPosition(segment);
  for (let round = 0; ; round++) {
    const entries = eventEntries(1 + (round % 50), `${serverName} ${round} ${'.'.repeat(500)}`);
    const segment = segmentOf(serverName, tail + 1, { entries, routes: [['irc', [0, entries.length - 1]]] });
    await store.append(segment);
    tail = lastPosition(segment);
    say(`${serverName} ${tail}`);
  }
}

async function writeForEver(store: Store, serverName: string): Promise<never> {
  const [known] = await store.loadStates(serverName);
  for (let revision = (known?.revision ?? 0) + 1; ; revision++) {
    await store.writeStates([stateOf(serverName, 'irc', { revision, deliveredPosition: revision * 10 })]);
    say(`${serverName} ${revision}`);
  }
}

if (process.argv[1] === import.meta.filename) {
  const [, , mode, path = ''] = process.argv;
  try {
    const store = await openSqliteStore({ path, clock: systemClock });
    say('opened');
    if (mode === 'write') await Promise.race([...LOGS.map((name) => appendForEver(store, name)), ...STATES.map((name) => writeForEver(store, name))]);
    if (mode === 'open') await store[Symbol.asyncDispose]();
  } catch (error) {
    say(error instanceof StoreError ? `${error.kind} ${error.message}` : String(error));
  }
}
