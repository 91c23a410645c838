/** What can be wrong with the database, the running router and the appservices behind it. */
import { duration } from '../format.ts';
import type { AppserviceFact, Check, Facts, Finding, RouterFact } from './facts.ts';
import { error, OVERLAP_ADVICE, SENDER_CLAIMED_ADVICE, warning } from './local-checks.ts';

type Reached = Extract<RouterFact, { kind: 'reached' }>;
type Found = Omit<Finding, 'code'>;

const CLOCK_OFFSET_MS_MAX = 5_000;
/** A router's clock is known to the second only. */
const ROUTER_CLOCK_OFFSET_MS_MAX = 10_000;
const STUCK_MS = 10 * 60_000;
const SILENT_MS = 15 * 60_000;
const TOKEN_REFUSED: readonly (number | null)[] = [401, 403];
const WRONG_PATH: readonly (number | null)[] = [404, 405];

export const RUNNING_CHECKS: readonly Check[] = [
  onMongo('MONGODB_UNSUITABLE', (mongo) => (mongo.kind === 'faulty' && mongo.isReachable ? [error('ROUTER_STORE', mongo.message, 'Change the deployment as it says; the router does not start like this.')] : [])),
  onMongo('MONGODB_UNREACHABLE', (mongo) => (mongo.kind === 'faulty' && !mongo.isReachable ? [error('ROUTER_STORE', mongo.message, 'Check that it runs, and the URI of ROUTER_STORE.')] : [])),
  onMongo('MONGODB_INDEX_MISSING', (mongo) =>
    mongo.kind === 'reached' && mongo.schemaVersion !== null ? mongo.missingIndexes.map((name) => error('ROUTER_STORE', `The index ${name} is missing, so reading a backlog reads the whole log.`, 'Start a router on the database: it creates what is missing.')) : [],
  ),
  onMongo('SCHEMA_UNKNOWN', (mongo) =>
    mongo.kind === 'reached' && mongo.schemaVersion !== null && mongo.schemaVersion !== mongo.schemaVersionKnown
      ? [error('ROUTER_STORE', `The database has schema version ${mongo.schemaVersion}; this release knows ${mongo.schemaVersionKnown}.`, 'Run the release that wrote it, or name another database in the URI.')]
      : [],
  ),
  onMongo('CLOCK_OFF', (mongo) =>
    mongo.kind === 'reached' && Math.abs(mongo.clockOffsetMs) > CLOCK_OFFSET_MS_MAX ? [clockFound('the database', mongo.clockOffsetMs)] : [],
  ),
  onRouter('ROUTER_CLOCK_OFF', ({ http }) => (http !== null && http.clockOffsetMs !== null && Math.abs(http.clockOffsetMs) > ROUTER_CLOCK_OFFSET_MS_MAX ? [clockFound('the router', http.clockOffsetMs)] : [])),
  { code: 'ROUTER_UNREACHABLE', find: ({ router }) => (router.kind === 'unreachable' ? [error('router', router.message, 'What is known of deliveries and of the appservices was left out.')] : []) },
  { code: 'ROUTER_REFUSES', find: ({ router }) => (router.kind === 'unauthorised' || router.kind === 'refused' ? [error('router', router.message, 'Use a token of an admin credential; what is known of deliveries was left out.')] : []) },
  { code: 'ROUTER_NOT_ASKED', find: ({ router }) => (router.kind === 'not_asked' ? [warning('router', router.message, 'What is known of deliveries and of the appservices was left out.')] : []) },
  onRouter('ROUTER_NOT_READY', ({ http }) => (http !== null && !http.isReady ? [error('router', `The router is not ready (${http.detail}).`, 'See the log of the router, and its store.')] : [])),
  onRouter('REGISTRATION_FILE_NOT_APPLIED', ({ http }) => (http !== null && http.isReady && http.detail.includes('registration_files') ? [error('router', `The router could not apply registration files (${http.detail}).`, 'Correct them; what was in force before stays so.')] : [])),
  onRouter('HOMESERVER_SILENT', ({ http, registrations, ingress }) => {
    // INGRESS_GAP says it better; one that is only quiet has nothing to send.
    if (ingress !== null || http === null || http.upMs === null || http.upMs < SILENT_MS || registrations.length === 0) return [];
    const { submissionAgeMs } = http;
    if (submissionAgeMs !== null && submissionAgeMs < SILENT_MS) return [];
    const since = submissionAgeMs === null ? `since the router started ${duration(http.upMs)} ago` : `for ${duration(submissionAgeMs)}`;
    return [warning('homeserver', `The homeserver has submitted nothing ${since}, so its stream position stands still.`, 'See whether it runs, and whether it submits to this router with a credential of the role homeserver.')];
  }),
  onRouter('EXCLUSIVE_OVERLAP_IN_FORCE', ({ registrations, overlaps }) => {
    const owners = new Map<string, string>();
    const equal = registrations.flatMap(({ id, exclusive }) =>
      exclusive.flatMap((claim) => {
        const owner = owners.get(claim);
        owners.set(claim, owner ?? id);
        return owner === undefined || owner === id ? [] : [error(id, `The namespace ${claim} is exclusive to "${owner}" too, so neither may create what both claim.`, OVERLAP_ADVICE)];
      }),
    );
    return [...equal, ...overlaps.filter(({ code }) => code === 'EXCLUSIVE_OVERLAP').map(({ id, message }) => error(id, message, OVERLAP_ADVICE))];
  }),
  onRouter('SENDER_CLAIMED_IN_FORCE', ({ overlaps }) => overlaps.filter(({ code }) => code === 'SENDER_CLAIMED').map(({ id, message }) => error(id, message, SENDER_CLAIMED_ADVICE))),
  onRouter('SENDER_SHARED_IN_FORCE', ({ registrations }) => {
    const owners = new Map<string, string>();
    return registrations.flatMap(({ id, senderLocalpart }) => {
      const owner = owners.get(senderLocalpart);
      owners.set(senderLocalpart, owner ?? id);
      return owner === undefined ? [] : [warning(id, `Its sender_localpart ${senderLocalpart} is that of "${owner}" too, so both act as one user.`, 'Give each appservice a sender_localpart of its own.')];
    });
  }),
  onAppservice('APPSERVICE_UNREACHABLE', ({ ping, lastError }) => {
    if (ping?.errcode === 'M_CONNECTION_FAILED' || ping?.errcode === 'M_CONNECTION_TIMEOUT') {
      return [error('', lastError?.message ?? 'It does not answer.', 'Start it, or correct its url; then "appservice-router ping ID" sends what waits.')];
    }
    return [];
  }),
  onAppservice('HS_TOKEN_REFUSED', ({ ping, lastError, state }) =>
    TOKEN_REFUSED.includes(ping?.httpStatus ?? null) || (state === 'retrying' && TOKEN_REFUSED.includes(lastError?.httpStatus ?? null))
      ? [error('', 'It refuses the hs_token.', "Make the hs_token the same in its own registration file and in the router's, and restart it.")]
      : [],
  ),
  onAppservice('URL_WRONG', ({ lastError, state }) =>
    state === 'retrying' && WRONG_PATH.includes(lastError?.httpStatus ?? null) ? [error('', `It takes no transactions at its url (HTTP ${lastError?.httpStatus ?? ''}).`, 'Check the url of the registration, its path included; an old appservice may need legacy_paths.')] : [],
  ),
  onAppservice('URL_REDIRECTS', ({ ping, lastError, state }) => {
    const isRedirect = (status: number | null | undefined): boolean => status !== null && status !== undefined && status >= 300 && status < 400;
    return isRedirect(ping?.httpStatus) || (state === 'retrying' && isRedirect(lastError?.httpStatus)) ? [error('', 'Its url answers with a redirect, which is never followed.', 'Register it with the final url.')] : [];
  }),
  onAppservice('ADDRESS_REFUSED', ({ lastError, state }) => (state === 'retrying' && lastError?.kind === 'address_refused' ? [error('', lastError.message, 'Correct the url, or see ROUTER_OUTBOUND_POLICY and ROUTER_OUTBOUND_ALLOW.')] : [])),
  onAppservice('DELIVERY_STUCK', ({ state, oldestAgeMs, backlogEntries, lastError }) =>
    state === 'retrying' && oldestAgeMs !== null && oldestAgeMs > STUCK_MS
      ? [error('', `${backlogEntries} entries wait, the oldest for ${duration(oldestAgeMs)}: ${lastError?.message ?? 'the reason is not known.'}`, 'Mend the appservice; "appservice-router retry ID" tries at once.')]
      : [],
  ),
  onAppservice('DELIVERY_FAILED', ({ state }) => (state === 'failed' ? [error('', 'An operator stopped its delivery for good.', 'Delete the registration and put it again to begin anew.')] : [])),
  onAppservice('PAUSED_WITH_BACKLOG', ({ isPaused, backlogEntries, oldestAgeMs }) =>
    isPaused && backlogEntries > 0 ? [warning('', `It is paused while ${backlogEntries} entries wait${oldestAgeMs === null ? '' : `, the oldest for ${duration(oldestAgeMs)}`}.`, '"appservice-router resume ID" lets it go on.')] : [],
  ),
  onAppservice('BACKLOG_PARKED', ({ isParked, backlogEntries }) =>
    isParked && backlogEntries > 0 ? [warning('', `It is removed, and ${backlogEntries} entries are parked for it and hold the log back.`, 'Register it with --resume-parked, or remove it with --backlog discard.')] : [],
  ),
  onAppservice('QUARANTINE_NOT_EMPTY', ({ quarantinedEntries }) => (quarantinedEntries > 0 ? [warning('', `${quarantinedEntries} entries are in quarantine and were not delivered.`, 'See why they were refused, and redeliver or discard them.')] : [])),
];

function clockFound(whose: string, offsetMs: number): Found {
  return error('clock', `The clock of ${whose} is ${duration(Math.abs(offsetMs))} ${offsetMs > 0 ? 'ahead of' : 'behind'} this machine's.`, 'Let both keep the time by NTP: retries, leases and transaction ids go by the clock.');
}

function onMongo(code: string, find: (mongo: NonNullable<Facts['mongo']>) => readonly Found[]): Check {
  return { code, find: ({ mongo }) => (mongo === null ? [] : find(mongo)) };
}

function onRouter(code: string, find: (router: Reached) => readonly Found[]): Check {
  return { code, find: ({ router }) => (router.kind === 'reached' ? find(router) : []) };
}

/** The subject is the appservice; ID in an advice is its id. */
function onAppservice(code: string, find: (appservice: AppserviceFact) => readonly Found[]): Check {
  return onRouter(code, ({ appservices }) =>
    appservices.flatMap((appservice) => find(appservice).map((found) => ({ ...found, subject: appservice.id, advice: found.advice.replace(/\bID\b/, appservice.id) }))),
  );
}
