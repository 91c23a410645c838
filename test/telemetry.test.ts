import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Telemetry } from '../src/telemetry.ts';
import type { AppserviceGauge, TelemetryOptions } from '../src/telemetry.ts';
import { VirtualClock } from './support/clock.ts';

const NOW_MS = Date.UTC(2026, 0, 1);

function telemetry(options: Partial<TelemetryOptions> = {}): Telemetry {
  return new Telemetry({ clock: new VirtualClock(NOW_MS), version: '1.2.3', processMetrics: false, ...options });
}

function gauge(appserviceId: string, rest: Partial<AppserviceGauge> = {}): AppserviceGauge {
  return { appserviceId, state: 'idle', paused: false, backlogEntries: 0, backlogBytes: 0, oldestEntryTimeMs: null, quarantinedEntries: 0, errorRate: 0, isRaised: false, ...rest };
}

function observe(metrics: Telemetry, gauges: () => readonly AppserviceGauge[]): void {
  metrics.observe(() => [{ serverName: 'example.org', appservices: () => Promise.resolve(gauges()), queueBytes: () => 17, heldEntries: () => 3 }]);
}

/** The samples of the page whose lines begin so, without buckets. */
async function samples(metrics: Telemetry, prefix: string): Promise<string[]> {
  const page = await metrics.scrape();
  return page.split('\n').filter((line) => line.startsWith(`appservice_router_${prefix}`) && !line.includes('_bucket')).map((line) => line.slice('appservice_router_'.length));
}

test('tells, per appservice, attempts by outcome with their duration, and delivered entries', async () => {
  const metrics = telemetry();
  observe(metrics, () => [gauge('irc')]);
  metrics.attempt('example.org', 'irc', 'delivered', 20, 1);
  metrics.attempt('example.org', 'irc', 'delivered', 30, 1);
  metrics.attempt('example.org', 'irc', 'unreachable', 1_000, 1);
  metrics.delivered('example.org', 'irc', 150);
  for (let scrape = 0; scrape < 2; scrape++) {
    assert.deepEqual(await samples(metrics, 'push_attempts_total'), [
      'push_attempts_total{server_name="example.org",appservice_id="irc",outcome="delivered"} 2',
      'push_attempts_total{server_name="example.org",appservice_id="irc",outcome="unreachable"} 1',
    ]);
  }
  assert.deepEqual(await samples(metrics, 'push_duration_seconds'), ['push_duration_seconds_sum{server_name="example.org",appservice_id="irc"} 1.05', 'push_duration_seconds_count{server_name="example.org",appservice_id="irc"} 3']);
  assert.deepEqual(await samples(metrics, 'delivered_entries_total'), ['delivered_entries_total{server_name="example.org",appservice_id="irc"} 150']);
});

test('asks at each scrape for backlog, age, state and pause', async () => {
  const metrics = telemetry();
  let now = [gauge('irc', { state: 'retrying', paused: true, backlogEntries: 5, backlogBytes: 700, oldestEntryTimeMs: NOW_MS - 90_000, quarantinedEntries: 1 })];
  observe(metrics, () => now);
  const of = (name: string) => samples(metrics, name);
  const labels = '{server_name="example.org",appservice_id="irc"}';
  assert.deepEqual(await of('pending_'), [`pending_entries${labels} 5`, `pending_bytes${labels} 700`]);
  assert.deepEqual(await of('oldest_'), [`oldest_pending_entry_age_seconds${labels} 90`]);
  assert.deepEqual(await of('quarantined_'), [`quarantined_entries${labels} 1`]);
  assert.deepEqual(await of('delivery_paused'), [`delivery_paused${labels} 1`]);
  assert.deepEqual(await of('ingest_queue_bytes'), ['ingest_queue_bytes{server_name="example.org"} 17']);
  assert.deepEqual(await of('held_entries'), ['held_entries{server_name="example.org"} 3']);
  const state = (one: string, value: number) => `delivery_state{server_name="example.org",appservice_id="irc",state="${one}"} ${value}`;
  assert.deepEqual(await of('delivery_state'), [state('idle', 0), state('delivering', 0), state('retrying', 1), state('failed', 0)]);
  now = [gauge('irc')];
  assert.deepEqual(await of('delivery_state'), [state('idle', 1), state('delivering', 0), state('retrying', 0), state('failed', 0)]);
  assert.deepEqual(await of('oldest_'), [`oldest_pending_entry_age_seconds${labels} 0`]);
});

test('M11 a transaction that fails counts once, and once more when it is delivered after all', async () => {
  const metrics = telemetry();
  observe(metrics, () => [gauge('irc'), gauge('mail')]);
  for (const [attempt, outcome] of [[1, 'unreachable'], [2, 'rejected'], [3, 'aborted'], [3, 'delivered'], [1, 'delivered'], [1, 'too_large'], [1, 'rejected']] as const) metrics.attempt('example.org', 'irc', outcome, 1, attempt);
  assert.deepEqual(await samples(metrics, 'failed_transactions_total'), ['failed_transactions_total{server_name="example.org",appservice_id="irc"} 2']);
  assert.deepEqual(await samples(metrics, 'recovered_transactions_total'), ['recovered_transactions_total{server_name="example.org",appservice_id="irc"} 1']);
});

test('M11 M12 operations are told by kind and result, with the error rate and whether it is an escalation', async () => {
  const metrics = telemetry();
  observe(metrics, () => [gauge('irc', { errorRate: 0.25, isRaised: true })]);
  for (const kind of ['push', 'push', 'ping'] as const) metrics.operated({ serverName: 'example.org', appserviceId: 'irc', kind, failed: kind === 'ping' });
  const labels = 'server_name="example.org",appservice_id="irc"';
  assert.deepEqual(await samples(metrics, 'operations_total'), [`operations_total{${labels},operation="push",result="ok"} 2`, `operations_total{${labels},operation="ping",result="failed"} 1`]);
  assert.deepEqual(await samples(metrics, 'error_rate_ratio'), [`error_rate_ratio{${labels}} 0.25`]);
  assert.deepEqual(await samples(metrics, 'escalation_state'), [`escalation_state{${labels}} 1`]);
});

test('the series of an appservice that is removed go with the next scrape', async () => {
  const metrics = telemetry();
  let now = [gauge('irc'), gauge('xmpp')];
  observe(metrics, () => now);
  for (const { appserviceId } of now) {
    metrics.attempt('example.org', appserviceId, 'delivered', 1, 1);
    metrics.delivered('example.org', appserviceId, 1);
    metrics.domainEvent({ serverName: 'example.org', timeMs: 0, event: { kind: 'events_delivered', service_id: appserviceId, transaction_id: '1', event_count: 1 } });
  }
  assert.match(await metrics.scrape(), /xmpp/);
  now = [gauge('irc')];
  const page = await metrics.scrape();
  assert.doesNotMatch(page, /xmpp/);
  assert.match(page, /push_duration_seconds_count\{[^}]*irc/);
  metrics.attempt('example.org', 'xmpp', 'delivered', 1, 1);
  assert.doesNotMatch(await metrics.scrape(), /xmpp/);
});

test('beyond the limit appservices share one set of series', async () => {
  const metrics = telemetry({ appservicesMax: 2 });
  for (let at = 0; at < 50; at++) metrics.delivered('example.org', `as-${at}`, 1);
  assert.deepEqual(await samples(metrics, 'delivered_entries_total'), [
    'delivered_entries_total{server_name="example.org",appservice_id="as-0"} 1',
    'delivered_entries_total{server_name="example.org",appservice_id="as-1"} 1',
    'delivered_entries_total{server_name="example.org",appservice_id="_other"} 48',
  ]);
});

test('a homeserver whose state cannot be read does not fail the scrape, nor the counts', async () => {
  const metrics = telemetry();
  metrics.observe(() => [{ serverName: 'example.org', appservices: () => Promise.reject(new Error('store away')), queueBytes: () => 0, heldEntries: () => 0 }]);
  metrics.delivered('example.org', 'irc', 3);
  assert.equal((await samples(metrics, 'delivered_entries_total')).length, 1);
  assert.deepEqual(await samples(metrics, 'pending_entries'), []);
});

test('M8 counts domain events under their names', async () => {
  const metrics = telemetry();
  metrics.domainEvent({ serverName: 'example.org', timeMs: 0, event: { kind: 'delivery_failed', service_id: 'irc', transaction_id: '1', retry_count: 1 } });
  assert.deepEqual(await samples(metrics, 'domain_events_total'), ['domain_events_total{server_name="example.org",appservice_id="irc",event="appservice.delivery_failed"} 1']);
});

test('counts ingest, calls and the store, with a bound on method names', async () => {
  const metrics = telemetry();
  const ingest = metrics.ingest('example.org');
  ingest.submitted(10, 2, 30);
  ingest.submitted(0, 1, 0);
  ingest.refused('QUEUE_FULL');
  ingest.group(12, 3);
  metrics.rpc('SubmitEvents', 'ok', 2);
  for (let at = 0; at < 300; at++) metrics.rpc(`nonsense-${at}`, 'unimplemented', 1);
  metrics.storeCall('append', 'ok', 4);
  assert.deepEqual(await samples(metrics, 'ingest_events_total'), ['ingest_events_total{server_name="example.org",result="accepted"} 10', 'ingest_events_total{server_name="example.org",result="duplicate"} 3']);
  assert.deepEqual(await samples(metrics, 'ingest_routed_total'), ['ingest_routed_total{server_name="example.org"} 30']);
  assert.deepEqual(await samples(metrics, 'ingest_refused'), ['ingest_refused_submissions_total{server_name="example.org",reason="QUEUE_FULL"} 1']);
  assert.deepEqual(await samples(metrics, 'ingest_group_entries'), ['ingest_group_entries_sum{server_name="example.org"} 12', 'ingest_group_entries_count{server_name="example.org"} 1']);
  assert.deepEqual(await samples(metrics, 'store_call_duration_seconds'), ['store_call_duration_seconds_sum{method="append",outcome="ok"} 0.004', 'store_call_duration_seconds_count{method="append",outcome="ok"} 1']);
  const calls = (await samples(metrics, 'rpc_duration_seconds')).filter((line) => line.includes('_count'));
  assert.equal(calls.length, 101);
  assert.ok(calls.includes('rpc_duration_seconds_count{method="SubmitEvents",code="ok"} 1'));
});

test('scrapes that overlap ask once', async () => {
  const metrics = telemetry();
  let asked = 0;
  observe(metrics, () => {
    asked += 1;
    return [];
  });
  const [one, other] = await Promise.all([metrics.scrape(), metrics.scrape()]);
  assert.equal(one, other);
  assert.equal(asked, 1);
});

test('two Telemetries share nothing, and the process metrics are there', async () => {
  const [one, other] = [telemetry({ processMetrics: true }), telemetry({ processMetrics: true })];
  one.delivered('example.org', 'irc', 1);
  assert.doesNotMatch(await other.scrape(), /irc/);
  const page = await one.scrape();
  assert.match(page, /^process_resident_memory_bytes \d/m);
  assert.match(page, /^nodejs_eventloop_lag_p99_seconds /m);
  assert.match(page, /^appservice_router_event_loop_utilization_ratio \d/m);
  assert.match(page, /^appservice_router_build_info\{version="1\.2\.3"\} 1/m);
});

test('docs/metrics.md lists every metric with its help, and no other', async () => {
  const text = await readFile(new URL('../docs/metrics.md', import.meta.url), 'utf8');
  const described = telemetry().describe();
  const rows = new Map([...text.matchAll(/^\| `(appservice_router_\w+)` \|[^|]*\|[^|]*\| (.*) \|$/gm)].map(([, name = '', help = '']) => [name, help]));
  assert.deepEqual(Object.fromEntries(rows), Object.fromEntries(described.map(({ name, help }) => [name, help])));
});

test('names follow the Prometheus conventions', () => {
  for (const { name } of telemetry().describe()) assert.match(name, /^appservice_router_[a-z_]+(?:_total|_seconds|_bytes|_ratio|_entries|_info|_state|_paused)$/);
});
