import { join } from 'node:path';
import { hottest } from './profile.ts';
import type { Router } from './router.ts';
import type { Bench } from './scenario.ts';

/** Runs `work` with the router's profiler on, if profiles are wanted, and says what was hot. */
export async function profiled(bench: Bench, router: Router, name: string, work: () => Promise<unknown>): Promise<void> {
  const { profileFolder } = bench.options;
  if (profileFolder === null) return;
  const file = join(profileFolder, `${name}.cpuprofile`);
  await router.probe({ probe: 'profile', on: true });
  await work();
  await router.probe({ probe: 'profile', on: false, file });
  bench.say(`\n${file}\n${hottest(file)}`);
}
