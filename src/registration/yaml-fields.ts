/**
 * Reads the typed fields of a YAML mapping, collects what is wrong with them, and remembers where each stood.
 *
 * Files travel between homeservers that read YAML 1.1 and 1.2. A plain `yes`, number or date means different things to
 * the two, so it is refused where it could be meant as a string, with what to write instead. A problem never quotes the
 * value of a secret field (R18).
 */
import type { YamlList, YamlMap, YamlNode, YamlPlace } from '../yaml-tree.ts';

export interface FieldProblem {
  /** Path such as `namespaces.users[0].regex`. */
  readonly field: string;
  /** A full sentence that says what to write. */
  readonly message: string;
  /** Both 1-based; absent for what is no text. */
  readonly line?: number;
  readonly column?: number;
}

export interface FieldNotes {
  readonly problems: FieldProblem[];
  /** Where the value of a field stood, by its path. */
  readonly places: Map<string, YamlPlace>;
}

/** What YAML 1.1 takes for a boolean and YAML 1.2 for a string. */
const OLD_BOOLEANS: Readonly<Record<string, boolean>> = { yes: true, on: true, y: true, no: false, off: false, n: false };
const DATE = /^\d{4}-\d{1,2}-\d{1,2}(?:[Tt\s].*)?$/;
const SHOWN_LENGTH_MAX = 60;

export class FieldReader {
  readonly map: YamlMap;
  readonly #path: string;
  readonly #notes: FieldNotes;

  /** `path` is that of the mapping, empty for the whole document. */
  constructor(map: YamlMap, path: string, notes: FieldNotes) {
    this.map = map;
    this.#path = path;
    this.#notes = notes;
  }

  has(name: string): boolean {
    return this.map.entries.has(name);
  }

  isNull(name: string): boolean {
    const value = this.map.entries.get(name)?.value;
    return value?.kind === 'scalar' && value.value === null;
  }

  /** Undefined if it is missing or no string; both are noted. */
  requiredString(name: string, { secret = false }: { readonly secret?: boolean } = {}): string | undefined {
    const value = this.#required(name);
    return value === undefined ? undefined : readString(value, this.pathOf(name), this.#notes, secret);
  }

  optionalString(name: string): string | undefined {
    const value = this.#value(name);
    return value === undefined ? undefined : readString(value, this.pathOf(name), this.#notes, false);
  }

  requiredBoolean(name: string): boolean | undefined {
    const value = this.#required(name);
    return value === undefined ? undefined : this.#readBoolean(name, value);
  }

  optionalBoolean(name: string): boolean | undefined {
    const value = this.#value(name);
    return value === undefined ? undefined : this.#readBoolean(name, value);
  }

  optionalInteger(name: string, example: number): number | undefined {
    const value = this.#value(name);
    if (value === undefined) return undefined;
    if (value.kind === 'scalar' && typeof value.value === 'number' && Number.isSafeInteger(value.value)) return value.value;
    return this.note(name, `${name} must be a whole number without quotes, such as ${example}.`);
  }

  optionalChoice<Choice extends string>(name: string, choices: readonly Choice[]): Choice | undefined {
    const value = this.#value(name);
    if (value === undefined) return undefined;
    const choice = choices.find((one) => value.kind === 'scalar' && value.value === one);
    return choice ?? this.note(name, `${name} must be one of ${choices.join(', ')}.`);
  }

  /** Undefined if it is left out or null. */
  optionalList(name: string): YamlList | undefined {
    const value = this.#value(name);
    if (value === undefined || this.isNull(name)) return undefined;
    return value.kind === 'list' ? value : this.note(name, `${name} must be a list, with a line that begins with "- " for each entry.`);
  }

  /** Notes a problem with a field of this mapping, at its value if it has one. */
  note(name: string, message: string): undefined {
    const place = this.map.entries.get(name)?.value ?? this.map;
    noteProblem(this.#notes, this.pathOf(name), place, message);
  }

  pathOf(name: string): string {
    return this.#path === '' ? name : `${this.#path}.${name}`;
  }

  #value(name: string): YamlNode | undefined {
    const value = this.map.entries.get(name)?.value;
    if (value !== undefined) this.#notes.places.set(this.pathOf(name), value);
    return value;
  }

  #required(name: string): YamlNode | undefined {
    return this.#value(name) ?? this.note(name, `${name} is missing; every registration has it.`);
  }

  #readBoolean(name: string, value: YamlNode): boolean | undefined {
    if (value.kind === 'scalar') {
      if (typeof value.value === 'boolean') return value.value;
      const word = value.source.toLowerCase();
      const meant = word === 'true' || word === '1' ? true : word === 'false' || word === '0' ? false : OLD_BOOLEANS[word];
      if (meant !== undefined) return this.note(name, `${name} must be true or false, without quotes; write ${name}: ${meant}.`);
    }
    return this.note(name, `${name} must be true or false, without quotes.`);
  }
}

/** A string wherever it stands; undefined, and noted, if it is none. */
export function readString(value: YamlNode, path: string, notes: FieldNotes, secret: boolean): string | undefined {
  notes.places.set(path, value);
  const name = /[^.]+$/.exec(path)?.[0] ?? path;
  if (value.kind !== 'scalar') return noteProblem(notes, path, value, `${name} must be a string.`);
  if (value.value === null) return noteProblem(notes, path, value, `${name} is empty; write a string, and quote one that begins with "#".`);
  const ambiguous = value.plain && (typeof value.value !== 'string' || DATE.test(value.source) || Object.hasOwn(OLD_BOOLEANS, value.source.toLowerCase()));
  if (!ambiguous && typeof value.value === 'string') return value.value;
  const what = typeof value.value === 'number' ? 'a number' : DATE.test(value.source) ? 'a date' : 'a boolean';
  const shown = secret || value.source.length > SHOWN_LENGTH_MAX ? 'quote it' : `quote it, as '${value.source}'`;
  return noteProblem(notes, path, value, `${name} must be a string, but without quotes this is ${what} to some readers of YAML: ${shown}.`);
}

export function noteProblem(notes: FieldNotes, field: string, { line, column }: YamlPlace, message: string): undefined {
  notes.problems.push({ field, message, line, column });
}
