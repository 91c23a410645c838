/** What docs/cli.md has to be. */
import { commandLinePage } from '../../src/cli/page.ts';
import { programOf } from '../../src/cli/program.ts';
import { systemClock, systemRandom } from '../../src/clock.ts';
import { loadConfig } from '../../src/config.ts';

export function cliPage(): string {
  const nothing = (): void => undefined;
  const program = programOf(
    {
      terminal: { out: nothing, err: nothing, isInteractive: false, hasColour: false, columns: 80 },
      clock: systemClock,
      random: systemRandom,
      signal: new AbortController().signal,
      version: '0',
      environment: {},
      loadConfig: () => loadConfig({ argv: [], env: {} }),
      readFile: () => '',
      inspectMongo: () => Promise.reject(new Error('no page looks at a store')),
    },
    nothing,
  );
  return commandLinePage(program);
}
