/** Reads a .cpuprofile: where the time of the JavaScript thread went. `node bench/profile.ts FILE` prints it. */
import { readFileSync } from 'node:fs';

interface ProfileNode {
  readonly id: number;
  readonly children?: readonly number[];
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
}

interface Profile {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const LINES = 15;
const IDLE = '(idle)';
/** What the profiler itself takes while it begins and ends. */
const PROFILER = 'node:inspector';

/**
 * The functions with the most time of their own; and the time of all functions by who had them run: the nearest caller in
 * the house, or else in a package, or else in Node.
 */
export function hottest(file: string): string {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, 'utf8')) as Profile;
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const byFunction = new Map<string, number>();
  const byCause = new Map<string, number>();
  const causes = causesOf(nodes);
  let wholeUs = 0;
  let idleUs = 0;
  for (const [at, id] of samples.entries()) {
    const node = byId.get(id);
    const us = timeDeltas[at] ?? 0;
    if (node === undefined || node.callFrame.url === PROFILER) continue;
    wholeUs += us;
    if (node.callFrame.functionName === IDLE) idleUs += us;
    else {
      add(byFunction, nameOf(node), us);
      add(byCause, causes.get(id) ?? '', us);
    }
  }
  const busyUs = wholeUs - idleUs;
  const list = (all: ReadonlyMap<string, number>): string[] =>
    [...all].sort((a, b) => b[1] - a[1]).slice(0, LINES).map(([name, us]) => `  ${((us / busyUs) * 100).toFixed(1).padStart(5)} %  ${name}`);
  return [`busy ${((busyUs / wholeUs) * 100).toFixed(0)} % of ${(wholeUs / 1e6).toFixed(1)} s; shares of the busy time`, 'own time by function', ...list(byFunction), 'by who had it run', ...list(byCause)].join('\n');
}

function add(to: Map<string, number>, key: string, value: number): void {
  to.set(key, (to.get(key) ?? 0) + value);
}

function nameOf({ callFrame: { functionName, url, lineNumber } }: ProfileNode): string {
  return url === '' ? functionName : `${functionName === '' ? '(anonymous)' : functionName}  ${shortened(url)}:${lineNumber + 1}`;
}

/** By node id. The root comes first, parents before their children. */
function causesOf(nodes: readonly ProfileNode[]): ReadonlyMap<number, string> {
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)));
  const causes = new Map<number, string>();
  for (const node of nodes) {
    const inherited = causes.get(parents.get(node.id) ?? -1) ?? '';
    const own = placeOf(node);
    causes.set(node.id, own !== '' && rankOf(own) >= rankOf(inherited) ? own : inherited);
  }
  return causes;
}

/** The house before packages before Node before what has no name. */
function rankOf(place: string): number {
  return place.startsWith('src/') ? 3 : place.startsWith('node:') ? 1 : place === '' || place.startsWith('(') ? 0 : 2;
}

/** The folder of the house, the package, or the part of Node that a function belongs to. */
function placeOf({ callFrame: { functionName, url } }: ProfileNode): string {
  if (url === '') return functionName.startsWith('(') ? functionName : '';
  const short = shortened(url);
  const parts = short.split('/');
  if (short.startsWith('node:')) return parts.slice(0, 3).join('/');
  return parts.slice(0, short.startsWith('src/') || short.startsWith('@') ? 2 : 1).join('/');
}

function shortened(url: string): string {
  return url.replace(/^.*\/node_modules\//, '').replace(/^file:\/\/.*\/(src|gen|bench)\//, '$1/');
}

if (import.meta.main) console.log(hottest(process.argv[2] ?? ''));
