/** A process of appservices, as the scenarios see it. */
import type { Processes, RunningProcess } from './processes.ts';
import type { ReceiverStats } from './receiver.ts';

export interface Receivers {
  readonly process: RunningProcess;
  /** The url of the registration of appservice number `at`. */
  url(at: number): string;
  /** What came since the last call. */
  stats(): Promise<ReceiverStats>;
  /** Refuses everything until it is set up again. */
  setDown(down: boolean): Promise<void>;
}

const PROGRAM = new URL('./receiver.ts', import.meta.url).pathname;

export async function startReceivers(processes: Processes, delayMs: number, mode: 'count' | 'parse' | 'hang'): Promise<Receivers> {
  const running = processes.start('receivers', PROGRAM, [String(delayMs), mode]);
  const { port } = await processes.line(running, ({ port }) => typeof port === 'number');
  const base = `http://127.0.0.1:${String(port)}`;
  const get = async (path: string): Promise<unknown> => (await fetch(base + path, { signal: processes.signal })).json();
  return {
    process: running,
    url: (at) => `${base}/${at}`,
    stats: async () => (await get('/stats')) as ReceiverStats,
    setDown: async (down) => {
      await get(down ? '/down' : '/up');
    },
  };
}
