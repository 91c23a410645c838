/** Registration files in a directory of their own, before a target that a test scripts. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { systemClock } from '../../src/clock.ts';
import type { Logger } from '../../src/logger.ts';
import type { InForce } from '../../src/registration/file-plan.ts';
import { registrationDisk } from '../../src/registration/registration-disk.ts';
import type { RegistrationDisk } from '../../src/registration/registration-disk.ts';
import { RegistrationFiles } from '../../src/registration/registration-files.ts';
import type { RegistrationFilesOptions, RegistrationTarget } from '../../src/registration/registration-files.ts';
import { registrationFromYaml } from '../../src/registration/registration-yaml.ts';
import { RULES, YAML } from './rules.ts';

const root = await mkdtemp(join(tmpdir(), 'router-files-'));
after(() => rm(root, { recursive: true }));
export const HOUR_MS = 3_600_000;
let count = 0;

/** The target as a script: it keeps what it is given, and refuses what a registrar would. */
export class Target implements RegistrationTarget {
  readonly inForce = new Map<string, InForce>();
  readonly parked = new Set<string>();
  readonly calls: string[] = [];
  refuseWith: Error | null = null;

  list(): InForce[] {
    return [...this.inForce.values()];
  }

  api(registration: Registration): void {
    this.inForce.set(registration.id, { appserviceId: registration.id, origin: 'api', registration });
  }

  async put(registration: Registration, { origin, resumeParked }: { origin: 'files'; resumeParked: boolean }): Promise<void> {
    this.calls.push(`put ${registration.id}${resumeParked ? ' resumed' : ''}`);
    if (this.refuseWith !== null) throw this.refuseWith;
    const rival = this.list().find((other) => other.appserviceId !== registration.id && other.registration.as_token === registration.as_token);
    if (rival !== undefined) throw new RefusalError('REGISTRATION_CONFLICT', `The as_token is that of "${rival.appserviceId}" already.`);
    if (this.parked.has(registration.id) && !resumeParked) throw new RefusalError('DELIVERY_STATE_FORBIDS', 'It was removed with its backlog parked.');
    this.parked.delete(registration.id);
    this.inForce.set(registration.id, { appserviceId: registration.id, origin, registration });
  }

  async remove(appserviceId: string, backlog: 'park'): Promise<void> {
    this.calls.push(`remove ${appserviceId} ${backlog}`);
    if (this.refuseWith !== null) throw this.refuseWith;
    this.inForce.delete(appserviceId);
    this.parked.add(appserviceId);
  }

  takeCalls(): string[] {
    return this.calls.splice(0);
  }
}

export interface World extends AsyncDisposable {
  readonly directory: string;
  readonly target: Target;
  readonly log: string[];
  files: RegistrationFiles;
  write(name: string, text: string): Promise<void>;
  restart(): Promise<void>;
}

export function yaml(id: string, token = `as-secret-of-${id}`, more = ''): string {
  return YAML.replace('id: irc', `id: ${id}`).replace(/as_token: .*/, `as_token: ${token}`) + more;
}

/** An empty one that goes with the test file. */
export async function newDirectory(): Promise<string> {
  const directory = join(root, `${++count}`);
  await mkdir(directory);
  return directory;
}

/** A directory without hints, looked at when a test asks. */
export async function world(files: Readonly<Record<string, string>>, options: Partial<RegistrationFilesOptions> = {}): Promise<World> {
  const directory = await newDirectory();
  const write = (name: string, text: string): Promise<void> => writeFile(join(directory, name), text);
  for (const [name, text] of Object.entries(files)) await write(name, text);
  const target = new Target();
  const log: string[] = [];
  const line = (fields: object, message: string): void => void log.push(`${message} ${JSON.stringify(fields)}`);
  const logger: Logger = { debug: line, info: line, warn: line, error: line };
  const disk: RegistrationDisk = { ...registrationDisk([directory]), watch: () => ({ [Symbol.dispose]: () => undefined }) };
  const read: RegistrationFilesOptions['read'] = (text) => registrationFromYaml(text, RULES);
  const start = (): Promise<RegistrationFiles> => RegistrationFiles.start({ disk, target, read, clock: systemClock, logger, settleMs: 1, pollMs: HOUR_MS, ...options });
  const self: World = {
    directory, target, log, write,
    files: await start(),
    async restart() {
      await self.files[Symbol.asyncDispose]();
      self.files = await start();
    },
    [Symbol.asyncDispose]: () => self.files[Symbol.asyncDispose](),
  };
  return self;
}
