/** The sources as the rules of the house see them: imports, sizes, and what touches the clock or the environment. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix, relative, sep } from 'node:path';
import ts from 'typescript';

export interface SourceFile {
  /** From the root of the repository, with slashes. */
  readonly path: string;
  readonly lineCount: number;
  /** Type imports included: a path like {@link path} for a file of the house, else the name of a package. */
  readonly imports: readonly string[];
  readonly functions: readonly { readonly name: string; readonly line: number; readonly lineCount: number }[];
  /** Uses of the date, the timers, the random source and the environment, such as `Date.now`. */
  readonly globals: readonly string[];
  /** Names of the methods that its interfaces declare. */
  readonly interfaceMethods: readonly string[];
}

const PROJECT = join(import.meta.dirname, '..', '..');
const TIMERS = new Set(['setTimeout', 'setInterval', 'setImmediate', 'performance']);
const MEMBERS = new Set(['Date.now', 'Math.random', 'AbortSignal.timeout', 'process.env', 'process.hrtime']);

/** All TypeScript files under `folder` of the repository. */
export function readSourceFiles(folder: string): SourceFile[] {
  return readdirSync(join(PROJECT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => join(entry.parentPath, entry.name))
    .map((path) => parseSource(relative(PROJECT, path).split(sep).join('/'), readFileSync(path, 'utf8')))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

export function parseSource(path: string, text: string): SourceFile {
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  const imports = new Set<string>();
  const functions: SourceFile['functions'][number][] = [];
  const globals: string[] = [];
  const interfaceMethods: string[] = [];
  const lineOf = (position: number): number => tree.getLineAndCharacterOfPosition(position).line + 1;
  const visit = (node: ts.Node): void => {
    const specifier = importedBy(node);
    if (specifier !== undefined) imports.add(specifier.startsWith('.') ? posix.join(posix.dirname(path), specifier) : specifier);
    if (ts.isFunctionLike(node) && 'body' in node && node.body !== undefined) {
      const line = lineOf(node.getStart(tree));
      functions.push({ name: nameOf(node), line, lineCount: lineOf(node.getEnd()) - line + 1 });
    }
    if (ts.isInterfaceDeclaration(node)) interfaceMethods.push(...node.members.filter(isMethod).map((member) => member.name?.getText(tree) ?? ''));
    const used = globalUsedBy(node);
    if (used !== undefined) globals.push(used);
    ts.forEachChild(node, visit);
  };
  visit(tree);
  const lineCount = text.endsWith('\n') ? text.split('\n').length - 1 : text.split('\n').length;
  return { path, lineCount, imports: [...imports], functions, globals, interfaceMethods };
}

/** The module that this node imports, whatever the form: import, export … from, import(), import type inside a type. */
function importedBy(node: ts.Node): string | undefined {
  if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) return textOf(node.moduleSpecifier);
  if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) return textOf(node.arguments[0]);
  if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) return textOf(node.argument.literal);
  // A worker's file is loaded by its address.
  if (ts.isNewExpression(node) && node.expression.getText() === 'URL') {
    const address = textOf(node.arguments?.[0]);
    return address?.endsWith('.ts') === true ? address : undefined;
  }
  return undefined;
}

function textOf(node: ts.Node | undefined): string | undefined {
  return node !== undefined && ts.isStringLiteralLike(node) ? node.text : undefined;
}

function globalUsedBy(node: ts.Node): string | undefined {
  if (ts.isPropertyAccessExpression(node)) {
    const text = `${node.expression.getText()}.${node.name.text}`.replace(/^globalThis\./, '');
    return MEMBERS.has(text) || TIMERS.has(text) ? text : undefined;
  }
  if (ts.isNewExpression(node) && node.expression.getText() === 'Date') return (node.arguments?.length ?? 0) === 0 ? 'new Date()' : undefined;
  if (!ts.isIdentifier(node) || !TIMERS.has(node.text)) return undefined;
  const { parent } = node;
  const isName = (ts.isPropertyAccessExpression(parent) && parent.name === node) || (ts.isPropertyAssignment(parent) && parent.name === node);
  return isName ? undefined : node.text;
}

function nameOf(node: ts.SignatureDeclaration): string {
  if (node.name !== undefined) return node.name.getText();
  return ts.isVariableDeclaration(node.parent) ? node.parent.name.getText() : 'a function';
}

function isMethod(member: ts.TypeElement): boolean {
  return ts.isMethodSignature(member) || (ts.isPropertySignature(member) && member.type !== undefined && ts.isFunctionTypeNode(member.type));
}
