/**
 * Which test shows which requirement: the text of docs/requirements.md, made from the names of the tests. A test names the
 * requirements it shows at the beginning of its name: `R61 M2 sends no transaction before …`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';

const PROJECT = join(import.meta.dirname, '..', '..');
/** How many there are of each letter. */
const COUNTS = { R: 150, M: 15, I: 12 } as const;
type Letter = keyof typeof COUNTS;
/** Numbers that were never given out. */
const UNUSED: readonly string[] = ['R54'];

/** What the router cannot do, because only the homeserver sees it: whose duty it is, and why. */
export const DUTIES: Readonly<Record<string, string>> = {
  R47: 'The homeserver leaves out rejected and backfilled events: an event does not say of itself that it is one. The router routes what it is given, a federated invite of a namespaced user included.',
  R48: 'The homeserver leaves out soft-failed events, for the same reason.',
  R53: '`unsigned` is the homeserver’s to fill; the router forwards it untouched.',
  R93: 'The homeserver decides what it deletes; the router tells by GetDeliveredPositions what was delivered, exclusive or not.',
  R142: 'Only the homeserver knows its devices: the router hands the asserted device back with the effective user, and the homeserver answers M_UNKNOWN_DEVICE.',
  R144: 'Token refresh, /sync and /events are the homeserver’s endpoints; AuthenticateAppservice says whether the sender user acts.',
  R150: 'Rate limits and interactive authentication are applied by the homeserver; AuthenticateAppservice says `rate_limited` and `is_sender_user`.',
};

interface Shown {
  readonly name: string;
  readonly file: string;
  /** Requirements that the name bears: the fewer, the more it says of each. */
  readonly numberCount: number;
}

/** By requirement, such as `R61`: the tests that name it, in the order of their files. */
export function shownRequirements(): ReadonlyMap<string, readonly Shown[]> {
  const shown = new Map<string, Shown[]>();
  for (const file of testFiles()) {
    for (const [, , text = '', words = ''] of readFileSync(join(PROJECT, file), 'utf8').matchAll(/(['"`])((?:[RMI]\d{1,3} )+)((?:(?!\1)[^\n\\]|\\.)+)\1/g)) {
      const numbers = text.trim().split(' ');
      for (const number of numbers) shown.set(number, [...(shown.get(number) ?? []), { name: words.replace(/\\(.)/g, '$1'), file, numberCount: numbers.length }]);
    }
  }
  return shown;
}

/** Every number there is, in order. */
export function requirementNumbers(): string[] {
  return (Object.keys(COUNTS) as Letter[]).flatMap((letter) => Array.from({ length: COUNTS[letter] }, (_, at) => `${letter}${at + 1}`)).filter((number) => !UNUSED.includes(number));
}

export function requirementsPage(): string {
  const shown = shownRequirements();
  const rows = requirementNumbers().map((number) => {
    const tests = shown.get(number) ?? [];
    const files = [...new Set(tests.map(({ file }) => file.replace(/^test\//, '')))];
    const more = files.length > 3 ? ` and ${files.length - 3} more` : '';
    return `| ${number} | ${cell([...tests].sort((a, b) => a.numberCount - b.numberCount)[0]?.name ?? '')} | ${tests.length} | ${files.slice(0, 3).map((file) => `\`${file}\``).join(', ')}${more} |`;
  });
  return `${[
    '# Requirements and the tests that show them',
    '',
    'Generated from the names of the tests; a test says when it is not current. R1 to R150 are behaviours of the Matrix Application Service API and of its deployments, M1 to M15 the',
    'aims of this project, I1 to I12 the invariants of [architecture.md](architecture.md). Each is shown by the tests that bear its number; one of them stands here in words.',
    '',
    '| | for example | tests | where |',
    '|---|---|---|---|',
    ...rows,
    '',
    '## What is the homeserver’s duty, and why',
    '',
    '| | |',
    '|---|---|',
    ...Object.entries(DUTIES).map(([number, why]) => `| ${number} | ${cell(why)} |`),
    '',
    '[homeserver-authors.md](homeserver-authors.md) says for each endpoint what to call and what to answer.',
  ].join('\n')}\n`;
}

function testFiles(): string[] {
  return readdirSync(join(PROJECT, 'test'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => relative(PROJECT, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .sort();
}

function cell(text: string): string {
  return text.replace(/\$\{[^}]*\}/g, '…').replaceAll('|', '\\|').trim();
}
