/**
 * `npm run bench -- vs-synapse`: Synapse feeding an appservice itself, beside Synapse with the router between them. Over
 * loopback only; everything that is started is ended, and everything that is written but the page is removed.
 *
 * Exit code 0 = all messages arrived, once and in order, on both ways; 1 = they did not, or something could not be
 * measured; 2 = wrong arguments.
 */
import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { inWorld } from '../../test-e2e/support/world.ts';
import { syncMs } from '../disk.ts';
import { measureOutage } from './outage.ts';
import type { OutageOptions } from './outage.ts';
import { measurePush } from './push.ts';
import type { PushResult } from './push.ts';
import { textOf, writeIntoPage } from './report.ts';
import type { OutageRow } from './report.ts';
import { openDirect, openRouted } from './worlds.ts';

const USAGE = `npm run bench -- vs-synapse [--quick] [--write]

  --quick  500 messages in 10 s instead of 5,000 in two minutes
  --write  puts the tables into docs/synapse.md`;

const FULL: OutageOptions = { messages: 5_000, outageMs: 120_000, catchUpTimeoutMs: 300_000 };
const QUICK: OutageOptions = { messages: 500, outageMs: 10_000, catchUpTimeoutMs: 120_000 };
/** A second run of the router shows what larger transactions bring: appservices have no limit of their own in common. */
const LARGER_TRANSACTION_EVENTS = 500;

async function main(args: readonly string[]): Promise<number> {
  const options = optionsFrom(args);
  if (options === null) {
    console.error(USAGE);
    return 2;
  }
  const outages: OutageRow[] = [];
  const pushes: PushResult[] = [];
  console.log('Synapse alone …');
  await inWorld(async (world) => {
    outages.push({ name: 'Synapse alone', result: await measureOutage(await openDirect(world), options.outage) });
  });
  for (const eventsMax of [null, LARGER_TRANSACTION_EVENTS]) {
    const name = eventsMax === null ? 'through the router' : `the same, up to ${eventsMax} events in a transaction`;
    console.log(`${name} …`);
    await inWorld(async (world) => {
      const routed = await openRouted(world, eventsMax);
      outages.push({ name, result: await measureOutage(routed, options.outage) });
      if (eventsMax === null) pushes.push(...(await measurePush(routed, options.outage.messages)));
    });
  }
  const text = textOf({ outages, pushes, syncMs: syncMs(tmpdir()) });
  console.log(`\n${text}`);
  if (options.write) writeIntoPage(text);
  return outages.every(({ result: { lost, doubled, outOfOrder } }) => lost + doubled + outOfOrder === 0) ? 0 : 1;
}

function optionsFrom(args: readonly string[]): { outage: OutageOptions; write: boolean } | null {
  try {
    const { values } = parseArgs({ args: [...args], options: { quick: { type: 'boolean' }, write: { type: 'boolean' } } });
    return { outage: values.quick === true ? QUICK : FULL, write: values.write === true };
  } catch {
    return null;
  }
}

process.exitCode = await main(process.argv.slice(2));
