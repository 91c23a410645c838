/** Reads a .cpuprofile: where the time of the JavaScript thread went. `node bench/profile.ts FILE` prints it. */
import { readFileSync } from 'node:fs';

interface ProfileNode {
  readonly id: number;
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

/** The functions with the most time of their own, and the same by package. */
export function hottest(file: string): string {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, 'utf8')) as Profile;
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const byFunction = new Map<string, number>();
  const byPlace = new Map<string, number>();
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
      add(byPlace, placeOf(node), us);
    }
  }
  const busyUs = wholeUs - idleUs;
  const list = (all: ReadonlyMap<string, number>): string[] =>
    [...all].sort((a, b) => b[1] - a[1]).slice(0, LINES).map(([name, us]) => `  ${((us / busyUs) * 100).toFixed(1).padStart(5)} %  ${name}`);
  return [`busy ${((busyUs / wholeUs) * 100).toFixed(0)} % of ${(wholeUs / 1e6).toFixed(1)} s; shares of the busy time`, 'own time by function', ...list(byFunction), 'own time by place', ...list(byPlace)].join('\n');
}

function add(to: Map<string, number>, key: string, value: number): void {
  to.set(key, (to.get(key) ?? 0) + value);
}

function nameOf({ callFrame: { functionName, url, lineNumber } }: ProfileNode): string {
  return url === '' ? functionName : `${functionName === '' ? '(anonymous)' : functionName}  ${shortened(url)}:${lineNumber + 1}`;
}

/** The package, the folder of the house, or the part of Node that a function belongs to. */
function placeOf({ callFrame: { functionName, url } }: ProfileNode): string {
  if (url === '') return functionName.startsWith('(') ? functionName : 'native code';
  const short = shortened(url);
  return short.startsWith('node:') || !short.includes('/') ? short : short.startsWith('src/') ? short.split('/').slice(0, 2).join('/') : short.split('/').slice(0, short.startsWith('@') ? 2 : 1).join('/');
}

function shortened(url: string): string {
  return url.replace(/^.*\/node_modules\//, '').replace(/^file:\/\/.*\/(src|gen|bench)\//, '$1/');
}

if (import.meta.main) console.log(hottest(process.argv[2] ?? ''));
