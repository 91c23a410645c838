/**
 * synapse-setup: writes what it takes to put the router between Synapse and its appservices.
 *
 *   DIR/ingress-tokens.json            the tokens of the catch-all registration, for ROUTER_INGRESS_TOKEN_FILE
 *   DIR/synapse/appservice-router.yaml the catch-all registration
 *   DIR/synapse/ID.yaml                each appservice's registration with `url: null`
 *   DIR/homeserver-lines.yaml          what to add to homeserver.yaml
 *
 * All are readable by their owner alone. The tokens are made and shown once: a later run, as to add an appservice, finds
 * them in their file, keeps them, and writes the other files anew. Nothing is written if anything given is wrong.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Registration } from '../appservice/registration.ts';
import type { Random } from '../clock.ts';
import type { Config } from '../config.ts';
import { makeFolder } from '../folder.ts';
import type { IngressTokens } from '../ingress/token-file.ts';
import { loadIngressTokens } from '../ingress/token-file.ts';
import { registrationFromYaml } from '../registration/registration-yaml.ts';
import { printJson } from './context.ts';
import type { CommandContext } from './context.ts';
import { registrationRules } from './registration-rules.ts';
import { catchAllYaml, homeserverYaml, withoutUrl } from './synapse-texts.ts';
import { EXIT, plainLine } from './terminal.ts';
import type { ExitCode } from './terminal.ts';

export interface SynapseSetupOptions {
  readonly dir: string;
  /** Registrations of the appservices, with their real urls. */
  readonly files: readonly string[];
  readonly config: Config;
  readonly serverName: string;
  /** Where Synapse reaches the HTTP port; undefined: as the settings have it. */
  readonly routerUrl: string | undefined;
  readonly random: Pick<Random, 'hex'>;
  /** Throws. */
  readonly readFile: (path: string) => string;
}

interface GivenRegistration {
  readonly file: string;
  readonly text: string;
  readonly registration: Registration;
}

const CATCH_ALL_ID = 'appservice-router';
const TOKEN_BYTES = 32;
const TOKEN_FILE = 'ingress-tokens.json';
const FILE_MODE = 0o600;

export async function synapseSetup(context: CommandContext, options: SynapseSetupOptions): Promise<ExitCode> {
  const dir = resolve(options.dir);
  const { given, problems } = readGiven(options);
  const known = await knownTokens(join(dir, TOKEN_FILE), options.serverName);
  if (typeof known === 'string') problems.push(known);
  if (problems.length > 0 || typeof known === 'string') return refused(context, problems);
  const tokens: IngressTokens = known ?? { hsToken: options.random.hex(TOKEN_BYTES), asToken: options.random.hex(TOKEN_BYTES), serverName: options.serverName };
  try {
    write(dir, options, given, tokens, known === null);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason';
    return refused(context, [`The files cannot be written to ${dir} (${code}). Name another directory, or let this user write there.`]);
  }
  tell(context, dir, options, given, known === null ? tokens : null);
  return EXIT.ok;
}

function readGiven({ files, config, serverName, readFile }: SynapseSetupOptions): { given: GivenRegistration[]; problems: string[] } {
  const given: GivenRegistration[] = [];
  const problems: string[] = [];
  const rules = registrationRules({ ...config, serverName });
  for (const file of files) {
    let text: string;
    try {
      text = readFile(file);
    } catch (error) {
      problems.push(`The file ${file} cannot be read (${error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason'}).`);
      continue;
    }
    const reading = registrationFromYaml(text, rules);
    if (reading.kind === 'invalid') {
      problems.push(...reading.problems.map(({ line, field, message }) => `${file}${line === undefined ? '' : `, line ${line}`}, ${field}: ${message}`));
      continue;
    }
    const { id } = reading.registration;
    const rival = given.find(({ registration }) => fileName(registration.id) === fileName(id));
    if (rival !== undefined) problems.push(`${file} has the id of ${rival.file}, or one too like it: "${id}".`);
    if (fileName(id) === fileName(CATCH_ALL_ID)) problems.push(`${file} has the id "${id}", which is that of the router. Give the appservice another.`);
    given.push({ file, text, registration: reading.registration });
  }
  return { given, problems };
}

/** Null: there are none yet. A sentence: there are, and they cannot be used. */
async function knownTokens(path: string, serverName: string): Promise<IngressTokens | string | null> {
  const loading = await loadIngressTokens(path);
  if (loading.kind === 'missing') return null;
  if (loading.kind === 'invalid') return loading.message;
  const { tokens } = loading;
  return tokens.serverName === null || tokens.serverName === serverName ? tokens : `${path} is of the homeserver "${tokens.serverName}". Name that by --server-name, or another directory.`;
}

function write(dir: string, options: SynapseSetupOptions, given: readonly GivenRegistration[], tokens: IngressTokens, isNew: boolean): void {
  const registrations = given.map(({ registration }) => registration);
  const writeOwn = (path: string, text: string): void => replaceFile(path, text, options.random);
  makeFolder(join(dir, 'synapse'));
  if (isNew) writeOwn(join(dir, TOKEN_FILE), `${JSON.stringify({ hs_token: tokens.hsToken, as_token: tokens.asToken, server_name: tokens.serverName }, null, 2)}\n`);
  writeOwn(pathOf(dir, CATCH_ALL_ID), catchAllYaml({ id: CATCH_ALL_ID, url: routerUrl(options), ...tokens }, registrations));
  for (const { registration, text } of given) writeOwn(pathOf(dir, registration.id), withoutUrl(text));
  writeOwn(join(dir, 'homeserver-lines.yaml'), homeserverYaml([CATCH_ALL_ID, ...registrations.map(({ id }) => id)].map((id) => pathOf(dir, id)), registrations));
}

/** Whole or not at all, whatever was there before. */
function replaceFile(path: string, text: string, random: Pick<Random, 'hex'>): void {
  const draft = `${path}.${random.hex(8)}.new`;
  writeFileSync(draft, text, { mode: FILE_MODE, flag: 'wx', flush: true });
  renameSync(draft, path);
}

function pathOf(dir: string, id: string): string {
  return join(dir, 'synapse', `${fileName(id)}.yaml`);
}

/** Ids may have any characters; names of files are compared without regard to case. */
function fileName(id: string): string {
  return id.replace(/[^\w.-]/g, '_').replace(/^\./, '_').slice(0, 100).toLowerCase();
}

function routerUrl({ routerUrl: url, config }: SynapseSetupOptions): string {
  return url ?? `http://${config.httpListen.replace(/^(?:0\.0\.0\.0|\[::\])(?=:\d+$)/, '127.0.0.1')}`;
}

function refused(context: CommandContext, problems: readonly string[]): ExitCode {
  if (context.json) printJson(context, { problems });
  else context.terminal.err(`Nothing was written:\n${problems.map((problem) => `  ${plainLine(problem)}\n`).join('')}`);
  return EXIT.refused;
}

function tell(context: CommandContext, dir: string, options: SynapseSetupOptions, given: readonly GivenRegistration[], made: IngressTokens | null): void {
  const tokenFile = join(dir, TOKEN_FILE);
  const lines = join(dir, 'homeserver-lines.yaml');
  const synapse = [CATCH_ALL_ID, ...given.map(({ registration }) => registration.id)].map((id) => pathOf(dir, id));
  if (context.json) {
    printJson(context, { ingress_token_file: tokenFile, homeserver_lines: lines, synapse_files: synapse, router_url: routerUrl(options), tokens: made === null ? null : { hs_token: made.hsToken, as_token: made.asToken } });
    return;
  }
  const { out } = context.terminal;
  out(`Written to ${dir}:\n${[tokenFile, ...synapse, lines].map((path) => `  ${path}\n`).join('')}\n`);
  if (made !== null) out(`The tokens of the router at this homeserver, shown this once; both are in the files above:\n  hs_token ${made.hsToken}\n  as_token ${made.asToken}\n\n`);
  out(`Now:
  1. Put the lines of ${lines} into homeserver.yaml. Synapse's user must be able to read the files under ${join(dir, 'synapse')}.
  2. Start the router with ROUTER_SERVER_NAME=${options.serverName} ROUTER_INGRESS_TOKEN_FILE=${tokenFile} ROUTER_HOMESERVER_URL=http://127.0.0.1:8008 (where Synapse listens)
  3. Register the appservices at the router, with their real urls: appservice-router register ${given.length === 0 ? 'FILE …' : given.map(({ file }) => file).join(' ')}
  4. Restart Synapse. It sends everything to ${routerUrl(options)}, and the router to the appservices.
`);
}
