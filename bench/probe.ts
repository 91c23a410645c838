/**
 * Loaded into the router by `--import`: looks at it from within while the bench asks for it, and does nothing otherwise.
 * Messages over the process's channel: {probe: 'profile' | 'loop', on: boolean}; the end of one is answered.
 */
import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface ProbeRequest {
  readonly probe: 'profile' | 'loop';
  readonly on: boolean;
  /** Where the profile goes. */
  readonly file?: string;
}

export interface ProbeAnswer {
  /** The longest time for which the event loop ran nothing else. */
  readonly longestBlockMs?: number;
}

/** The event loop is looked at so often. */
const RESOLUTION_MS = 1;
const PROFILE_INTERVAL_US = 500;

const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
const session = new Session();

async function turn({ probe, on, file }: ProbeRequest): Promise<ProbeAnswer> {
  if (probe === 'loop') {
    if (on) {
      delays.reset();
      delays.enable();
      return {};
    }
    delays.disable();
    // What is noted is the whole time between two looks.
    return { longestBlockMs: Math.max(0, delays.max / 1e6 - RESOLUTION_MS) };
  }
  if (on) {
    session.connect();
    await session.post('Profiler.enable');
    await session.post('Profiler.setSamplingInterval', { interval: PROFILE_INTERVAL_US });
    await session.post('Profiler.start');
    return {};
  }
  const { profile } = await session.post('Profiler.stop');
  if (file !== undefined) writeFileSync(file, JSON.stringify(profile));
  session.disconnect();
  return {};
}

if (process.send !== undefined) {
  process.on('message', (request: ProbeRequest) => {
    void turn(request).then((answer) => process.send?.(answer));
  });
  // The bench is gone: the router drains as for anybody who ends it.
  process.on('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  process.channel?.unref();
}
