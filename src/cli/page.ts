/** The text of docs/cli.md, from the commands themselves. */
import type { Command } from 'commander';

export function commandLinePage(program: Command): string {
  const commands = program.commands.filter((command) => command.name() !== 'help');
  return `${[
    '# Command line',
    '',
    'Generated from `src/cli/program.ts`; a test says when it is not current.',
    '',
    '`appservice-router` is the `bin` of the package; in a clone, `npm start -- COMMAND …` is the same. On the machine of a router with the embedded store nothing else need be',
    'said: the gRPC address comes from its settings and the token from the `credentials.json` of its data directory. From elsewhere name `--address` and `--token-file`, or set',
    '`ROUTER_ADDRESS` and `ROUTER_TOKEN_FILE`. A `monitor` credential may read; an `admin` may do everything.',
    '',
    'Text is for people and may change; programs use `--json`, which prints one document with the names of the contract (and one a line for `watch` and `status --watch`).',
    'Colours appear on a terminal only, and not with `NO_COLOR`.',
    '',
    '| exit code | meaning |',
    '|---|---|',
    '| 0 | done |',
    '| 1 | refused, or not what was hoped for (an appservice that does not answer a ping) |',
    '| 2 | the command or the configuration is wrong |',
    '| 3 | no router answers |',
    '| 4 | the token may not do this |',
    '| 5 | `doctor` found problems |',
    '',
    '```',
    textOf(program),
    '```',
    ...commands.flatMap((command) => ['', `## ${command.name()}`, '```', textOf(command), '```']),
  ].join('\n')}\n`;
}

function textOf(command: Command): string {
  return command.helpInformation({ error: false }).trimEnd();
}
