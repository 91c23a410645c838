import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DomainEvent, DomainEventRecord } from '../src/appservice/domain-event.ts';
import { RefusalError } from '../src/appservice/refusal.ts';
import { EventFeed } from '../src/event-feed.ts';
import type { EventFeedOptions, WatchedEvent } from '../src/event-feed.ts';
import type { LogFields, Logger } from '../src/logger.ts';
import { settle } from './support/clock.ts';

function record(txn: number, service = 'irc', serverName = 'example.org'): DomainEventRecord {
  return { serverName, timeMs: txn, event: { kind: 'events_delivered', service_id: service, transaction_id: String(txn), event_count: 1 } };
}

interface Heard {
  readonly logged: { level: string; fields: LogFields; message: string }[];
  readonly counted: DomainEventRecord[];
  readonly feed: EventFeed;
}

function scripted(options: Partial<EventFeedOptions> = {}): Heard {
  const logged: Heard['logged'] = [];
  const counted: DomainEventRecord[] = [];
  const at = (level: string) => (fields: LogFields, message: string) => void logged.push({ level, fields, message });
  const logger: Logger = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
  return { logged, counted, feed: new EventFeed({ logger, meter: { domainEvent: (one) => void counted.push(one) }, ...options }) };
}

async function read(watch: AsyncIterable<WatchedEvent>, count: number): Promise<[string, number][]> {
  const found: [string, number][] = [];
  for await (const { record: one, droppedCount } of watch) {
    found.push([`${one.event.service_id} ${one.timeMs}`, droppedCount]);
    if (found.length === count) break;
  }
  return found;
}

test('M8 tells each domain event once to the log and the meter, with the fields of WatchEvents', () => {
  const { feed, logged, counted } = scripted();
  const events: DomainEvent[] = [
    { kind: 'events_delivered', service_id: 'irc', transaction_id: '7', event_count: 3 },
    { kind: 'delivery_failed', service_id: 'irc', transaction_id: '8', retry_count: 2 },
    { kind: 'state_changed', service_id: 'irc', state: 'retrying', paused: false },
    { kind: 'state_changed', service_id: 'irc', state: 'failed', paused: false },
    { kind: 'user_provisioned', service_id: 'irc', user_id: '@irc_x:example.org' },
    { kind: 'alias_provisioned', service_id: 'irc', alias: '#irc_x:example.org' },
    { kind: 'escalation', service_id: 'irc', error_rate: 0.25 },
  ];
  const records = events.map((event, timeMs) => ({ serverName: 'example.org', timeMs, event }));
  for (const one of records) feed.emit(one);
  assert.deepEqual(counted, records);
  assert.deepEqual(logged, [
    { level: 'info', message: 'appservice.events_delivered', fields: { event: 'appservice.events_delivered', server_name: 'example.org', service_id: 'irc', transaction_id: '7', event_count: 3 } },
    { level: 'warn', message: 'appservice.delivery_failed', fields: { event: 'appservice.delivery_failed', server_name: 'example.org', service_id: 'irc', transaction_id: '8', retry_count: 2 } },
    { level: 'info', message: 'appservice.state_changed', fields: { event: 'appservice.state_changed', server_name: 'example.org', service_id: 'irc', state: 'retrying', paused: false } },
    { level: 'warn', message: 'appservice.state_changed', fields: { event: 'appservice.state_changed', server_name: 'example.org', service_id: 'irc', state: 'failed', paused: false } },
    { level: 'info', message: 'appservice.user_provisioned', fields: { event: 'appservice.user_provisioned', server_name: 'example.org', service_id: 'irc', user_id: '@irc_x:example.org' } },
    { level: 'info', message: 'appservice.alias_provisioned', fields: { event: 'appservice.alias_provisioned', server_name: 'example.org', service_id: 'irc', alias: '#irc_x:example.org' } },
    { level: 'warn', message: 'appservice.escalation', fields: { event: 'appservice.escalation', server_name: 'example.org', service_id: 'irc', error_rate: 0.25 } },
  ]);
});

test('M8 a watcher sees what happens from its call on, in order, of its homeserver and its appservices', async () => {
  const { feed } = scripted();
  const signal = new AbortController().signal;
  feed.emit(record(0));
  const all = feed.watch('example.org', [], signal);
  const some = feed.watch('example.org', ['irc', 'xmpp'], signal);
  for (const one of [record(1), record(2, 'slack'), record(3, 'irc', 'other.org'), record(4, 'xmpp')]) feed.emit(one);
  assert.deepEqual(await read(all, 3), [['irc 1', 0], ['slack 2', 0], ['xmpp 4', 0]]);
  assert.deepEqual(await read(some, 2), [['irc 1', 0], ['xmpp 4', 0]]);
  assert.equal(feed.watcherCount, 0);
});

test('a watcher that waits is woken by the next event', async () => {
  const { feed } = scripted();
  const found = read(feed.watch('example.org', [], new AbortController().signal), 2);
  await settle();
  feed.emit(record(1));
  await settle();
  feed.emit(record(2));
  assert.deepEqual(await found, [['irc 1', 0], ['irc 2', 0]]);
});

test('a slow watcher loses the oldest and is told how many; the others lose nothing', async () => {
  const { feed } = scripted({ ringMax: 4 });
  const signal = new AbortController().signal;
  const slow = feed.watch('example.org', [], signal)[Symbol.asyncIterator]();
  const quick = feed.watch('example.org', [], signal)[Symbol.asyncIterator]();
  const next = async (iterator: AsyncIterator<WatchedEvent>): Promise<[number, number] | null> => {
    const { done, value } = await iterator.next();
    return done === true ? null : [value.record.timeMs, value.droppedCount];
  };
  for (let txn = 1; txn <= 10; txn++) {
    feed.emit(record(txn));
    assert.deepEqual(await next(quick), [txn, 0]);
  }
  assert.deepEqual(await next(slow), [7, 6]);
  for (const txn of [11, 12]) feed.emit(record(txn));
  assert.deepEqual(await next(slow), [9, 1]);
  for (const txn of [10, 11, 12]) assert.deepEqual(await next(slow), [txn, 0]);
});

test('a watch ends with its signal, its reader, or before it began, and leaves nothing behind', async () => {
  const { feed } = scripted();
  const stop = new AbortController();
  const waiting = read(feed.watch('example.org', [], stop.signal), 1);
  const unread = feed.watch('example.org', [], stop.signal);
  feed.emit(record(1, 'irc', 'other.org'));
  await settle();
  stop.abort();
  assert.deepEqual(await waiting, []);
  assert.deepEqual(await read(unread, 1), []);
  assert.deepEqual(await read(feed.watch('example.org', [], stop.signal), 1), []);
  feed.emit(record(2));
  assert.equal(feed.watcherCount, 0);
});

test('watchers are bounded, and a watch that ended makes room', async () => {
  const { feed } = scripted({ watchersMax: 2 });
  const stop = new AbortController();
  feed.watch('example.org', [], stop.signal);
  feed.watch('example.org', [], new AbortController().signal);
  assert.throws(() => feed.watch('example.org', [], stop.signal), (error) => error instanceof RefusalError && error.reason === 'QUEUE_FULL' && error.details.retryDelayMs !== undefined);
  stop.abort();
  const watch = feed.watch('example.org', [], new AbortController().signal);
  feed.emit(record(1));
  assert.deepEqual(await read(watch, 1), [['irc 1', 0]]);
});
