/** Asks the running router what it knows, and has it ping its appservices. */
import type { Ingress } from '../../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Appservice } from '../../../gen/matrix/appservice/v1/appservice_pb.ts';
import { Appservice_HeldBy as HeldBy } from '../../../gen/matrix/appservice/v1/appservice_pb.ts';
import type { Registration } from '../../../gen/matrix/appservice/v1/registration_pb.ts';
import type { Registration as DomainRegistration } from '../../appservice/registration.ts';
import type { Clock } from '../../clock.ts';
import { CallError } from '../../rpc/admin-client.ts';
import type { RouterContext } from '../context.ts';
import { timeMsFrom } from '../format.ts';
import { pingOf } from '../ping.ts';
import { registrationsOf } from '../registrations.ts';
import { readAll, stateName } from '../status.ts';
import { overlapsOf } from './overlaps.ts';
import type { AppserviceFact, HttpFact, IngressFact, RegistrationFact, RouterFact } from './facts.ts';

/** Appservices that are pinged; those with trouble first. */
const PINGED_MAX = 200;
const PINGS_AT_ONCE = 8;
const HTTP_TIMEOUT_MS = 5_000;

/** Never rejects for what is wrong with the router. */
export async function gatherRouter(context: RouterContext, serverName: string, httpAddress: string | null): Promise<RouterFact> {
  try {
    const registrations = await registrationsOf(context);
    const { appservices, ingress } = await readAll(context);
    const overlaps = await overlapsOf(registrations.map(withoutTokens), serverName, context.clock);
    const nowMs = context.clock.nowMs();
    const urls = new Map(registrations.map(({ id, url }) => [id, url]));
    const pinged = [...appservices].filter(({ appserviceId }) => (urls.get(appserviceId) ?? '') !== '').sort((a, b) => Number(b.backlogEntries - a.backlogEntries)).slice(0, PINGED_MAX);
    const pings = await pingAll(context, pinged);
    const http = httpAddress === null ? null : await gatherHttp(httpAddress, context.clock);
    return { kind: 'reached', registrations: registrations.map(registrationFact), overlaps, appservices: appservices.map((one) => appserviceFact(one, pings, nowMs)), ingress: ingress === undefined ? null : ingressFact(ingress, nowMs), http };
  } catch (error) {
    if (error instanceof CallError) return { kind: error.failure.kind, message: error.failure.message };
    throw error;
  }
}

type Ping = NonNullable<AppserviceFact['ping']>;

async function pingAll(context: RouterContext, appservices: readonly Appservice[]): Promise<ReadonlyMap<string, Ping>> {
  const pings = new Map<string, Ping>();
  for (let at = 0; at < appservices.length; at += PINGS_AT_ONCE) {
    await Promise.all(
      appservices.slice(at, at + PINGS_AT_ONCE).map(async ({ appserviceId }) => {
        try {
          const { result } = await pingOf(context, appserviceId);
          if (result.case === 'durationMs') pings.set(appserviceId, { errcode: null, httpStatus: null });
          else if (result.case === 'failure') pings.set(appserviceId, { errcode: result.value.errcode, httpStatus: result.value.status ?? null });
        } catch (error) {
          // One that cannot be pinged now, or is gone meanwhile, leaves the others.
          if (!(error instanceof CallError) || error.failure.kind !== 'refused') throw error;
        }
      }),
    );
  }
  return pings;
}

/** As far as its namespaces are looked at. */
function withoutTokens({ id, url, senderLocalpart, namespaces }: Registration): DomainRegistration {
  const plain = (all: readonly { readonly regex: string; readonly exclusive: boolean }[] = []) => all.map(({ regex, exclusive }) => ({ regex, exclusive }));
  return {
    id,
    url: url ?? null,
    as_token: '',
    hs_token: '',
    sender_localpart: senderLocalpart,
    namespaces: { users: plain(namespaces?.users), aliases: plain(namespaces?.aliases), rooms: plain(namespaces?.rooms) },
    protocols: [],
    rate_limited: false,
    receive_ephemeral: false,
    push_ephemeral_unstable: false,
    device_extensions: false,
    delivery_options: {},
  };
}

function registrationFact({ id, url, senderLocalpart, namespaces }: Registration): RegistrationFact {
  const kinds = [['users', namespaces?.users ?? []], ['aliases', namespaces?.aliases ?? []], ['rooms', namespaces?.rooms ?? []]] as const;
  return {
    id,
    url: url ?? null,
    senderLocalpart,
    namespaceCount: kinds.reduce((sum, [, all]) => sum + all.length, 0),
    exclusive: kinds.flatMap(([kind, all]) => all.filter(({ exclusive }) => exclusive).map(({ regex }) => `${JSON.stringify(regex)} in ${kind}`)),
  };
}

function appserviceFact(appservice: Appservice, pings: ReadonlyMap<string, Ping>, nowMs: number): AppserviceFact {
  const { appserviceId: id, state, paused, heldBy, lastError } = appservice;
  const oldestMs = timeMsFrom(appservice.oldestEntryTime);
  return {
    id,
    state: stateName(state),
    isPaused: paused,
    isParked: heldBy === HeldBy.PARKED,
    backlogEntries: Number(appservice.backlogEntries),
    oldestAgeMs: oldestMs === null || appservice.backlogEntries === 0n ? null : nowMs - oldestMs,
    quarantinedEntries: Number(appservice.quarantinedEntries),
    lastError: lastError === undefined ? null : { kind: lastError.kind, httpStatus: lastError.httpStatus ?? null, message: lastError.message },
    ping: pings.get(id) ?? null,
  };
}

function ingressFact({ gapSince, shelvedItems, unknownRooms, unknownRoomIds, problem }: Ingress, nowMs: number): IngressFact {
  const gapMs = timeMsFrom(gapSince);
  return { gapMs: gapMs === null ? null : nowMs - gapMs, shelvedItems: Number(shelvedItems), unknownRooms: Number(unknownRooms), unknownRoomId: unknownRoomIds[0] ?? null, problem: problem ?? null };
}

async function gatherHttp(address: string, clock: Clock): Promise<HttpFact | null> {
  const stop = new AbortController();
  const late = clock.sleep(HTTP_TIMEOUT_MS, stop.signal).then(() => stop.abort());
  try {
    const ready = await fetch(`http://${address}/readyz`, { signal: stop.signal, redirect: 'error' });
    const detail = await ready.text();
    const dateMs = Date.parse(ready.headers.get('date') ?? '');
    const metrics = await fetch(`http://${address}/metrics`, { signal: stop.signal, redirect: 'error' });
    const text = metrics.ok ? await metrics.text() : '';
    const nowMs = clock.nowMs();
    const startedMs = metricMs(text, 'process_start_time_seconds');
    const submittedMs = metricMs(text, 'appservice_router_last_submission_time_seconds');
    return {
      isReady: ready.ok,
      detail: detail.trim(),
      clockOffsetMs: Number.isNaN(dateMs) ? null : dateMs - nowMs,
      upMs: startedMs === null ? null : nowMs - startedMs,
      submissionAgeMs: submittedMs === null || submittedMs === 0 ? null : nowMs - submittedMs,
    };
  } catch {
    return null;
  } finally {
    stop.abort();
    await late;
  }
}

/** The largest value of a metric in seconds, over all its labels. */
function metricMs(text: string, name: string): number | null {
  const values = [...text.matchAll(new RegExp(`^${name}(?:\\{[^\\n]*\\})? (\\S+)$`, 'gm'))].map(([, value]) => Number(value) * 1_000).filter(Number.isFinite);
  return values.length === 0 ? null : Math.max(...values);
}
