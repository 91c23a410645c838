/**
 * A registration from the YAML that appservices ship (Matrix Application Service API, "Registration"; contract section 6).
 *
 *   text ──readYaml──▶ tree ──FieldReader──▶ draft, with the place of each field ──registrationProblems──▶ Registration
 *
 * Unknown keys are ignored (R14), but for those under `appservice_router:`, which are this router's own.
 */
import type { DeliveryOptions, Namespace, NamespaceKind, Registration } from '../appservice/registration.ts';
import { nearestName } from '../nearest-name.ts';
import type { YamlMap, YamlPlace } from '../yaml-tree.ts';
import { readYaml } from '../yaml-tree.ts';
import { NAMESPACE_KINDS, registrationProblems } from './registration-rules.ts';
import type { RegistrationRules } from './registration-rules.ts';
import { registrationWarnings, rivalWarnings } from './registration-warnings.ts';
import type { RegistrationWarning } from './registration-warnings.ts';
import type { FieldNotes, FieldProblem } from './yaml-fields.ts';
import { FieldReader, noteProblem, readString } from './yaml-fields.ts';

export type RegistrationReading =
  | { readonly kind: 'valid'; readonly registration: Registration; readonly warnings: readonly RegistrationWarning[] }
  | {
      readonly kind: 'invalid';
      /** At least one, in the order of the text. */
      readonly problems: readonly FieldProblem[];
      /** The appservice meant, as far as that can be told. */
      readonly appserviceId: string | null;
    };

const OPTIONS_KEY = 'appservice_router';
const PUSH_EPHEMERAL_KEY = 'de.sorunome.msc2409.push_ephemeral';
const DEVICE_EXTENSIONS_KEY = 'org.matrix.msc3202';
const KNOWN_KEYS: readonly string[] = [
  'id', 'url', 'as_token', 'hs_token', 'sender_localpart', 'namespaces', 'protocols', 'rate_limited', 'receive_ephemeral',
  PUSH_EPHEMERAL_KEY, DEVICE_EXTENSIONS_KEY, OPTIONS_KEY,
];
const OPTION_KEYS: readonly (keyof DeliveryOptions)[] = ['legacy_paths', 'legacy_auth', 'push_timeout_ms', 'query_timeout_ms', 'proxy', 'ca_file'];
const PROBLEMS_MAX = 50;

/** Never throws. `others` are the registrations in force, for the warnings. */
export function registrationFromYaml(text: string, rules: RegistrationRules, others: readonly Registration[] = []): RegistrationReading {
  const reading = readYaml(text);
  if (reading.kind === 'broken') {
    return { kind: 'invalid', problems: reading.problems.map((problem) => ({ field: 'yaml', ...problem })), appserviceId: null };
  }
  const { root } = reading;
  const notes: FieldNotes = { problems: [], places: new Map() };
  if (root.kind !== 'map') {
    noteProblem(notes, 'yaml', root, 'A registration is a mapping; write a line such as "id: …" for each field.');
    return { kind: 'invalid', problems: notes.problems, appserviceId: null };
  }
  const fields = new FieldReader(root, '', notes);
  const draft = readDraft(fields, notes, rules);
  if (draft.registration !== null) notes.problems.push(...placed(registrationProblems(draft.registration, rules), notes.places));
  if (draft.registration === null || notes.problems.length > 0) {
    const problems = notes.problems.sort((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0));
    return { kind: 'invalid', problems: problems.slice(0, PROBLEMS_MAX), appserviceId: draft.id ?? null };
  }
  return { kind: 'valid', registration: draft.registration, warnings: [...slips(root), ...warningsOf(draft.registration, others)] };
}

/** The same for a registration that came as a message. An empty `url` is none (R4). */
export function readRegistration(registration: Registration, rules: RegistrationRules, others: readonly Registration[] = []): RegistrationReading {
  const read = registration.url === '' ? { ...registration, url: null } : registration;
  const problems = registrationProblems(read, rules);
  if (problems.length > 0) return { kind: 'invalid', problems: problems.slice(0, PROBLEMS_MAX), appserviceId: read.id };
  return { kind: 'valid', registration: read, warnings: warningsOf(read, others) };
}

function warningsOf(registration: Registration, others: readonly Registration[]): RegistrationWarning[] {
  return [...registrationWarnings(registration), ...rivalWarnings(registration, others)];
}

interface Draft {
  readonly id: string | undefined;
  /** Null if a required part is missing or has the wrong type. */
  readonly registration: Registration | null;
}

function readDraft(fields: FieldReader, notes: FieldNotes, { rateLimitedDefault }: RegistrationRules): Draft {
  const id = fields.requiredString('id');
  const url = readUrl(fields);
  const as_token = fields.requiredString('as_token', { secret: true });
  const hs_token = fields.requiredString('hs_token', { secret: true });
  const sender_localpart = fields.requiredString('sender_localpart');
  const namespaces = readNamespaces(fields, notes);
  const protocols = readProtocols(fields, notes);
  const rate_limited = fields.optionalBoolean('rate_limited') ?? rateLimitedDefault;
  const receive_ephemeral = fields.optionalBoolean('receive_ephemeral') ?? false;
  const push_ephemeral_unstable = fields.optionalBoolean(PUSH_EPHEMERAL_KEY) ?? false;
  const device_extensions = fields.optionalBoolean(DEVICE_EXTENSIONS_KEY) ?? false;
  const delivery_options = readDeliveryOptions(fields, notes);
  const complete = id !== undefined && url !== undefined && as_token !== undefined && hs_token !== undefined && sender_localpart !== undefined && namespaces !== undefined;
  if (!complete) return { id, registration: null };
  return {
    id,
    registration: {
      id, url, as_token, hs_token, sender_localpart, namespaces, protocols,
      rate_limited, receive_ephemeral, push_ephemeral_unstable, device_extensions, delivery_options,
    },
  };
}

/** A missing url is an oversight, an explicit null or "" is a wish (R3, R4). */
function readUrl(fields: FieldReader): string | null | undefined {
  if (!fields.has('url')) return fields.note('url', 'url is missing; write url: null for an appservice that wants no traffic.');
  if (fields.isNull('url')) return null;
  const url = fields.requiredString('url');
  return url === '' ? null : url;
}

function readNamespaces(fields: FieldReader, notes: FieldNotes): Record<NamespaceKind, Namespace[]> | undefined {
  const value = fields.map.entries.get('namespaces')?.value;
  if (value === undefined) return fields.note('namespaces', 'namespaces is missing; write namespaces: {} for none.');
  if (value.kind !== 'map') return fields.note('namespaces', 'namespaces must be a mapping with users, aliases and rooms; write namespaces: {} for none.');
  const lists = new FieldReader(value, 'namespaces', notes);
  const read = (kind: NamespaceKind): Namespace[] =>
    (lists.optionalList(kind)?.items ?? []).flatMap((item, at) => {
      const path = `namespaces.${kind}[${at}]`;
      if (item.kind !== 'map') {
        noteProblem(notes, path, item, 'A namespace is a mapping with regex and exclusive; write "- regex: \'…\'" and "exclusive: true" or "false".');
        return [];
      }
      const entry = new FieldReader(item, path, notes);
      const regex = entry.requiredString('regex');
      const exclusive = entry.requiredBoolean('exclusive');
      return regex === undefined || exclusive === undefined ? [] : [{ regex, exclusive }];
    });
  return { users: read('users'), aliases: read('aliases'), rooms: read('rooms') };
}

function readProtocols(fields: FieldReader, notes: FieldNotes): string[] {
  return (fields.optionalList('protocols')?.items ?? []).flatMap((item, at) => readString(item, `protocols[${at}]`, notes, false) ?? []);
}

function readDeliveryOptions(fields: FieldReader, notes: FieldNotes): DeliveryOptions {
  const value = fields.map.entries.get(OPTIONS_KEY)?.value;
  if (value === undefined || fields.isNull(OPTIONS_KEY)) return {};
  if (value.kind !== 'map') {
    fields.note(OPTIONS_KEY, `${OPTIONS_KEY} must be a mapping of ${OPTION_KEYS.join(', ')}.`);
    return {};
  }
  const options = new FieldReader(value, OPTIONS_KEY, notes);
  for (const [name, { key }] of value.entries) {
    if (OPTION_KEYS.some((known) => known === name)) continue;
    const near = nearestName(name, OPTION_KEYS, nearDistanceMax(name));
    const meant = near === null ? `known are ${OPTION_KEYS.join(', ')}` : `did you mean ${near}?`;
    noteProblem(notes, OPTIONS_KEY, key, `This key is not known here; ${meant}${near === null ? '.' : ''}`);
  }
  const legacy_paths = options.optionalChoice('legacy_paths', ['off', 'unrecognized', 'any_error']);
  const legacy_auth = options.optionalChoice('legacy_auth', ['off', 'both', 'query_only']);
  const push_timeout_ms = options.optionalInteger('push_timeout_ms', 60_000);
  const query_timeout_ms = options.optionalInteger('query_timeout_ms', 5_000);
  const proxy = options.optionalString('proxy');
  const ca_file = options.optionalString('ca_file');
  return {
    ...(legacy_paths === undefined ? {} : { legacy_paths }),
    ...(legacy_auth === undefined ? {} : { legacy_auth }),
    ...(push_timeout_ms === undefined ? {} : { push_timeout_ms }),
    ...(query_timeout_ms === undefined ? {} : { query_timeout_ms }),
    ...(proxy === undefined ? {} : { proxy }),
    ...(ca_file === undefined ? {} : { ca_file }),
  };
}

/** Says in the words of the file where each problem stands. */
function placed(problems: readonly FieldProblem[], places: ReadonlyMap<string, YamlPlace>): FieldProblem[] {
  return problems.map(({ field: path, message }) => {
    const field = path.replace(/^delivery_options/, OPTIONS_KEY);
    const { line = 1, column = 1 } = places.get(field) ?? {};
    return { field, message, line, column };
  });
}

function slips(root: YamlMap): RegistrationWarning[] {
  const namespaces = root.entries.get('namespaces')?.value;
  return [...unknownKeys(root, KNOWN_KEYS), ...(namespaces?.kind === 'map' ? unknownKeys(namespaces, NAMESPACE_KINDS) : [])];
}

/** A key that is nearly a known one is a slip more often than an extension. */
function unknownKeys(map: YamlMap, known: readonly string[]): RegistrationWarning[] {
  return [...map.entries].flatMap(([name, { key }]): RegistrationWarning[] => {
    const near = known.includes(name) ? null : nearestName(name, known, nearDistanceMax(name));
    return near === null ? [] : [{ code: 'UNKNOWN_KEY', message: `Line ${key.line} has a key that is not known and is ignored; did you mean ${near}?` }];
  });
}

function nearDistanceMax(name: string): number {
  return name.length < 6 ? 1 : 2;
}
