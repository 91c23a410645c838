/** The stored delivery states, write by write: I1 NoLoss, I3 Frozen, I4 NoGapSkip, I5 Fenced, I11 Monotone, M1 States. */
import type { AppserviceState, TransactionRecord } from '../../src/store/port.ts';
import type { Breach, Evidence } from './checker.ts';
import type { History, PushRecord, StateWrite } from './history.ts';
import { idOf } from './log-view.ts';
import type { LogView } from './log-view.ts';

export function stateBreaches({ history }: Evidence, view: LogView): Breach[] {
  const breaches: Breach[] = [];
  const pushes = new Map<string, PushRecord[]>();
  for (const push of history.pushes) {
    const key = `${push.appserviceId} ${push.txnId}`;
    const all = pushes.get(key);
    if (all === undefined) pushes.set(key, [push]);
    else all.push(push);
  }
  const had = new Had(history);
  for (const write of history.writes) {
    const { appserviceId } = write.after;
    const found = [...shapeOf(write.after), ...(write.before === undefined ? [] : stepOf(write, write.before, view, pushes, had))];
    breaches.push(...found.map((text) => ({ text: `${text} (${appserviceId}, revision ${write.after.revision} by ${write.process})`, about: [appserviceId] })));
  }
  return breaches;
}

function shapeOf({ deliveryState, transaction }: AppserviceState): string[] {
  const isRight = deliveryState === 'failed' ? transaction === null : (transaction === null) === (deliveryState === 'idle');
  return isRight ? [] : [`M1 States: ${deliveryState} with transaction ${transaction?.txnId ?? 'none'}`];
}

function stepOf(write: StateWrite, before: AppserviceState, view: LogView, pushes: ReadonlyMap<string, readonly PushRecord[]>, had: Had): string[] {
  const { after } = write;
  const broken: string[] = [];
  if (after.leaseEpoch < before.leaseEpoch) broken.push('I5 Fenced: an older epoch was written');
  if (after.leaseHolder !== before.leaseHolder && after.leaseHolder !== null && after.leaseEpoch !== before.leaseEpoch + 1) broken.push('I5 Fenced: a holder came without a new epoch');
  const replays = (after.replayCount ?? 0) - (before.replayCount ?? 0);
  if (replays !== 0 && replays !== 1) broken.push('I11 Monotone: the number of replays is wrong');
  if (after.deliveredPosition < before.deliveredPosition && replays !== 1) broken.push('I11 Monotone: a delivered position went back');
  if (BigInt(after.lastTxnId) < BigInt(before.lastTxnId)) broken.push('I11 Monotone: a txn id went back');
  if (after.sincePosition < before.sincePosition) broken.push('I11 Monotone: a life went back');
  const { transaction } = before;
  if (transaction !== null && after.transaction?.txnId === transaction.txnId && String(after.transaction.ranges) !== String(transaction.ranges)) broken.push(`I3 Frozen: the choice of ${transaction.txnId} changed`);
  if (after.transaction !== null && after.transaction.txnId !== transaction?.txnId && BigInt(after.transaction.txnId) <= BigInt(before.lastTxnId)) broken.push(`I4 NoGapSkip: ${after.transaction.txnId} was cut after ${before.lastTxnId}`);
  if (after.transaction !== null && after.transaction.txnId !== transaction?.txnId && (after.paused || after.parked)) broken.push(`M1 States: ${after.transaction.txnId} was cut while the queue is held`);
  if (isOfDelivery(before, after, view) && write.replicaId !== before.leaseHolder) broken.push(`I5 Fenced: a step was made by one who is not the holder`);
  if (isLifeOver(before, after, view) || after.deliveryState === 'failed') return broken;
  if (after.deliveredPosition > before.deliveredPosition) broken.push(...passedOver(before, write, view, had));
  if (transaction !== null && isCompletion(transaction, before, after) && !wasAccepted(pushes.get(`${after.appserviceId} ${transaction.txnId}`), write.order)) {
    broken.push(`I1 NoLoss: ${transaction.txnId} counts as delivered, and nobody has taken it`);
  }
  return broken;
}

/** Cuts, attempts and completions are for the holder alone; operators mark, replay and stop. */
function isOfDelivery(before: AppserviceState, after: AppserviceState, view: LogView): boolean {
  if ((after.replayCount ?? 0) !== (before.replayCount ?? 0) || after.deliveryState === 'failed' || isLifeOver(before, after, view)) return false;
  return after.transaction?.txnId !== before.transaction?.txnId || after.deliveredPosition !== before.deliveredPosition || (after.transaction?.attemptCount ?? 0) !== (before.transaction?.attemptCount ?? 0);
}

/** A life ended or began, or what was queued is given up with the registration: it is not owed any more. */
export function isLifeOver(before: AppserviceState, after: AppserviceState, { removals }: Pick<LogView, 'removals'>): boolean {
  return after.sincePosition !== before.sincePosition || (after.transaction === null && removals.has(`${after.appserviceId} ${after.deliveredPosition}`));
}

function isCompletion({ skip }: TransactionRecord, before: AppserviceState, after: AppserviceState): boolean {
  return skip === undefined && after.deliveredPosition > before.deliveredPosition && after.quarantinedEntries === before.quarantinedEntries;
}

function wasAccepted(pushes: readonly PushRecord[] | undefined, order: number): boolean {
  return pushes?.some(({ acceptedOrder }) => acceptedOrder !== null && acceptedOrder < order) === true;
}

/** Everything routed between the two delivered positions was in the transaction that is taken out of the queue, or the appservice had it before a replay. */
function passedOver(before: AppserviceState, { after, order }: StateWrite, view: LogView, had: Had): string[] {
  const { appserviceId, deliveredPosition } = after;
  const ranges = before.transaction?.ranges ?? [];
  const chosen = (position: number): boolean => ranges.some((first, at) => at % 2 === 0 && position >= first && position <= (ranges[at + 1] ?? -1));
  const missed: string[] = [];
  for (const { position, id } of view.routed.get(appserviceId) ?? []) {
    if (position > deliveredPosition) break;
    if (position > before.deliveredPosition && !chosen(position) && !had.by(appserviceId, id, order)) missed.push(id);
  }
  return missed.length === 0 ? [] : [`I1 NoLoss: ${missed.join(', ')} passed over`];
}

/** What each appservice had taken, or had on its shelf, and from when on. */
class Had {
  readonly #history: History;
  #since: Map<string, number> | null = null;

  constructor(history: History) {
    this.#history = history;
  }

  by(appserviceId: string, id: string, order: number): boolean {
    this.#since ??= this.#all();
    return (this.#since.get(`${appserviceId} ${id}`) ?? Infinity) < order;
  }

  #all(): Map<string, number> {
    const since = new Map<string, number>();
    const note = (key: string, order: number): void => void since.set(key, Math.min(order, since.get(key) ?? Infinity));
    for (const { appserviceId, events, toDevice, acceptedOrder } of this.#history.pushes) if (acceptedOrder !== null) for (const id of [...events, ...toDevice]) note(`${appserviceId} ${id}`, acceptedOrder);
    for (const { transaction, order } of this.#history.shelved) {
      for (const { kind, json } of transaction.entries) if (kind === 'event' || kind === 'to_device') note(`${transaction.appserviceId} ${idOf(kind, json)}`, order);
    }
    return since;
  }
}
