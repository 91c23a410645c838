/** What can be wrong on the machine itself: settings, files, keys, registrations on disk. */
import type { Check, Facts, Finding, PathFact, RegistrationFileFact } from './facts.ts';

type Settings = NonNullable<Facts['local']['settings']>;
type Found = Omit<Finding, 'code'>;

const READABLE_BY_OTHERS = 0o044;
const FREE_BYTES_MIN = 1_000_000_000;
const OPEN_FILES_MIN = 4_096;
const NODE_MAJOR_MIN = 24;

export const OVERLAP_ADVICE = 'Let one of the two claim the names, or make both claims non-exclusive.';
export const SENDER_CLAIMED_ADVICE = 'Write the pattern so that it leaves the own users of other appservices out, or choose another sender_localpart.';

export const LOCAL_CHECKS: readonly Check[] = [
  {
    code: 'CONFIG_INVALID',
    find: ({ local }) => local.configProblems.map((message) => error('configuration', message, 'Correct the setting; "appservice-router serve --help" lists all.')),
  },
  {
    code: 'NODE_TOO_OLD',
    find: ({ local }) => (local.nodeMajor >= NODE_MAJOR_MIN ? [] : [error('node', `This runs on Node ${local.nodeMajor}.`, `Use Node ${NODE_MAJOR_MIN} or newer; npm start brings its own.`)]),
  },
  {
    code: 'OPEN_FILES_LOW',
    find: ({ local: { openFilesMax } }) =>
      openFilesMax === null || openFilesMax >= OPEN_FILES_MIN ? [] : [warning('open files', `A process may open ${openFilesMax} files and connections.`, `Raise the limit to ${OPEN_FILES_MIN} or more (ulimit -n, or LimitNOFILE in the service's unit).`)],
  },
  onSettings('DATA_DIR_NOT_WRITABLE', ({ dataDir }) =>
    dataDir.exists && !dataDir.isWritable ? [error(dataDir.path, 'The data directory cannot be written by this user.', `Give it to the user the router runs as, or name another by ROUTER_DATA_DIR.`)] : [],
  ),
  onSettings('DISK_NEARLY_FULL', ({ dataDir, freeBytes, storeKind }) =>
    freeBytes === null || freeBytes >= FREE_BYTES_MIN || storeKind !== 'sqlite'
      ? []
      : [error(dataDir.path, `Only ${Math.floor(freeBytes / 1_000_000)} MB are free where the store lives.`, 'Make room: with a full disk every submission is refused until there is some.')],
  ),
  onSettings('CREDENTIALS_MISSING', ({ isCredentialsFileNamed, isLoopback }) =>
    isCredentialsFileNamed || isLoopback ? [] : [error('ROUTER_CREDENTIALS', 'Other machines can reach a listener, and there are no credentials.', 'Name a file of credentials by ROUTER_CREDENTIALS, or listen on 127.0.0.1 alone; the router does not start like this.')],
  ),
  onSettings('CREDENTIALS_INVALID', ({ credentialsFile, credentialProblems }) => credentialProblems.map((message) => error(credentialsFile.path, message, 'Correct the file; the router does not start like this.'))),
  onSettings('CREDENTIALS_READABLE', ({ credentialsFile, isCredentialsFileNamed }) =>
    isCredentialsFileNamed ? [] : readable(credentialsFile, 'holds tokens in the clear'),
  ),
  onSettings('ROLE_WITHOUT_CREDENTIAL', ({ isCredentialsFileNamed, credentialProblems, credentialsFile, credentialRoles }) =>
    !isCredentialsFileNamed || credentialProblems.length > 0
      ? []
      : ['homeserver', 'admin'].filter((role) => !credentialRoles.includes(role)).map((role) => warning(credentialsFile.path, `No credential has the role ${role}.`, role === 'admin' ? 'Add one, or nobody can register an appservice or see what is stuck.' : 'Add one, or no homeserver can submit an event.')),
  ),
  onSettings('ENCRYPTION_KEY_MISSING', ({ keyFile, storeKind, storeFile }) => {
    if (keyFile.exists) return [];
    if (storeKind === 'mongodb') return [error(keyFile.path, 'There is no encryption key file.', 'Write 32 random bytes in base64 into it (openssl rand -base64 32), the same on every router.')];
    return storeFile?.exists === true ? [error(keyFile.path, 'The store is there and the key that sealed its tokens is not.', 'Bring the key file back from a copy: without it the stored registrations cannot be read.')] : [];
  }),
  onSettings('ENCRYPTION_KEY_INVALID', ({ keyFile, keyProblem }) => (keyProblem === null || !keyFile.exists ? [] : [error(keyFile.path, keyProblem, 'Correct the file, or bring back a copy of it.')])),
  onSettings('ENCRYPTION_KEY_READABLE', ({ keyFile }) => readable(keyFile, 'opens every token in the store')),
  onSettings('REGISTRATION_PATH_LOST', ({ lostPaths }) => lostPaths.map(({ path, message }) => error(path, message, 'Correct ROUTER_REGISTRATIONS, or bring the path back.'))),
  onSettings('REGISTRATION_FILE_INVALID', ({ files }) => files.flatMap(({ path, problems }) => problems.map((problem) => error(path, problem, 'Correct the file; what was in force before stays so.')))),
  onSettings('REGISTRATION_ID_TWICE', ({ files }) => twice(files, ({ id }) => id, (id, paths) => [error(paths, `Two files have the id "${id}", so neither is applied.`, 'Give each appservice an id of its own.')])),
  onSettings('AS_TOKEN_TWICE', ({ files }) => twice(files, (registration) => registration.as_token, (_, paths) => [error(paths, 'Two files have the same as_token, so neither is applied.', 'Give each appservice an as_token of its own.')])),
  onSettings('HS_TOKEN_IS_AS_TOKEN', ({ files }) => sharedTokens(files)),
  onSettings('REGISTRATION_WITHOUT_TRAFFIC', ({ files }) =>
    files.flatMap(({ path, registration }) =>
      registration !== null && (registration.url === null || registration.url === '') && namespaceCount(registration) > 0
        ? [warning(path, 'It claims namespaces and has no url, so it gets nothing.', 'Write the url of the appservice, unless it is to keep names free only.')]
        : [],
    ),
  ),
  warned('PATTERN_WITHOUT_SERVER', 'End the pattern with ":" and the server name, dots written as "\\.".'),
  warned('PATTERN_WITHOUT_SIGIL', 'Begin the pattern with "@", "#" or "!".'),
  warned('PATTERN_MATCHES_ALL', 'Write a pattern that matches the names of this appservice only.'),
  warned('EXCLUSIVE_OVERLAP', OVERLAP_ADVICE),
  warned('SENDER_CLAIMED', SENDER_CLAIMED_ADVICE),
  warned('SENDER_SHARED', 'Give each appservice a sender_localpart of its own.'),
  warned('TOKEN_SHORT', 'Put a longer token into the registration on both sides.'),
];

function onSettings(code: string, find: (settings: Settings) => readonly Found[]): Check {
  return { code, find: ({ local: { settings } }) => (settings === null ? [] : find(settings)) };
}

/** What reading the registration files warns of by itself. */
function warned(code: string, advice: string): Check {
  return onSettings(code, ({ files }) => files.flatMap(({ path, warnings }) => warnings.filter((one) => one.code === code).map(({ message }) => warning(path, message, advice))));
}

export function error(subject: string, message: string, advice: string): Found {
  return { severity: 'error', subject, message, advice };
}

export function warning(subject: string, message: string, advice: string): Found {
  return { severity: 'warning', subject, message, advice };
}

export function readable({ path, exists, mode }: PathFact, why: string): Found[] {
  if (!exists || (mode & READABLE_BY_OTHERS) === 0) return [];
  return [error(path, `Others than its owner can read this file, which ${why}.`, `Run: chmod 600 ${path}`)];
}

type Usable = NonNullable<RegistrationFileFact['registration']>;

function twice(files: readonly RegistrationFileFact[], keyOf: (registration: Usable) => string, found: (key: string, paths: string) => readonly Found[]): Found[] {
  const pathsByKey = new Map<string, string[]>();
  for (const { path, registration } of files) {
    if (registration !== null) pathsByKey.set(keyOf(registration), [...(pathsByKey.get(keyOf(registration)) ?? []), path]);
  }
  return [...pathsByKey].flatMap(([key, paths]) => (paths.length > 1 ? found(key, paths.join(', ')) : []));
}

/** Who learns such a token can play both sides. */
function sharedTokens(files: readonly RegistrationFileFact[]): Found[] {
  const owners = new Map<string, string>();
  for (const { registration } of files) if (registration !== null) owners.set(registration.as_token, registration.id);
  return files.flatMap(({ path, registration }) => {
    const owner = registration === null ? undefined : owners.get(registration.hs_token);
    if (registration === null || owner === undefined) return [];
    const whose = owner === registration.id ? 'its own' : `that of "${owner}"`;
    return [error(path, `Its hs_token is also an as_token, ${whose}.`, 'Put a new hs_token into the registration on both sides.')];
  });
}

function namespaceCount({ namespaces }: Usable): number {
  return namespaces.users.length + namespaces.aliases.length + namespaces.rooms.length;
}
