/** status, pause, resume, retry: what each appservice's delivery stands at, the stuck ones first. */
import { AppserviceAdmin, IngressSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Ingress } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Appservice } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { Appservice_HeldBy as HeldBy, AppserviceSchema, DeliveryState } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { jsonFrom } from '../rpc/admin-client.ts';
import { allPages, deadlineMs, printJson, printJsonLine } from './context.ts';
import type { RouterContext } from './context.ts';
import { bytes, duration, isoTime, NONE, timeMsFrom } from './format.ts';
import { ingressLine } from './ingress-line.ts';
import { table } from './table.ts';
import { coloured, EXIT, plainLine } from './terminal.ts';
import type { Colour, ExitCode, Terminal } from './terminal.ts';

const { getAppservice, listAppservices, pauseDelivery, resumeDelivery, retryNow } = AppserviceAdmin.method;
const PAGE_SIZE = 1_000;
const REFRESH_MS = 2_000;
const HEADINGS = ['id', 'state', 'backlog', 'size', 'oldest', 'attempt', 'next in', 'delivered', 'last error'] as const;
const SCREEN = { enter: '\u001b[?1049h\u001b[H', home: '\u001b[H', clearLine: '\u001b[K', clearBelow: '\u001b[J', leave: '\u001b[?1049l' } as const;

export interface Found {
  readonly appservices: readonly Appservice[];
  /** Undefined: the homeserver does not send its traffic by the ingress, or was not asked about. */
  readonly ingress: Ingress | undefined;
}

export async function readAll(context: RouterContext): Promise<Found> {
  const { router, serverName } = context;
  let ingress: Ingress | undefined;
  const appservices = await allPages(async (pageToken) => {
    const page = await router.call(listAppservices, { serverName, pageSize: PAGE_SIZE, pageToken }, deadlineMs(context));
    ingress = page.ingress;
    return { items: page.appservices, nextPageToken: page.nextPageToken };
  });
  return { appservices, ingress };
}

/** Of one appservice, or of all; with `isLive` again every two seconds until Ctrl-C. */
export async function status(context: RouterContext, appserviceId: string | undefined, isLive: boolean): Promise<ExitCode> {
  const { terminal, json, clock, signal } = context;
  if (!isLive) {
    const found = await read(context, appserviceId);
    const { appservices } = found;
    if (json) printJson(context, appserviceId === undefined ? documentOf(found) : toJson(appservices[0]));
    else terminal.out(appserviceId === undefined ? overview(found, clock.nowMs(), terminal) : detail(appservices[0], clock.nowMs()));
    return EXIT.ok;
  }
  const isScreen = terminal.isInteractive && !json;
  if (isScreen) terminal.out(SCREEN.enter);
  try {
    while (!signal.aborted) {
      const found = await read(context, appserviceId);
      if (json) printJsonLine(context, documentOf(found));
      else if (isScreen) terminal.out(screen(overview(found, clock.nowMs(), terminal)));
      else terminal.out(`${isoTime(clock.nowMs())}\n${overview(found, clock.nowMs(), terminal)}\n`);
      await clock.sleep(REFRESH_MS, signal);
    }
  } finally {
    if (isScreen) terminal.out(SCREEN.leave);
  }
  return EXIT.ok;
}

export type Move = 'pause' | 'resume' | 'retry';

export async function move(context: RouterContext, what: Move, appserviceId: string): Promise<ExitCode> {
  const { appservice } = await moved(context, what, appserviceId);
  showOne(context, appservice);
  return EXIT.ok;
}

function moved(context: RouterContext, what: Move, appserviceId: string): Promise<{ readonly appservice?: Appservice | undefined }> {
  const request = { serverName: context.serverName, appserviceId };
  switch (what) {
    case 'pause':
      return context.router.call(pauseDelivery, request, deadlineMs(context));
    case 'resume':
      return context.router.call(resumeDelivery, request, deadlineMs(context));
    case 'retry':
      return context.router.call(retryNow, request, deadlineMs(context));
  }
}

export function showOne(context: RouterContext, appservice: Appservice | undefined): void {
  if (context.json) printJson(context, toJson(appservice));
  else context.terminal.out(detail(appservice, context.clock.nowMs()));
}

async function read(context: RouterContext, appserviceId: string | undefined): Promise<Found> {
  if (appserviceId === undefined) return readAll(context);
  const { appservice } = await context.router.call(getAppservice, { serverName: context.serverName, appserviceId }, deadlineMs(context));
  return { appservices: appservice === undefined ? [] : [appservice], ingress: undefined };
}

/** All pages as one. */
function documentOf({ appservices, ingress }: Found): unknown {
  return { appservices: appservices.map(toJson), ...(ingress === undefined ? {} : { ingress: jsonFrom(IngressSchema, ingress) }) };
}

function toJson(appservice: Appservice | undefined): unknown {
  return appservice === undefined ? null : jsonFrom(AppserviceSchema, appservice);
}

/** New lines over the old ones, so that nothing flickers. */
function screen(text: string): string {
  return `${SCREEN.home}${text.replaceAll('\n', `${SCREEN.clearLine}\n`)}${SCREEN.clearBelow}`;
}

const STATE_NAMES: ReadonlyMap<DeliveryState, string> = new Map([
  [DeliveryState.IDLE, 'idle'],
  [DeliveryState.DELIVERING, 'delivering'],
  [DeliveryState.RETRYING, 'retrying'],
  [DeliveryState.FAILED, 'failed'],
]);

/** A state of a newer router is `unknown`. */
export function stateName(state: DeliveryState): string {
  return STATE_NAMES.get(state) ?? 'unknown';
}

export function stateOf({ state, paused, heldBy }: Appservice): string {
  const name = stateName(state);
  if (paused) return `${name}, paused`;
  if (heldBy === HeldBy.PARKED) return `${name}, parked`;
  return heldBy === HeldBy.NO_URL ? `${name}, no url` : name;
}

/** Failed first, then retrying, then held with a backlog, then the rest; the longest waiting first in each. */
function urgency({ state, paused, backlogEntries }: Appservice): number {
  if (state === DeliveryState.FAILED) return 0;
  if (state === DeliveryState.RETRYING) return 1;
  return paused && backlogEntries > 0n ? 2 : backlogEntries > 0n ? 3 : 4;
}

function overview({ appservices, ingress }: Found, nowMs: number, terminal: Terminal): string {
  const below = ingress === undefined ? '' : `\n${ingressLine(ingress, nowMs, terminal)}`;
  if (appservices.length === 0) return `No appservice is registered. "appservice-router register FILE" registers one.\n${below}`;
  const oldest = (appservice: Appservice): number => timeMsFrom(appservice.oldestEntryTime) ?? Infinity;
  const sorted = [...appservices].sort((a, b) => urgency(a) - urgency(b) || oldest(a) - oldest(b) || (a.appserviceId < b.appserviceId ? -1 : 1));
  const rows = sorted.map((appservice) => rowOf(appservice, nowMs));
  const grid = table(HEADINGS, rows, (cell, column) => (column === 1 ? coloured(terminal, colourOf(cell), cell) : cell));
  const stuck = sorted.filter(({ state, lastError }) => state === DeliveryState.RETRYING && lastError !== undefined);
  const reasons = stuck.map(({ appserviceId, lastError }) => `${plainLine(appserviceId)}: ${plainLine(lastError?.message ?? '')}\n`);
  return `${grid}${reasons.length === 0 ? '' : `\n${reasons.join('')}`}${below}`;
}

function colourOf(state: string): Colour {
  if (state.startsWith('failed')) return 'red';
  if (state.startsWith('retrying') || state.includes(',')) return 'yellow';
  return state.startsWith('delivering') ? 'green' : 'dim';
}

function rowOf(appservice: Appservice, nowMs: number): string[] {
  const { transaction, lastError, state } = appservice;
  const oldestMs = timeMsFrom(appservice.oldestEntryTime);
  const nextMs = timeMsFrom(transaction?.nextAttemptTime);
  return [
    appservice.appserviceId,
    stateOf(appservice),
    String(appservice.backlogEntries),
    appservice.backlogEntries === 0n ? NONE : bytes(Number(appservice.backlogBytes)),
    oldestMs === null || appservice.backlogEntries === 0n ? NONE : duration(nowMs - oldestMs),
    transaction === undefined ? NONE : String(transaction.attemptCount),
    state === DeliveryState.RETRYING && nextMs !== null ? duration(nextMs - nowMs) : NONE,
    String(appservice.deliveredEntries),
    lastError === undefined ? NONE : `${lastError.kind}${lastError.httpStatus === undefined ? '' : ` ${lastError.httpStatus}`}`,
  ];
}

function detail(appservice: Appservice | undefined, nowMs: number): string {
  if (appservice === undefined) return 'The router gave no status.\n';
  const { transaction, lastError } = appservice;
  const oldestMs = timeMsFrom(appservice.oldestEntryTime);
  const errorMs = timeMsFrom(lastError?.time);
  const nextMs = timeMsFrom(transaction?.nextAttemptTime);
  const lines: (readonly [string, string])[] = [
    ['appservice', appservice.appserviceId],
    ['state', stateOf(appservice)],
    ['backlog', appservice.backlogEntries === 0n ? 'nothing waits' : `${appservice.backlogEntries} entries, ${bytes(Number(appservice.backlogBytes))}${oldestMs === null ? '' : `, the oldest ${duration(nowMs - oldestMs)} old`}`],
    ['delivered', `${appservice.deliveredEntries} entries, through log position ${appservice.deliveredLogPosition}`],
    ['attempts', `${appservice.attempts}, of which ${appservice.failedAttempts} failed`],
    ['transaction', transaction === undefined ? 'none' : `${transaction.txnId}: ${transaction.eventCount} events, ${transaction.attemptCount} failed attempts${nextMs === null || nextMs <= nowMs ? '' : `, next in ${duration(nextMs - nowMs)}`}`],
    ['held by', appservice.leaseHolder === '' ? 'no router' : `router ${appservice.leaseHolder}`],
    ['quarantine', appservice.quarantinedEntries === 0n ? 'empty' : `${appservice.quarantinedEntries} entries`],
    ['last error', lastError === undefined ? 'none' : `${lastError.message}${errorMs === null ? '' : ` (${duration(nowMs - errorMs)} ago)`}`],
  ];
  return lines.map(([name, value]) => `${name.padEnd(12)} ${plainLine(value)}\n`).join('');
}
