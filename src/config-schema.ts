/**
 * The settings of the router. This schema is the one source of their types, bounds, defaults and descriptions; names,
 * help, reference page and JSON Schema come from it (see config-page.ts).
 *
 * A setting `pushTimeoutMs` is `push_timeout_ms` in YAML, `ROUTER_PUSH_TIMEOUT_MS` in the environment and
 * `--push-timeout-ms` as a flag.
 */
import { z } from 'zod';
import { LOG_LEVELS } from './logger.ts';
import { allowEntryProblem } from './query/address-policy.ts';
import { parseOutboundUrl } from './query/outbound-url.ts';

const SERVER_NAME_LENGTH_MAX = 230;

const listenAddress = z.string().superRefine((text, context) => {
  const problem = listenProblem(text);
  if (problem !== null) context.addIssue(problem);
});

const path = z.string().min(1, 'must be a path').refine((text) => !text.includes('\0'), 'must be a path');

const serverName = z
  .string()
  .max(SERVER_NAME_LENGTH_MAX, `must have at most ${SERVER_NAME_LENGTH_MAX} characters`)
  .regex(/^(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/, 'must be a Matrix server name, such as example.org');

const storeLocation = z.string().superRefine((text, context) => {
  if (storeFrom(text) === null) context.addIssue('must be sqlite: and a path, sqlite::memory:, or a mongodb:// URI');
});

const outboundUrl = z.string().superRefine((text, context) => {
  if (parseOutboundUrl(text) === null) context.addIssue('must be an http or https URL without user info, query and fragment, or unix: and an absolute path');
});

const allowEntry = z.string().superRefine((text, context) => {
  const problem = allowEntryProblem(text);
  if (problem !== null) context.addIssue(`must be a list of CIDRs, addresses, host names and unix: paths; ${problem}`);
});

/** `shown`: what the default comes to where it depends on other settings. */
export const settingsSchema = z.strictObject({
  serverName: serverName.default('localhost').describe('The homeserver that is served when credentials name no other.'),
  grpcListen: listenAddress.default('127.0.0.1:50051').describe('Where gRPC is served; port 0 is any free one.'),
  httpListen: listenAddress.default('127.0.0.1:8080').describe('Where Connect, gRPC-Web, health and metrics are served; port 0 is any free one.'),
  dataDir: path.default('data').describe('Directory of the embedded store, the credentials and the encryption key, where nothing else is said of them.'),
  store: storeLocation.optional().meta({
    description: 'Where everything is kept: sqlite: and a path (one process), sqlite::memory: (nothing outlives the process), or the mongodb:// URI of a replica set.',
    shown: 'sqlite:DATA_DIR/router.db',
  }),
  registrations: z.array(path).default([]).describe('Directories of registration YAML, or single files, read at the start and on change.'),
  credentials: path.optional().meta({ description: 'YAML file of the credentials: a list of {name, role, server_name?, token_sha256}.', shown: 'created on loopback' }),
  encryptionKeyFile: path.optional().meta({
    description: 'File of the key that seals tokens in the store. Created on first use with the embedded store, required with MongoDB.',
    shown: 'DATA_DIR/encryption.key',
  }),
  ingressTokenFile: path.optional().meta({
    description: 'File with the tokens of the catch-all registration, with which an unmodified homeserver sends its transactions to the HTTP port; synapse-setup writes one.',
    shown: 'no homeserver is served so',
  }),
  homeserverUrl: outboundUrl.optional().meta({
    description: "Where the homeserver's Client-Server API is, without /_matrix: rooms that the ingress does not know are looked up there with the as_token of the ingress token file.",
    shown: 'rooms are not looked up',
  }),
  homeserverTimeoutMs: z.int().min(100).max(120_000).default(5_000).describe('Time for one look-up of a room at the homeserver.'),
  roomWaitMs: z.int().min(0).max(30_000).default(2_000).describe('How long events of a room that is not known wait for its first look-up at the homeserver; then they are routed with what is known.'),
  logLevel: z.enum(LOG_LEVELS).default('info').describe('The least severe lines that are logged.'),
  logFormat: z.enum(['json', 'pretty']).optional().meta({ description: 'Lines of JSON for programs, or of text for people.', shown: 'pretty on a terminal, json elsewhere' }),
  rateLimitedDefault: z.boolean().default(true).describe('What rate_limited is in a registration that does not say.'),
  pushTimeoutMs: z.int().min(1_000).max(600_000).default(60_000).describe('Time for one attempt to push a transaction, from the call to the answer.'),
  queryTimeoutMs: z.int().min(100).max(120_000).default(5_000).describe('Time for one question to an appservice about a user, an alias or a third-party network.'),
  queryAttemptsMax: z.int().min(1).max(10).default(3).describe('Most attempts of one such question about a user or an alias to an appservice that gives no answer.'),
  pingTimeoutMs: z.int().min(100).max(120_000).default(10_000).describe('Time for one ping of an appservice.'),
  escalationWindowMs: z.int().min(10_000).max(86_400_000).default(300_000).describe('The time over which the error rate of an appservice is judged; above 5 % an escalation is raised.'),
  backoffFirstMs: z.int().min(10).max(3_600_000).default(2_000).describe('Wait after the first failed attempt; each further one doubles it.'),
  backoffMaxMs: z.int().min(10).max(86_400_000).default(512_000).describe('The longest wait between two attempts.'),
  transactionEventsMax: z.int().min(1).max(10_000).default(100).describe('Most events in one transaction.'),
  transactionEphemeralMax: z.int().min(1).max(10_000).default(100).describe('Most typing, receipts and presence in one transaction.'),
  transactionToDeviceMax: z.int().min(1).max(10_000).default(100).describe('Most to-device messages in one transaction.'),
  ephemeralAgeMaxMs: z.int().min(100).max(86_400_000).default(300_000).describe('How long typing, receipts and presence may wait for an appservice; what is older is left out.'),
  transactionBytesMax: z.int().min(1_000).max(64_000_000).default(1_000_000).describe('Most bytes of the body of one transaction; a single larger event or message still goes, alone.'),
  outboundPolicy: z.enum(['default', 'strict']).default('default').describe('strict refuses private addresses and unix sockets of appservices unless the allow list has them.'),
  outboundAllow: z.array(allowEntry).default([]).describe('CIDRs, addresses, host names and unix: paths that the strict policy lets through.'),
  workers: z.int().min(1).max(64).default(1).describe('Processes that share the listening ports, each a router of its own on the one MongoDB, for machines with several processors; 1 with SQLite.'),
  logRetentionMs: z.int().min(0).max(31 * 86_400_000).default(0).describe('How long what is delivered stays in the store at least.'),
});

/** Settings as they are given, with the defaults that depend on nothing. */
export type Settings = z.output<typeof settingsSchema>;
export type SettingKey = keyof Settings;

export type StoreLocation =
  | { readonly kind: 'memory' }
  | { readonly kind: 'sqlite'; readonly path: string }
  /** The URI may hold a password: never show it; see {@link storeLabel}. */
  | { readonly kind: 'mongodb'; readonly uri: string };

/** One setting, as the outside sees it. */
export interface Setting {
  readonly key: SettingKey;
  readonly yamlName: string;
  readonly environmentName: string;
  readonly flag: string;
  readonly description: string;
  readonly kind: 'text' | 'integer' | 'boolean' | 'list';
  readonly choices: readonly string[];
  /** Of an integer. */
  readonly min: number;
  readonly max: number;
  /** For people. */
  readonly defaultText: string;
}

const propertySchema = z.object({
  type: z.enum(['string', 'integer', 'boolean', 'array']),
  description: z.string(),
  default: z.union([z.string(), z.number(), z.boolean(), z.array(z.string())]).optional(),
  shown: z.string().optional(),
  enum: z.array(z.string()).optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
});

export const SETTINGS: readonly Setting[] = describeSettings();

function describeSettings(): Setting[] {
  const properties = jsonProperties();
  return settingsSchema.keyof().options.map((key) => describeSetting(key, propertySchema.parse(properties[key])));
}

function describeSetting(key: SettingKey, property: z.output<typeof propertySchema>): Setting {
  const yamlName = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const kind = property.type === 'string' ? 'text' : property.type === 'array' ? 'list' : property.type;
  return {
    key,
    yamlName,
    environmentName: `ROUTER_${yamlName.toUpperCase()}`,
    flag: `--${yamlName.replaceAll('_', '-')}`,
    description: property.description,
    kind,
    choices: property.enum ?? [],
    min: property.minimum ?? 0,
    max: property.maximum ?? 0,
    defaultText: property.shown ?? (property.default?.toString() || 'none'),
  };
}

/** The JSON Schema of each setting, by its key. */
export function jsonProperties(): Readonly<Record<string, object>> {
  const { properties } = z.toJSONSchema(settingsSchema, { io: 'input' });
  return z.record(z.string(), z.looseObject({})).parse(properties);
}

/** Null if the text names no store. */
export function storeFrom(text: string): StoreLocation | null {
  if (/^mongodb(?:\+srv)?:\/\/./.test(text)) return { kind: 'mongodb', uri: text };
  if (text === 'sqlite::memory:') return { kind: 'memory' };
  const file = /^sqlite:(?:\/\/(?=\/))?([^\0]+)$/.exec(text)?.[1];
  return file === undefined || file.startsWith(':') ? null : { kind: 'sqlite', path: file };
}

/** The store for logs and people: without user, password and options of a URI. */
export function storeLabel(store: StoreLocation): string {
  if (store.kind === 'memory') return 'sqlite::memory:';
  if (store.kind === 'sqlite') return `sqlite:${store.path}`;
  return store.uri.replace(/\?.*$/s, '').replace(/^([a-z+]+:\/\/)(?:.*@)?([^/]*).*$/s, '$1$2');
}

/** What is wrong with a `host:port` to listen on, as the rest of a sentence; null if nothing is. */
function listenProblem(text: string): string | null {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^\s:/[\]]*):(\d{1,5})$/.exec(text);
  if (match === null) return 'must be a host and a port, such as 127.0.0.1:8080 or [::1]:8080';
  if (match[1] === '') return 'must name a host before the port; write 0.0.0.0 for all addresses';
  return Number(match[2]) > 65_535 ? 'must have a port from 0 to 65535' : null;
}

/** True if only this machine can reach what listens there. */
export function isLoopbackListen(listen: string): boolean {
  const host = listen.slice(0, listen.lastIndexOf(':')).replace(/^\[|\]$/g, '');
  return host === 'localhost' || /^127(?:\.\d{1,3}){3}$/.test(host) || /^(?:0{0,4}:){2,7}0{0,3}1$/.test(host);
}
