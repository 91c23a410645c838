/** The lines of a history that tell of one breach: those that name its ids, and what happened to the same appservice or process around them. */
import type { Breach } from './checker.ts';
import type { TraceLine } from './history.ts';

const LINES_MAX = 48;
const AROUND_MS = 2_000;
const LINE_LENGTH_MAX = 240;
/** Event, to-device message, transaction. */
const ID = /\$e\d+|\bt\d+\b|\b\d{16,}\b/g;
const ALWAYS: ReadonlySet<string> = new Set(['kill', 'stopped', 'goes on', 'start', 'ready', 'end', 'peace', 'operator']);

export function excerptOf(trace: readonly TraceLine[], { text, about }: Breach): string[] {
  const ids = [...new Set([...(text.match(ID) ?? []), ...about.filter((name) => name.startsWith('$'))])];
  const names = about.filter((name) => !name.startsWith('$'));
  const words = ids.length > 0 ? ids : names;
  const says = (line: TraceLine, some: readonly string[]): boolean => some.some((word) => line.subject === word || new RegExp(`(?<![\\w$])${word.replace('$', '\\$')}(?!\\w)`).test(line.detail));
  const direct = new Set(trace.filter((line) => says(line, words)).slice(-LINES_MAX));
  const times = [...direct].map(({ timeMs }) => timeMs);
  const isNear = ({ timeMs }: TraceLine): boolean => times.some((time) => Math.abs(time - timeMs) <= AROUND_MS);
  const near = trace.filter((line) => direct.has(line) || (isNear(line) && (ALWAYS.has(line.kind) || says(line, names))));
  const shown = near.length > LINES_MAX ? [...near.slice(0, 8), ...near.slice(8 - LINES_MAX)] : near;
  return shown.map(({ timeMs, kind, subject, detail }) => `  ${(timeMs / 1000).toFixed(3).padStart(9)} s  ${kind} ${subject} ${detail}`.slice(0, LINE_LENGTH_MAX));
}
