/**
 * What the router tells a Prometheus server. The only importer of prom-client. docs/metrics.md lists the metrics.
 *
 * Labels are bounded: appservice ids are those of registered appservices, and the series of one that is removed go with
 * the next scrape. What changes all the time (backlogs, states) is not pushed here but asked for at each scrape.
 */
import { eventLoopUtilization } from 'node:perf_hooks';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { DeliveryState } from './appservice/delivery-state.ts';
import type { RoutedKind } from './appservice/body-keys.ts';
import type { DomainEventRecord } from './appservice/domain-event.ts';
import type { Operation, OperationSink } from './appservice/operation.ts';
import type { LeftOut, LeftOutReason } from './appservice/transaction.ts';
import type { Clock } from './clock.ts';
import type { DeliveryMeter, PushOutcome } from './delivery/ports.ts';
import type { DomainEventMeter } from './event-feed.ts';
import type { StoreCallOutcome, StoreMeter } from './store/timed.ts';

/** One appservice at the time of a scrape. */
export interface AppserviceGauge {
  readonly appserviceId: string;
  readonly state: DeliveryState;
  readonly paused: boolean;
  readonly backlogEntries: number;
  readonly backlogBytes: number;
  /** Wall clock milliseconds; null when nothing waits. */
  readonly oldestEntryTimeMs: number | null;
  readonly quarantinedEntries: number;
  /** From 0 to 1, and whether it is an escalation. */
  readonly errorRate: number;
  readonly isRaised: boolean;
}

/** What is asked of each homeserver at a scrape. */
export interface HomeserverGauges {
  readonly serverName: string;
  /** All that are registered; the series of others are dropped. Rejecting leaves this scrape without them. */
  appservices(): Promise<readonly AppserviceGauge[]>;
  /** Bytes of submissions that wait to be appended. */
  queueBytes(): number;
  /** Pairs of an event and an appservice that wait until the appservice has been asked about a user. */
  heldEntries(): number;
}

/** What ingest tells, for one homeserver. */
export interface IngestCounts {
  group(entryCount: number, submissionCount: number): void;
  submitted(accepted: number, duplicates: number, routed: number): void;
  /** Pairs of an event and an appservice that went out without a question. */
  unasked(count: number): void;
  /** A submission was refused as a whole. */
  refused(reason: string): void;
}

export interface TelemetryOptions {
  readonly clock: Clock;
  readonly version: string;
  /** Appservices with series of their own; the rest share the id `_other`. */
  readonly appservicesMax?: number;
  /** Process and runtime metrics; off where a test wants a quiet registry. */
  readonly processMetrics?: boolean;
}

const APPSERVICES_MAX = 5_000;
const METHODS_MAX = 100;
const OTHER = '_other';
const STATES: readonly DeliveryState[] = ['idle', 'delivering', 'retrying', 'failed'];

const PUSH_SECONDS = [0.005, 0.025, 0.1, 0.5, 2, 10, 60];
const CALL_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5];
const GROUP_ENTRIES = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000];

type AppserviceLabel = 'server_name' | 'appservice_id';
const APPSERVICE_LABELS = ['server_name', 'appservice_id'] as const;

/** The counts of one appservice, kept plain and handed over at a scrape. */
interface AppserviceSeries {
  readonly labels: Readonly<Record<AppserviceLabel, string>>;
  readonly attempts: Map<PushOutcome['kind'], number>;
  readonly domainEvents: Map<string, number>;
  readonly operations: Map<string, { readonly operation: string; readonly result: string; count: number }>;
  /** By kind and reason. */
  readonly leftOut: Map<string, LeftOut>;
  delivered: number;
  failedTransactions: number;
  recoveredTransactions: number;
}

export class Telemetry implements DeliveryMeter, DomainEventMeter, OperationSink, StoreMeter {
  readonly #clock: Clock;
  readonly #appservicesMax: number;
  readonly #registry = new Registry();
  readonly #metrics: ReturnType<typeof createMetrics>;
  readonly #series = new Map<string, Map<string, AppserviceSeries>>();
  readonly #methods = new Set<string>();
  /** Wall clock, by homeserver. */
  readonly #lastSubmissions = new Map<string, number>();
  #seriesCount = 0;
  #homeservers: () => readonly HomeserverGauges[] = () => [];
  #utilization = eventLoopUtilization();
  #scrape: Promise<string> | null = null;

  constructor({ clock, version, appservicesMax = APPSERVICES_MAX, processMetrics = true }: TelemetryOptions) {
    this.#clock = clock;
    this.#appservicesMax = appservicesMax;
    this.#metrics = createMetrics(this.#registry);
    this.#metrics.buildInfo.set({ version }, 1);
    if (processMetrics) collectDefaultMetrics({ register: this.#registry });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Says what to ask at each scrape. */
  observe(homeservers: () => readonly HomeserverGauges[]): void {
    this.#homeservers = homeservers;
  }

  attempt(serverName: string, appserviceId: string, outcome: PushOutcome['kind'], durationMs: number, attempt: number): void {
    const series = this.#seriesOf(serverName, appserviceId);
    const { labels, attempts } = series;
    if (attempt === 1 && (outcome === 'rejected' || outcome === 'unreachable')) series.failedTransactions += 1;
    if (attempt > 1 && outcome === 'delivered') series.recoveredTransactions += 1;
    attempts.set(outcome, (attempts.get(outcome) ?? 0) + 1);
    this.#metrics.pushDuration.observe(labels, durationMs / 1_000);
  }

  delivered(serverName: string, appserviceId: string, entryCount: number): void {
    this.#seriesOf(serverName, appserviceId).delivered += entryCount;
  }

  operated({ serverName, appserviceId, kind, failed }: Operation): void {
    const { operations } = this.#seriesOf(serverName, appserviceId);
    const result = failed ? 'failed' : 'ok';
    const key = `${kind} ${result}`;
    const known = operations.get(key);
    if (known === undefined) operations.set(key, { operation: kind, result, count: 1 });
    else known.count += 1;
  }

  leftOut(serverName: string, appserviceId: string, kind: RoutedKind, reason: LeftOutReason, count: number): void {
    const { leftOut } = this.#seriesOf(serverName, appserviceId);
    const key = `${kind} ${reason}`;
    leftOut.set(key, { kind, reason, count: count + (leftOut.get(key)?.count ?? 0) });
  }

  domainEvent({ serverName, event }: DomainEventRecord): void {
    const { domainEvents } = this.#seriesOf(serverName, event.service_id);
    const name = `appservice.${event.kind}`;
    domainEvents.set(name, (domainEvents.get(name) ?? 0) + 1);
  }

  ingest(serverName: string): IngestCounts {
    const { ingestEvents, ingestRouted, groupEntries, ingestRefused, ingestUnasked } = this.#metrics;
    const accepted = ingestEvents.labels({ server_name: serverName, result: 'accepted' });
    const duplicate = ingestEvents.labels({ server_name: serverName, result: 'duplicate' });
    const routedTotal = ingestRouted.labels({ server_name: serverName });
    const entries = groupEntries.labels({ server_name: serverName });
    return {
      group: (entryCount) => {
        entries.observe(entryCount);
        this.#lastSubmissions.set(serverName, this.#clock.nowMs());
      },
      submitted(acceptedCount, duplicateCount, routedCount) {
        if (acceptedCount > 0) accepted.inc(acceptedCount);
        if (duplicateCount > 0) duplicate.inc(duplicateCount);
        if (routedCount > 0) routedTotal.inc(routedCount);
      },
      unasked: (count) => ingestUnasked.inc({ server_name: serverName }, count),
      refused: (reason) => ingestRefused.inc({ server_name: serverName, reason }),
    };
  }

  /** Answers of appservices about the unknown users of submissions. */
  unknownUsers(serverName: string): { asked(answer: string): void } {
    return { asked: (answer) => this.#metrics.unknownUsers.inc({ server_name: serverName, answer }) };
  }

  /** `method` is the name of a served method, or anything fixed for calls to others; `code` the name of a gRPC code. */
  rpc(method: string, code: string, durationMs: number): void {
    if (!this.#methods.has(method) && this.#methods.size < METHODS_MAX) this.#methods.add(method);
    this.#metrics.rpcDuration.observe({ method: this.#methods.has(method) ? method : OTHER, code }, durationMs / 1_000);
  }

  storeCall(method: string, outcome: StoreCallOutcome, durationMs: number): void {
    this.#metrics.storeDuration.observe({ method, outcome }, durationMs / 1_000);
  }

  /** The page of a scrape. Scrapes that overlap get the same one. */
  scrape(): Promise<string> {
    this.#scrape ??= this.#render().finally(() => {
      this.#scrape = null;
    });
    return this.#scrape;
  }

  /** The names of all metrics with what they tell. */
  describe(): readonly { readonly name: string; readonly help: string }[] {
    return this.#registry.getMetricsAsArray().map(({ name, help }) => ({ name, help }));
  }

  async #render(): Promise<string> {
    const homeservers = this.#homeservers();
    const answers = await Promise.allSettled(homeservers.map((homeserver) => homeserver.appservices()));
    const metrics = this.#metrics;
    for (const gauge of [metrics.state, metrics.paused, metrics.pendingEntries, metrics.pendingBytes, metrics.oldestAge, metrics.quarantined, metrics.errorRate, metrics.escalated, metrics.queueBytes, metrics.heldEntries]) gauge.reset();
    homeservers.forEach((homeserver, at) => {
      metrics.queueBytes.set({ server_name: homeserver.serverName }, homeserver.queueBytes());
      metrics.heldEntries.set({ server_name: homeserver.serverName }, homeserver.heldEntries());
      const answer = answers[at];
      if (answer?.status !== 'fulfilled') return;
      this.#prune(homeserver.serverName, new Set(answer.value.map(({ appserviceId }) => appserviceId)));
      for (const gauge of answer.value.slice(0, this.#appservicesMax)) this.#setGauges(homeserver.serverName, gauge);
    });
    for (const [serverName, timeMs] of this.#lastSubmissions) metrics.lastSubmission.set({ server_name: serverName }, timeMs / 1_000);
    this.#handOverCounts();
    const utilization = eventLoopUtilization();
    metrics.utilization.set(eventLoopUtilization(utilization, this.#utilization).utilization);
    this.#utilization = utilization;
    return this.#registry.metrics();
  }

  #setGauges(serverName: string, gauge: AppserviceGauge): void {
    const labels = { server_name: serverName, appservice_id: gauge.appserviceId };
    const { state, paused, pendingEntries, pendingBytes, oldestAge, quarantined, errorRate, escalated } = this.#metrics;
    for (const one of STATES) state.set({ ...labels, state: one }, one === gauge.state ? 1 : 0);
    paused.set(labels, gauge.paused ? 1 : 0);
    pendingEntries.set(labels, gauge.backlogEntries);
    pendingBytes.set(labels, gauge.backlogBytes);
    oldestAge.set(labels, gauge.oldestEntryTimeMs === null ? 0 : Math.max(0, this.#clock.nowMs() - gauge.oldestEntryTimeMs) / 1_000);
    quarantined.set(labels, gauge.quarantinedEntries);
    errorRate.set(labels, gauge.errorRate);
    escalated.set(labels, gauge.isRaised ? 1 : 0);
  }

  #handOverCounts(): void {
    const { attempts, deliveredEntries, leftOutEntries, domainEvents, operations, failedTransactions, recoveredTransactions } = this.#metrics;
    for (const counter of [attempts, deliveredEntries, leftOutEntries, domainEvents, operations, failedTransactions, recoveredTransactions]) counter.reset();
    for (const byId of this.#series.values()) {
      for (const series of byId.values()) {
        for (const [outcome, count] of series.attempts) attempts.inc({ ...series.labels, outcome }, count);
        for (const [event, count] of series.domainEvents) domainEvents.inc({ ...series.labels, event }, count);
        for (const { operation, result, count } of series.operations.values()) operations.inc({ ...series.labels, operation, result }, count);
        if (series.failedTransactions > 0) failedTransactions.inc(series.labels, series.failedTransactions);
        if (series.recoveredTransactions > 0) recoveredTransactions.inc(series.labels, series.recoveredTransactions);
        for (const { kind, reason, count } of series.leftOut.values()) leftOutEntries.inc({ ...series.labels, kind, reason }, count);
        if (series.delivered > 0) deliveredEntries.inc(series.labels, series.delivered);
      }
    }
  }

  #prune(serverName: string, registered: ReadonlySet<string>): void {
    const byId = this.#series.get(serverName);
    for (const [id, { labels }] of byId ?? []) {
      if (registered.has(id) || id === OTHER) continue;
      byId?.delete(id);
      this.#seriesCount -= 1;
      this.#metrics.pushDuration.remove(labels);
    }
  }

  #seriesOf(serverName: string, appserviceId: string): AppserviceSeries {
    const known = this.#series.get(serverName)?.get(appserviceId);
    if (known !== undefined) return known;
    if (this.#seriesCount >= this.#appservicesMax && appserviceId !== OTHER) return this.#seriesOf(serverName, OTHER);
    const series: AppserviceSeries = {
      labels: { server_name: serverName, appservice_id: appserviceId },
      attempts: new Map(),
      domainEvents: new Map(),
      operations: new Map(),
      leftOut: new Map(),
      delivered: 0,
      failedTransactions: 0,
      recoveredTransactions: 0,
    };
    const byId = this.#series.get(serverName) ?? new Map<string, AppserviceSeries>();
    this.#series.set(serverName, byId.set(appserviceId, series));
    this.#seriesCount += 1;
    return series;
  }
}

function createMetrics(registry: Registry) {
  const registers = [registry];
  const gauge = <Label extends string>(name: string, help: string, labelNames: readonly Label[]): Gauge<Label> =>
    new Gauge({ name: `appservice_router_${name}`, help, labelNames: [...labelNames], registers });
  const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[]): Counter<Label> =>
    new Counter({ name: `appservice_router_${name}`, help, labelNames: [...labelNames], registers });
  const histogram = <Label extends string>(name: string, help: string, labelNames: readonly Label[], buckets: number[]): Histogram<Label> =>
    new Histogram({ name: `appservice_router_${name}`, help, labelNames: [...labelNames], buckets, registers });
  return {
    buildInfo: gauge('build_info', 'Always 1; the label says which version runs.', ['version']),
    attempts: counter('push_attempts_total', 'Attempts to push a transaction, by how they ended.', [...APPSERVICE_LABELS, 'outcome']),
    pushDuration: histogram('push_duration_seconds', 'How long attempts took, from the request to the outcome.', APPSERVICE_LABELS, PUSH_SECONDS),
    deliveredEntries: counter('delivered_entries_total', 'Entries in transactions that the appservice acknowledged.', APPSERVICE_LABELS),
    operations: counter('operations_total', 'Whatever an appservice was asked, by what it was and how it ended: attempts to push, queries, look-ups and key requests, pings.', [...APPSERVICE_LABELS, 'operation', 'result']),
    failedTransactions: counter('failed_transactions_total', 'Transactions whose first attempt failed.', APPSERVICE_LABELS),
    recoveredTransactions: counter('recovered_transactions_total', 'Transactions that were delivered after attempts that failed.', APPSERVICE_LABELS),
    errorRate: gauge('error_rate_ratio', 'Share of what the appservice was asked within ROUTER_ESCALATION_WINDOW_MS that failed; 0 if it was asked nothing.', APPSERVICE_LABELS),
    escalated: gauge('escalation_state', '1 while the error rate is an escalation: since it passed 5 % and until it has gone down to half of that.', APPSERVICE_LABELS),
    leftOutEntries: counter('left_out_entries_total', 'Entries that were routed to the appservice and not sent, by kind and reason.', [...APPSERVICE_LABELS, 'kind', 'reason']),
    domainEvents: counter('domain_events_total', 'Domain events, as WatchEvents and the log tell them.', [...APPSERVICE_LABELS, 'event']),
    pendingEntries: gauge('pending_entries', 'Entries routed to the appservice and not yet delivered.', APPSERVICE_LABELS),
    pendingBytes: gauge('pending_bytes', 'JSON bytes of the pending entries.', APPSERVICE_LABELS),
    oldestAge: gauge('oldest_pending_entry_age_seconds', 'Age of the oldest pending entry; 0 when nothing waits.', APPSERVICE_LABELS),
    quarantined: gauge('quarantined_entries', 'Entries that the appservice can never accept and that were set aside.', APPSERVICE_LABELS),
    state: gauge('delivery_state', '1 for the delivery state that the appservice is in, 0 for the others.', [...APPSERVICE_LABELS, 'state']),
    paused: gauge('delivery_paused', '1 while an operator has paused delivery.', APPSERVICE_LABELS),
    ingestEvents: counter('ingest_events_total', 'Events of submissions that were answered, by what became of them.', ['server_name', 'result']),
    ingestRouted: counter('ingest_routed_total', 'Pairs of an event and an appservice that were queued.', ['server_name']),
    ingestRefused: counter('ingest_refused_submissions_total', 'Submissions that were refused as a whole, by reason.', ['server_name', 'reason']),
    lastSubmission: gauge('last_submission_time_seconds', 'Unix time at which a submission was last taken; not there before the first since the start.', ['server_name']),
    ingestUnasked: counter('ingest_unasked_total', 'Pairs of an event and an appservice that were queued without asking about an unknown user, since too much waited for answers.', ['server_name']),
    heldEntries: gauge('held_entries', 'Pairs of an event and an appservice that wait until the appservice has been asked about an unknown user.', ['server_name']),
    unknownUsers: counter('unknown_user_queries_total', 'Queries for the unknown users of submissions, by what came of them.', ['server_name', 'answer']),
    groupEntries: histogram('ingest_group_entries', 'Entries that one append made durable.', ['server_name'], GROUP_ENTRIES),
    queueBytes: gauge('ingest_queue_bytes', 'Bytes of submissions that wait to be appended.', ['server_name']),
    rpcDuration: histogram('rpc_duration_seconds', 'How long calls took, by method and gRPC code.', ['method', 'code'], CALL_SECONDS),
    storeDuration: histogram('store_call_duration_seconds', 'How long calls of the store took, by method and outcome.', ['method', 'outcome'], CALL_SECONDS),
    utilization: gauge('event_loop_utilization_ratio', 'Share of the time since the last scrape that the event loop was busy.', []),
  };
}
