/** How the traffic of an unmodified homeserver stands, in a line or two. */
import type { Ingress } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import { duration, timeMsFrom } from './format.ts';
import { coloured, plainLine } from './terminal.ts';
import type { Terminal } from './terminal.ts';

export function ingressLine({ lastTransactionTime, shelvedItems, unknownRooms, unknownRoomIds, problem, gapSince }: Ingress, nowMs: number, terminal: Pick<Terminal, 'hasColour'>): string {
  const lastMs = timeMsFrom(lastTransactionTime);
  const parts = [lastMs === null ? 'no transaction since the router started' : `last transaction ${duration(nowMs - lastMs)} ago`];
  if (shelvedItems > 0n) parts.push(coloured(terminal, 'yellow', `${shelvedItems} items shelved`));
  if (unknownRooms > 0n) parts.push(coloured(terminal, 'yellow', `${unknownRooms} rooms not known yet, such as ${plainLine(unknownRoomIds[0] ?? '')}`));
  const gapMs = timeMsFrom(gapSince);
  const below = [
    ...(problem === undefined ? [] : [coloured(terminal, 'red', plainLine(problem))]),
    ...(gapMs === null ? [] : [coloured(terminal, 'yellow', `for ${duration(nowMs - gapMs)} nothing was taken: if the homeserver was restarted meanwhile, what waits there comes with its next event in any room`)]),
  ];
  return `ingress: ${parts.join('; ')}\n${below.map((line) => `  ${line}\n`).join('')}`;
}
