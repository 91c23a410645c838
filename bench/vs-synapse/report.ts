/** The tables of the comparison, on the screen and in docs/synapse.md between its two markers. */
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import type { OutageResult } from './outage.ts';
import type { PushResult } from './push.ts';

const PAGE = join(import.meta.dirname, '..', '..', 'docs', 'synapse.md');
const BEGIN = '<!-- bench/vs-synapse: begin -->';
const END = '<!-- bench/vs-synapse: end -->';

export interface OutageRow {
  readonly name: string;
  readonly result: OutageResult;
}

export interface Report {
  readonly outages: readonly OutageRow[];
  readonly pushes: readonly PushResult[];
  /** How long the disk takes for a small durable write. */
  readonly syncMs: number;
}

/** The share of its requests that the appservice still sees. */
export function requestShare(direct: OutageResult, other: OutageResult): number {
  return other.requests / direct.requests;
}

export function textOf({ outages, pushes, syncMs }: Report): string {
  const [direct] = outages;
  const columns = outages.map(({ result }) => [
    String(result.requests),
    direct === undefined || direct.result === result ? '1' : `1/${(1 / requestShare(direct.result, result)).toFixed(0)}`,
    result.eventsPerTransaction.toFixed(1),
    seconds(result.waitMs),
    seconds(result.drainMs),
    `${result.lost} / ${result.doubled} / ${result.outOfOrder}`,
  ]);
  const rows = ['requests that the appservice gets', 'of those of Synapse alone', 'events in a transaction', 'from its return to the first of them', 'from the first to the last', 'messages lost / doubled / out of order'];
  const table = [
    `| | ${outages.map(({ name }) => name).join(' | ')} |`,
    `|---|${outages.map(() => '---').join('|')}|`,
    ...rows.map((name, at) => `| ${name} | ${columns.map((column) => column[at]).join(' | ')} |`),
  ];
  const [load = 0] = loadavg();
  const machine = `${availableParallelism()} processors (${cpus()[0]?.model.trim() ?? 'unknown'}), a disk that syncs in ${syncMs.toFixed(1)} ms, a load of ${load.toFixed(1)} at the end`;
  return [`${direct?.result.messages ?? 0} messages while the appservice was away for ${seconds(direct?.result.outageMs ?? 0)}, on ${machine}:`, '', ...table, '', ...pushTable(pushes)].join('\n');
}

function pushTable(pushes: readonly PushResult[]): string[] {
  if (pushes.length === 0) return [];
  return [
    'The router\'s share of the way, from the last byte of Synapse\'s request to the durable answer:',
    '',
    '| Synapse pushes | transactions | a second | p50 | p99 | longest |',
    '|---|---|---|---|---|---|',
    ...pushes.map(({ name, transactions, perSecond, p50Ms, p99Ms, maxMs }) => `| ${name} | ${transactions} | ${perSecond.toFixed(0)} | ${p50Ms.toFixed(1)} ms | ${p99Ms.toFixed(1)} ms | ${maxMs.toFixed(1)} ms |`),
  ];
}

export function writeIntoPage(text: string): void {
  const page = readFileSync(PAGE, 'utf8');
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin === -1 || end < begin) throw new Error(`${PAGE} lacks the lines ${BEGIN} and ${END}`);
  writeFileSync(PAGE, `${page.slice(0, begin + BEGIN.length)}\n${text}\n${page.slice(end)}`);
}

function seconds(durationMs: number): string {
  return `${(durationMs / 1000).toFixed(durationMs < 10_000 ? 2 : 0)} s`;
}
