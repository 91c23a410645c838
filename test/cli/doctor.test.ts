/** Every check of doctor: it finds its fault, and nothing on a sound set-up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHECKS, diagnose } from '../../src/cli/doctor/doctor.ts';
import type { AppserviceFact, CatchAllFact, Facts, HttpFact, IngressFact, IngressSetupFact, LocalFacts, MongoFact, PathFact, RegistrationFact } from '../../src/cli/doctor/facts.ts';
import type { Overlap } from '../../src/cli/doctor/overlaps.ts';
import type { Registration } from '../../src/appservice/registration.ts';

const path = (name: string, more: Partial<PathFact> = {}): PathFact => ({ path: name, exists: true, mode: 0o600, isWritable: true, ...more });

const REGISTRATION: Registration = {
  id: 'irc',
  url: 'http://127.0.0.1:9000',
  as_token: 'as-token-of-irc',
  hs_token: 'hs-token-of-irc',
  sender_localpart: 'ircbot',
  namespaces: { users: [{ regex: '@irc_.*:hs\\.test', exclusive: true }], aliases: [], rooms: [] },
  protocols: [],
  rate_limited: false,
  receive_ephemeral: false,
  push_ephemeral_unstable: false,
  device_extensions: false,
  delivery_options: {},
};
const IN_FORCE: RegistrationFact = { id: 'irc', url: 'http://127.0.0.1:9000', namespaceCount: 1, senderLocalpart: 'ircbot', exclusive: ['"@irc_.*" in users'] };
const APPSERVICE: AppserviceFact = { id: 'irc', state: 'idle', isPaused: false, isParked: false, backlogEntries: 0, oldestAgeMs: null, quarantinedEntries: 0, lastError: null, ping: { errcode: null, httpStatus: null } };
const HTTP: HttpFact = { isReady: true, detail: '{"status":"ready"}', clockOffsetMs: 0, upMs: 3_600_000, submissionAgeMs: 1_000 };
const MONGO: MongoFact = { kind: 'reached', missingIndexes: [], schemaVersion: 1, schemaVersionKnown: 1, clockOffsetMs: 20 };
const SETTINGS: NonNullable<LocalFacts['settings']> = {
  storeKind: 'sqlite',
  isLoopback: true,
  dataDir: path('data', { mode: 0o755 }),
  storeFile: path('data/router.db'),
  credentialsFile: path('data/credentials.json'),
  isCredentialsFileNamed: false,
  credentialProblems: [],
  credentialRoles: [],
  keyFile: path('data/encryption.key'),
  keyProblem: null,
  freeBytes: 50e9,
  lostPaths: [],
  files: [{ path: 'irc.yaml', problems: [], registration: REGISTRATION, warnings: [] }],
  ingress: null,
};
const KNOWN: CatchAllFact = { kind: 'known', serverName: 'hs.test', ping: { errcode: null, httpStatus: null } };
const INGRESS_SETUP: IngressSetupFact = { tokenFile: path('ingress-tokens.json'), problem: null, serverName: 'hs.test', homeserverUrl: 'http://127.0.0.1:8008', catchAll: KNOWN };
const INGRESS: IngressFact = { gapMs: null, shelvedItems: 0, unknownRooms: 0, unknownRoomId: null, problem: null };
const LOCAL: LocalFacts = { configProblems: [], settings: SETTINGS, openFilesMax: 65_536, nodeMajor: 24 };

const settings = (more: Partial<NonNullable<LocalFacts['settings']>>): Partial<Facts> => ({ local: { ...LOCAL, settings: { ...SETTINGS, ...more } } });
const file = (more: Partial<Registration>, name = 'other.yaml'): NonNullable<LocalFacts['settings']>['files'][number] => ({ path: name, problems: [], registration: { ...REGISTRATION, ...more }, warnings: [] });
const files = (...more: NonNullable<LocalFacts['settings']>['files']): Partial<Facts> => settings({ files: [...SETTINGS.files, ...more] });
const warnedOf = (code: string): Partial<Facts> => files({ path: 'x.yaml', problems: [], registration: null, warnings: [{ code, message: 'Look.' }] });
const router = (more: { registrations?: RegistrationFact[]; overlaps?: Overlap[]; appservices?: AppserviceFact[]; http?: Partial<HttpFact> | null; ingress?: IngressFact }): Partial<Facts> => ({
  router: { kind: 'reached', registrations: more.registrations ?? [IN_FORCE], overlaps: more.overlaps ?? [], appservices: more.appservices ?? [APPSERVICE], ingress: more.ingress ?? null, http: more.http === null ? null : { ...HTTP, ...more.http } },
});
const appservice = (more: Partial<AppserviceFact>): Partial<Facts> => router({ appservices: [{ ...APPSERVICE, ...more }] });
const ingressSetup = (more: Partial<IngressSetupFact>): Partial<Facts> => settings({ ingress: { ...INGRESS_SETUP, ...more } });
const pinged = (errcode: string, httpStatus: number | null = null): Partial<Facts> => ingressSetup({ catchAll: { kind: 'known', serverName: 'hs.test', ping: { errcode, httpStatus } } });
const mongo = (more: Partial<Extract<MongoFact, { kind: 'reached' }>>): Partial<Facts> => ({ mongo: { ...MONGO, ...more } });
const lastError = (httpStatus: number | null, kind = 'rejected'): Partial<AppserviceFact> => ({ state: 'retrying', backlogEntries: 3, oldestAgeMs: 1_000, lastError: { kind, httpStatus, message: 'It failed.' } });

const SOUND: Facts = { local: LOCAL, mongo: null, ...(router({}) as Pick<Facts, 'router'>) };

/** By the code of the check: what it has to find. */
const FAULTS: Readonly<Record<string, readonly Partial<Facts>[]>> = {
  CONFIG_INVALID: [{ local: { ...LOCAL, configProblems: ['--push-timeout-ms must be a whole number.'], settings: null } }],
  NODE_TOO_OLD: [{ local: { ...LOCAL, nodeMajor: 22 } }],
  OPEN_FILES_LOW: [{ local: { ...LOCAL, openFilesMax: 1_024 } }],
  DATA_DIR_NOT_WRITABLE: [settings({ dataDir: path('data', { isWritable: false }) })],
  DISK_NEARLY_FULL: [settings({ freeBytes: 1e6 })],
  CREDENTIALS_MISSING: [settings({ isLoopback: false })],
  CREDENTIALS_INVALID: [settings({ isCredentialsFileNamed: true, credentialProblems: ['line 1: role must be …'] })],
  CREDENTIALS_READABLE: [settings({ credentialsFile: path('data/credentials.json', { mode: 0o644 }) }), settings({ credentialsFile: path('data/credentials.json', { mode: 0o640 }) })],
  ROLE_WITHOUT_CREDENTIAL: [settings({ isCredentialsFileNamed: true, credentialRoles: ['homeserver'] }), settings({ isCredentialsFileNamed: true, credentialRoles: ['admin', 'monitor'] })],
  ENCRYPTION_KEY_MISSING: [settings({ keyFile: path('key', { exists: false }) }), settings({ storeKind: 'mongodb', storeFile: null, keyFile: path('key', { exists: false }) })],
  ENCRYPTION_KEY_INVALID: [settings({ keyProblem: 'The key has 31 bytes.' })],
  ENCRYPTION_KEY_READABLE: [settings({ keyFile: path('key', { mode: 0o604 }) })],
  REGISTRATION_PATH_LOST: [settings({ lostPaths: [{ path: '/etc/none', message: 'It cannot be read.' }] })],
  REGISTRATION_FILE_INVALID: [files({ path: 'bad.yaml', problems: ['line 1, url: …'], registration: null, warnings: [] })],
  REGISTRATION_ID_TWICE: [files(file({ as_token: 'another', hs_token: 'different' }))],
  AS_TOKEN_TWICE: [files(file({ id: 'second', hs_token: 'different' }))],
  HS_TOKEN_IS_AS_TOKEN: [files(file({ id: 'second', as_token: 'same', hs_token: 'same' })), files(file({ id: 'second', as_token: 'own', hs_token: 'as-token-of-irc' }))],
  REGISTRATION_WITHOUT_TRAFFIC: [files(file({ id: 'second', as_token: 'own', url: null })), files(file({ id: 'second', as_token: 'own', url: '' }))],
  PATTERN_WITHOUT_SERVER: [warnedOf('PATTERN_WITHOUT_SERVER')],
  PATTERN_WITHOUT_SIGIL: [warnedOf('PATTERN_WITHOUT_SIGIL')],
  PATTERN_MATCHES_ALL: [warnedOf('PATTERN_MATCHES_ALL')],
  EXCLUSIVE_OVERLAP: [warnedOf('EXCLUSIVE_OVERLAP')],
  SENDER_SHARED: [warnedOf('SENDER_SHARED')],
  SENDER_CLAIMED: [warnedOf('SENDER_CLAIMED')],
  TOKEN_SHORT: [warnedOf('TOKEN_SHORT')],
  MONGODB_UNSUITABLE: [{ mongo: { kind: 'faulty', isReachable: true, message: 'It is a standalone.' } }],
  MONGODB_UNREACHABLE: [{ mongo: { kind: 'faulty', isReachable: false, message: 'Nobody answers.' } }],
  MONGODB_INDEX_MISSING: [mongo({ missingIndexes: ['routes_by_appservice'] })],
  SCHEMA_UNKNOWN: [mongo({ schemaVersion: 2 })],
  CLOCK_OFF: [mongo({ clockOffsetMs: 60_000 }), mongo({ clockOffsetMs: -60_000 })],
  ROUTER_CLOCK_OFF: [router({ http: { clockOffsetMs: -3_600_000 } })],
  ROUTER_UNREACHABLE: [{ router: { kind: 'unreachable', message: 'Nobody answers.' } }],
  ROUTER_REFUSES: [{ router: { kind: 'unauthorised', message: 'No.' } }, { router: { kind: 'refused', message: 'No.' } }],
  ROUTER_NOT_ASKED: [{ router: { kind: 'not_asked', message: 'There is no token.' } }],
  ROUTER_NOT_READY: [router({ http: { isReady: false, detail: 'the log cannot be reached' } })],
  REGISTRATION_FILE_NOT_APPLIED: [router({ http: { detail: '{"registration_files":["bad.yaml"]}' } })],
  HOMESERVER_SILENT: [router({ http: { submissionAgeMs: 3_600_000 } }), router({ http: { submissionAgeMs: null } })],
  EXCLUSIVE_OVERLAP_IN_FORCE: [router({ registrations: [IN_FORCE, { ...IN_FORCE, id: 'second', senderLocalpart: 'second' }] }), router({ overlaps: [{ id: 'irc', code: 'EXCLUSIVE_OVERLAP', message: 'Both match.' }] })],
  SENDER_CLAIMED_IN_FORCE: [router({ overlaps: [{ id: 'irc', code: 'SENDER_CLAIMED', message: 'It matches its own user.' }] })],
  SENDER_SHARED_IN_FORCE: [router({ registrations: [IN_FORCE, { ...IN_FORCE, id: 'second', exclusive: [] }] })],
  APPSERVICE_UNREACHABLE: [appservice({ ping: { errcode: 'M_CONNECTION_FAILED', httpStatus: null } }), appservice({ ping: { errcode: 'M_CONNECTION_TIMEOUT', httpStatus: null } })],
  HS_TOKEN_REFUSED: [appservice({ ping: { errcode: 'M_BAD_STATUS', httpStatus: 403 } }), appservice(lastError(401))],
  URL_WRONG: [appservice(lastError(404))],
  URL_REDIRECTS: [appservice(lastError(302)), appservice({ ping: { errcode: 'M_BAD_STATUS', httpStatus: 308 } })],
  ADDRESS_REFUSED: [appservice(lastError(null, 'address_refused'))],
  DELIVERY_STUCK: [appservice({ ...lastError(500), oldestAgeMs: 3_600_000 })],
  DELIVERY_FAILED: [appservice({ state: 'failed' })],
  PAUSED_WITH_BACKLOG: [appservice({ isPaused: true, backlogEntries: 2, oldestAgeMs: 5_000 })],
  BACKLOG_PARKED: [appservice({ isParked: true, backlogEntries: 2 })],
  INGRESS_TOKENS_UNUSABLE: [ingressSetup({ problem: 'It is no JSON.', catchAll: null })],
  INGRESS_TOKENS_READABLE: [ingressSetup({ tokenFile: path('t.json', { mode: 0o644 }) })],
  HOMESERVER_URL_MISSING: [ingressSetup({ homeserverUrl: null, catchAll: null })],
  HOMESERVER_UNREACHABLE: [ingressSetup({ catchAll: { kind: 'unreachable', message: 'The connection failed.' } }), ingressSetup({ catchAll: { kind: 'other', httpStatus: 404 } })],
  CATCH_ALL_UNKNOWN: [ingressSetup({ catchAll: { kind: 'unknown_token' } })],
  HOMESERVER_IS_ANOTHER: [ingressSetup({ serverName: 'localhost' })],
  CATCH_ALL_HS_TOKEN_REFUSED: [pinged('M_BAD_STATUS', 401), pinged('M_BAD_STATUS', 403)],
  CATCH_ALL_URL_WRONG: [pinged('M_URL_NOT_SET'), pinged('M_CONNECTION_FAILED'), pinged('M_CONNECTION_TIMEOUT'), pinged('M_BAD_STATUS', 404), pinged('M_BAD_STATUS')],
  INGRESS_GAP: [router({ ingress: { ...INGRESS, gapMs: 3_600_000 }, http: { submissionAgeMs: null } })],
  ROOMS_UNKNOWN: [router({ ingress: { ...INGRESS, unknownRooms: 2, unknownRoomId: '!a:hs.test' } }), router({ ingress: { ...INGRESS, unknownRooms: 1, unknownRoomId: '!a', problem: 'It is away.' } })],
  INGRESS_ITEMS_SHELVED: [router({ ingress: { ...INGRESS, shelvedItems: 3 } })],
  QUARANTINE_NOT_EMPTY: [appservice({ quarantinedEntries: 1 })],
};

test('nothing is found on a sound set-up, on either store, whatever could not be learnt', () => {
  assert.deepEqual(diagnose(SOUND), []);
  assert.deepEqual(diagnose({ ...SOUND, ...settings({ storeKind: 'mongodb', storeFile: null }), mongo: MONGO }), []);
  assert.deepEqual(diagnose({ ...SOUND, mongo: { ...MONGO, missingIndexes: ['routes_by_appservice'], schemaVersion: null } }), [], 'a database that no router has used has no indexes to miss');
  assert.deepEqual(diagnose({ ...SOUND, ...router({ http: null, appservices: [{ ...APPSERVICE, ping: null }] }) }), []);
  assert.deepEqual(diagnose({ ...SOUND, ...settings({ storeFile: path('db', { exists: false }), keyFile: path('key', { exists: false }), credentialsFile: path('c', { exists: false, mode: 0 }), freeBytes: null }), local: { ...LOCAL, openFilesMax: null } }), []);
});

test('what is no fault is not told as one', () => {
  const sound: Partial<Facts>[] = [
    appservice({ ping: { errcode: 'M_BAD_STATUS', httpStatus: 404 } }),
    appservice({ lastError: { kind: 'rejected', httpStatus: 403, message: 'Long ago.' } }),
    appservice({ isPaused: true }),
    appservice(lastError(500)),
    router({ http: { upMs: 60_000, submissionAgeMs: null } }),
    router({ registrations: [], appservices: [], http: { submissionAgeMs: null } }),
    ingressSetup({}),
    ingressSetup({ catchAll: { kind: 'known', serverName: 'hs.test', ping: null } }),
    pinged('M_FORBIDDEN'),
    router({ ingress: { ...INGRESS, gapMs: 60_000, problem: 'Another.' }, http: { submissionAgeMs: 3_600_000 } }),
    files(file({ id: 'second', as_token: 'own', url: null, namespaces: { users: [], aliases: [], rooms: [] } })),
  ];
  for (const facts of sound) assert.deepEqual(diagnose({ ...SOUND, ...facts }), []);
});

for (const { code } of CHECKS) {
  test(`doctor finds ${code}, and says what to do`, () => {
    const faults = FAULTS[code];
    assert.ok(faults !== undefined && faults.length > 0, 'every check has a fault that it finds');
    for (const facts of faults) {
      const findings = diagnose({ ...SOUND, ...facts });
      assert.deepEqual(findings.map((finding) => finding.code), [code]);
      for (const { subject, message, advice } of findings) {
        assert.ok(subject !== '' && /[.:]$|…$/.test(message) && /[.)]$|\d \S+$/.test(advice), `${message} ${advice}`);
        assert.doesNotMatch(`${message} ${advice}`, /token-of-irc|\bID\b/);
      }
    }
  });
}

test('errors are told before warnings', () => {
  const findings = diagnose({ ...SOUND, ...appservice({ ...lastError(403), quarantinedEntries: 1 }), mongo: { kind: 'faulty', isReachable: true, message: 'It is a standalone.' } });
  assert.deepEqual(findings.map(({ code, severity }) => `${severity} ${code}`), ['error MONGODB_UNSUITABLE', 'error HS_TOKEN_REFUSED', 'warning QUARANTINE_NOT_EMPTY']);
});
