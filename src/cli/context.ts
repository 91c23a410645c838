/** What a command is given. */
import type { Clock } from '../clock.ts';
import type { AdminClient } from '../rpc/admin-client.ts';
import type { Terminal } from './terminal.ts';

export interface CommandContext {
  readonly terminal: Terminal;
  readonly clock: Clock;
  /** Aborts on Ctrl-C. */
  readonly signal: AbortSignal;
  readonly json: boolean;
}

/** A command that talks to a router. */
export interface RouterContext extends CommandContext {
  readonly router: AdminClient;
  /** Of the homeserver meant; undefined: the one that the credential or the router has. */
  readonly serverName: string | undefined;
}

const CALL_TIMEOUT_MS = 20_000;

export function deadlineMs({ clock }: Pick<CommandContext, 'clock'>): number {
  return clock.nowMs() + CALL_TIMEOUT_MS;
}

export function printJson({ terminal }: Pick<CommandContext, 'terminal'>, value: unknown): void {
  terminal.out(`${JSON.stringify(value, null, 2)}\n`);
}

export function printJsonLine({ terminal }: Pick<CommandContext, 'terminal'>, value: unknown): void {
  terminal.out(`${JSON.stringify(value)}\n`);
}

/** All pages of a list. */
export async function allPages<Item>(page: (pageToken: string) => Promise<{ readonly items: readonly Item[]; readonly nextPageToken: string }>): Promise<Item[]> {
  const all: Item[] = [];
  let pageToken = '';
  do {
    const { items, nextPageToken } = await page(pageToken);
    all.push(...items);
    pageToken = nextPageToken;
  } while (pageToken !== '');
  return all;
}
