/** An appservice that fails raises one escalation, seen by who watches, in the log and by the metrics of the router. */
import assert from 'node:assert/strict';
import { on } from 'node:events';
import { test } from 'node:test';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { WatchEventsResponse } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { AppserviceRouter } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { LogFields } from '../../src/logger.ts';
import { silent } from '../support/ledger-world.ts';
import { RecordingReceiver } from '../support/recording-receiver.ts';
import { registrationYaml } from '../support/router-home.ts';
import { eventJson } from '../support/routing.ts';
import { startService } from '../support/service-world.ts';

const admin = AppserviceAdmin.method;

test('M8 M11 M12 attempts that fail and pings that fail raise one escalation; what is delivered after all counts as recovered', async () => {
  await using receiver = await RecordingReceiver.start();
  const logged: LogFields[] = [];
  await using world = await startService({ logger: { ...silent, warn: (fields, message) => void logged.push({ ...fields, message }) } });
  receiver.answer = () => 'error';
  await world.admin.call(admin.putRegistration, { source: { case: 'yaml', value: registrationYaml('irc', `${receiver.url}/irc`) } });
  const watching = world.admin.watch(admin.watchEvents, {});
  watching.on('error', () => undefined);
  const rates: number[] = [];
  let failures = 0;
  await world.homeserver.call(AppserviceRouter.method.submitEvents, { events: [{ json: eventJson({ id: '$1' }) }] });
  for await (const [answer] of on(watching, 'data') as AsyncIterable<[WatchEventsResponse]>) {
    const { event } = answer;
    if (event.case === 'escalation') rates.push(event.value.errorRate);
    if (event.case === 'deliveryFailed' && ++failures === 5) receiver.answer = () => 'ok';
    if (event.case === 'eventsDelivered') break;
  }
  watching.cancel();
  assert.deepEqual(rates, [1]);
  assert.deepEqual(logged.filter(({ message }) => message === 'appservice.escalation').map(({ service_id, error_rate }) => [service_id, error_rate]), [['irc', 1]]);
  const page = await (await fetch(`http://${world.service.httpAddress}/metrics`)).text();
  const sample = (name: string): number => Number(new RegExp(`^appservice_router_${name}\\{[^}]*\\} (.*)$`, 'm').exec(page)?.[1]);
  assert.deepEqual([sample('failed_transactions_total'), sample('recovered_transactions_total'), sample('escalation_state')], [1, 1, 1]);
  assert.ok(sample('error_rate_ratio') > 0.5);
  assert.match(page, /domain_events_total\{[^}]*event="appservice\.escalation"\} 1$/m);
  assert.match(page, /operations_total\{[^}]*operation="push",result="ok"\} 1$/m);
});
