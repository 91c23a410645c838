/** Reads what this machine holds of a set-up. Creates and changes nothing. */
import { constants } from 'node:fs';
import { access, readFile, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Registration } from '../../appservice/registration.ts';
import type { Clock, Random } from '../../clock.ts';
import type { Config, ConfigLoading } from '../../config.ts';
import { isLoopbackListen } from '../../config-schema.ts';
import { loadCredentials } from '../../credentials.ts';
import { loadEncryptionKeys } from '../../registration/encryption-key.ts';
import { registrationDisk } from '../../registration/registration-disk.ts';
import type { DiskFile } from '../../registration/registration-disk.ts';
import type { RegistrationRules } from '../../registration/registration-rules.ts';
import { registrationFromYaml } from '../../registration/registration-yaml.ts';
import type { FieldProblem } from '../../registration/yaml-fields.ts';
import { loadIngressTokens } from '../../ingress/token-file.ts';
import { registrationRules } from '../registration-rules.ts';
import type { IngressSetupFact, LocalFacts, PathFact, RegistrationFileFact } from './facts.ts';
import { askCatchAll } from './gather-catch-all.ts';
import { overlapsOf } from './overlaps.ts';

type Settings = NonNullable<LocalFacts['settings']>;

export async function gatherLocal(loading: ConfigLoading, random: Random, clock: Clock): Promise<LocalFacts> {
  return {
    configProblems: loading.kind === 'invalid' ? loading.problems : [],
    settings: loading.kind === 'ok' ? await settingsFrom(loading.config, random, clock) : null,
    openFilesMax: await openFilesMax(),
    nodeMajor: Number(process.versions.node.split('.')[0]),
  };
}

async function settingsFrom(config: Config, random: Random, clock: Clock): Promise<Settings> {
  const isLoopback = isLoopbackListen(config.grpcListen) && isLoopbackListen(config.httpListen);
  const { storeKind, storeFile } = { storeKind: config.store.kind, storeFile: config.store.kind === 'sqlite' ? await pathFact(config.store.path) : null };
  const credentials = config.credentials === null ? null : await loadCredentials({ file: config.credentials, dataDir: config.dataDir, serverName: config.serverName, allLoopback: isLoopback, random });
  const keys = await loadEncryptionKeys({ path: config.encryptionKeyFile, mayCreate: false, random });
  const { files, lost } = await registrationDisk(config.registrations).read();
  return {
    storeKind,
    isLoopback,
    dataDir: await pathFact(config.dataDir),
    storeFile,
    credentialsFile: await pathFact(config.credentials ?? join(config.dataDir, 'credentials.json')),
    isCredentialsFileNamed: config.credentials !== null,
    credentialProblems: credentials?.kind === 'invalid' ? credentials.problems : [],
    credentialRoles: credentials?.kind === 'loaded' ? credentials.credentials.map(({ role }) => role) : [],
    keyFile: await pathFact(config.encryptionKeyFile),
    keyProblem: keys.kind === 'invalid' ? keys.message : null,
    freeBytes: await freeBytes(config.store.kind === 'sqlite' ? config.store.path : config.dataDir),
    lostPaths: config.registrations.length === 0 ? [] : lost,
    files: await filesFrom(files, registrationRules(config), config.serverName, clock),
    ingress: config.ingressTokenFile === null ? null : await ingressFact(config.ingressTokenFile, config, clock),
  };
}

/** Each file beside those before it, so that what two of them share is told once. */
async function filesFrom(files: readonly DiskFile[], rules: RegistrationRules, serverName: string, clock: Clock): Promise<RegistrationFileFact[]> {
  const others: Registration[] = [];
  const facts = files.map(({ path, content }): RegistrationFileFact => {
    if (content.kind === 'unreadable') return { path, problems: [content.message], registration: null, warnings: [] };
    const reading = registrationFromYaml(content.text, rules, others);
    if (reading.kind === 'invalid') return { path, problems: reading.problems.map(placed), registration: null, warnings: [] };
    others.push(reading.registration);
    return { path, problems: [], registration: reading.registration, warnings: reading.warnings };
  });
  const overlaps = await overlapsOf(others, serverName, clock);
  return facts.map((fact) => ({ ...fact, warnings: [...fact.warnings, ...overlaps.filter(({ id }) => id === fact.registration?.id)] }));
}

function placed({ line, field, message }: FieldProblem): string {
  return `${line === undefined ? '' : `line ${line}, `}${field}: ${message}`;
}

async function ingressFact(path: string, { serverName: configured, homeserverUrl }: Config, clock: Clock): Promise<IngressSetupFact> {
  const tokenFile = await pathFact(path);
  const loading = await loadIngressTokens(path);
  if (loading.kind !== 'loaded') return { tokenFile, problem: loading.message, serverName: configured, homeserverUrl, catchAll: null };
  const { serverName, asToken } = loading.tokens;
  return { tokenFile, problem: null, serverName: serverName ?? configured, homeserverUrl, catchAll: homeserverUrl === null ? null : await askCatchAll(homeserverUrl, asToken, clock) };
}

async function pathFact(path: string): Promise<PathFact> {
  try {
    const { mode } = await stat(path);
    return { path, exists: true, mode: mode & 0o777, isWritable: await isWritable(path) };
  } catch {
    return { path, exists: false, mode: 0, isWritable: false };
  }
}

async function isWritable(path: string): Promise<boolean> {
  try {
    await access(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Of the file system of `path`, or of the nearest folder above it that exists. */
async function freeBytes(path: string): Promise<number | null> {
  for (const folder of [path, join(path, '..'), '.']) {
    try {
      const { bavail, bsize } = await statfs(folder);
      return bavail * bsize;
    } catch {
      continue;
    }
  }
  return null;
}

async function openFilesMax(): Promise<number | null> {
  try {
    const soft = /^Max open files\s+(\d+|unlimited)/m.exec(await readFile('/proc/self/limits', 'utf8'))?.[1];
    return soft === undefined ? null : soft === 'unlimited' ? Infinity : Number(soft);
  } catch {
    return null;
  }
}
