/** FoldStore: rooms and registrations only become newer, and the checkpoint follows them. */
import assert from 'node:assert/strict';
import type { Fold, FoldChanges, PositionedRegistration, Store, StoredRoom } from '../../../src/store/port.ts';
import type { ConformanceCase } from './world.ts';
import { ODD_TEXTS, byText, recordOf, registrationOf, roomOf } from './world.ts';

function changes(position: number, parts: Partial<FoldChanges> = {}): FoldChanges {
  return { rooms: [], registrations: [], checkpoint: { position, streamPositions: {}, registrationsVersion: 0 }, ...parts };
}

function put(appserviceId: string, position: number, parts: Partial<PositionedRegistration> = {}): PositionedRegistration {
  return { appserviceId, position, since: 1, registration: registrationOf(`${appserviceId} at ${position}`), backlog: null, ...parts };
}

async function rooms(store: Store, serverName: string, ids: readonly string[]): Promise<StoredRoom[]> {
  return (await store.loadRooms(serverName, ids)).toSorted((left, right) => byText(left.roomId, right.roomId));
}

async function fold(store: Store, serverName: string): Promise<Fold> {
  const { checkpoint, registrations } = await store.loadFold(serverName);
  return { checkpoint, registrations: registrations.toSorted((left, right) => byText(left.appserviceId, right.appserviceId)) };
}

export const foldCases: readonly ConformanceCase[] = [
  {
    title: 'is empty at position 0 before the first save',
    run: async ({ store, fresh }) => {
      const name = fresh();
      assert.deepEqual(await store.loadFold(name), { checkpoint: { position: 0, streamPositions: {}, registrationsVersion: 0 }, registrations: [] });
      assert.deepEqual(await store.loadRooms(name, ['!r']), []);
    },
  },
  {
    title: 'gives back checkpoint and registrations exactly',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const registrations: PositionedRegistration[] = [
        put('irc', 3, { since: 2 }),
        put('mail', 9, { registration: null, backlog: 'park' }),
        put('old', 4, { registration: null, backlog: 'discard' }),
        put('text', 5, { registration: { ...registrationOf('x'), json: '{"id":"text","namespaces":{"users":[{"regex":"\\\\z$.*\u{1f980}"}]}}', asTokenSealed: 'v1.k\u00e9y.\0' } }),
      ];
      const checkpoint = { position: 12, streamPositions: { '': 5, events: Number.MAX_SAFE_INTEGER }, registrationsVersion: 9 };
      await store.saveFold(name, { rooms: [], registrations, checkpoint });
      assert.deepEqual(await fold(second, name), { checkpoint, registrations });
    },
  },
  {
    title: 'R98 gives back the numbers of keys of devices exactly and in order, and none where none were saved',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const deviceKeys = ODD_TEXTS.map((text, at) => ({ userId: text, deviceId: `${text}2`, oneTimeKeyCounts: recordOf([[text, at], ['b', 0]]), unusedFallbackKeyTypes: at % 2 === 0 ? [] : [text, 'x'] }));
      await store.saveFold(name, changes(4, { checkpoint: { position: 4, streamPositions: {}, deviceKeys, registrationsVersion: 0 } }));
      assert.deepEqual((await second.loadFold(name)).checkpoint.deviceKeys, deviceKeys);
      await store.saveFold(name, changes(5));
      assert.equal((await second.loadFold(name)).checkpoint.deviceKeys, undefined);
    },
  },
  {
    title: 'M5 gives back what waits for an appservice exactly and in order, and nothing where nothing was saved',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const holds = ODD_TEXTS.map((text, at) => ({ appserviceId: text, roomId: `${text}!`, userIds: at % 2 === 0 ? [] : [text, 'x'], entries: [{ firstPosition: 3, index: 0 }, { firstPosition: 3, index: at }, { firstPosition: Number.MAX_SAFE_INTEGER, index: 9 }] }));
      await store.saveFold(name, changes(4, { checkpoint: { position: 4, streamPositions: {}, holds, registrationsVersion: 0 } }));
      assert.deepEqual((await second.loadFold(name)).checkpoint.holds, holds);
      await store.saveFold(name, changes(5));
      assert.equal((await second.loadFold(name)).checkpoint.holds, undefined);
    },
  },
  {
    title: 'gives back rooms exactly, unknown lists and all',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const all = [
        roomOf('!a:example.org', 1),
        roomOf('!b', 2, { localMembers: [], localAliases: [] }),
        roomOf('!c', 3, { localMembers: ['@x:example.org', '@w:example.org'], localAliases: ['#x:example.org'] }),
        roomOf('!d', 4, { partialMembers: { '@in:example.org': true, '@out:example.org': false } }),
      ];
      await store.saveFold(name, changes(4, { rooms: all }));
      assert.deepEqual(await rooms(second, name, all.map(({ roomId }) => roomId)), all);
    },
  },
  {
    title: 'gives back odd names of rooms, members, streams and appservices exactly',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const all = ODD_TEXTS.map((roomId, at) => roomOf(roomId, at + 1, { localMembers: ODD_TEXTS, localAliases: ODD_TEXTS, partialMembers: recordOf(ODD_TEXTS.map((id, nth) => [id, nth % 2 === 0])) }));
      const registrations = ODD_TEXTS.map((id, at) => put(id, at + 1));
      const checkpoint = { position: 100, streamPositions: recordOf(ODD_TEXTS.map((stream, at) => [stream, at])), registrationsVersion: 5 };
      await store.saveFold(name, { rooms: all, registrations, checkpoint });
      assert.deepEqual(await rooms(store, name, ODD_TEXTS), all.toSorted((left, right) => byText(left.roomId, right.roomId)));
      assert.deepEqual(await fold(store, name), { checkpoint, registrations: registrations.toSorted((left, right) => byText(left.appserviceId, right.appserviceId)) });
    },
  },
  {
    title: 'loads the rooms asked for and no others',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await store.saveFold(name, changes(3, { rooms: [roomOf('!a', 1), roomOf('!b', 2), roomOf('!c', 3)] }));
      assert.deepEqual((await rooms(store, name, ['!c', '!none', '!a'])).map(({ roomId }) => roomId), ['!a', '!c']);
      assert.deepEqual(await rooms(store, name, []), []);
    },
  },
  {
    title: 'loads 10,000 rooms in one call',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await store.saveFold(name, changes(1_000, { rooms: Array.from({ length: 1_000 }, (_, at) => roomOf(`!room-${at}:example.org`, at + 1)) }));
      const found = await store.loadRooms(name, Array.from({ length: 10_000 }, (_, at) => `!room-${at}:example.org`));
      assert.deepEqual(new Set(found.map(({ position }) => position)), new Set(Array.from({ length: 1_000 }, (_, at) => at + 1)));
      assert.equal(found.length, 1_000);
    },
  },
  {
    title: 'takes a room of 20,000 members',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const large = roomOf('!large', 1, { localMembers: Array.from({ length: 20_000 }, (_, at) => `@person-${at}:example.org`) });
      await store.saveFold(name, changes(1, { rooms: [large] }));
      assert.deepEqual(await store.loadRooms(name, ['!large']), [large]);
    },
  },
  {
    title: 'I11 writes a room only over an older one',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const at = async (position: number, member: string): Promise<string[]> => {
        await store.saveFold(name, changes(position, { rooms: [roomOf('!r', position, { localMembers: [member] })] }));
        return (await store.loadRooms(name, ['!r'])).flatMap(({ localMembers }) => localMembers ?? []);
      };
      assert.deepEqual([await at(5, 'five'), await at(4, 'four'), await at(5, 'five again'), await at(6, 'six')], [['five'], ['five'], ['five'], ['six']]);
    },
  },
  {
    title: 'I11 writes a registration only over an older one',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const at = async (position: number, since: number): Promise<[number, number] | undefined> => {
        await store.saveFold(name, changes(position, { registrations: [put('irc', position, { since })] }));
        const [stored] = (await store.loadFold(name)).registrations;
        return stored === undefined ? undefined : [stored.position, stored.since];
      };
      assert.deepEqual([await at(5, 1), await at(4, 2), await at(5, 3), await at(6, 4)], [[5, 1], [5, 1], [5, 1], [6, 4]]);
    },
  },
  {
    title: 'R76 remembers that an appservice was removed until it is put again',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await store.saveFold(name, changes(1, { registrations: [put('irc', 1)] }));
      const removed = put('irc', 2, { registration: null, backlog: 'park' });
      await store.saveFold(name, changes(2, { registrations: [removed] }));
      assert.deepEqual((await store.loadFold(name)).registrations, [removed]);
      const again = put('irc', 3, { since: 3 });
      await store.saveFold(name, changes(3, { registrations: [again] }));
      assert.deepEqual((await store.loadFold(name)).registrations, [again]);
    },
  },
  {
    title: 'I11 moves the checkpoint forward only, whole',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const at = async (position: number, streams: Record<string, number>, registrationsVersion: number): Promise<unknown> => {
        await store.saveFold(name, { rooms: [], registrations: [], checkpoint: { position, streamPositions: streams, registrationsVersion } });
        return (await store.loadFold(name)).checkpoint;
      };
      const five = { position: 5, streamPositions: { a: 1, b: 2 }, registrationsVersion: 3 };
      assert.deepEqual(await at(5, { a: 1, b: 2 }, 3), five);
      assert.deepEqual(await at(4, { a: 9 }, 9), five);
      assert.deepEqual(await at(5, { a: 9 }, 9), five);
      assert.deepEqual(await at(6, { c: 3 }, 3), { position: 6, streamPositions: { c: 3 }, registrationsVersion: 3 });
    },
  },
  {
    title: 'writes newer rooms and registrations although the checkpoint stays',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await store.saveFold(name, changes(10, { rooms: [roomOf('!old', 1)], registrations: [put('old', 1)] }));
      await store.saveFold(name, changes(8, { rooms: [roomOf('!old', 7), roomOf('!new', 8)], registrations: [put('new', 8)] }));
      assert.deepEqual((await rooms(store, name, ['!old', '!new'])).map(({ position }) => position), [8, 7]);
      const loaded = await fold(store, name);
      assert.deepEqual([loaded.checkpoint.position, loaded.registrations.map(({ appserviceId }) => appserviceId)], [10, ['new', 'old']]);
    },
  },
  {
    title: 'may be repeated',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const same = changes(3, { rooms: [roomOf('!a', 1), roomOf('!b', 3)], registrations: [put('irc', 2)] });
      await store.saveFold(name, same);
      await Promise.all([store.saveFold(name, same), second.saveFold(name, same)]);
      assert.deepEqual(await fold(store, name), { checkpoint: same.checkpoint, registrations: same.registrations });
      assert.deepEqual(await rooms(store, name, ['!a', '!b']), same.rooms);
    },
  },
  {
    title: 'keeps the newest of saves that run at the same time',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const order = [3, 9, 1, 7, 10, 2, 8, 4, 6, 5];
      await Promise.all(order.map((position, at) => (at % 2 === 0 ? store : second).saveFold(name, changes(position, { rooms: [roomOf('!r', position)], registrations: [put('irc', position)] }))));
      const loaded = await fold(store, name);
      assert.deepEqual([loaded.checkpoint.position, loaded.registrations.map(({ position }) => position)], [10, [10]]);
      assert.deepEqual(await store.loadRooms(name, ['!r']), [roomOf('!r', 10)]);
    },
  },
  {
    title: 'saves a checkpoint without anything else',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await store.saveFold(name, changes(77));
      assert.deepEqual(await store.loadFold(name), { checkpoint: { position: 77, streamPositions: {}, registrationsVersion: 0 }, registrations: [] });
    },
  },
  {
    title: 'I8 keeps server names apart',
    run: async ({ store, fresh }) => {
      const [left, right] = [fresh(), fresh()];
      await store.saveFold(left, changes(5, { rooms: [roomOf('!r', 5)], registrations: [put('irc', 5)] }));
      await store.saveFold(right, changes(3, { rooms: [roomOf('!r', 3)] }));
      assert.deepEqual(await store.loadRooms(right, ['!r']), [roomOf('!r', 3)]);
      assert.deepEqual((await store.loadFold(right)).registrations, []);
      assert.equal((await store.loadFold(left)).checkpoint.position, 5);
    },
  },
  {
    title: 'R65 still has the fold after it was closed and opened again',
    needsDurable: true,
    run: async (world) => {
      const name = world.fresh();
      const saved = changes(3, { rooms: [roomOf('!a', 1)], registrations: [put('irc', 2)] });
      await world.store.saveFold(name, saved);
      await world.reopen();
      assert.deepEqual(await fold(world.store, name), { checkpoint: saved.checkpoint, registrations: saved.registrations });
      assert.deepEqual(await world.store.loadRooms(name, ['!a']), saved.rooms);
    },
  },
  {
    title: 'keeps the transactions that a checkpoint says are redelivered, and forgets them with a later one',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const redelivered = [...ODD_TEXTS.map((appserviceId, at) => ({ appserviceId, txnId: `${at}` })), { appserviceId: 'irc', txnId: '9'.repeat(40) }];
      const { checkpoint } = changes(3);
      await store.saveFold(name, changes(3, { checkpoint: { ...checkpoint, redelivered } }));
      assert.deepEqual((await second.loadFold(name)).checkpoint, { ...checkpoint, redelivered });
      await second.saveFold(name, changes(4));
      assert.equal((await store.loadFold(name)).checkpoint.redelivered, undefined);
    },
  },
];
