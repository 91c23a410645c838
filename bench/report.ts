/** The table, what else was seen, and the JSON. */
import { writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import type { BenchOptions, Figure, Row } from './scenario.ts';
import { processorCount } from './cpu.ts';

const HEAD = ['#', 'scenario', 'store', 'load', 'baseline', 'router', 'ratio', 'target', '', 'share of the processors'] as const;

export function tableOf(rows: readonly Row[]): string {
  const cells = rows.map((row) => [
    String(row.scenario),
    row.name,
    row.store,
    row.load,
    row.baseline === null ? '' : figure(row.baseline),
    figure(row.router),
    row.ratio === null ? '' : `${(row.ratio * 100).toFixed(0)} %`,
    row.target,
    row.met === null ? '' : row.met ? 'met' : 'MISSED',
    Object.entries(row.cpu).map(([part, share]) => `${part} ${(share * 100).toFixed(0)} %`).join(', '),
  ]);
  const widths = HEAD.map((title, column) => Math.max(title.length, ...cells.map((line) => line[column]?.length ?? 0)));
  const line = (texts: readonly string[]): string => texts.map((text, column) => (isNumber(column) ? text.padStart(widths[column] ?? 0) : text.padEnd(widths[column] ?? 0))).join('  ').trimEnd();
  return [line(HEAD), line(widths.map((width) => '─'.repeat(width))), ...cells.map(line)].join('\n');
}

/** The details of the rows, a line each. */
export function detailsOf(rows: readonly Row[]): string {
  const text = (value: Row['details'][string]): string => (typeof value === 'string' ? value : [value].flat().map((number) => number.toFixed(number < 10 ? 2 : 0)).join(' '));
  return rows
    .filter(({ details }, at) => JSON.stringify(details) !== JSON.stringify(rows[at - 1]?.details))
    .map(({ scenario, name, store, load, details }) => `${[scenario, name, store, load].join(' ').trimEnd()}:  ${Object.entries(details).map(([key, value]) => `${key} ${text(value)}`).join(', ')}`)
    .join('\n');
}

function isNumber(column: number): boolean {
  return column === 4 || column === 5 || column === 6;
}

function figure({ value, unit }: Figure): string {
  const digits = value >= 100 ? 0 : 1;
  return `${value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${unit}`;
}

export function machine(): Record<string, string | number> {
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    processors: processorCount,
    memory_bytes: totalmem(),
    system: `${process.platform} ${release()}`,
    node: process.version,
  };
}

export interface Skipped {
  readonly scenario: number;
  readonly store: string;
  readonly reason: string;
}

export function writeJson(file: string, options: BenchOptions, diskSyncMs: number, rows: readonly Row[], skipped: readonly Skipped[]): void {
  const { seconds, rounds } = options;
  writeFileSync(file, `${JSON.stringify({ time: new Date().toISOString(), machine: { ...machine(), disk_sync_ms: diskSyncMs }, seconds, rounds, rows, skipped }, null, 2)}\n`);
}
