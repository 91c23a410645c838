/**
 * The command line, but for `serve`: which commands there are and what they take. A command ends with an exit code:
 *
 *   0  done                                3  no router answers
 *   1  refused, or not what was hoped for  4  the token may not do this
 *   2  the command is wrong                5  doctor found problems
 */
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { Clock, Random } from '../clock.ts';
import type { ConfigLoading } from '../config.ts';
import { AdminClient, CallError } from '../rpc/admin-client.ts';
import { showConfig, showSchema } from './config-command.ts';
import type { ConnectionOptions } from './connection.ts';
import { findConnection } from './connection.ts';
import type { CommandContext, RouterContext } from './context.ts';
import { printJson } from './context.ts';
import { diagnose, report } from './doctor/doctor.ts';
import type { Facts, MongoFact, RouterFact } from './doctor/facts.ts';
import { gatherLocal } from './doctor/gather-local.ts';
import { gatherRouter } from './doctor/gather-router.ts';
import { explain } from './explain.ts';
import { addOperationCommands } from './operation-commands.ts';
import { ping } from './ping.ts';
import { list, register, remove } from './registrations.ts';
import { move, status } from './status.ts';
import { synapseSetup } from './synapse-setup.ts';
import type { Move } from './status.ts';
import { coloured, EXIT } from './terminal.ts';
import type { ExitCode, Terminal } from './terminal.ts';
import { watch } from './watch.ts';

export interface CommandLine {
  readonly terminal: Terminal;
  readonly clock: Clock;
  readonly random: Random;
  /** Aborts on Ctrl-C. */
  readonly signal: AbortSignal;
  readonly version: string;
  /** ROUTER_ADDRESS and ROUTER_TOKEN_FILE. */
  readonly environment: ConnectionOptions;
  readonly loadConfig: (argv: readonly string[]) => ConfigLoading;
  /** The text of a file, `-` for the standard input; throws. */
  readonly readFile: (path: string) => string;
  /** Looks at a MongoDB deployment; never rejects. */
  readonly inspectMongo: (uri: string) => Promise<MongoFact>;
}

/** Columns that descriptions are wrapped to, however long the names before them are. */
const HELP_WIDTH_MIN = 30;

interface GlobalOptions extends ConnectionOptions {
  readonly json?: true;
  readonly config?: string;
  readonly serverName?: string;
  readonly httpAddress?: string;
}

/** What the command cannot go on without. */
class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Runs one command. Never rejects for what its user can mend. */
export async function runCommandLine(line: CommandLine, argv: readonly string[]): Promise<ExitCode> {
  let exit: ExitCode = EXIT.ok;
  const program = programOf(line, (code) => {
    exit = code;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exit;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    const { json } = program.opts<GlobalOptions>();
    if (error instanceof UsageError) return told(line, json === true, { kind: 'usage', reason: '', message: error.message, violations: [] }, EXIT.usage);
    if (error instanceof CallError) return told(line, json === true, error.failure, EXIT[error.failure.kind]);
    throw error;
  }
}

function told(line: CommandLine, json: boolean, failure: Omit<CallError['failure'], 'kind'> & { readonly kind: string }, code: ExitCode): ExitCode {
  const { terminal } = line;
  if (json) printJson(line, { error: failure });
  else terminal.err(`${coloured(terminal, 'red', failure.message)}\n`);
  return code;
}

export function programOf(line: CommandLine, ended: (code: ExitCode) => void): Command {
  const { terminal } = line;
  const program = new Command('appservice-router')
    .description('Delivers the events of a homeserver to its application services.')
    .version(line.version, '--version', 'the version')
    .helpOption('-h, --help', 'this text, or that of a command')
    .addOption(new Option('--address <host:port>', 'gRPC address of the router; ROUTER_ADDRESS, or that of its settings'))
    .addOption(new Option('--token-file <file>', "file with an admin's token; ROUTER_TOKEN_FILE, or the credentials.json of the data directory"))
    .addOption(new Option('--http-address <host:port>', 'HTTP address of the router, for doctor; that of its settings'))
    .addOption(new Option('--server-name <name>', 'the homeserver meant, where the router serves several'))
    .addOption(new Option('--config <file>', 'YAML file of settings, as for serve'))
    .addOption(new Option('--json', 'JSON for programs instead of text for people'))
    .configureHelp({ minWidthToWrap: HELP_WIDTH_MIN })
    .exitOverride()
    .configureOutput({ writeOut: terminal.out, writeErr: terminal.err })
    .showHelpAfterError('(--help tells more)');
  program.command('serve').description('run the router; "serve --help" lists its settings');
  program.command('demo').description('a router, an appservice and a homeserver at work, which ends by itself');

  const asked = (run: (context: CommandContext, options: GlobalOptions) => Promise<ExitCode> | ExitCode) => async (): Promise<void> => {
    const options = program.opts<GlobalOptions>();
    ended(await run({ terminal, clock: line.clock, signal: line.signal, json: options.json === true }, options));
  };
  const called = (run: (context: RouterContext) => Promise<ExitCode>): Promise<void> =>
    asked(async (context, options) => {
      const connection = findConnection({ options, environment: line.environment, loadConfig: () => line.loadConfig(configArguments(options)), readFile: line.readFile });
      if (connection.kind === 'unknown') throw new UsageError(connection.message);
      using router = new AdminClient(connection);
      return await run({ ...context, router, serverName: options.serverName });
    })();
  addRegistrationCommands(program, line, called);
  addDeliveryCommands(program, called);
  addOperationCommands(program, called);
  program
    .command('explain')
    .description('who gets an event, by which rule and namespace, and where it is now')
    .argument('<event>', 'an event id, or a file with the JSON of an event; - for the standard input')
    .action((subject: string) => called((context) => explain(context, subject, fileReader(line))));
  program
    .command('doctor')
    .description('look for what is wrong with the settings, the files, the store, the router and its appservices, and say what to do')
    .action(asked(async (context, options) => report(context, diagnose(await gather(line, context, options)))));
  program
    .command('synapse-setup')
    .description('write what puts the router between Synapse and its appservices: registrations, lines for homeserver.yaml, tokens')
    .argument('<dir>', 'directory for the files')
    .argument('[file...]', 'registration YAML of the appservices, with their real urls')
    .option('--router-url <url>', 'where Synapse reaches the HTTP port of the router; that of its settings')
    .action((dir: string, files: string[], { routerUrl }: { routerUrl?: string }) =>
      asked((context, options) => {
        const { config } = settingsOf(line, options);
        return synapseSetup(context, { dir, files, config, serverName: options.serverName ?? config.serverName, routerUrl, random: line.random, readFile: line.readFile });
      })(),
    );
  program
    .command('config')
    .description('the settings in force, and where each was said')
    .option('--schema', 'the JSON Schema of the settings file')
    .action(async (own: { readonly schema?: true }) => {
      await asked((context, options) => (own.schema === true ? showSchema(context) : showConfig(context, line.loadConfig(configArguments(options)))))();
    });
  return program;
}

function settingsOf(line: CommandLine, options: GlobalOptions): Extract<ConfigLoading, { kind: 'ok' }> {
  const loading = line.loadConfig(configArguments(options));
  if (loading.kind === 'ok') return loading;
  throw new UsageError(loading.kind === 'invalid' ? `The configuration cannot be used: ${loading.problems.join(' ')}` : loading.text);
}

async function gather(line: CommandLine, context: CommandContext, options: GlobalOptions): Promise<Facts> {
  const loading = line.loadConfig(configArguments(options));
  const local = await gatherLocal(loading, line.random, line.clock);
  const mongo = loading.kind === 'ok' && loading.config.store.kind === 'mongodb' ? await line.inspectMongo(loading.config.store.uri) : null;
  const connection = findConnection({ options, environment: line.environment, loadConfig: () => loading, readFile: line.readFile });
  if (connection.kind === 'unknown') return { local, mongo, router: { kind: 'not_asked', message: connection.message } };
  using client = new AdminClient(connection);
  const router: RouterFact = await gatherRouter(
    { ...context, router: client, serverName: options.serverName },
    options.serverName ?? (loading.kind === 'ok' ? loading.config.serverName : ''),
    httpAddressOf(loading, options),
  );
  return { local, mongo, router };
}

/** Null where it cannot be known: --http-address is not given, and the settings name no port. */
function httpAddressOf(loading: ConfigLoading, { httpAddress }: GlobalOptions): string | null {
  if (httpAddress !== undefined) return httpAddress;
  if (loading.kind !== 'ok' || loading.config.httpListen.endsWith(':0')) return null;
  return loading.config.httpListen.replace(/^(?:0\.0\.0\.0|\[::\])(?=:\d+$)/, '127.0.0.1');
}

type Called = (run: (context: RouterContext) => Promise<ExitCode>) => Promise<void>;

function addRegistrationCommands(program: Command, line: CommandLine, called: Called): void {
  program
    .command('register')
    .description('put registrations in force, as appservices ship them')
    .argument('<file...>', 'registration YAML; - for the standard input')
    .option('--validate-only', 'check and tell, and change nothing')
    .option('--resume-parked', 'go on with the backlog that was parked when the id was removed')
    .action((files: string[], { validateOnly, resumeParked }: { validateOnly?: true; resumeParked?: true }) =>
      called((context) => register(context, files, { validateOnly: validateOnly === true, resumeParked: resumeParked === true, readFile: line.readFile })),
    );
  program.command('list').description('the registrations in force').action(() => called(list));
  program
    .command('remove')
    .description('take a registration out of force')
    .argument('<id>')
    .requiredOption('--backlog <what>', 'what becomes of what is queued: discard or park', backlogFrom)
    .action((id: string, { backlog }: { backlog: 'discard' | 'park' }) => called((context) => remove(context, id, backlog)));
  program.command('ping').description('whether an appservice answers; if so, what waits for it goes out').argument('<id>').action((id: string) => called((context) => ping(context, id)));
}

const MOVES: Readonly<Record<Move, string>> = {
  pause: 'hold the delivery to an appservice',
  resume: 'let a paused delivery go on',
  retry: 'try the transaction in flight now',
};

function addDeliveryCommands(program: Command, called: Called): void {
  program
    .command('status')
    .description('what each delivery stands at, the stuck ones first; or one in detail')
    .argument('[id]')
    .option('--watch', 'again every two seconds, until Ctrl-C')
    .action((id: string | undefined, { watch: isLive }: { watch?: true }) => called((context) => status(context, id, isLive === true)));
  program
    .command('watch')
    .description('deliveries, failures and changes of state as they happen, until Ctrl-C')
    .argument('[id...]')
    .action((ids: string[]) => called((context) => watch(context, ids)));
  for (const [name, description] of Object.entries(MOVES) as [Move, string][]) {
    program.command(name).description(description).argument('<id>').action((id: string) => called((context) => move(context, name, id)));
  }
}

/** A file that cannot be read is the command's fault. */
function fileReader({ readFile }: CommandLine): (path: string) => string {
  return (path) => {
    try {
      return readFile(path);
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason';
      throw new UsageError(`The file ${path} cannot be read (${code}). Name a file with the JSON of an event, or an event id, which begins with "$".`);
    }
  };
}

function configArguments({ config }: GlobalOptions): string[] {
  return config === undefined ? [] : ['--config', config];
}

function backlogFrom(text: string): 'discard' | 'park' {
  if (text === 'discard' || text === 'park') return text;
  throw new InvalidArgumentError('It is discard or park.');
}
