/** The commands of operations.ts and rotate-key.ts, and what they take. */
import { InvalidArgumentError } from 'commander';
import type { Command } from 'commander';
import type { RouterContext } from './context.ts';
import { audit, operate, quarantine, replay, stop } from './operations.ts';
import type { ReplayStart, TransactionOperation } from './operations.ts';
import { rotateKey } from './rotate-key.ts';
import type { RotateKeyOptions } from './rotate-key.ts';
import type { ExitCode } from './terminal.ts';

type Called = (run: (context: RouterContext) => Promise<ExitCode>) => Promise<void>;

const REASON = ['--reason <text>', 'why, for the audit'] as const;
const ENTRIES_DEFAULT = 50;
const ENTRIES_MAX = 10_000;

const OPERATIONS: Readonly<Record<TransactionOperation, string>> = {
  skip: 'put the transaction in flight into quarantine, so that the queue goes on',
  redeliver: 'queue a transaction of the quarantine again, under a new txn id',
  discard: 'give up a transaction of the quarantine',
};

export function addOperationCommands(program: Command, called: Called): void {
  for (const [name, description] of Object.entries(OPERATIONS) as [TransactionOperation, string][]) {
    program
      .command(name)
      .description(description)
      .argument('<id>')
      .argument('<txn>', 'its txn id')
      .requiredOption(...REASON)
      .action((id: string, txnId: string, { reason }: { reason: string }) => called((context) => operate(context, name, id, txnId, reason)));
  }
  program.command('quarantine').description('what an appservice could not take and was set aside').argument('<id>').action((id: string) => called((context) => quarantine(context, id)));
  program
    .command('replay')
    .description('deliver again what is still in the log, from a position or a time')
    .argument('<id>')
    .requiredOption('--from <start>', 'a log position, or a time such as 2026-01-31T12:00:00Z', startFrom)
    .requiredOption(...REASON)
    .action((id: string, { from, reason }: { from: ReplayStart; reason: string }) => called((context) => replay(context, id, from, reason)));
  program
    .command('stop')
    .description('end the delivery to an appservice for good')
    .argument('<id>')
    .requiredOption(...REASON)
    .action((id: string, { reason }: { reason: string }) => called((context) => stop(context, id, reason)));
  program
    .command('rotate-key')
    .description('make a new key that seals the tokens in the store, and seal all of them anew')
    .requiredOption(...REASON)
    .option('--replaced-key <id>', 'the key that seals so far; given again, no further key is made', keyIdFrom)
    .option('--shared-key-file', 'all routers on this store read the same encryption key file')
    .action((options: RotateKeyOptions) => called((context) => rotateKey(context, options)));
  program
    .command('audit')
    .description('what operators did, the newest first')
    .argument('[id]')
    .option('--limit <count>', 'at most so many', limitFrom, ENTRIES_DEFAULT)
    .action((id: string | undefined, { limit }: { limit: number }) => called((context) => audit(context, id, limit)));
}

function startFrom(text: string): ReplayStart {
  if (/^\d{1,15}$/.test(text)) return { kind: 'position', position: BigInt(text) };
  const timeMs = /^\d{4}-\d\d-\d\d(?:T[\d:.]+(?:Z|[+-]\d\d:\d\d))?$/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(timeMs)) throw new InvalidArgumentError('It is a log position such as 1200, or a time with its zone such as 2026-01-31T12:00:00Z.');
  return { kind: 'time', timeMs };
}

function keyIdFrom(text: string): string {
  if (/^[0-9a-f]{8}$/.test(text)) return text;
  throw new InvalidArgumentError('It is the id of a key, 8 hex digits, as rotate-key prints it.');
}

function limitFrom(text: string): number {
  const limit = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (limit < 1 || limit > ENTRIES_MAX) throw new InvalidArgumentError(`It is a number from 1 to ${ENTRIES_MAX}.`);
  return limit;
}
