import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StoreError } from '../../src/store/errors.ts';
import type { Store } from '../../src/store/port.ts';
import type { Segment } from '../../src/store/segment.ts';
import { timedStore } from '../../src/store/timed.ts';
import { VirtualClock } from '../support/clock.ts';

const SEGMENT: Segment = {
  serverName: 'example.org',
  firstPosition: 1,
  entries: [],
  routes: [],
  roomDeltas: [],
  streamPositions: {},
  registrationChanges: [],
  registrationsVersion: 0,
  nonce: 'n',
  timeMs: 0,
};

/** Every call is kept and then fails as a bug, but for what `rest` scripts. */
function scriptedStore(asked: unknown[][], rest: Partial<Store> = {}): Store {
  const take =
    (method: string) =>
    (...args: unknown[]): Promise<never> => {
      asked.push([method, ...args]);
      return Promise.reject(new TypeError('not scripted'));
    };
  return {
    append: take('append'),
    readSegments: take('readSegments'),
    readRoute: take('readRoute'),
    measureRoutes: take('measureRoutes'),
    trim: take('trim'),
    wholeFrom: take('wholeFrom'),
    loadFold: take('loadFold'),
    loadRooms: take('loadRooms'),
    saveFold: take('saveFold'),
    loadStates: take('loadStates'),
    writeStates: take('writeStates'),
    heartbeat: take('heartbeat'),
    changeRecord: take('changeRecord'),
    readRecords: take('readRecords'),
    [Symbol.asyncDispose]: () => Promise.resolve(void asked.push(['dispose'])),
    ...rest,
  };
}

test('hands every call on with its arguments, and tells the meter of each once', async () => {
  const asked: unknown[][] = [];
  const metered: string[] = [];
  {
    await using store = timedStore(scriptedStore(asked), { storeCall: (method, outcome) => void metered.push(`${method} ${outcome}`) }, new VirtualClock());
    const limits = { segmentsMax: 1, bytesMax: 2, entriesMax: 3 };
    const trim = { after: 1, through: 2, beforeMs: 3, deliveredPositions: new Map(), segmentsMax: 4 };
    const fold = { rooms: [], registrations: [], checkpoint: { position: 1, streamPositions: {}, registrationsVersion: 0 } };
    const removal = { kind: 'unquarantine', serverName: 's', appserviceId: 'a', txnId: '1' } as const;
    const query = { serverName: 's', appserviceId: null, beforeId: null, countMax: 10 };
    const calls: [string, () => Promise<unknown>, unknown[]][] = [
      ['append', () => store.append(SEGMENT), [SEGMENT]],
      ['readSegments', () => store.readSegments('s', 5, limits), ['s', 5, limits]],
      ['readRoute', () => store.readRoute('s', 'a', 6, 7, limits), ['s', 'a', 6, 7, limits]],
      ['measureRoutes', () => store.measureRoutes('s', new Map([['a', 1]]), 8), ['s', new Map([['a', 1]]), 8]],
      ['trim', () => store.trim('s', trim), ['s', trim]],
      ['wholeFrom', () => store.wholeFrom('s', 1, 9, 10), ['s', 1, 9, 10]],
      ['loadFold', () => store.loadFold('s'), ['s']],
      ['loadRooms', () => store.loadRooms('s', ['!r']), ['s', ['!r']]],
      ['saveFold', () => store.saveFold('s', fold), ['s', fold]],
      ['loadStates', () => store.loadStates('s'), ['s']],
      ['writeStates', () => store.writeStates([]), [[]]],
      ['heartbeat', () => store.heartbeat('replica', 9), ['replica', 9]],
      ['changeRecord', () => store.changeRecord(removal), [removal]],
      ['readRecords', () => store.readRecords('audit', query), ['audit', query]],
    ];
    for (const [method, call, args] of calls) {
      await assert.rejects(call(), TypeError);
      assert.deepEqual(asked.at(-1), [method, ...args]);
      assert.equal(metered.at(-1), `${method} bug`);
    }
    assert.equal(metered.length, calls.length);
  }
  assert.deepEqual(asked.at(-1), ['dispose']);
});

test('tells how a call ended and how long it took, and passes value and error through', async () => {
  const clock = new VirtualClock();
  const metered: unknown[][] = [];
  const away = new StoreError('unavailable', 'away');
  const inner = scriptedStore([], {
    append: async () => {
      await clock.advance(12);
      return { kind: 'appended' };
    },
    loadStates: () => Promise.reject(away),
  });
  await using store = timedStore(inner, { storeCall: (...call) => void metered.push(call) }, clock);
  assert.deepEqual(await store.append(SEGMENT), { kind: 'appended' });
  await assert.rejects(store.loadStates('s'), (error) => error === away);
  assert.deepEqual(metered, [
    ['append', 'ok', 12],
    ['loadStates', 'unavailable', 0],
  ]);
});
