/**
 * YAML as the router takes it: 1.2 core schema, one document, no duplicate keys, no tags but the core's. The only importer
 * of yaml.
 *
 * Reading is bounded in bytes, lexemes, depth and values, so that its time is bounded by its input's. Aliases share the
 * value of their anchor; what they would expand to counts against the bound. Problems have words of their own: what the
 * library says may quote the text, and the text may hold a token (I12).
 */
import { Composer, isAlias, isMap, isScalar, isSeq, Lexer, LineCounter, Parser } from 'yaml';
import type { Alias, CST, ParsedNode, Scalar, YAMLMap, YAMLSeq } from 'yaml';

/** Both 1-based. */
export interface YamlPlace {
  readonly line: number;
  readonly column: number;
}

export type YamlNode = YamlScalar | YamlList | YamlMap;

export interface YamlScalar extends YamlPlace {
  readonly kind: 'scalar';
  readonly value: string | number | boolean | null;
  /** As it stands in the text, without quotes. */
  readonly source: string;
  /** Written without quotes. */
  readonly plain: boolean;
}

export interface YamlList extends YamlPlace {
  readonly kind: 'list';
  readonly items: readonly YamlNode[];
}

export interface YamlMap extends YamlPlace {
  readonly kind: 'map';
  /** In the order of the text; each value with the place of its key. */
  readonly entries: ReadonlyMap<string, { readonly key: YamlPlace; readonly value: YamlNode }>;
}

export interface YamlProblem extends YamlPlace {
  readonly message: string;
}

export type YamlReading =
  | { readonly kind: 'tree'; readonly root: YamlNode }
  /** At least one problem, in the order of the text. */
  | { readonly kind: 'broken'; readonly problems: readonly YamlProblem[] };

export const YAML_BYTES_MAX = 1024 * 1024;
const LEXEMES_MAX = 200_000;
const DEPTH_MAX = 50;
const VALUES_MAX = 100_000;
/** More problems than these help nobody. */
const PROBLEMS_MAX = 10;

const CORE_TAGS: ReadonlySet<string> = new Set(['str', 'int', 'float', 'bool', 'null', 'map', 'seq'].map((name) => `tag:yaml.org,2002:${name}`));

/** Never throws. */
export function readYaml(text: string): YamlReading {
  const bytes = Buffer.byteLength(text);
  if (bytes > YAML_BYTES_MAX) return broken(`The text has ${bytes} bytes; at most ${YAML_BYTES_MAX} are read.`);
  const lines = new LineCounter();
  try {
    return { kind: 'tree', root: treeOf(parse(text, lines), lines) };
  } catch (error) {
    if (error instanceof Broken) return { kind: 'broken', problems: error.faults.map(({ offset, message }) => ({ ...placeOf(offset, lines), message })) };
    return broken('This cannot be read as YAML. Check indentation, quotes and brackets.');
  }
}

/** The values alone. */
export function plainFromYaml(node: YamlNode): unknown {
  switch (node.kind) {
    case 'scalar':
      return node.value;
    case 'list':
      return node.items.map(plainFromYaml);
    case 'map':
      return Object.fromEntries([...node.entries].map(([name, { value }]) => [name, plainFromYaml(value)]));
  }
}

interface Fault {
  readonly offset: number;
  readonly message: string;
}

class Broken extends Error {
  readonly faults: readonly Fault[];

  constructor(...faults: readonly Fault[]) {
    super('broken YAML');
    this.faults = faults;
  }
}

function broken(message: string): YamlReading {
  return { kind: 'broken', problems: [{ line: 1, column: 1, message }] };
}

function placeOf(offset: number, lines: LineCounter): YamlPlace {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

/** The content of the one document. */
function parse(text: string, lines: LineCounter): ParsedNode {
  const tokens = [...tokensOf(text, lines)];
  const second = tokens.filter(({ type }) => type === 'document')[1];
  if (second !== undefined) throw new Broken({ offset: second.offset, message: 'Another document begins here; write one document, without a second "---".' });
  const composer = new Composer({
    version: '1.2',
    schema: 'core',
    strict: true,
    uniqueKeys: false,
    resolveKnownTags: false,
    merge: false,
    prettyErrors: false,
    logLevel: 'silent',
  });
  const [document] = [...composer.compose(tokens, true, text.length)];
  const faults = [...(document?.errors ?? []), ...(document?.warnings ?? [])];
  if (faults.length > 0) {
    const byOffset = new Map(faults.map(({ code, pos }) => [pos[0], { offset: pos[0], message: explain(code, text, pos[0]) }]));
    throw new Broken(...[...byOffset.values()].sort((a, b) => a.offset - b.offset).slice(0, PROBLEMS_MAX));
  }
  const { yaml } = document?.directives ?? {};
  if (yaml?.explicit === true && yaml.version !== '1.2') throw new Broken({ offset: 0, message: 'YAML is read as version 1.2; take the %YAML line out.' });
  const contents = document?.contents ?? null;
  if (contents === null) throw new Broken({ offset: 0, message: 'The text is empty.' });
  return contents;
}

function* tokensOf(text: string, lines: LineCounter): Generator<CST.Token> {
  const parser = new Parser(lines.addNewLine);
  lines.addNewLine(0);
  let count = 0;
  for (const lexeme of new Lexer().lex(text)) {
    count++;
    if (count > LEXEMES_MAX) throw new Broken({ offset: parser.offset, message: `The text is too long: at most ${LEXEMES_MAX} marks and values are read.` });
    for (const token of parser.next(lexeme)) yield checked(token);
    if (parser.stack.length > 2 * DEPTH_MAX) throw new Broken({ offset: parser.offset, message: TOO_DEEP });
  }
  for (const token of parser.end()) yield checked(token);
}

const TOO_DEEP = `Values are nested too deeply here; at most ${DEPTH_MAX} levels are read.`;

function checked(token: CST.Token): CST.Token {
  if (token.type === 'error') throw new Broken({ offset: token.offset, message: 'This mark is out of place; check the brackets and quotes before it.' });
  return token;
}

function explain(code: string, text: string, offset: number): string {
  switch (code) {
    case 'BAD_SCALAR_START':
      return `This value begins with "${text[offset] ?? ''}", which YAML keeps for itself: quote it, as '…'.`;
    case 'TAG_RESOLVE_FAILED':
      return 'This value begins with "!", which makes it a YAML tag: quote it, as \'!…\'.';
    case 'BAD_DQ_ESCAPE':
      return 'Within double quotes a backslash begins an escape, and this is none; put patterns in single quotes.';
    case 'BAD_ALIAS':
    case 'ALIAS_PROPS':
      return 'This value begins with "*", which makes it a YAML alias: quote it, as \'*…\'.';
    case 'TAB_AS_INDENT':
      return 'A tab indents this line; indent with spaces.';
    case 'BLOCK_AS_IMPLICIT_KEY':
    case 'MULTILINE_IMPLICIT_KEY':
      return 'A ": " stands within this value, or the next line is indented differently; quote the value or mend the indentation.';
    case 'MISSING_CHAR':
      return 'A quote or a ":" with a space after it is missing here.';
    case 'BAD_INDENT':
      return 'The indentation does not fit here, or a bracket is not closed.';
    case 'RESOURCE_EXHAUSTION':
      return TOO_DEEP;
    default:
      return 'This is no valid YAML here; check indentation, quotes and brackets.';
  }
}

interface Weighed<Node extends YamlNode = YamlNode> {
  readonly node: Node;
  /** Values within, each alias counted as what it stands for. */
  readonly values: number;
}

function treeOf(contents: ParsedNode, lines: LineCounter): YamlNode {
  return new TreeReader(lines).read(contents, 0, 1).node;
}

class TreeReader {
  readonly #lines: LineCounter;
  readonly #anchors = new Map<string, Weighed>();

  constructor(lines: LineCounter) {
    this.#lines = lines;
  }

  /** `after`: where a value that is left out would stand. */
  read(node: ParsedNode | null, after: number, depth: number): Weighed {
    if (node === null) return { node: { kind: 'scalar', value: null, source: '', plain: true, ...placeOf(after, this.#lines) }, values: 1 };
    const offset = node.range[0];
    if (depth > DEPTH_MAX) throw new Broken({ offset, message: TOO_DEEP });
    if (isAlias(node)) return this.#resolve(node, offset);
    checkTag(node.tag, offset);
    const weighed = isMap(node) ? this.#readMap(node, offset, depth) : isSeq(node) ? this.#readList(node, offset, depth) : this.#readScalar(node, offset);
    // Known only from here on: an alias within its own anchor has nothing to stand for.
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, weighed);
    return weighed;
  }

  #resolve(alias: Alias.Parsed, offset: number): Weighed {
    const known = this.#anchors.get(alias.source);
    if (known === undefined) throw new Broken({ offset, message: explain('BAD_ALIAS', '', offset) });
    return { node: { ...known.node, ...placeOf(offset, this.#lines) }, values: known.values };
  }

  #readScalar({ value, source, type }: Scalar.Parsed, offset: number): Weighed {
    const known = typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : null;
    return { node: { kind: 'scalar', value: known, source, plain: type === 'PLAIN', ...placeOf(offset, this.#lines) }, values: 1 };
  }

  #readList(list: YAMLSeq.Parsed, offset: number, depth: number): Weighed {
    let values = 1;
    const items: YamlNode[] = [];
    for (const item of list.items) {
      // The library's type allows a pair here; its composer makes a mapping of one.
      if (!isMap(item) && !isSeq(item) && !isScalar(item) && !isAlias(item)) throw new Broken({ offset, message: explain('', '', offset) });
      const read = this.read(item, offset, depth + 1);
      values = sumOf(values, read.values, offset);
      items.push(read.node);
    }
    return { node: { kind: 'list', items, ...placeOf(offset, this.#lines) }, values };
  }

  #readMap(map: YAMLMap.Parsed, offset: number, depth: number): Weighed {
    let values = 1;
    const entries = new Map<string, { key: YamlPlace; value: YamlNode }>();
    for (const { key, value } of map.items) {
      const { name, at } = this.#readKey(key, offset);
      const first = entries.get(name);
      if (first !== undefined) throw new Broken({ offset: at, message: `This key was given already, on line ${first.key.line}; keep one of the two.` });
      const read = this.read(value, at, depth + 1);
      values = sumOf(values, read.values, at);
      entries.set(name, { key: placeOf(at, this.#lines), value: read.node });
    }
    return { node: { kind: 'map', entries, ...placeOf(offset, this.#lines) }, values };
  }

  #readKey(key: ParsedNode | null, offset: number): { name: string; at: number } {
    const at = key?.range[0] ?? offset;
    if (!isScalar(key)) throw new Broken({ offset: at, message: 'A key must be a plain word or a quoted string.' });
    checkTag(key.tag, at);
    const name = typeof key.value === 'string' ? key.value : key.source;
    if (name === '<<') throw new Broken({ offset: at, message: 'Merge keys are no part of YAML 1.2; write the values out.' });
    if (key.anchor !== undefined) this.#anchors.set(key.anchor, this.#readScalar(key, at));
    return { name, at };
  }
}

function checkTag(tag: string | undefined, offset: number): void {
  if (tag !== undefined && !CORE_TAGS.has(tag)) throw new Broken({ offset, message: explain('TAG_RESOLVE_FAILED', '', offset) });
}

function sumOf(values: number, more: number, offset: number): number {
  if (values + more > VALUES_MAX) throw new Broken({ offset, message: `With its aliases this comes to more than ${VALUES_MAX} values; write less, or fewer aliases.` });
  return values + more;
}
