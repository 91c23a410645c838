import Table from 'cli-table3';
import { plainLine } from './terminal.ts';

const SEAMS = ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right', 'left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'] as const;
const NO_SEAMS = { ...Object.fromEntries(SEAMS.map((name) => [name, ''])), middle: '  ' };

/** Columns under their headings, without lines. Cells are made safe for a terminal; `paint` colours a finished cell. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[], paint: (cell: string, column: number) => string = (cell) => cell): string {
  const grid = new Table({ head: headings.map((heading) => heading.toUpperCase()), chars: NO_SEAMS, style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 } });
  for (const row of rows) grid.push(row.map((cell, column) => paint(plainLine(cell), column)));
  return `${grid
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')}\n`;
}
