/**
 * What the router takes of the time of a transaction, at the rate at which Synapse can push: as people talk, and when
 * Synapse has to make up for an outage of the router, which is as fast as it goes.
 */
import { until } from '../../test-e2e/support/program.ts';
import type { TappedTransaction } from '../../test-e2e/support/tap.ts';
import { talk } from './outage.ts';
import type { RoutedWorld } from './worlds.ts';

const CATCH_UP_TIMEOUT_MS = 300_000;
/** Synapse waits the longer before it tries again the longer the router is away, so more than this would be mostly waiting. */
const MESSAGES_MAX = 1_500;

export interface PushResult {
  readonly name: string;
  readonly transactions: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export async function measurePush({ router, tap, appservice, people, roomId }: RoutedWorld, messagesWanted: number): Promise<PushResult[]> {
  const messages = Math.min(messagesWanted, MESSAGES_MAX);
  const live = await tapped(tap.transactions, () => talk(people, roomId, messages, 0));
  await router.stop();
  await talk(people, roomId, messages, 0);
  const before = appservice.requests.length;
  const caughtUp = await tapped(tap.transactions, async () => {
    await router.start();
    // Synapse tries again when something happens.
    await people[0]?.say(roomId, 'last');
    await until('the appservice has had everything', CATCH_UP_TIMEOUT_MS, () => (appservice.requests.slice(before).some((request) => request.messages.includes('last')) ? true : null));
  });
  return [pushResult('as people talk, as fast as it lets them', live), pushResult('what waited while the router was away', caughtUp)];
}

/** The transactions that came meanwhile. */
async function tapped(transactions: readonly TappedTransaction[], work: () => Promise<void>): Promise<TappedTransaction[]> {
  const before = transactions.length;
  await work();
  return transactions.slice(before);
}

function pushResult(name: string, transactions: readonly TappedTransaction[]): PushResult {
  const durations = transactions.map(({ answerMs }) => answerMs).toSorted((a, b) => a - b);
  const at = (share: number): number => durations[Math.min(durations.length - 1, Math.floor(durations.length * share))] ?? 0;
  const elapsedMs = (transactions.at(-1)?.atMs ?? 0) - (transactions[0]?.atMs ?? 0);
  return { name, transactions: transactions.length, perSecond: (transactions.length / Math.max(1, elapsedMs)) * 1000, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}
