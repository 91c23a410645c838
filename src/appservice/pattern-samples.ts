/**
 * Texts that a namespace pattern matches, made from the pattern: a few witnesses, by which overlaps of patterns are found.
 *
 * Each text follows one way through the pattern: of alternatives one branch, of a repetition the fewest turns or one
 * more, of a class one of its characters. What is not understood gives no samples; whoever uses one matches it against
 * the pattern, so a sample that is wrong does no harm. Bounded in number and length.
 */

const SAMPLES_MAX = 16;
const SAMPLE_LENGTH_MAX = 200;
const DEPTH_MAX = 20;
/** Stands for any character. */
const ANY = 'x';

/** Thrown within this file alone. */
class NotUnderstood extends Error {}

/** At most 16 texts of at most 200 characters, each once; none if the pattern is not understood. */
export function patternSamples(regex: string): string[] {
  try {
    const reader = new Reader(regex);
    const samples = reader.alternatives(0);
    return reader.isAtEnd ? [...new Set(samples)] : [];
  } catch (error) {
    if (error instanceof NotUnderstood) return [];
    throw error;
  }
}

/** The branches of a pattern outside of any group: each is anchored by itself. */
export function topLevelBranches(regex: string): string[] {
  const branches: string[] = [];
  let depth = 0;
  let from = 0;
  let isClass = false;
  for (let at = 0; at < regex.length; at++) {
    const character = regex[at];
    if (character === '\\') at++;
    else if (isClass) isClass = character !== ']';
    else if (character === '[') {
      isClass = true;
      // A bracket right at the beginning of a class is one of its characters.
      if (regex[at + 1] === '^') at++;
      if (regex[at + 1] === ']') at++;
    } else if (character === '(') depth++;
    else if (character === ')') depth--;
    else if (character === '|' && depth === 0) {
      branches.push(regex.slice(from, at));
      from = at + 1;
    }
  }
  return [...branches, regex.slice(from)];
}

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#text.length;
  }

  alternatives(depth: number): string[] {
    if (depth > DEPTH_MAX) throw new NotUnderstood();
    const all = this.#sequence(depth);
    while (this.#taken('|')) all.push(...this.#sequence(depth));
    return all.slice(0, SAMPLES_MAX);
  }

  #sequence(depth: number): string[] {
    let samples = [''];
    while (!this.isAtEnd && !this.#sees('|') && !this.#sees(')')) {
      const atom = this.#atom(depth);
      const turned = this.#turned(atom);
      samples = combined(samples, turned);
    }
    return [...new Set(samples)];
  }

  #atom(depth: number): string[] {
    const character = this.#next();
    switch (character) {
      case '(':
        return this.#group(depth);
      case '[':
        return this.#class();
      case '.':
        return [ANY];
      case '^':
      case '$':
        return [''];
      case '\\':
        return this.#escape();
      case '*':
      case '+':
      case '?':
      case '{':
        throw new NotUnderstood();
      default:
        return [character];
    }
  }

  #group(depth: number): string[] {
    if (this.#taken('?') && !this.#taken(':') && !/^P?<\w+>/.test(this.#text.slice(this.#at))) throw new NotUnderstood();
    const name = /^P?<\w+>/.exec(this.#text.slice(this.#at))?.[0];
    if (name !== undefined) this.#at += name.length;
    const samples = this.alternatives(depth + 1);
    if (!this.#taken(')')) throw new NotUnderstood();
    return samples;
  }

  /** One character: the first that the class names, or one that it does not exclude. */
  #class(): string[] {
    const isNegated = this.#taken('^');
    const end = this.#text.indexOf(']', this.#at + 1);
    const body = end === -1 ? '' : this.#text.slice(this.#at, end);
    if (body === '' || body.includes('[')) throw new NotUnderstood();
    this.#at = end + 1;
    if (!isNegated) {
      const first = body.startsWith('\\') ? (CLASSES.get(body[1] ?? '') ?? body[1]) : body[0];
      return first === undefined ? [] : [first];
    }
    const free = ['x', 'q', '7', '_', '-', 'é'].find((character) => !body.includes(character) && !/\\[wdWDsSpP]|\w-\w/.test(body));
    return [free ?? 'é'];
  }

  #escape(): string[] {
    const character = this.#next();
    const stands = CLASSES.get(character);
    if (stands !== undefined) return [stands];
    if (character === 'A' || character === 'z' || character === 'b') return [''];
    if (/[A-Za-z0-9]/.test(character)) throw new NotUnderstood();
    return [character];
  }

  /** The ways through a repetition of an atom, if it is one. */
  #turned(atom: readonly string[]): string[] {
    const bounds = this.#bounds();
    if (bounds === null) return [...atom];
    this.#taken('?');
    const [least, most] = bounds;
    const fewest = atom.map((sample) => repeated(sample, least));
    return most > least ? [...fewest, ...atom.map((sample) => repeated(sample, least + 1))] : fewest;
  }

  #bounds(): readonly [number, number] | null {
    if (this.#taken('*')) return [0, Infinity];
    if (this.#taken('+')) return [1, Infinity];
    if (this.#taken('?')) return [0, 1];
    const braces = /^\{(\d{1,4})(?:(,)(\d{0,4}))?\}/.exec(this.#text.slice(this.#at));
    if (braces === null) return null;
    this.#at += braces[0].length;
    const [, least = '', comma, most = ''] = braces;
    return [Number(least), comma === undefined ? Number(least) : most === '' ? Infinity : Number(most)];
  }

  #sees(character: string): boolean {
    return this.#text[this.#at] === character;
  }

  #taken(character: string): boolean {
    if (!this.#sees(character)) return false;
    this.#at++;
    return true;
  }

  #next(): string {
    const character = String.fromCodePoint(this.#text.codePointAt(this.#at) ?? 0);
    if (this.isAtEnd) throw new NotUnderstood();
    this.#at += character.length;
    return character;
  }
}

/** All pairs, or of too many some in which each of both occurs. */
function combined(before: readonly string[], after: readonly string[]): string[] {
  if (before.length * after.length <= SAMPLES_MAX) return before.flatMap((one) => after.map((other) => joined(one, other)));
  const count = Math.min(SAMPLES_MAX, Math.max(before.length, after.length));
  return Array.from({ length: count }, (_, at) => joined(before[at % before.length] ?? '', after[at % after.length] ?? ''));
}

/** What stands for the classes that are written as an escape. */
const CLASSES: ReadonlyMap<string, string> = new Map([['w', 'x'], ['d', '7'], ['s', ' '], ['S', 'x'], ['D', 'x'], ['W', '-']]);

function joined(before: string, after: string): string {
  if (before.length + after.length > SAMPLE_LENGTH_MAX) throw new NotUnderstood();
  return before + after;
}

function repeated(sample: string, count: number): string {
  if (sample.length * count > SAMPLE_LENGTH_MAX) throw new NotUnderstood();
  return sample.repeat(count);
}
