/** AppserviceStateStore: one compare-and-set per appservice, by revision. */
import assert from 'node:assert/strict';
import { BODY_KEYS } from '../../../src/appservice/body-keys.ts';
import type { DeliveryState } from '../../../src/appservice/delivery-state.ts';
import type { AppserviceState, Store } from '../../../src/store/port.ts';
import type { ConformanceCase } from './world.ts';
import { ODD_TEXTS, byText, stateOf, transactionOf } from './world.ts';

async function states(store: Store, serverName: string): Promise<AppserviceState[]> {
  return (await store.loadStates(serverName)).toSorted((left, right) => byText(left.appserviceId, right.appserviceId));
}

/** Every field has a value of its own. */
function fullState(serverName: string, appserviceId: string): AppserviceState {
  return stateOf(serverName, appserviceId, {
    leaseHolder: 'replica \u{1f980}',
    leaseEpoch: 7,
    deliveryState: 'retrying',
    paused: true,
    parked: true,
    sincePosition: 11,
    deliveredPosition: Number.MAX_SAFE_INTEGER,
    lastTxnId: '99999999999999999999',
    transaction: transactionOf({ txnId: '9007199254740993', skip: { reason: 'poison \u{1f980}', timeMs: 14 } }),
    replayCount: 3,
    split: { through: 12, entriesMax: 50 },
    lastFailure: { kind: 'rejected', httpStatus: 502, message: 'it said "no"\n\u0000\u{10ffff}', timeMs: 13 },
    deliveredEntries: 14,
    deliveredTransactions: 15,
    attempts: 16,
    failedAttempts: 17,
    quarantinedEntries: 18,
  });
}

/** Adds one to `attempts` `times` times, reading again whenever another was first. Returns the conflicts met. */
async function addUp(store: Store, serverName: string, times: number): Promise<number> {
  let conflicts = 0;
  for (let done = 0; done < times; ) {
    const [state] = await store.loadStates(serverName);
    assert.ok(state !== undefined);
    const [outcome] = await store.writeStates([{ ...state, revision: state.revision + 1, attempts: state.attempts + 1 }]);
    if (outcome === 'written') done++;
    else conflicts++;
  }
  return conflicts;
}

export const stateCases: readonly ConformanceCase[] = [
  {
    title: 'has no states at first',
    run: async ({ store, fresh }) => {
      assert.deepEqual(await store.loadStates(fresh()), []);
    },
  },
  {
    title: 'takes no states and answers with no outcomes',
    run: async ({ store }) => {
      assert.deepEqual(await store.writeStates([]), []);
    },
  },
  {
    title: 'M4 gives back every field of a state exactly',
    run: async ({ store, second, fresh }) => {
      const state = fullState(fresh(), 'irc');
      assert.deepEqual(await store.writeStates([state]), ['written']);
      assert.deepEqual(await second.loadStates(state.serverName), [state]);
    },
  },
  {
    title: 'gives back nulls as nulls, also where there was a value before',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const bare = stateOf(name, 'irc', { revision: 2 });
      await store.writeStates([fullState(name, 'irc')]);
      assert.deepEqual(await store.writeStates([bare]), ['written']);
      assert.deepEqual(await store.loadStates(name), [bare]);
      const partial = stateOf(name, 'irc', { revision: 3, lastFailure: { kind: 'unreachable', httpStatus: null, message: '', timeMs: 0 } });
      await store.writeStates([partial]);
      assert.deepEqual(await store.loadStates(name), [partial]);
    },
  },
  {
    title: 'M1 gives back each of the delivery states',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const all: readonly DeliveryState[] = ['idle', 'delivering', 'retrying', 'failed'];
      for (const [at, deliveryState] of all.entries()) {
        await store.writeStates([stateOf(name, 'irc', { revision: at + 1, deliveryState })]);
        assert.deepEqual((await store.loadStates(name)).map((state) => state.deliveryState), [deliveryState]);
      }
    },
  },
  {
    title: 'I3 gives back what the body of a transaction has beside events, and nothing where it has nothing',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const states = [
        stateOf(name, 'irc', { transaction: transactionOf({ bodyKeys: BODY_KEYS }) }),
        stateOf(name, 'mail', { transaction: transactionOf({ bodyKeys: ['de.sorunome.msc2409.to_device'] }) }),
        stateOf(name, 'news', { transaction: transactionOf() }),
      ];
      await store.writeStates(states);
      assert.deepEqual((await second.loadStates(name)).toSorted((left, right) => byText(left.appserviceId, right.appserviceId)), states);
    },
  },
  {
    title: 'I3 gives back a transaction of 10,000 positions exactly',
    run: async ({ store, fresh }) => {
      const ranges = Array.from({ length: 10_000 }, (_, at) => at * 1_000_003);
      const state = stateOf(fresh(), 'irc', { transaction: transactionOf({ ranges }) });
      await store.writeStates([state]);
      assert.deepEqual(await store.loadStates(state.serverName), [state]);
    },
  },
  {
    title: 'I5 writes only over the revision just before, and changes nothing otherwise',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      for (let revision = 1; revision <= 3; revision++) assert.deepEqual(await store.writeStates([stateOf(name, 'irc', { revision, attempts: revision })]), ['written']);
      for (const revision of [1, 2, 3, 5, 6, 100]) assert.deepEqual(await second.writeStates([stateOf(name, 'irc', { revision, attempts: 99 })]), ['conflict'], `revision ${revision}`);
      assert.deepEqual(await store.loadStates(name), [stateOf(name, 'irc', { revision: 3, attempts: 3 })]);
    },
  },
  {
    title: 'writes nothing above revision 1 where none is stored',
    run: async ({ store, fresh }) => {
      const name = fresh();
      for (const revision of [2, 3, 10]) assert.deepEqual(await store.writeStates([stateOf(name, 'irc', { revision })]), ['conflict']);
      assert.deepEqual(await store.loadStates(name), []);
    },
  },
  {
    title: 'I5 lets exactly one of twenty first writers in',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const outcomes = await Promise.all(Array.from({ length: 20 }, (_, at) => (at % 2 === 0 ? store : second).writeStates([stateOf(name, 'irc', { leaseHolder: `replica-${at}` })])));
      const winner = outcomes.findIndex(([outcome]) => outcome === 'written');
      assert.equal(outcomes.filter(([outcome]) => outcome === 'written').length, 1);
      assert.deepEqual((await store.loadStates(name)).map(({ leaseHolder }) => leaseHolder), [`replica-${winner}`]);
    },
  },
  {
    title: 'I5 lets exactly one of twenty later writers in',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await store.writeStates([stateOf(name, 'irc')]);
      const outcomes = await Promise.all(Array.from({ length: 20 }, (_, at) => (at % 2 === 0 ? store : second).writeStates([stateOf(name, 'irc', { revision: 2, leaseEpoch: at })])));
      const winner = outcomes.findIndex(([outcome]) => outcome === 'written');
      assert.equal(outcomes.filter(([outcome]) => outcome === 'written').length, 1);
      assert.deepEqual((await store.loadStates(name)).map(({ leaseEpoch }) => leaseEpoch), [winner]);
    },
  },
  {
    title: 'I5 loses no write of two that race over one state',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      await store.writeStates([stateOf(name, 'irc')]);
      await Promise.all([addUp(store, name, 15), addUp(second, name, 15)]);
      assert.deepEqual((await store.loadStates(name)).map(({ attempts, revision }) => [attempts, revision]), [[30, 31]]);
    },
  },
  {
    title: 'R63 writes 500 states in one call, each for itself, with the outcomes in their order',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const first = Array.from({ length: 500 }, (_, at) => stateOf(name, `appservice-${at}`, { deliveredPosition: at }));
      assert.deepEqual(new Set(await store.writeStates(first)), new Set(['written']));
      const next = first.map((state, at) => ({ ...state, revision: at % 3 === 0 ? 3 : 2, attempts: 1 }));
      assert.deepEqual(await store.writeStates(next), next.map((_, at) => (at % 3 === 0 ? 'conflict' : 'written')));
      assert.deepEqual(await states(store, name), first.map((state, at) => (at % 3 === 0 ? state : next[at])).toSorted((left, right) => byText(left?.appserviceId ?? '', right?.appserviceId ?? '')));
    },
  },
  {
    title: 'mixes first and later writes in one call',
    run: async ({ store, fresh }) => {
      const name = fresh();
      await store.writeStates([stateOf(name, 'old')]);
      assert.deepEqual(await store.writeStates([stateOf(name, 'new'), stateOf(name, 'old', { revision: 2 }), stateOf(name, 'none', { revision: 2 })]), ['written', 'written', 'conflict']);
      assert.deepEqual((await states(store, name)).map(({ appserviceId, revision }) => [appserviceId, revision]), [['new', 1], ['old', 2]]);
    },
  },
  {
    title: 'I8 keeps one id under two server names apart, also within one call',
    run: async ({ store, fresh }) => {
      const [left, right] = [fresh(), fresh()];
      assert.deepEqual(await store.writeStates([stateOf(left, 'irc', { attempts: 1 }), stateOf(right, 'irc', { attempts: 2 })]), ['written', 'written']);
      assert.deepEqual(await store.writeStates([stateOf(right, 'irc', { revision: 2, attempts: 3 }), stateOf(left, 'irc', { revision: 1, attempts: 4 })]), ['written', 'conflict']);
      assert.deepEqual(await store.loadStates(left), [stateOf(left, 'irc', { attempts: 1 })]);
      assert.deepEqual(await store.loadStates(right), [stateOf(right, 'irc', { revision: 2, attempts: 3 })]);
    },
  },
  {
    title: 'I8 keeps ids apart that look alike',
    run: async ({ store, fresh }) => {
      const name = fresh();
      const all = ODD_TEXTS.map((id, at) => stateOf(name, id, { attempts: at, leaseHolder: id }));
      assert.deepEqual(new Set(await store.writeStates(all)), new Set(['written']));
      assert.deepEqual(await states(store, name), all.toSorted((left, right) => byText(left.appserviceId, right.appserviceId)));
    },
  },
  {
    title: 'shows a written state at once, through whichever handle',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      for (let revision = 1; revision <= 20; revision++) {
        const [writer, reader] = revision % 2 === 0 ? [store, second] : [second, store];
        await writer.writeStates([stateOf(name, 'irc', { revision })]);
        assert.deepEqual((await reader.loadStates(name)).map((state) => state.revision), [revision]);
      }
    },
  },
  {
    title: 'answers 200 calls at once, each with its own outcome',
    run: async ({ store, second, fresh }) => {
      const name = fresh();
      const outcomes = await Promise.all(Array.from({ length: 200 }, (_, at) => (at % 2 === 0 ? store : second).writeStates([stateOf(name, `a${at}`, { revision: at % 5 === 0 ? 2 : 1 })])));
      assert.deepEqual(outcomes, Array.from({ length: 200 }, (_, at) => [at % 5 === 0 ? 'conflict' : 'written']));
      assert.equal((await store.loadStates(name)).length, 160);
    },
  },
  {
    title: 'R65 M4 still has the states after it was closed and opened again, with their revisions',
    needsDurable: true,
    run: async (world) => {
      const name = world.fresh();
      await world.store.writeStates([fullState(name, 'irc'), stateOf(name, 'mail')]);
      await world.reopen();
      assert.deepEqual(await states(world.store, name), [fullState(name, 'irc'), stateOf(name, 'mail')]);
      assert.deepEqual(await world.store.writeStates([stateOf(name, 'irc'), stateOf(name, 'mail', { revision: 2 })]), ['conflict', 'written']);
    },
  },
];
