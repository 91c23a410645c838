/**
 * One outage: the appservice goes away, people go on talking, it comes back and pings as bridges do when they start.
 * What it sees from then on, until it has had everything, is what is measured.
 */
import type { MatrixClient } from '../../test-e2e/support/matrix-client.ts';
import { until } from '../../test-e2e/support/program.ts';
import type { CountingAppservice } from './counting-appservice.ts';

export interface OutageOptions {
  readonly messages: number;
  readonly outageMs: number;
  readonly catchUpTimeoutMs: number;
}

export interface OutageResult {
  readonly messages: number;
  readonly outageMs: number;
  /** Transactions from the return to the last message. */
  readonly requests: number;
  readonly eventsPerTransaction: number;
  /** From the return to the first transaction. */
  readonly waitMs: number;
  /** From the first transaction to the last message. */
  readonly drainMs: number;
  readonly lost: number;
  readonly doubled: number;
  readonly outOfOrder: number;
}

export interface OutageWorld {
  readonly appservice: CountingAppservice;
  readonly people: readonly MatrixClient[];
  readonly roomId: string;
  /** What the bridge does when it has started. */
  ping(): Promise<void>;
}

export async function measureOutage({ appservice, people, roomId, ping }: OutageWorld, { messages, outageMs, catchUpTimeoutMs }: OutageOptions): Promise<OutageResult> {
  await appservice.down();
  const startedMs = performance.now();
  await talk(people, roomId, messages, outageMs);
  const tookMs = performance.now() - startedMs;
  const before = appservice.requests.length;
  await appservice.up();
  const upMs = performance.now();
  await ping();
  const seen = (): string[] => appservice.requests.slice(before).flatMap((request) => request.messages);
  await until('the appservice has had everything', catchUpTimeoutMs, () => (new Set(seen()).size >= messages ? true : null)).catch(() => undefined);
  const requests = appservice.requests.slice(before);
  const firstMs = requests[0]?.atMs ?? upMs;
  return {
    messages,
    outageMs: tookMs,
    requests: requests.length,
    eventsPerTransaction: requests.reduce((sum, { eventCount }) => sum + eventCount, 0) / Math.max(1, requests.length),
    waitMs: firstMs - upMs,
    drainMs: (requests.at(-1)?.atMs ?? upMs) - firstMs,
    ...judged(seen(), messages),
  };
}

/** Everybody says the next thing once the last was accepted, so each one's messages have an order; paced over the time. */
export async function talk(people: readonly MatrixClient[], roomId: string, messages: number, outageMs: number): Promise<void> {
  const startedMs = performance.now();
  await Promise.all(
    people.map(async (person, at) => {
      for (let number = at; number < messages; number += people.length) {
        await waitUntil(startedMs + (number / messages) * outageMs);
        await person.say(roomId, `${at} ${number}`);
      }
    }),
  );
  await waitUntil(startedMs + outageMs);
}

async function waitUntil(dueMs: number): Promise<void> {
  const restMs = dueMs - performance.now();
  if (restMs > 0) await new Promise((resolve) => setTimeout(resolve, restMs));
}

function judged(seen: readonly string[], messages: number): { lost: number; doubled: number; outOfOrder: number } {
  const known = new Set<string>();
  const newest = new Map<string, number>();
  let doubled = 0;
  let outOfOrder = 0;
  for (const text of seen) {
    const [person = '', number = ''] = text.split(' ');
    if (known.has(text)) doubled++;
    else if (Number(number) < (newest.get(person) ?? -1)) outOfOrder++;
    known.add(text);
    newest.set(person, Math.max(newest.get(person) ?? -1, Number(number)));
  }
  return { lost: messages - known.size, doubled, outOfOrder };
}
