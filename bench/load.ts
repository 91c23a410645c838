/** Load on a server, by one of two generators, and what came of it. */
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { CpuWatch, processorCount } from './cpu.ts';
import type { LoadOptions, LoadResult } from './load-client.ts';
import type { Processes } from './processes.ts';
import type { Messages } from './traffic.ts';

const LEAN_PROGRAM = new URL('./load-client.ts', import.meta.url).pathname;
const PROTO_FOLDER = new URL('../proto', import.meta.url).pathname;
const PROTO_FILE = 'matrix/appservice/v1/appservice_router_service.proto';
const METHOD = 'matrix.appservice.v1.AppserviceRouter/SubmitEvents';

export interface Target {
  readonly address: string;
  readonly token: string;
}

/** How calls are made: see LoadOptions. */
export interface LoadShape {
  readonly mode: 'unary' | 'stream';
  readonly connections: number;
  readonly inFlight: number;
  readonly window: number;
  readonly ratePerSecond: number;
  /** Calls that may fail without the measurement being void; 0 if left out. */
  readonly failuresMax?: number;
}

export const UNARY: LoadShape = { mode: 'unary', connections: 8, inFlight: 64, window: 1, ratePerSecond: 0 };

export interface Load {
  readonly perSecond: number;
  readonly done: number;
  /** Answered, whether before the end or after it. */
  readonly answered: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly failed: number;
  /** Shares of all processors, by part; see CpuWatch. */
  readonly cpu: Readonly<Record<string, number>>;
}

export interface LoadRequest {
  readonly target: Target;
  readonly messages: Messages;
  readonly shape: LoadShape;
  readonly seconds: number;
  /** If given, so many messages are sent instead. */
  readonly count?: number;
  /** Process ids by the part they play. */
  readonly parts: Readonly<Record<string, readonly number[]>>;
}

/** Load by load-client.ts. Rejects if any call failed. */
export async function leanLoad(processes: Processes, { target, messages, shape, seconds, count = 0, parts }: LoadRequest): Promise<Load> {
  const options: LoadOptions = { target: target.address, token: target.token, messages: messages.file, seconds, count, ...shape };
  const running = processes.start('load', LEAN_PROGRAM, [JSON.stringify(options)]);
  await processes.line(running, ({ began }) => began === true);
  const watch = new CpuWatch(parts);
  const output = await processes.finish(running);
  const shares = watch.shares();
  const result = JSON.parse(output.trim().split('\n').at(-1) ?? '') as LoadResult;
  if (result.failed > (shape.failuresMax ?? 0)) throw new Error(`${result.failed} of ${result.sent} calls failed: ${result.firstFailure}`);
  const cpu = { ...shares, load: result.cpuMs / result.elapsedMs / processorCount };
  return { perSecond: result.perSecond, done: result.done, answered: result.done + result.late, p50Ms: result.p50Ms, p99Ms: result.p99Ms, failed: result.failed, cpu };
}

/** Where ghz is, or null. */
export function findGhz(): string | null {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), join(homedir(), 'go', 'bin')];
  return folders.map((folder) => join(folder, 'ghz')).find((file) => existsSync(file)) ?? null;
}

export const GHZ_HINT = 'ghz is not here; install it by: go install github.com/bojand/ghz/cmd/ghz@v0.120.0';

interface GhzReport {
  readonly count: number;
  readonly rps: number;
  readonly latencyDistribution: readonly { readonly percentage: number; readonly latency: number }[] | null;
  readonly statusCodeDistribution: Readonly<Record<string, number>>;
  readonly errorDistribution?: Readonly<Record<string, number>>;
}

/** The same unary load by ghz. Rejects if any call failed. */
export async function ghzLoad(processes: Processes, ghz: string, { target, messages, shape, seconds, parts }: LoadRequest): Promise<Load> {
  const watch = new CpuWatch(parts);
  const running = processes.startProgram('ghz', ghz, [
    ...['--insecure', '--import-paths', PROTO_FOLDER, '--proto', PROTO_FILE, '--call', METHOD, '--binary-file', messages.delimitedFile],
    ...['--concurrency', String(shape.inFlight), '--connections', String(shape.connections), '--duration', `${seconds}s`, '--duration-stop', 'wait'],
    ...['--metadata', JSON.stringify({ authorization: `Bearer ${target.token}` }), '--format', 'json', target.address],
  ], { cwd: PROTO_FOLDER });
  const report = JSON.parse(await processes.finish(running)) as GhzReport;
  const shares = watch.shares();
  const failed = Object.entries(report.statusCodeDistribution).filter(([code]) => code !== 'OK');
  if (failed.length > 0) throw new Error(`ghz: calls failed: ${JSON.stringify({ ...Object.fromEntries(failed), ...report.errorDistribution })}`);
  const used = Object.entries(shares).filter(([part]) => !part.includes('main thread')).reduce((sum, [, share]) => sum + share, 0);
  const latency = (percentage: number): number => (report.latencyDistribution?.find((at) => at.percentage === percentage)?.latency ?? 0) / 1e6;
  // ghz takes what the others leave; its own CPU time cannot be read once it has ended.
  const cpu = Object.keys(shares).length === 0 ? {} : { ...shares, 'load and idle': 1 - used };
  return { perSecond: report.rps, done: report.count, answered: report.count, p50Ms: latency(50), p99Ms: latency(99), failed: 0, cpu };
}
