/** ping: whether an appservice can be reached, and what waits for it goes out if it can. */
import { AppserviceRouter, PingAppserviceResponseSchema } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import type { PingAppserviceResponse } from '../../gen/matrix/appservice/v1/appservice_router_service_pb.ts';
import { jsonFrom } from '../rpc/admin-client.ts';
import { deadlineMs, printJson } from './context.ts';
import type { RouterContext } from './context.ts';
import { coloured, EXIT, plainLine } from './terminal.ts';
import type { ExitCode } from './terminal.ts';

export async function pingOf(context: RouterContext, appserviceId: string): Promise<PingAppserviceResponse> {
  const { router, serverName } = context;
  return router.call(AppserviceRouter.method.pingAppservice, { serverName, appservice: { case: 'appserviceId', value: appserviceId } }, deadlineMs(context));
}

export async function ping(context: RouterContext, appserviceId: string): Promise<ExitCode> {
  const { terminal, json } = context;
  const answer = await pingOf(context, appserviceId);
  const { result } = answer;
  if (json) printJson(context, jsonFrom(PingAppserviceResponseSchema, answer));
  else if (result.case === 'durationMs') terminal.out(`${coloured(terminal, 'green', '✔')} "${appserviceId}" answered within ${result.value} ms\n`);
  else if (result.case === 'failure') {
    const { errcode, status, body } = result.value;
    terminal.err(`${coloured(terminal, 'red', '✖')} "${appserviceId}": ${errcode}${status === undefined ? '' : `, HTTP ${status}`}${body === undefined || body === '' ? '' : `: ${plainLine(body).slice(0, 200)}`}\n`);
  }
  return result.case === 'durationMs' ? EXIT.ok : EXIT.refused;
}
