/**
 * What this router is told to do. The only reader of the environment.
 *
 *   defaults < --config FILE (YAML) < environment < flags        the last that names a setting wins
 *
 * Everything is checked before anything starts, and all problems are told at once. None quotes what may be a secret, such
 * as the URI of a store.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { settingsHelp } from './config-page.ts';
import { SETTINGS, settingsSchema, storeFrom } from './config-schema.ts';
import type { Setting, SettingKey, Settings, StoreLocation } from './config-schema.ts';
import { nearestName } from './nearest-name.ts';
import { plainFromYaml, readYaml, YAML_BYTES_MAX } from './yaml-tree.ts';

/** Every setting with its value in force. Paths are as they were given: relative ones start at the working directory. */
export interface Config extends Readonly<Omit<Settings, 'store' | 'credentials' | 'encryptionKeyFile' | 'ingressTokenFile' | 'homeserverUrl' | 'logFormat'>> {
  readonly store: StoreLocation;
  /** Null: created where that is safe; see credentials.ts. */
  readonly credentials: string | null;
  readonly encryptionKeyFile: string;
  /** Null: no ingress is served. */
  readonly ingressTokenFile: string | null;
  /** Null: rooms are not looked up. */
  readonly homeserverUrl: string | null;
  readonly logFormat: 'json' | 'pretty';
}

export type SettingSource = 'file' | 'environment' | 'flag';

export type ConfigLoading =
  /** A setting that `sources` does not have is at its default. */
  | { readonly kind: 'ok'; readonly config: Config; readonly sources: ReadonlyMap<SettingKey, SettingSource> }
  /** At least one sentence, each naming what to change where. */
  | { readonly kind: 'invalid'; readonly problems: readonly string[] }
  | { readonly kind: 'help'; readonly text: string };

export interface ConfigInput {
  /** Flags alone, without the command. */
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Whether people read the standard output. */
  readonly isTerminal?: boolean;
}

interface Given {
  readonly value: unknown;
  readonly source: SettingSource;
  /** Where it was given, for problems: a flag, an environment name, or a line of the file. */
  readonly place: string;
}

type GivenSettings = Map<SettingKey, Given>;

const NEAR_DISTANCE_MAX = 2;
const ENVIRONMENT_PREFIX = 'ROUTER_';
/** Ends of names that are easily forgotten. */
const UNIT_ENDS = ['_MS', '_MAX', '_FILE', '_DIR', '_DEFAULT'];

/** What the command line takes from the environment besides the settings. */
export interface ClientEnvironment {
  readonly address: string | undefined;
  readonly tokenFile: string | undefined;
  /** https://no-color.org */
  readonly noColour: boolean;
}

export function clientEnvironment(env: Readonly<Record<string, string | undefined>> = process.env): ClientEnvironment {
  return { address: env['ROUTER_ADDRESS'] || undefined, tokenFile: env['ROUTER_TOKEN_FILE'] || undefined, noColour: (env['NO_COLOR'] ?? '') !== '' };
}

export function loadConfig({ argv, env = process.env, isTerminal = false }: ConfigInput): ConfigLoading {
  if (argv.includes('--help') || argv.includes('-h')) return { kind: 'help', text: settingsHelp() };
  const problems: string[] = [];
  const flags = readFlags(argv, problems);
  const given: GivenSettings = new Map([...(flags.file === null ? [] : readFile(flags.file, problems)), ...readEnvironment(env, problems), ...flags.given]);
  const settings = settingsSchema.safeParse(Object.fromEntries([...given].map(([key, { value }]) => [key, value])));
  if (!settings.success) {
    const told = new Set<string>();
    for (const { path, code, message } of settings.error.issues) {
      const setting = SETTINGS.find(({ key }) => key === path[0]);
      const place = setting === undefined ? undefined : given.get(setting.key)?.place;
      if (setting !== undefined && place !== undefined) told.add(`${place} ${(code === 'custom' || code === 'invalid_format' ? message : expectation(setting, message)).replace(/\.$/, '')}.`);
    }
    problems.push(...told);
  }
  if (problems.length > 0 || !settings.success) return { kind: 'invalid', problems };
  const config = resolved(settings.data, isTerminal);
  problems.push(...contradictions(config, given));
  if (problems.length > 0) return { kind: 'invalid', problems };
  return { kind: 'ok', config, sources: new Map([...given].map(([key, { source }]) => [key, source])) };
}

function resolved(settings: Settings, isTerminal: boolean): Config {
  const { store, credentials, encryptionKeyFile, ingressTokenFile, homeserverUrl, logFormat, ...rest } = settings;
  return {
    ...rest,
    store: (store === undefined ? null : storeFrom(store)) ?? { kind: 'sqlite', path: join(rest.dataDir, 'router.db') },
    credentials: credentials ?? null,
    ingressTokenFile: ingressTokenFile ?? null,
    homeserverUrl: homeserverUrl ?? null,
    encryptionKeyFile: encryptionKeyFile ?? join(rest.dataDir, 'encryption.key'),
    logFormat: logFormat ?? (isTerminal ? 'pretty' : 'json'),
  };
}

/** What each setting allows and all together do not. */
function contradictions(config: Config, given: GivenSettings): string[] {
  const problems: string[] = [];
  if (config.backoffFirstMs > config.backoffMaxMs) problems.push('backoff_first_ms must not be above backoff_max_ms; lower the first or raise the last.');
  if (config.grpcListen === config.httpListen && !config.grpcListen.endsWith(':0')) problems.push('grpc_listen and http_listen are the same address; give each a port of its own.');
  if (config.store.kind === 'mongodb' && !given.has('encryptionKeyFile')) {
    problems.push('With MongoDB, ROUTER_ENCRYPTION_KEY_FILE must name the key file that all routers share; openssl rand -base64 32 prints a key.');
  }
  return problems;
}

/** What a setting takes, as the rest of a sentence. */
function expectation({ kind, choices, min, max }: Setting, message: string): string {
  if (choices.length > 0) return `must be one of ${choices.join(', ')}`;
  if (kind === 'integer') return `must be a whole number from ${min} to ${max}`;
  if (kind === 'boolean') return 'must be true or false';
  if (kind === 'list') return 'must be a list of strings';
  return message.startsWith('must ') ? message : 'must be a string; put it in quotes';
}

function readFlags(argv: readonly string[], problems: string[]): { given: GivenSettings; file: string | null } {
  const given: GivenSettings = new Map();
  let file: string | null = null;
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at] ?? '';
    if (!argument.startsWith('--')) {
      problems.push('An argument stands alone where a flag was expected; flags are written --name value or --name=value.');
      continue;
    }
    const equals = argument.indexOf('=');
    const name = equals < 0 ? argument : argument.slice(0, equals);
    const setting = SETTINGS.find(({ flag }) => flag === name);
    if (setting === undefined && name !== '--config') {
      problems.push(`${unknownName(name, [...SETTINGS.map(({ flag }) => flag), '--config'])} --help lists all.`);
      // What follows is taken for its value.
      if (equals < 0 && argv[at + 1]?.startsWith('--') === false) at++;
      continue;
    }
    const text = equals < 0 ? argv[++at] : argument.slice(equals + 1);
    if (text === undefined || (equals < 0 && text.startsWith('--'))) {
      problems.push(`${name} needs a value.`);
      if (text !== undefined) at--;
    } else if (setting === undefined ? file !== null : given.has(setting.key)) problems.push(`${name} is given twice; give it once.`);
    else if (setting === undefined) file = text;
    else given.set(setting.key, { value: valueFrom(setting, text), source: 'flag', place: name });
  }
  return { given, file };
}

function readEnvironment(env: Readonly<Record<string, string | undefined>>, problems: string[]): GivenSettings {
  const given: GivenSettings = new Map();
  const names = SETTINGS.map(({ environmentName }) => environmentName);
  for (const setting of SETTINGS) {
    const text = env[setting.environmentName];
    // An empty one is how a composed environment says that it has nothing to say.
    if (text !== undefined && text !== '') given.set(setting.key, { value: valueFrom(setting, text), source: 'environment', place: setting.environmentName });
  }
  for (const name of Object.keys(env).sort()) {
    if (!name.startsWith(ENVIRONMENT_PREFIX) || names.includes(name) || env[name] === '') continue;
    // Service discovery puts names of its own here; only a slip is worth a word.
    const near = nearestName(name, names, name.length < ENVIRONMENT_PREFIX.length + 8 ? 1 : NEAR_DISTANCE_MAX) ?? UNIT_ENDS.map((end) => name + end).find((longer) => names.includes(longer));
    if (near !== undefined) problems.push(`${name} is no setting; did you mean ${near}?`);
  }
  return given;
}

function readFile(file: string, problems: string[]): GivenSettings {
  const given: GivenSettings = new Map();
  const text = readText(file);
  if (typeof text !== 'string') {
    problems.push(`The file ${file} of --config cannot be read (${text.code}); check the path.`);
    return given;
  }
  const reading = readYaml(text);
  if (reading.kind === 'broken') {
    problems.push(...reading.problems.map(({ line, column, message }) => `${file}, line ${line}, column ${column}: ${message}`));
    return given;
  }
  if (reading.root.kind !== 'map') {
    problems.push(`${file}: Settings are a mapping; write a line such as "grpc_listen: 127.0.0.1:50051" for each.`);
    return given;
  }
  for (const [name, { key, value }] of reading.root.entries) {
    const setting = SETTINGS.find(({ yamlName }) => yamlName === name);
    if (setting === undefined) problems.push(`${file}, line ${key.line}: ${unknownName(name, SETTINGS.map(({ yamlName }) => yamlName))}`);
    else {
      const plain = plainFromYaml(value);
      given.set(setting.key, { value: setting.kind === 'list' && typeof plain === 'string' ? valueFrom(setting, plain) : plain, source: 'file', place: `${file}, line ${key.line}: ${name}` });
    }
  }
  return given;
}

function readText(file: string): string | { readonly code: string } {
  try {
    if (statSync(file).size > YAML_BYTES_MAX) return { code: 'too large' };
    return readFileSync(file, 'utf8');
  } catch (error) {
    return { code: error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown reason' };
  }
}

/** A setting from text, as YAML would have given it. What does not fit is left to the schema. */
function valueFrom({ kind }: Setting, text: string): unknown {
  if (kind === 'integer') return /^-?\d{1,15}$/.test(text) ? Number(text) : text;
  if (kind === 'boolean') return text === 'true' ? true : text === 'false' ? false : text;
  if (kind === 'list') return text.split(',').map((entry) => entry.trim()).filter((entry) => entry !== '');
  return text;
}

/** Only a slip of a known name is named itself: anything else may be a secret in the wrong place. */
function unknownName(name: string, known: readonly string[]): string {
  const near = nearestName(name, known, Math.max(NEAR_DISTANCE_MAX, Math.floor(name.length / 3)));
  return near === null ? `${/^[\w-]{1,40}$/.test(name) ? name : 'This name'} is no setting.` : `${name} is no setting; did you mean ${near}?`;
}
