/** register, list, remove. */
import { AppserviceAdmin, DeleteRegistrationRequest_Backlog as Backlog } from '../../gen/matrix/appservice/v1/appservice_admin_service_pb.ts';
import type { Registration } from '../../gen/matrix/appservice/v1/registration_pb.ts';
import { RegistrationSchema } from '../../gen/matrix/appservice/v1/registration_pb.ts';
import { CallError, jsonFrom } from '../rpc/admin-client.ts';
import { allPages, deadlineMs, printJson } from './context.ts';
import type { RouterContext } from './context.ts';
import { NONE } from './format.ts';
import { table } from './table.ts';
import { coloured, EXIT, plainLine } from './terminal.ts';
import type { ExitCode } from './terminal.ts';

const { putRegistration, listRegistrations, deleteRegistration } = AppserviceAdmin.method;
const PAGE_SIZE = 1_000;

export interface RegisterOptions {
  readonly validateOnly: boolean;
  readonly resumeParked: boolean;
  /** The text of a file; throws. */
  readonly readFile: (path: string) => string;
}

/** Each file by itself: one that is refused keeps none of the others back, and the exit code tells of it. */
export async function register(context: RouterContext, files: readonly string[], options: RegisterOptions): Promise<ExitCode> {
  const { terminal, json } = context;
  const results: unknown[] = [];
  let exit: ExitCode = EXIT.ok;
  for (const file of files) {
    try {
      const { registration, warnings } = await put(context, file, options);
      results.push({ file, registration: registration === undefined ? null : jsonFrom(RegistrationSchema, registration), warnings });
      if (json) continue;
      const done = options.validateOnly ? 'can be put' : 'is in force';
      terminal.out(`${coloured(terminal, 'green', '✔')} ${file}: "${plainLine(registration?.id ?? '')}" ${done}\n`);
      for (const { code, message } of warnings) terminal.out(`  ${coloured(terminal, 'yellow', code)}  ${plainLine(message)}\n`);
    } catch (error) {
      const failure = error instanceof CallError ? error.failure : fileFailure(file, error);
      if (failure.kind !== 'refused') throw error;
      exit = EXIT.refused;
      results.push({ file, error: failure });
      if (!json) terminal.err(`${coloured(terminal, 'red', '✖')} ${file}: ${plainLine(failure.message)}\n`);
    }
  }
  if (json) printJson(context, results);
  return exit;
}

async function put(context: RouterContext, file: string, { validateOnly, resumeParked, readFile }: RegisterOptions): Promise<{ registration: Registration | undefined; warnings: { code: string; message: string }[] }> {
  const { router, serverName } = context;
  const answer = await router.call(putRegistration, { serverName, source: { case: 'yaml', value: readFile(file) }, validateOnly, resumeParked }, deadlineMs(context));
  return { registration: answer.registration, warnings: answer.warnings.map(({ code, message }) => ({ code, message })) };
}

function fileFailure(file: string, error: unknown): { kind: 'refused'; message: string } {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason';
  return { kind: 'refused', message: `The file ${file} cannot be read (${code}).` };
}

export async function registrationsOf(context: RouterContext): Promise<Registration[]> {
  const { router, serverName } = context;
  return allPages(async (pageToken) => {
    const { registrations, nextPageToken } = await router.call(listRegistrations, { serverName, pageSize: PAGE_SIZE, pageToken }, deadlineMs(context));
    return { items: registrations, nextPageToken };
  });
}

export async function list(context: RouterContext): Promise<ExitCode> {
  const registrations = await registrationsOf(context);
  if (context.json) {
    printJson(context, registrations.map((registration) => jsonFrom(RegistrationSchema, registration)));
    return EXIT.ok;
  }
  const { terminal } = context;
  if (registrations.length === 0) terminal.out('No appservice is registered. "appservice-router register FILE" registers one.\n');
  else terminal.out(table(['id', 'url', 'sender', 'users', 'aliases', 'rooms', 'protocols'], registrations.map(rowOf)));
  return EXIT.ok;
}

function rowOf({ id, url, senderLocalpart, namespaces, protocols }: Registration): string[] {
  const counted = (of: readonly { readonly exclusive: boolean }[] | undefined): string => {
    const exclusive = (of ?? []).filter(({ exclusive }) => exclusive).length;
    return of === undefined || of.length === 0 ? NONE : `${of.length}${exclusive === 0 ? '' : ` (${exclusive} exclusive)`}`;
  };
  return [id, url ?? NONE, senderLocalpart, counted(namespaces?.users), counted(namespaces?.aliases), counted(namespaces?.rooms), protocols.join(', ') || NONE];
}

export async function remove(context: RouterContext, appserviceId: string, backlog: 'discard' | 'park'): Promise<ExitCode> {
  const { router, serverName, terminal, json } = context;
  await router.call(deleteRegistration, { serverName, appserviceId, backlog: backlog === 'park' ? Backlog.PARK : Backlog.DISCARD }, deadlineMs(context));
  if (json) printJson(context, { appservice_id: appserviceId, backlog });
  else terminal.out(`"${appserviceId}" is removed; its backlog is ${backlog === 'park' ? 'parked' : 'discarded'}\n`);
  return EXIT.ok;
}
