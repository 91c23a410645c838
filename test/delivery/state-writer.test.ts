import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StateWriter } from '../../src/delivery/state-writer.ts';
import { firstState } from '../../src/delivery/transitions.ts';
import { StoreError } from '../../src/store/errors.ts';
import type { AppserviceState, StateWriteOutcome } from '../../src/store/port.ts';
import { settle } from '../support/clock.ts';

function writer(statesMax = 3) {
  const calls: string[][] = [];
  const answers: PromiseWithResolvers<StateWriteOutcome[]>[] = [];
  const loads: PromiseWithResolvers<AppserviceState[]>[] = [];
  const made = new StateWriter({
    serverName: 'hs.example',
    statesMax,
    store: {
      writeStates(states) {
        calls.push(states.map(({ appserviceId }) => appserviceId));
        const answer = Promise.withResolvers<StateWriteOutcome[]>();
        answers.push(answer);
        return answer.promise;
      },
      loadStates() {
        const answer = Promise.withResolvers<AppserviceState[]>();
        loads.push(answer);
        return answer.promise;
      },
    },
  });
  return { made, calls, answers, loads };
}

const state = (id: string): AppserviceState => firstState('hs.example', id, 0, 'r');

test('writes of one turn share a call, those that come meanwhile the next, up to the bound', async () => {
  const { made, calls, answers } = writer();
  const first = ['a', 'b'].map((id) => made.write(state(id)));
  await settle();
  const later = ['c', 'd', 'e', 'f'].map((id) => made.write(state(id)));
  await settle();
  assert.deepEqual(calls, [['a', 'b']]);
  answers[0]?.resolve(['written', 'conflict']);
  assert.deepEqual(await Promise.all(first), ['written', 'conflict']);
  await settle();
  assert.deepEqual(calls[1], ['c', 'd', 'e']);
  answers[1]?.resolve(['written', 'written', 'written']);
  await settle();
  answers[2]?.resolve(['written']);
  assert.deepEqual(await Promise.all(later), ['written', 'written', 'written', 'written']);
  assert.deepEqual(calls[2], ['f']);
});

test('two writes for one appservice never share a call', async () => {
  const { made, calls, answers } = writer();
  const writes = ['a', 'a', 'b'].map((id) => made.write(state(id)));
  await settle();
  answers[0]?.resolve(['written', 'written']);
  await settle();
  answers[1]?.resolve(['conflict']);
  assert.deepEqual(await Promise.all(writes), ['written', 'conflict', 'written']);
  assert.deepEqual(calls, [['a', 'b'], ['a']]);
});

test('a call that fails is told to all who share it, and to nobody else', async () => {
  const { made, answers } = writer();
  const lost = made.write(state('a'));
  const alsoLost = made.write(state('b'));
  await settle();
  const later = made.write(state('c'));
  answers[0]?.reject(new StoreError('unavailable', 'lost'));
  await assert.rejects(lost, StoreError);
  await assert.rejects(alsoLost, StoreError);
  await settle();
  answers[1]?.resolve(['written']);
  assert.equal(await later, 'written');
});

test('a load that is asked for begins after the asking; those who ask meanwhile share the next', async () => {
  const { made, loads } = writer();
  const first = made.load();
  const second = made.load();
  const third = made.load();
  assert.equal(loads.length, 1);
  loads[0]?.resolve([state('a')]);
  assert.deepEqual([...(await first).keys()], ['a']);
  await settle();
  assert.equal(loads.length, 2);
  loads[1]?.resolve([state('b')]);
  assert.deepEqual([...(await second).keys()], ['b']);
  assert.equal(await second, await third);
});
