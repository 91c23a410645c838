/**
 * What the registration files ask for, beside what is in force. Pure.
 *
 * A doubt changes nothing: what is in force under an id stays as long as a file might mean that id and cannot be applied.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Registration } from '../appservice/registration.ts';
import type { RegistrationReading } from './registration-yaml.ts';
import type { RegistrationWarning } from './registration-warnings.ts';
import type { RegistrationOrigin } from './vault.ts';

export interface FileProblem {
  readonly file: string;
  /** A full sentence that says what to do; never a token. */
  readonly message: string;
  readonly field?: string;
  /** Both 1-based. */
  readonly line?: number;
  readonly column?: number;
}

export interface InForce {
  readonly appserviceId: string;
  readonly origin: RegistrationOrigin;
  readonly registration: Registration;
}

export interface PlannedPut {
  readonly file: string;
  readonly digest: string;
  readonly registration: Registration;
  readonly warnings: readonly RegistrationWarning[];
}

export interface FilePlan {
  /** One for each file that can be applied, whether or not it is in force as it is already. */
  readonly wanted: readonly PlannedPut[];
  /** Ids that came from files and are in none now. */
  readonly removals: readonly string[];
  readonly problems: readonly FileProblem[];
}

/** What a file came to. */
export interface FileReading {
  readonly path: string;
  readonly digest: string;
  readonly reading: RegistrationReading;
}

export interface FilePlanInput {
  readonly files: readonly FileReading[];
  /** Paths that hold nothing or cannot be read. */
  readonly lost: readonly { readonly path: string; readonly message: string }[];
  readonly inForce: readonly InForce[];
  /** The id that each file held when it could last be read. */
  readonly idsByFile: ReadonlyMap<string, string>;
}

export function planFiles({ files, lost, inForce, idsByFile }: FilePlanInput): FilePlan {
  const problems: FileProblem[] = lost.map(({ path, message }) => ({ file: path, message }));
  const valid: PlannedPut[] = [];
  const claims: Claim[] = [];
  const kept = new Set<string>();
  let unknownIds = lost.length;
  for (const { path, digest, reading } of files) {
    const before = idsByFile.get(path);
    const id = reading.kind === 'valid' ? reading.registration.id : reading.appserviceId;
    if (id !== null) claims.push({ file: path, id });
    if (reading.kind === 'valid') {
      valid.push({ file: path, digest, registration: reading.registration, warnings: reading.warnings });
      continue;
    }
    problems.push(...reading.problems.map((problem) => ({ file: path, ...problem })));
    // Its id may be what is broken: what the file was about before stays in force too.
    if (before !== undefined) kept.add(before);
    if (id === null && before === undefined) unknownIds++;
  }
  const clashes = clashesOf(claims, valid);
  problems.push(...clashes.problems);
  const wanted = valid.filter(({ registration: { id } }) => !clashes.ids.has(id));
  for (const { id } of claims) kept.add(id);
  const removals = unknownIds > 0 ? [] : inForce.filter(({ appserviceId, origin }) => origin === 'files' && !kept.has(appserviceId)).map(({ appserviceId }) => appserviceId);
  return { wanted, removals, problems };
}

interface Claim {
  readonly file: string;
  readonly id: string;
}

/** True if putting it would change nothing. */
export function isInForce({ registration }: PlannedPut, inForce: InForce | undefined): boolean {
  return inForce?.origin === 'files' && isDeepStrictEqual(inForce.registration, registration);
}

/** Files that claim one id, or one as_token: none of them is applied (R6, R7). */
function clashesOf(claims: readonly Claim[], valid: readonly PlannedPut[]): { ids: ReadonlySet<string>; problems: readonly FileProblem[] } {
  const ids = new Set<string>();
  const problems: FileProblem[] = [];
  for (const [id, files] of sharing(claims, (claim) => claim.id)) {
    ids.add(id);
    for (const { file } of files) {
      problems.push({ file, field: 'id', message: `The id "${id}" is in ${otherFiles(files, file)} too, so none of these files is applied. Give each appservice an id of its own.` });
    }
  }
  for (const [, files] of sharing(valid, ({ registration }) => registration.as_token)) {
    // One id twice is told already.
    if (new Set(files.map(({ registration }) => registration.id)).size === 1) continue;
    for (const { file, registration } of files) {
      ids.add(registration.id);
      const message = `The as_token of "${registration.id}" is in ${otherFiles(files, file)} too, so none of these files is applied. Give each appservice a token of its own.`;
      problems.push({ file, field: 'as_token', message });
    }
  }
  return { ids, problems };
}

function sharing<Item>(items: readonly Item[], keyOf: (item: Item) => string): [string, Item[]][] {
  return [...Map.groupBy(items, keyOf)].filter(([, { length }]) => length > 1);
}

function otherFiles(files: readonly { readonly file: string }[], own: string): string {
  return files.flatMap(({ file }) => (file === own ? [] : [file])).join(', ');
}
