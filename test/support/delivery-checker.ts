/**
 * Judges the history of a delivery world by the named invariants of the architecture. It knows nothing of how delivery
 * works: it looks at what the log held, what the appservices were sent and answered, and which states were stored.
 */
import { eventsOf } from './delivery-world.ts';
import type { DeliveryWorld, PushRecord } from './delivery-world.ts';
import type { AppserviceState } from '../../src/store/port.ts';

export interface CheckOptions {
  /** Processes that were killed, frozen or handed over: each may repeat the transaction in flight once. */
  readonly failovers: number;
  /** The queues are expected to be empty by now. */
  readonly isDrained: boolean;
}

/** Sentences, each beginning with the invariant's number; none if all hold. Only for lives that were neither parked nor discarded, unless they were stopped before. */
export function violations(world: DeliveryWorld, options: CheckOptions): string[] {
  const ids = [...world.registrations.keys()];
  return [...ids.flatMap((appserviceId) => violationsOf(world, appserviceId, options)), ...stateViolations(world)];
}

function violationsOf(world: DeliveryWorld, appserviceId: string, { failovers, isDrained }: CheckOptions): string[] {
  const pushes = world.pushesTo(appserviceId);
  const routed = world.store.routedTo(appserviceId);
  const expected = routed.map(({ json }) => Buffer.from(json).toString());
  const given = interventions(world, appserviceId);
  const ofKind = new Map(routed.map(({ kind, json }) => [Buffer.from(json).toString(), kind]));
  const shelved = [...world.store.records.quarantined.values()].filter((item) => item.appserviceId === appserviceId).flatMap(({ entries }) => entries.map(({ json }) => Buffer.from(json).toString()));
  const said = (text: string): string => `${text} (${appserviceId})`;
  return [
    ...(isDrained ? noLoss(expected.filter((text) => !given.stopped.has(text)), world.received(appserviceId), shelved) : []),
    ...order(expected, pushes, (text) => ofKind.get(text) ?? 'event', given.outOfTurn),
    ...frozen(pushes),
    ...noGapSkip(pushes, given.givenUp),
    ...oneInFlight(pushes),
    ...boundedDuplicates(pushes, failovers, given),
  ].map(said);
}

/** The same of the pushes to one appservice alone, where `expected` is known to be what the log held for it, in its order. Nobody stepped in. */
export function pushViolations(expected: readonly string[], pushes: readonly PushRecord[], { failovers, isDrained }: CheckOptions): string[] {
  const received = pushes.flatMap(({ answered, text }) => (answered === 'delivered' ? eventsOf(text) : []));
  const nobody: Interventions = { givenUp: new Set(), stopped: new Set(), allowed: new Map(), outOfTurn: new Set() };
  return [
    ...(isDrained ? noLoss(expected, received, []) : []),
    ...order(expected, pushes, () => 'event', nobody.outOfTurn),
    ...frozen(pushes),
    ...noGapSkip(pushes, nobody.givenUp),
    ...boundedDuplicates(pushes, failovers, nobody),
  ];
}

interface Interventions {
  /** Txn ids that operators took out of the queue: skipped, overtaken by a replay, or stopped. */
  readonly givenUp: ReadonlySet<string>;
  /** Texts that were given up by stopping, or routed to a life that was stopped. */
  readonly stopped: ReadonlySet<string>;
  /** Texts that an operator's word may bring twice: in how many txn ids each may be accepted. */
  readonly allowed: ReadonlyMap<string, number>;
  /** Texts that have been in quarantine: they come again when an operator says so, by a redelivery or a replay. */
  readonly outOfTurn: ReadonlySet<string>;
}

/** Read off the stored states and the log alone. */
function interventions(world: DeliveryWorld, appserviceId: string): Interventions {
  const givenUp = new Set<string>();
  /** The log positions above `after` and through the end of the life. */
  const lives: { after: number; through: number }[] = [];
  const allowed = new Map<string, number>();
  const routed = world.store.routedTo(appserviceId).map(({ position, json }) => ({ position, text: Buffer.from(json).toString() }));
  const times = new Map<string, number>();
  for (const { text } of routed) times.set(text, (times.get(text) ?? 0) + 1);
  const outOfTurn = new Set([...times].flatMap(([text, count]) => (count > 1 ? [text] : [])));
  for (const [text, count] of times) allowed.set(text, count);
  for (const { before, after } of world.store.accepted) {
    if (after.appserviceId !== appserviceId || before === undefined) continue;
    if (before.transaction?.skip !== undefined && after.transaction?.txnId !== before.transaction.txnId) givenUp.add(before.transaction.txnId);
    const { ranges = [] } = before.transaction ?? {};
    if (after.quarantinedEntries > before.quarantinedEntries) for (const { position, text } of routed) if (isWithin(ranges, position)) outOfTurn.add(text);
    const begins = isNewLife(before, after);
    const last = lives.at(-1);
    if (begins && last !== undefined) last.through = Math.min(last.through, after.deliveredPosition);
    if (isStop(before, after)) {
      if (before.transaction !== null) givenUp.add(before.transaction.txnId);
      lives.push({ after: begins ? after.deliveredPosition : before.deliveredPosition, through: Infinity });
    }
    if ((after.replayCount ?? 0) === (before.replayCount ?? 0)) continue;
    if (before.transaction !== null) givenUp.add(before.transaction.txnId);
    const through = before.transaction?.through ?? before.deliveredPosition;
    for (const { position, text } of routed) if (position > after.deliveredPosition && position <= through) allowed.set(text, (allowed.get(text) ?? 0) + 1);
  }
  const stopped = new Set(routed.flatMap(({ position, text }) => (lives.some(({ after, through }) => position > after && position <= through) ? [text] : [])));
  return { givenUp, stopped, allowed, outOfTurn };
}

/** Positions as in Segment's routes: first and last of each run, flattened. */
function isWithin(ranges: readonly number[], position: number): boolean {
  return ranges.some((first, at) => at % 2 === 0 && position >= first && position <= (ranges[at + 1] ?? first));
}

function isStop(before: AppserviceState, after: AppserviceState): boolean {
  return after.deliveryState === 'failed' && (before.deliveryState !== 'failed' || before.sincePosition !== after.sincePosition);
}

/** What was stopped ends with its registration; then, or at once, the next life begins. */
function isNewLife(before: AppserviceState, after: AppserviceState): boolean {
  return before.sincePosition !== after.sincePosition || (before.deliveryState === 'failed' && after.deliveryState !== 'failed');
}

function noLoss(expected: readonly string[], received: readonly string[], shelved: readonly string[]): string[] {
  const got = new Set([...received, ...shelved]);
  return expected.filter((text) => !got.has(text)).map((text) => `I1 NoLoss: ${text} never arrived`);
}

/** What was accepted follows the log within each list and from transaction to transaction. */
function order(expected: readonly string[], pushes: readonly PushRecord[], kindOf: (text: string) => string, outOfTurn: ReadonlySet<string>): string[] {
  const at = new Map(expected.map((text, index) => [text, index]));
  const first = new Set<string>();
  for (const { answered, text } of pushes) if (answered === 'delivered') for (const event of eventsOf(text)) first.add(event);
  const last = new Map<string, number>();
  const broken: string[] = [];
  for (const event of first) {
    const index = at.get(event);
    if (index === undefined) broken.push(`I2 Order: ${event} was never routed here`);
    // It comes when an operator says so.
    else if (outOfTurn.has(event)) continue;
    else if (index < (last.get(kindOf(event)) ?? -1)) broken.push(`I2 Order: ${event} came after a later one`);
    last.set(kindOf(event), Math.max(last.get(kindOf(event)) ?? -1, index ?? -1));
  }
  return broken;
}

function frozen(pushes: readonly PushRecord[]): string[] {
  const bodies = new Map<string, string>();
  const broken: string[] = [];
  for (const { txnId, text } of pushes) {
    if ((bodies.get(txnId) ?? text) !== text) broken.push(`I3 Frozen: ${txnId} was sent with two bodies`);
    bodies.set(txnId, text);
  }
  return broken;
}

/** A new txn id is greater than all before and comes only after the one before was answered with 2xx or 413. */
function noGapSkip(pushes: readonly PushRecord[], givenUp: ReadonlySet<string>): string[] {
  const broken: string[] = [];
  let newest: string | null = null;
  const settledAt = new Map<string, number>();
  for (const { txnId, answered, answeredAt } of pushes) {
    if (answered !== 'delivered' && answered !== 'too_large') continue;
    settledAt.set(txnId, Math.min(settledAt.get(txnId) ?? Infinity, answeredAt ?? Infinity));
  }
  for (const { txnId, beganAt } of pushes) {
    if (newest !== null && txnId !== newest) {
      if (BigInt(txnId) <= BigInt(newest)) broken.push(`I4 NoGapSkip: ${txnId} was sent after ${newest}`);
      if ((settledAt.get(newest) ?? Infinity) > beganAt && !givenUp.has(newest)) broken.push(`I4 NoGapSkip: ${txnId} was sent before ${newest} was acknowledged`);
    }
    newest = txnId;
  }
  return broken;
}

/** Of one process: the next push begins only after the one before was heard of. */
function oneInFlight(pushes: readonly PushRecord[]): string[] {
  const last = new Map<string, PushRecord>();
  const broken: string[] = [];
  for (const push of pushes) {
    const before = last.get(push.process);
    if (before !== undefined && before.heard === null) broken.push(`R61 OneInFlight: ${push.txnId} was sent while ${before.txnId} was on its way`);
    last.set(push.process, push);
  }
  return broken;
}

function boundedDuplicates(pushes: readonly PushRecord[], failovers: number, { allowed }: Interventions): string[] {
  const owners = new Map<string, Set<string>>();
  const accepted = new Map<string, number>();
  const broken: string[] = [];
  let repeats = 0;
  for (const { txnId, answered, text } of pushes) {
    if (answered !== 'delivered') continue;
    const times = (accepted.get(txnId) ?? 0) + 1;
    accepted.set(txnId, times);
    if (times > 1) repeats++;
    for (const event of eventsOf(text)) {
      const known = owners.get(event) ?? new Set();
      owners.set(event, known.add(txnId));
      if (known.size > (allowed.get(event) ?? 1)) broken.push(`I6 BoundedDuplicates: ${event} was accepted under ${[...known].join(' and ')}`);
    }
  }
  if (repeats > failovers) broken.push(`I6 BoundedDuplicates: ${repeats} transactions were repeated in ${failovers} fail-overs`);
  return broken;
}

function stateViolations(world: DeliveryWorld): string[] {
  const broken: string[] = [];
  for (const { before, after } of world.store.accepted) {
    const { appserviceId, transaction, deliveryState } = after;
    const said = (text: string): void => void broken.push(`${text} (${appserviceId})`);
    if (deliveryState !== 'failed' && (transaction === null) !== (deliveryState === 'idle')) said(`M1 States: ${deliveryState} with transaction ${transaction?.txnId ?? 'none'}`);
    if (before === undefined) continue;
    if (after.leaseEpoch < before.leaseEpoch) said('I5 Fenced: an older epoch was written');
    if (after.leaseEpoch === before.leaseEpoch && after.leaseHolder !== before.leaseHolder && after.leaseHolder !== null) said('I5 Fenced: a holder came without a new epoch');
    const replays = (after.replayCount ?? 0) - (before.replayCount ?? 0);
    if (replays < 0 || replays > 1) said('I11 Monotone: the number of replays is wrong');
    if (after.deliveredPosition < before.deliveredPosition && replays !== 1) said('I11 Monotone: a delivered position went back');
    if (BigInt(after.lastTxnId) < BigInt(before.lastTxnId)) said('I11 Monotone: a txn id went back');
    if (transaction !== null && before.transaction !== null && transaction.txnId === before.transaction.txnId && String(transaction.ranges) !== String(before.transaction.ranges)) said('I3 Frozen: the choice of a transaction changed');
    if (after.deliveredPosition > before.deliveredPosition && before.transaction === null && !isNewLife(before, after)) said('I4 NoGapSkip: a delivered position moved without a transaction');
  }
  return broken;
}
