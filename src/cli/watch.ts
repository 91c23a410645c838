/** watch: what happens to deliveries, as it happens. */
import { AppserviceAdmin, WatchEventsResponseSchema } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { WatchEventsResponse } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { jsonFrom } from '../rpc/admin-client.ts';
import { printJsonLine } from './context.ts';
import type { RouterContext } from './context.ts';
import { isoTime, NONE, timeMsFrom } from './format.ts';
import { stateName } from './status.ts';
import { coloured, EXIT, plainLine } from './terminal.ts';
import type { ExitCode } from './terminal.ts';

/** Until Ctrl-C, which is no error. */
export async function watch(context: RouterContext, appserviceIds: readonly string[]): Promise<ExitCode> {
  const { router, serverName, signal, terminal, json } = context;
  for await (const answer of router.watch(AppserviceAdmin.method.watchEvents, { serverName, appserviceIds: [...appserviceIds] }, signal)) {
    if (json) printJsonLine(context, jsonFrom(WatchEventsResponseSchema, answer));
    else {
      if (answer.droppedCount > 0n) terminal.out(coloured(terminal, 'yellow', `${answer.droppedCount} events were left out, because this terminal is too slow\n`));
      terminal.out(`${lineOf(answer)}\n`);
    }
  }
  return EXIT.ok;
}

function lineOf({ time, event }: WatchEventsResponse): string {
  const timeMs = timeMsFrom(time);
  const when = timeMs === null ? NONE : isoTime(timeMs);
  const name = event.case?.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) ?? NONE;
  const who = event.case === undefined ? NONE : event.value.serviceId;
  return plainLine(`${when}  ${name.padEnd(17)}  ${who}  ${told(event)}`).trimEnd();
}

function told(event: WatchEventsResponse['event']): string {
  switch (event.case) {
    case 'eventsDelivered':
      return `${event.value.eventCount} in transaction ${event.value.transactionId}`;
    case 'deliveryFailed':
      return `transaction ${event.value.transactionId}, failed attempts: ${event.value.retryCount}`;
    case 'stateChanged':
      return `${stateName(event.value.state)}${event.value.paused ? ', paused' : ''}`;
    case 'userProvisioned':
      return event.value.userId;
    case 'aliasProvisioned':
      return event.value.alias;
    case 'escalation':
      return `${(event.value.errorRate * 100).toFixed(1)} % of what it was asked failed`;
    case undefined:
      return '';
  }
}
