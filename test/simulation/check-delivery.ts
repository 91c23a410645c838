/** What went over the wire, appservice by appservice: I1 NoLoss, I2 Order, I3 Frozen, I4 NoGapSkip, I5 Fenced, I6 BoundedDuplicates, I8 Isolation, I10 Liveness. */
import { lastPosition } from '../../src/store/segment.ts';
import type { Breach, Evidence } from './checker.ts';
import type { History, PushRecord, StateWrite } from './history.ts';
import { isLifeOver } from './check-states.ts';
import { idOf } from './log-view.ts';
import type { LogView, Routed } from './log-view.ts';
import { modelFrom } from './model.ts';
import { APPSERVICE_IDS, PLAIN_VAULT, registrationOf, SERVER } from './registrations.ts';

/** From when an event is durable to when an appservice that is well has it: the polls of who finds it elsewhere, and some time on the way. */
const CALM_DELAY_MS_MAX = 40_000;

/** How long what waits for an answer waits, at most; less what clocks are fast. */
const ANSWER_MS = 29_000;

interface Case {
  readonly appserviceId: string;
  readonly pushes: readonly PushRecord[];
  readonly writes: readonly StateWrite[];
  readonly routed: readonly Routed[];
  /** Txn ids that left the queue without having been delivered: cut anew, skipped, overtaken by a replay, of a life that is over. */
  readonly givenUp: ReadonlySet<string>;
  readonly shelved: ReadonlySet<string>;
}

export function deliveryBreaches(evidence: Evidence, view: LogView): Breach[] {
  return APPSERVICE_IDS.flatMap((appserviceId) => {
    const one = caseOf(appserviceId, evidence.history, view);
    const found = [...frozen(one), ...noGapSkip(one), ...fenced(one), ...oneInFlight(one), ...order(one), ...duplicates(one, evidence), ...asked(one, evidence), ...thisLife(one), ...noLoss(one, view, evidence), ...isolation(one, evidence)];
    return found.map((text) => ({ text: `${text} (${appserviceId})`, about: [appserviceId] }));
  });
}

function caseOf(appserviceId: string, history: History, view: LogView): Case {
  const writes = history.writes.filter(({ after }) => after.appserviceId === appserviceId);
  const pushes = history.pushes.filter((push) => push.appserviceId === appserviceId);
  const tooLarge = new Set(pushes.flatMap(({ txnId, heard }) => (heard === '413' ? [txnId] : [])));
  const givenUp = new Set<string>();
  for (const { before, after } of writes) {
    const transaction = before?.transaction ?? null;
    if (before === undefined || transaction === null || after.transaction?.txnId === transaction.txnId) continue;
    const isByWord = transaction.skip !== undefined || after.replayCount !== before.replayCount || after.deliveryState === 'failed';
    if (isByWord || isLifeOver(before, after, view) || tooLarge.has(transaction.txnId)) givenUp.add(transaction.txnId);
  }
  const shelved = new Set<string>();
  for (const { transaction } of history.shelved) if (transaction.appserviceId === appserviceId) for (const { kind, json } of transaction.entries) if (kind === 'event' || kind === 'to_device') shelved.add(idOf(kind, json));
  return { appserviceId, writes, givenUp, shelved, pushes, routed: view.routed.get(appserviceId) ?? [] };
}

function frozen({ pushes }: Case): string[] {
  const bodies = new Map<string, Uint8Array>();
  const broken: string[] = [];
  for (const { txnId, body, state, events, toDevice } of pushes) {
    const known = bodies.get(txnId);
    if (known !== undefined && Buffer.compare(known, body) !== 0) broken.push(`I3 Frozen: ${txnId} was sent with two bodies`);
    bodies.set(txnId, body);
    if (known !== undefined) continue;
    // What was not durable when it was sent may be forgotten, and the id used for something else.
    if (state?.lastTxnId === undefined || BigInt(state.lastTxnId) < BigInt(txnId)) broken.push(`I3 Frozen: ${txnId} was sent before it was durable`);
    const transaction = state?.transaction;
    if (transaction?.txnId === txnId && transaction.entryCount !== events.length + toDevice.length) broken.push(`I3 Frozen: ${txnId} was sent with ${events.length + toDevice.length} of ${transaction.entryCount} entries`);
  }
  return broken;
}

function noGapSkip({ pushes, givenUp }: Case): string[] {
  const broken: string[] = [];
  let newest: string | null = null;
  const settled = new Map<string, number>();
  for (const { txnId, heard, heardOrder, acceptedOrder } of pushes) {
    const order = heard === '413' ? heardOrder : acceptedOrder;
    if (order !== null) settled.set(txnId, Math.min(settled.get(txnId) ?? Infinity, order));
  }
  for (const { txnId, sentOrder } of pushes) {
    if (newest !== null && txnId !== newest) {
      if (BigInt(txnId) <= BigInt(newest)) broken.push(`I4 NoGapSkip: ${txnId} was sent after ${newest}`);
      else if ((settled.get(newest) ?? Infinity) > sentOrder && !givenUp.has(newest)) broken.push(`I4 NoGapSkip: ${txnId} was sent before ${newest} was taken`);
    }
    newest = txnId;
  }
  return broken;
}

/**
 * By the holder alone; and nothing of a queue that the holder itself has paused, or a transaction that it marked to be skipped.
 * What is sent while the answer of that write is on its way is aborted by it.
 */
function fenced({ pushes, writes }: Case): string[] {
  const writer = new Map(writes.map(({ after, process }) => [after, process]));
  return pushes.flatMap(({ txnId, process, replicaId, state, heard }) => {
    if (state?.leaseHolder !== replicaId) return [`I5 Fenced: ${txnId} was sent by ${process}, which does not hold the lease`];
    const isHeld = state.paused || state.parked || state.transaction?.skip !== undefined;
    return isHeld && heard !== 'aborted' && writer.get(state) === process ? [`M1 States: ${txnId} was sent by ${process}, which knows that it is held`] : [];
  });
}

function oneInFlight({ pushes }: Case): string[] {
  const last = new Map<string, PushRecord>();
  const broken: string[] = [];
  for (const push of pushes) {
    const before = last.get(push.process);
    if (before !== undefined && (before.heardOrder === null || before.heardOrder > push.sentOrder)) broken.push(`R61 OneInFlight: ${push.txnId} was sent by ${push.process} while ${before.txnId} was on its way`);
    last.set(push.process, push);
  }
  return broken;
}

/** What is taken for the first time follows the log; a replay begins anew where it says. */
function order({ pushes, writes, routed, givenUp }: Case): string[] {
  const positions = new Map<string, number>();
  const redelivered = new Set<string>();
  for (const { id, position, isRedelivery } of routed) {
    if (isRedelivery) redelivered.add(id);
    else if (!positions.has(id)) positions.set(id, position);
  }
  const replays = writes.filter(({ before, after }) => (after.replayCount ?? 0) !== (before?.replayCount ?? 0));
  const accepted = pushes.filter(({ acceptedOrder, txnId }) => acceptedOrder !== null && !givenUp.has(txnId)).sort((one, other) => (one.acceptedOrder ?? 0) - (other.acceptedOrder ?? 0));
  const first = new Set<string>();
  const broken: string[] = [];
  const last = { events: 0, toDevice: 0 };
  let replay = 0;
  for (const push of accepted) {
    for (; (replays[replay]?.order ?? Infinity) < (push.acceptedOrder ?? 0); replay++) {
      const back = replays[replay]?.after.deliveredPosition ?? 0;
      last.events = Math.min(last.events, back);
      last.toDevice = Math.min(last.toDevice, back);
    }
    for (const list of ['events', 'toDevice'] as const) {
      for (const id of push[list]) {
        const position = positions.get(id);
        if (position === undefined && !redelivered.has(id)) broken.push(`I9 Match: ${id} was delivered and never routed here`);
        if (position === undefined || first.has(id) || redelivered.has(id)) continue;
        first.add(id);
        if (position < last[list]) broken.push(`I2 Order: ${id} came after a later one, in ${push.txnId}`);
        last[list] = Math.max(last[list], position);
      }
    }
  }
  return broken;
}

function duplicates({ pushes, writes, routed, givenUp }: Case, { calm }: Evidence): string[] {
  const broken: string[] = [];
  const told = new Map<string, number>();
  for (const { txnId, state, sentOrder, heard, heardOrder } of pushes) {
    // A planned hand-over is none that repeats anything.
    const key = calm.routers ? txnId : `${txnId} ${state?.leaseEpoch ?? 0}`;
    if ((told.get(key) ?? Infinity) < sentOrder) broken.push(`I6 BoundedDuplicates: ${txnId} was sent again although it was acknowledged, without a fail-over`);
    if (heard !== null && heardOrder !== null && heard.startsWith('2')) told.set(key, Math.min(told.get(key) ?? Infinity, heardOrder));
  }
  const owners = new Map<string, Set<string>>();
  for (const { txnId, acceptedOrder, events, toDevice } of pushes) {
    if (acceptedOrder === null || givenUp.has(txnId)) continue;
    for (const id of [...events, ...toDevice]) owners.set(id, (owners.get(id) ?? new Set<string>()).add(txnId));
  }
  for (const [id, txnIds] of owners) {
    if (txnIds.size > 1 && txnIds.size > allowed(id, routed, writes)) broken.push(`I6 BoundedDuplicates: ${id} was taken under ${[...txnIds].join(' and ')}`);
  }
  return broken;
}

/** Nothing from before a life is sent in it (R76). */
function thisLife({ pushes, routed }: Case): string[] {
  const newest = new Map(routed.map(({ id, position }) => [id, position]));
  return pushes.flatMap(({ txnId, events, toDevice, state }) => {
    const old = [...events, ...toDevice].filter((id) => (newest.get(id) ?? Infinity) <= (state?.sincePosition ?? 0));
    return old.length === 0 ? [] : [`R76 NewLife: ${old.join(', ')} from before the registration was sent in ${txnId}`];
  });
}

/** What concerns a user without an account is sent only after the appservice was asked about that user, or its time to answer was over; or it gives no answers; or somebody tried to take its registration away. */
function asked({ appserviceId, pushes, routed }: Case, { history, writers }: Evidence): string[] {
  if (history.reregistered.has(appserviceId) || history.silent.has(appserviceId)) return [];
  const since = new Map<string, number>();
  for (const query of history.queries) if (query.appserviceId === appserviceId && !since.has(query.userId)) since.set(query.userId, query.sentOrder);
  const model = modelFrom(PLAIN_VAULT.seal(SERVER, registrationOf(appserviceId, 0), 'api').json);
  const unknown = new Map(writers.flatMap(({ items }) => items.flatMap(({ id, unknownUserIds }) => unknownUserIds.flatMap((userId) => (model.claims(userId) ? [[id, userId] as const] : [])))));
  const sentOrders = new Map<string, number>();
  for (const { events, sentOrder } of pushes) for (const id of events) if (unknown.has(id) && !sentOrders.has(id)) sentOrders.set(id, sentOrder);
  const routedMs = new Map(routed.map(({ id, timeMs }) => [id, timeMs]));
  return [...sentOrders].flatMap(([id, sentOrder]) => {
    const userId = unknown.get(id) ?? '';
    const heldMs = (routedMs.get(id) ?? 0) - (history.segments.find(({ segment }) => segment.holds?.some((change) => change.kind === 'held' && change.appserviceId === appserviceId && change.userIds.includes(userId)))?.timeMs ?? Infinity);
    return (since.get(userId) ?? Infinity) < sentOrder || heldMs >= ANSWER_MS ? [] : [`M5 Asked: ${id} was sent before the appservice was asked about ${userId}`];
  });
}

/** Under how many txn ids operators may have had it delivered. */
function allowed(id: string, routed: readonly Routed[], writes: readonly StateWrite[]): number {
  const positions = routed.flatMap((one) => (one.id === id ? [one.position] : []));
  const replays = writes.filter(({ before, after }) => before !== undefined && (after.replayCount ?? 0) !== (before.replayCount ?? 0));
  const again = replays.flatMap(({ before, after }) => positions.filter((position) => position > after.deliveredPosition && position <= Math.max(before?.deliveredPosition ?? 0, before?.transaction?.through ?? 0)));
  return positions.length + again.length;
}

/** Everything that is still owed at the end has been taken, or is on the shelf. */
function noLoss({ appserviceId, pushes, routed, shelved, writes }: Case, view: LogView, { store }: Evidence): string[] {
  const inForce = view.inForce.get(appserviceId);
  const state = store.states.get(appserviceId);
  if (inForce === undefined || inForce.model === null) return ['I10 Liveness: the registration was not put again'];
  if (state === undefined || state.deliveryState !== 'idle' || state.paused || state.parked) return [`I10 Liveness: at the end the delivery is ${state?.deliveryState ?? 'unknown'}`];
  const got = new Set(shelved);
  for (const { acceptedOrder, events, toDevice } of pushes) if (acceptedOrder !== null) for (const id of [...events, ...toDevice]) got.add(id);
  const since = Math.max(inForce.since, state.sincePosition);
  const missing = routed.filter(({ id, position }) => position > since && !got.has(id)).map(({ id }) => id);
  // What was trimmed while a replay moved the position back is not delivered again.
  const isLate = routed.some(({ position }) => position > state.deliveredPosition && store.segments.some((segment) => segment.firstPosition <= position && position <= lastPosition(segment)));
  return [...(missing.length === 0 ? [] : [`I1 NoLoss: ${missing.join(', ')} never arrived`]), ...(isLate && writes.length > 0 ? ['I10 Liveness: something is still to be delivered at the end'] : [])];
}

/** Where only others were in trouble, nothing comes late. */
function isolation({ appserviceId, pushes, routed, shelved }: Case, { calm, troubleMs, peaceMs }: Evidence): string[] {
  if (!calm.routers || !calm.appserviceIds.includes(appserviceId)) return [];
  const acceptedMs = new Map<string, number>();
  for (const { acceptedMs: atMs, events } of pushes) if (atMs !== null) for (const id of events) acceptedMs.set(id, Math.min(acceptedMs.get(id) ?? Infinity, atMs));
  return routed.flatMap(({ id, timeMs }) => {
    const delayMs = (acceptedMs.get(id) ?? Infinity) - timeMs;
    return id.startsWith('$') && !shelved.has(id) && timeMs > troubleMs && timeMs < peaceMs && delayMs > CALM_DELAY_MS_MAX ? [`I8 Isolation: ${id} took ${Math.round(delayMs)} ms although only others are in trouble`] : [];
  });
}
