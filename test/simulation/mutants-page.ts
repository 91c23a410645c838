/** Hunts the mutants and writes what came of it into docs/robustness.md. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { forEachOf, huntMutant } from './campaign.ts';
import { MUTANTS } from './mutants.ts';
import type { Pace } from './settings.ts';

const PAGE = join(import.meta.dirname, '..', '..', 'docs', 'robustness.md');
const BEGIN = '<!-- mutants: written by npm run sim -- --mutants -->';
const END = '<!-- end of mutants -->';
const SEEDS_MAX = 1_000;

export interface Hunt {
  readonly pace: Pace;
  readonly threads: number;
  readonly only: string;
  readonly print: (line: string) => void;
}

export async function huntMutants({ pace, threads, only, print }: Hunt): Promise<number> {
  const caught = new Map<string, string>();
  const hunted = MUTANTS.filter(({ name }) => name.includes(only));
  await forEachOf(hunted, threads, async ({ name }) => {
    const found = await huntMutant(name, { from: 1, count: SEEDS_MAX, pace });
    if (found !== null) caught.set(name, `| ${name} | ${found.seed} | ${invariantOf(found.breach)} |`);
    print(found === null ? `NOT CAUGHT  ${name}` : `seed ${String(found.seed).padStart(4)}  ${name}: ${found.breach.slice(0, 160)}`);
  });
  print(`${caught.size} of ${hunted.length} mutants are caught within ${SEEDS_MAX} seeds`);
  if (only === '' && caught.size === hunted.length) writePage(MUTANTS.flatMap(({ name }) => caught.get(name) ?? []));
  return caught.size === hunted.length ? 0 : 1;
}

function invariantOf(breach: string): string {
  return breach.startsWith('no bugs') ? 'an error that nobody expects' : (/^(?:[A-Z]\d+ \w+)/.exec(breach)?.[0] ?? breach);
}

function writePage(rows: readonly string[]): void {
  const page = readFileSync(PAGE, 'utf8');
  const [before, rest] = page.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined) throw new Error(`${PAGE} has no place for the mutants`);
  writeFileSync(PAGE, `${before}${BEGIN}\n| Deliberate bug | Found by seed | As a breach of |\n|---|---|---|\n${rows.join('\n')}\n${END}${after}`);
}
