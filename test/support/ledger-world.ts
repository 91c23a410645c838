/** A ledger on a given log, with a listener that keeps what it is told. */
import { systemClock } from '../../src/clock.ts';
import type { Clock } from '../../src/clock.ts';
import type { Registration } from '../../src/appservice/registration.ts';
import { Fold } from '../../src/ingest/fold.ts';
import type { KnownAnswers } from '../../src/ingest/group-holds.ts';
import { Ledger } from '../../src/ingest/ledger.ts';
import type { LedgerLimits } from '../../src/ingest/ledger.ts';
import type { Logger } from '../../src/logger.ts';
import type { FoldStore, SegmentLog } from '../../src/store/port.ts';
import type { Segment } from '../../src/store/segment.ts';
import { seededRandom } from './clock.ts';
import type { MemoryLog } from './memory-store.ts';
import { openPlain, plainStored, SERVER } from './routing.ts';

export const silent: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

export const LIMITS: LedgerLimits = {
  groupRoutedMax: 100_000,
  groupEventsMax: 1000,
  groupBytesMax: 8 << 20,
  queueItemsMax: 1000,
  queueBytesMax: 64 << 20,
  retryDelayMs: 1000,
  answerTimeoutMs: 1000,
  catchUpIntervalMs: 100,
  readSegmentsMax: 10,
  readBytesMax: 1 << 20,
  streamsMax: 100,
};

export interface LedgerWorld extends AsyncDisposable {
  readonly ledger: Ledger;
  readonly fold: Fold;
  readonly folded: Segment[];
  put(registration: Registration): Promise<number>;
}

let seed = 0;

export interface LedgerParts {
  readonly answers?: KnownAnswers;
  /** Told how many went out without a question. */
  readonly unasked?: (count: number) => void;
}

export async function openLedger(log: FoldStore & SegmentLog, limits: Partial<LedgerLimits> = {}, clock: Clock = systemClock, parts: LedgerParts = {}): Promise<LedgerWorld> {
  const folded: Segment[] = [];
  const fold = await Fold.load({ serverName: SERVER, store: log, open: openPlain, pause: () => clock.pause(), roomsMax: 1000 });
  const ledger = new Ledger({
    fold,
    log,
    answers: parts.answers ?? { isAnswered: () => false },
    listener: { segmentFolded: (segment) => folded.push(segment) },
    meter: { group: () => undefined, submitted: () => undefined, unasked: parts.unasked ?? (() => undefined) },
    clock,
    random: seededRandom(++seed),
    logger: silent,
    limits: { ...LIMITS, ...limits },
  });
  await ledger.start();
  return {
    ledger,
    fold,
    folded,
    put: (registration) =>
      ledger.changeRegistrations(() => [{ kind: 'put', appserviceId: registration.id, registration: plainStored(registration), resumeParked: false }]),
    [Symbol.asyncDispose]: () => ledger[Symbol.asyncDispose](),
  };
}

/** Texts of the entries routed to an appservice in the whole log, in order, by their event ids. */
export function routedIds(log: MemoryLog, appserviceId: string): string[] {
  return log.segments.flatMap((segment) => {
    const ranges = segment.routes.find((route) => route.appserviceId === appserviceId)?.ranges ?? [];
    const indexes = segment.entries.map((_, index) => index).filter((index) => ranges.some((first, at) => at % 2 === 0 && index >= first && index <= (ranges[at + 1] ?? -1)));
    return indexes.map((index) => (JSON.parse(Buffer.from(segment.entries[index]?.json ?? []).toString()) as { event_id: string }).event_id);
  });
}
