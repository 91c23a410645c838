import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DomainEventRecord } from '../src/appservice/domain-event.ts';
import type { Operation } from '../src/appservice/operation.ts';
import { Escalations } from '../src/escalations.ts';
import { VirtualClock } from './support/clock.ts';

function scripted(appservicesMax?: number) {
  const clock = new VirtualClock(0);
  const told: DomainEventRecord[] = [];
  const counted: Operation[] = [];
  const options = { events: { emit: (record: DomainEventRecord) => void told.push(record) }, meter: { operated: (operation: Operation) => void counted.push(operation) }, clock, windowMs: 300_000 };
  const escalations = new Escalations({ ...options, ...(appservicesMax === undefined ? {} : { appservicesMax }) });
  const operate = (appserviceId: string, results: string, serverName = 'a.test'): void => {
    for (const result of results) escalations.operated({ serverName, appserviceId, kind: 'push', failed: result === 'x' });
  };
  return { clock, told, counted, escalations, operate };
}

test('M8 M12 an escalation is told once, of its appservice and homeserver, with the rate', async () => {
  const { clock, told, counted, escalations, operate } = scripted();
  await clock.advance(5_000);
  operate('irc', '..x');
  operate('irc', 'x', 'b.test');
  operate('mail', 'x');
  operate('irc', 'x..x');
  assert.deepEqual(told, [{ serverName: 'a.test', timeMs: 5_000, event: { kind: 'escalation', service_id: 'irc', error_rate: 3 / 7 } }]);
  assert.equal(counted.length, 9);
  assert.deepEqual(escalations.errorRate('a.test', 'irc'), { errorRate: 3 / 7, isRaised: true });
  assert.deepEqual(escalations.errorRate('a.test', 'mail'), { errorRate: 1, isRaised: false });
  await clock.advance(300_000);
  assert.deepEqual(escalations.errorRate('a.test', 'irc'), { errorRate: 0, isRaised: true });
  assert.deepEqual(escalations.errorRate('none.test', 'irc'), { errorRate: 0, isRaised: false });
});

test('appservices that are gone are forgotten, and of too many the further ones are not watched', () => {
  const { told, escalations, operate } = scripted(2);
  operate('a', 'x');
  operate('b', 'x');
  operate('c', 'xxx');
  assert.deepEqual(told, []);
  escalations.retain('a.test', new Set(['b']));
  operate('c', 'xxx');
  assert.equal(told.length, 1);
  assert.deepEqual(escalations.errorRate('a.test', 'a'), { errorRate: 0, isRaised: false });
});
