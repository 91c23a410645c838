/** config: the settings in force, and where each was said. */
import type { ConfigLoading } from '../config.ts';
import { configJsonSchema } from '../config-page.ts';
import { SETTINGS, storeLabel } from '../config-schema.ts';
import type { Setting } from '../config-schema.ts';
import { printJson } from './context.ts';
import type { CommandContext } from './context.ts';
import { NONE } from './format.ts';
import { table } from './table.ts';
import { EXIT } from './terminal.ts';
import type { ExitCode } from './terminal.ts';

type Loaded = Extract<ConfigLoading, { kind: 'ok' }>;

export function showSchema(context: CommandContext): ExitCode {
  printJson(context, configJsonSchema());
  return EXIT.ok;
}

export function showConfig(context: CommandContext, loading: ConfigLoading): ExitCode {
  if (loading.kind === 'help') throw new Error('the settings were asked for their help');
  if (loading.kind === 'invalid') {
    if (context.json) printJson(context, { problems: loading.problems });
    else context.terminal.err(`The configuration cannot be used:\n${loading.problems.map((problem) => `  ${problem}\n`).join('')}`);
    return EXIT.usage;
  }
  if (context.json) {
    printJson(context, Object.fromEntries(SETTINGS.map((setting) => [setting.yamlName, { value: valueOf(setting, loading), source: sourceOf(setting, loading) }])));
    return EXIT.ok;
  }
  context.terminal.out(table(['setting', 'value', 'from'], SETTINGS.map((setting) => [setting.yamlName, shown(valueOf(setting, loading)), sourceOf(setting, loading)])));
  return EXIT.ok;
}

/** A store's URI may hold a password. */
function valueOf({ key }: Setting, { config }: Loaded): unknown {
  return key === 'store' ? storeLabel(config.store) : config[key];
}

function sourceOf({ key }: Setting, { sources }: Loaded): string {
  return sources.get(key) ?? 'default';
}

function shown(value: unknown): string {
  if (value === null || (Array.isArray(value) && value.length === 0)) return NONE;
  if (Array.isArray(value)) return value.join(', ');
  return typeof value === 'string' ? value : JSON.stringify(value);
}
