/** What can be wrong between an unmodified homeserver and the router. */
import { duration } from '../format.ts';
import type { CatchAllFact, Check, Facts, Finding, IngressFact, IngressSetupFact } from './facts.ts';
import { error, readable, warning } from './local-checks.ts';

type Found = Omit<Finding, 'code'>;
type Known = Extract<CatchAllFact, { kind: 'known' }>;

const TOKEN_REFUSED: readonly (number | null)[] = [401, 403];
const CATCH_ALL = 'the catch-all registration';
const GAP_MS = 15 * 60_000;

export const INGRESS_CHECKS: readonly Check[] = [
  onSetup('INGRESS_TOKENS_UNUSABLE', ({ tokenFile, problem }) => (problem === null ? [] : [error(tokenFile.path, problem, 'Mend or bring back the file; the router does not start like this.')])),
  onSetup('INGRESS_TOKENS_READABLE', ({ tokenFile }) => readable(tokenFile, 'holds tokens that open all of the homeserver')),
  onSetup('HOMESERVER_URL_MISSING', ({ homeserverUrl }) =>
    homeserverUrl === null ? [warning('ROUTER_HOMESERVER_URL', 'The router has nobody to ask who is in rooms from before it came, so appservices may miss events there.', 'Name where the homeserver listens, such as http://127.0.0.1:8008.')] : [],
  ),
  onCatchAll('HOMESERVER_UNREACHABLE', (catchAll) => {
    if (catchAll.kind === 'unreachable') return [error('ROUTER_HOMESERVER_URL', `The homeserver cannot be reached from here. ${catchAll.message}`, 'See whether it runs, and correct the url.')];
    return catchAll.kind === 'other' ? [error('ROUTER_HOMESERVER_URL', `What answers there is no homeserver (HTTP ${catchAll.httpStatus}).`, 'Name where the homeserver itself listens, without /_matrix.')] : [];
  }),
  onCatchAll('CATCH_ALL_UNKNOWN', (catchAll) =>
    catchAll.kind === 'unknown_token'
      ? [error(CATCH_ALL, 'The homeserver does not know the as_token of the ingress token file.', 'Name appservice-router.yaml, as synapse-setup wrote it beside that file, in app_service_config_files, and restart the homeserver.')]
      : [],
  ),
  onSetup('HOMESERVER_IS_ANOTHER', ({ serverName, catchAll }) =>
    catchAll?.kind === 'known' && catchAll.serverName !== serverName ? [error('ROUTER_SERVER_NAME', `The homeserver is ${catchAll.serverName}, and the router serves ${serverName}.`, 'Make ROUTER_SERVER_NAME, or server_name of the ingress token file, that of the homeserver.')] : [],
  ),
  onPing('CATCH_ALL_HS_TOKEN_REFUSED', ({ errcode, httpStatus }) =>
    errcode === 'M_BAD_STATUS' && TOKEN_REFUSED.includes(httpStatus) ? [error(CATCH_ALL, 'The homeserver shows the router another hs_token than that of the ingress token file, so nothing of it is taken.', 'Give the homeserver appservice-router.yaml as synapse-setup wrote it, and restart it.')] : [],
  ),
  onPing('CATCH_ALL_URL_WRONG', ({ errcode, httpStatus }) => {
    const cause = causeOf(errcode, httpStatus);
    return cause === null ? [] : [error(CATCH_ALL, `The homeserver cannot send to the router: ${cause}.`, 'Let the url of appservice-router.yaml be where the homeserver reaches ROUTER_HTTP_LISTEN, and restart the homeserver; see that the router runs.')];
  }),
  onIngress('INGRESS_GAP', ({ gapMs }) =>
    gapMs !== null && gapMs > GAP_MS ? [warning('homeserver', `For ${duration(gapMs)} no transaction was taken from it, so something may wait there.`, 'See whether it runs; if so, say something in any of its rooms: after a restart it begins with the next event.')] : [],
  ),
  onIngress('ROOMS_UNKNOWN', ({ unknownRooms, unknownRoomId, problem }) =>
    unknownRooms > 0 ? [warning(unknownRoomId ?? 'rooms', `Of ${unknownRooms} rooms it is not known who is in them, so appservices may miss events there${problem === null ? '.' : `: ${problem}`}`, 'Let the router reach the homeserver at ROUTER_HOMESERVER_URL, with the as_token of the ingress token file.')] : [],
  ),
  onIngress('INGRESS_ITEMS_SHELVED', ({ shelvedItems }) => (shelvedItems > 0 ? [warning('homeserver', `${shelvedItems} items of its transactions could be given to nobody since the router started.`, 'The log of the router names each, and why; the rest of those transactions was taken.')] : [])),
];

function causeOf(errcode: string | null, httpStatus: number | null): string | null {
  if (errcode === 'M_URL_NOT_SET') return 'the registration has no url there';
  if (errcode === 'M_CONNECTION_FAILED') return 'nobody answers at the url it has';
  if (errcode === 'M_CONNECTION_TIMEOUT') return 'no answer comes in time from the url it has';
  return errcode === 'M_BAD_STATUS' && !TOKEN_REFUSED.includes(httpStatus) ? `the url it has answers with ${httpStatus === null ? 'an error' : `HTTP ${httpStatus}`}` : null;
}

function onSetup(code: string, find: (ingress: IngressSetupFact) => readonly Found[]): Check {
  return { code, find: ({ local: { settings } }: Facts) => (settings === null || settings.ingress === null ? [] : find(settings.ingress)) };
}

function onCatchAll(code: string, find: (catchAll: CatchAllFact) => readonly Found[]): Check {
  return onSetup(code, ({ catchAll }) => (catchAll === null ? [] : find(catchAll)));
}

function onPing(code: string, find: (ping: NonNullable<Known['ping']>) => readonly Found[]): Check {
  return onCatchAll(code, (catchAll) => (catchAll.kind === 'known' && catchAll.ping !== null ? find(catchAll.ping) : []));
}

function onIngress(code: string, find: (ingress: IngressFact) => readonly Found[]): Check {
  return { code, find: ({ router }) => (router.kind === 'reached' && router.ingress !== null ? find(router.ingress) : []) };
}
