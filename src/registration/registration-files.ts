/**
 * Brings the registrations of one homeserver in line with files, at the start and whenever the files change.
 *
 *   hint (fs.watch), poll, settled() ──▶ read ──▶ read again until twice the same ──▶ plan ──▶ remove, put ──▶ problems()
 *
 * - A file acts when it changes, not while it stands: what an operator put or deleted since by the API stays so until then.
 *   At a start every file counts as changed.
 * - A file that cannot be applied changes nothing, and what is in force under its id stays (see file-plan.ts).
 *   It is tried again at each poll, since what stood in its way may go.
 * - A path that is empty or cannot be read removes nothing: a volume that is not mounted must not silence every appservice.
 * - An id whose file has gone is removed with its backlog parked. A file that comes back with the same as_token while this
 *   process lives goes on with that backlog; with another token, or later, that takes an operator's word.
 */
import { createHash } from 'node:crypto';
import type { Registration } from '../appservice/registration.ts';
import { RefusalError } from '../appservice/refusal.ts';
import type { Clock } from '../clock.ts';
import type { Logger } from '../logger.ts';
import { StoreError } from '../store/errors.ts';
import { isInForce, planFiles } from './file-plan.ts';
import type { FilePlan, FileProblem, FileReading, InForce, PlannedPut } from './file-plan.ts';
import type { DiskFile, DiskSnapshot, RegistrationDisk } from './registration-disk.ts';
import { rivalWarnings } from './registration-warnings.ts';
import type { RegistrationReading } from './registration-yaml.ts';

/** Where the registrations go. Calls reject with a RefusalError or a StoreError. */
export interface RegistrationTarget {
  /** Those in force. */
  list(): readonly InForce[];
  put(registration: Registration, options: { readonly origin: 'files'; readonly resumeParked: boolean }): Promise<void>;
  remove(appserviceId: string, backlog: 'park'): Promise<void>;
}

export interface RegistrationFilesOptions {
  readonly disk: RegistrationDisk;
  readonly target: RegistrationTarget;
  /** Judges a text by itself. The answer is kept for as long as the file stays as it is. */
  readonly read: (text: string) => RegistrationReading;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How long a changed file must stay as it is before it counts. */
  readonly settleMs: number;
  /** Pause between two looks at the disk where no hint comes. */
  readonly pollMs: number;
}

export const REGISTRATION_FILES_DEFAULTS = { settleMs: 250, pollMs: 5_000 } as const;

/** Readings within one pass; files that still change then are left to the next. */
const READINGS_MAX = 40;
const RESTLESS = 'The registration files change all the time, so none is applied; see what writes them.';

export class RegistrationFiles implements AsyncDisposable {
  readonly #options: RegistrationFilesOptions;
  readonly #stop = new AbortController();
  readonly #watcher: Disposable;
  #readings: ReadonlyMap<string, FileReading> = new Map();
  readonly #idsByFile = new Map<string, string>();
  /** Digest of each file as it was last applied or found in force. */
  readonly #applied = new Map<string, string>();
  /** Fingerprints of the as_tokens of ids that were removed with their backlog parked. */
  readonly #parked = new Map<string, string>();
  #problems: readonly FileProblem[] = [];
  #told: ReadonlySet<string> = new Set();
  #seen = { digest: '', signature: '' };
  #wake = new AbortController();
  #requested = 1;
  #served = 0;
  #waiting: { readonly request: number; resolve(): void }[] = [];
  #running: Promise<void> = Promise.resolve();

  private constructor(options: RegistrationFilesOptions) {
    this.#options = options;
    this.#watcher = options.disk.watch(() => this.#request());
  }

  /** Resolves when the files have been applied once, or their problems are known. Never rejects for what files hold. */
  static async start(options: RegistrationFilesOptions): Promise<RegistrationFiles> {
    const files = new RegistrationFiles(options);
    await files.#pass();
    files.#serve(1);
    files.#running = files.#run();
    return files;
  }

  /** What stands in the way of files now; empty if all are applied. */
  problems(): readonly FileProblem[] {
    return this.#problems;
  }

  /** Resolves when what is on the disk now has been applied, or its problems are known; at once when disposed. */
  settled(): Promise<void> {
    if (this.#isEnding()) return Promise.resolve();
    const request = this.#request();
    return new Promise((resolve) => this.#waiting.push({ request, resolve }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watcher[Symbol.dispose]();
    this.#stop.abort();
    await this.#running;
    this.#serve(Infinity);
  }

  #isEnding(): boolean {
    return this.#stop.signal.aborted;
  }

  #request(): number {
    this.#requested++;
    this.#wake.abort();
    return this.#requested;
  }

  #serve(request: number): void {
    this.#served = request;
    const [served, waiting] = [this.#waiting.filter((one) => one.request <= request), this.#waiting.filter((one) => one.request > request)];
    this.#waiting = waiting;
    for (const one of served) one.resolve();
  }

  async #run(): Promise<void> {
    const { clock, logger, pollMs, disk } = this.#options;
    const { signal: stop } = this.#stop;
    while (!this.#isEnding()) {
      const request = this.#requested;
      try {
        if (request === this.#served) {
          this.#wake = new AbortController();
          await clock.sleep(pollMs, AbortSignal.any([this.#wake.signal, stop]));
          const isHint = this.#requested !== request;
          if (isHint || this.#isEnding()) continue;
          if (this.#problems.length === 0 && (await disk.signature()) === this.#seen.signature) continue;
        }
        await this.#pass();
      } catch (error) {
        logger.error({ error: error instanceof Error ? error.message : 'unknown' }, 'a look at the registration files failed; the next one follows');
      }
      this.#serve(request);
    }
  }

  async #pass(): Promise<void> {
    const { disk, target } = this.#options;
    const signature = await disk.signature();
    const snapshot = await this.#stableSnapshot();
    if (this.#isEnding()) return;
    if (snapshot === null) return this.#tell([...this.#problems.filter(({ message }) => message !== RESTLESS), { file: '', message: RESTLESS }]);
    const files = await this.#read(snapshot.files);
    const inForce = target.list();
    const plan = planFiles({ files, lost: snapshot.lost, inForce, idsByFile: this.#idsByFile });
    const problems = [...plan.problems];
    problems.push(...(await this.#remove(plan, inForce)));
    problems.push(...(await this.#put(plan, inForce)));
    if (this.#isEnding()) return;
    this.#remember(snapshot, plan);
    this.#seen = { digest: snapshot.digest, signature };
    this.#tell(problems);
  }

  /** What is on the disk, once it is twice the same; at the start the first look counts. Null: it still changes, or the end has come. */
  async #stableSnapshot(): Promise<DiskSnapshot | null> {
    const { disk, clock, settleMs } = this.#options;
    let snapshot = await disk.read();
    for (let reading = 1; reading < READINGS_MAX; reading++) {
      if (snapshot.digest === this.#seen.digest || this.#seen.digest === '') return snapshot;
      await clock.sleep(settleMs, this.#stop.signal);
      if (this.#isEnding()) return null;
      const again = await disk.read();
      if (again.digest === snapshot.digest) return snapshot;
      snapshot = again;
    }
    return null;
  }

  /** Reads what changed, file by file: a thousand files must not hold up the traffic. */
  async #read(files: readonly DiskFile[]): Promise<FileReading[]> {
    const readings: FileReading[] = [];
    for (const { path, digest, content } of files) {
      const known = this.#readings.get(path);
      if (known?.digest === digest) {
        readings.push(known);
        continue;
      }
      const unreadable = (message: string): RegistrationReading => ({ kind: 'invalid', problems: [{ field: 'file', message }], appserviceId: null });
      readings.push({ path, digest, reading: content.kind === 'text' ? this.#options.read(content.text) : unreadable(content.message) });
      await this.#options.clock.pause();
    }
    this.#readings = new Map(readings.map((one) => [one.path, one]));
    return readings;
  }

  async #remove({ removals }: FilePlan, inForce: readonly InForce[]): Promise<FileProblem[]> {
    const { target, logger } = this.#options;
    const problems: FileProblem[] = [];
    for (const id of removals) {
      if (this.#isEnding()) break;
      const registration = inForce.find(({ appserviceId }) => appserviceId === id)?.registration;
      const problem = await attempt(() => target.remove(id, 'park'));
      if (problem !== null) problems.push({ file: this.#fileOf(id), message: `"${id}" is in no file any more and could not be removed. ${problem}` });
      else {
        if (registration !== undefined) this.#parked.set(id, fingerprint(registration.as_token));
        logger.warn({ appservice_id: id }, 'the registration is in no file any more; it was removed and its backlog parked');
      }
    }
    return problems;
  }

  /** Goes round again while a put succeeds: one file may give up the token that another takes. */
  async #put({ wanted }: FilePlan, inForce: readonly InForce[]): Promise<FileProblem[]> {
    const before = new Map(inForce.map((one) => [one.appserviceId, one]));
    let open = wanted.filter((put) => this.#applied.get(put.file) !== put.digest);
    for (const put of open.filter((one) => isInForce(one, before.get(one.registration.id)))) this.#applied.set(put.file, put.digest);
    open = open.filter((put) => this.#applied.get(put.file) !== put.digest);
    let problems: FileProblem[] = [];
    for (let progress = true; progress && open.length > 0; ) {
      progress = false;
      problems = [];
      const refused: PlannedPut[] = [];
      for (const put of open) {
        if (this.#isEnding()) return problems;
        const problem = await this.#putOne(put, before.get(put.registration.id));
        if (problem === null) progress = true;
        else {
          refused.push(put);
          problems.push({ file: put.file, message: problem });
        }
      }
      open = refused;
    }
    return problems;
  }

  async #putOne({ file, digest, registration, warnings }: PlannedPut, before: InForce | undefined): Promise<string | null> {
    const { target, logger } = this.#options;
    const { id } = registration;
    const others = target.list().map((one) => one.registration);
    const told = [...warnings, ...rivalWarnings(registration, others)].map(({ message }) => message);
    const resumeParked = before === undefined && this.#parked.get(id) === fingerprint(registration.as_token);
    const problem = await attempt(() => target.put(registration, { origin: 'files', resumeParked }));
    if (problem !== null) return problem;
    this.#parked.delete(id);
    this.#applied.set(file, digest);
    if (before?.origin === 'api') logger.warn({ appservice_id: id, file }, 'the file replaced a registration that PutRegistration had put');
    logger.info({ appservice_id: id, file, resumed: resumeParked, warnings: told }, 'registration put from a file');
    return null;
  }

  #remember({ files }: DiskSnapshot, { wanted }: FilePlan): void {
    const present = new Set(files.map(({ path }) => path));
    for (const known of [this.#idsByFile, this.#applied]) for (const path of known.keys()) if (!present.has(path)) known.delete(path);
    for (const { file, registration } of wanted) this.#idsByFile.set(file, registration.id);
    const current = new Map(wanted.map(({ file, digest }) => [file, digest]));
    // A file that cannot be applied now acts again once it can, though it stays as it is.
    for (const [path, digest] of this.#applied) if (current.get(path) !== digest) this.#applied.delete(path);
  }

  /** Logs each problem once, for as long as it lasts. */
  #tell(problems: readonly FileProblem[]): void {
    const { logger } = this.#options;
    this.#problems = problems;
    const told = new Set(problems.map((problem) => JSON.stringify(problem)));
    for (const problem of problems) {
      const { file, line, column, field, message } = problem;
      if (!this.#told.has(JSON.stringify(problem))) logger.warn({ file, line, column, field, problem: message }, 'a registration file is not applied');
    }
    if (problems.length === 0 && this.#told.size > 0) logger.info({}, 'all registration files are applied again');
    this.#told = told;
  }

  #fileOf(appserviceId: string): string {
    return [...this.#idsByFile].find(([, id]) => id === appserviceId)?.[0] ?? '';
  }
}

/** Null if it succeeds; a sentence for what is expected to fail. Anything else is a bug and goes on its way. */
async function attempt(call: () => Promise<void>): Promise<string | null> {
  try {
    await call();
    return null;
  } catch (error) {
    if (error instanceof RefusalError) return error.message;
    if (error instanceof StoreError) return 'The store does not take it now; it is tried again.';
    throw error;
  }
}

function fingerprint(token: string): string {
  return createHash('sha256').update(token).digest('base64url');
}
