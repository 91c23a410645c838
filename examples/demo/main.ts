/**
 * `npm run demo`: a router, an appservice and a homeserver; the appservice breaks, and comes back.
 *
 * Exit code 0 if the appservice got every event once and in order, 1 if not, 130 if it was interrupted.
 */
import { createClient } from '@connectrpc/connect';
import type { Client } from '@connectrpc/connect';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { AppserviceAdmin } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { DeliveryStateSchema } from '../../gen/matrix/appservice/v1/appservice_pb.ts';
import { watchDeliveries } from './delivery-watch.ts';
import { DemoHomeserver } from './homeserver.ts';
import { LoggerAppservice } from './logger-appservice.ts';
import { RouterProcess } from './router-process.ts';

const HS_TOKEN = 'demo-secret-that-the-router-sends';
const APPSERVICE_ID = 'logger';
const ALIAS = '#logged_tea:localhost';
const MESSAGES_WHILE_BROKEN = 600;
const MESSAGES_PER_CALL = 20;
const INTERRUPTED = 130;
/** After this long something is lost. */
const TIME_MAX_MS = 60_000;
/** Long enough that the wait after the first failure is seen, and cut short by RetryNow. */
const BACKOFF_FIRST_MS = '15000';

const registrationYaml = (url: string): string => `id: ${APPSERVICE_ID}
url: ${url}
as_token: demo-secret-that-the-appservice-sends
hs_token: ${HS_TOKEN}
sender_localpart: logger
namespaces:
  aliases:
    - regex: "#logged_.*"
      exclusive: false
`;

const isColoured = process.stdout.isTTY && process.env['NO_COLOR'] === undefined;
const styled = (code: number, text: string): string => (isColoured ? `\x1b[${code}m${text}\x1b[0m` : text);

function step(text: string): void {
  console.log(`\n${styled(1, text)}`);
}

function told(who: 'router' | 'homeserver' | 'appservice', text: string): void {
  const colours = { router: 36, homeserver: 33, appservice: 32 };
  console.log(`  ${styled(colours[who], who.padEnd(10))}  ${text}`);
}

/** `sent`: the ids of the events that the appservice should get, as they are answered. */
async function tell(router: RouterProcess, appservice: LoggerAppservice, sent: string[]): Promise<void> {
  const admin = createClient(AppserviceAdmin, await router.transport('admin'));
  const homeserver = new DemoHomeserver(await router.transport('homeserver'));
  const deliveries = watchDeliveries(admin, APPSERVICE_ID);
  const allReceived = async (): Promise<void> => {
    await Promise.all([appservice.received(sent.length), deliveries.until(({ deliveredEvents }) => deliveredEvents >= sent.length)]);
  };

  step('1. An appservice is registered for the rooms whose alias begins with #logged_');
  await admin.putRegistration({ source: { case: 'yaml', value: registrationYaml(appservice.url) } });
  told('router', `"${APPSERVICE_ID}" at ${appservice.url} is in force`);

  step(`2. People talk in ${ALIAS}, and in another room`);
  appservice.log = (line) => told('appservice', `logs  ${line}`);
  const room = await homeserver.createRoom('@alice:localhost', ALIAS);
  sent.push(...room.eventIds);
  const other = await homeserver.createRoom('@carol:localhost', '#private:localhost');
  const lines = [['@alice:localhost', 'is the kettle on?'], ['@bob:localhost', 'it is'], ['@alice:localhost', 'milk first?'], ['@bob:localhost', 'never']] as const;
  for (const [sender, text] of lines) sent.push(...(await homeserver.say(room.roomId, sender, [text])).eventIds);
  await allReceived();
  const unheard = await homeserver.say(other.roomId, '@carol:localhost', ['this is between us']);
  told('homeserver', `said something in the other room too: wanted by ${unheard.routed} appservices`);

  step('3. The appservice breaks: nothing listens on its port any more');
  appservice.log = () => undefined;
  await appservice.close();
  sent.push(...(await homeserver.say(room.roomId, '@alice:localhost', ['hello? anybody?'])).eventIds);
  await deliveries.until(({ failedAttempts }) => failedAttempts > 0);
  for (let n = 0; n < MESSAGES_WHILE_BROKEN; n += MESSAGES_PER_CALL) {
    const texts = Array.from({ length: MESSAGES_PER_CALL }, (_, at) => `cup number ${n + at + 1}`);
    sent.push(...(await homeserver.say(room.roomId, '@bob:localhost', texts)).eventIds);
  }
  told('homeserver', `goes on talking: ${MESSAGES_WHILE_BROKEN + 1} messages, each taken over by the router`);
  await tellStatus(admin);

  step('4. It comes back, and an operator does not want to wait');
  const before = appservice.transactions.length;
  await appservice.open();
  await admin.retryNow({ appserviceId: APPSERVICE_ID });
  told('router', 'RetryNow');
  await allReceived();
  for (const { txnId, eventCount } of appservice.transactions.slice(before)) told('appservice', `took transaction ${txnId} with ${eventCount} event${eventCount === 1 ? '' : 's'}`);
  await tellStatus(admin);
}

async function tellStatus(admin: Client<typeof AppserviceAdmin>): Promise<void> {
  const { appservice } = await admin.getAppservice({ appserviceId: APPSERVICE_ID });
  if (appservice === undefined) return;
  const { state, backlogEntries, transaction, lastError } = appservice;
  told('router', `GetAppservice: state ${DeliveryStateSchema.value[state]?.localName ?? state}, backlog ${backlogEntries} events`);
  if (lastError !== undefined) told('router', `  last error: ${lastError.message}`);
  if (transaction?.nextAttemptTime !== undefined) {
    const seconds = Math.max(0, (timestampMs(transaction.nextAttemptTime) - Date.now()) / 1_000);
    told('router', `  attempt ${transaction.attemptCount} of transaction ${transaction.txnId} failed, the next is in ${seconds.toFixed(0)} s`);
  }
}

/** Prints what came of it; whether all is well. */
function summarize(sent: readonly string[], { eventIds, transactions }: LoggerAppservice): boolean {
  const isInOrder = eventIds.length === sent.length && eventIds.every((id, at) => id === sent[at]);
  const largest = Math.max(0, ...transactions.map(({ eventCount }) => eventCount));
  step('Summary');
  console.log(`  events sent       ${sent.length}`);
  console.log(`  events received   ${eventIds.length}`);
  console.log(`  transactions      ${transactions.length}`);
  console.log(`  largest           ${largest} events`);
  console.log(`  in order          ${isInOrder ? 'yes' : 'NO'}`);
  return isInOrder;
}

async function main(): Promise<number> {
  const ended = endedEarly();
  console.log('Starting the router on a temporary directory …');
  await using router = await RouterProcess.start({ ROUTER_BACKOFF_FIRST_MS: BACKOFF_FIRST_MS });
  told('router', `ready, gRPC on ${router.grpcAddress}`);
  const appservice = await LoggerAppservice.start(HS_TOKEN);
  try {
    const sent: string[] = [];
    const end = await Promise.race([ended, tell(router, appservice, sent).then(() => 'told' as const)]);
    if (end === 'interrupted') return INTERRUPTED;
    if (end === 'late') console.log(`\nNot everything arrived within ${TIME_MAX_MS / 1_000} s.`);
    return summarize(sent, appservice) ? 0 : 1;
  } finally {
    await appservice.close().catch(() => undefined);
  }
}

/** Resolves with why the demo ends before its time. */
function endedEarly(): Promise<'interrupted' | 'late'> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve('interrupted'));
    setTimeout(() => resolve('late'), TIME_MAX_MS).unref();
  });
}

process.exitCode = await main();
