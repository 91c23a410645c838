/**
 * Deliberate bugs, each in one or two fragments of src. The simulation must find each; one that it does not find tells that
 * the simulation is too tame, or the checker blind.
 */
export interface MutantChange {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export interface Mutant {
  readonly name: string;
  readonly changes: readonly MutantChange[];
}

function mutant(name: string, file: string, find: string, replace: string): Mutant {
  return { name, changes: [{ file: `src/${file}`, find, replace }] };
}

const LEDGER = 'ingest/ledger.ts';
const GROUP = 'ingest/group-router.ts';
const FOLD = 'ingest/fold.ts';
const TRANSITIONS = 'delivery/transitions.ts';
const ROSTER = 'delivery/roster.ts';
const SENDER = 'delivery/sender.ts';
const QUEUE = 'delivery/transaction-queue.ts';
const CELL = 'delivery/state-cell.ts';
const PRESENCE = 'delivery/replica-presence.ts';

const INGEST: readonly Mutant[] = [
  mutant(
    'answer before the write',
    LEDGER,
    '} else if ((await this.#append(group.segment(random.hex(12), clock.nowMs()), () => group.undo(), items))',
    '} else if ((this.#answer(group, items), this.#tell(), await this.#append(group.segment(random.hex(12), clock.nowMs()), () => group.undo(), items))',
  ),
  mutant('skip the fold after a lost race: the group is appended as it was routed before', LEDGER, "() => group.undo(), items)) === 'lost') continue;", "() => group.undo(), items)) === 'lost') await this.#append(group.segment(random.hex(12), clock.nowMs()), () => undefined, items);"),
  mutant('a lost race leaves the rooms changed', LEDGER, "    undo();\n    await this.#readOn(true);", '    await this.#readOn(true);'),
  mutant('a registration put again after another router removed it counts as nothing new', LEDGER, 'if (changes instanceof RefusalError || changes.length === 0) {\n        if (await this.#readOn()) continue;', 'if (changes instanceof RefusalError || changes.length === 0) {'),
  mutant('a stream position counts as taken one item too late', GROUP, 'return streamPosition !== 0 && streamPosition <= passed;\n}', 'return streamPosition !== 0 && streamPosition < passed;\n}'),
  mutant('an old room context is believed', GROUP, 'if (lasts.length > 0 && Math.max(...lasts) < passed) return;', ''),
  mutant('a room context takes back the memberships of duplicates', GROUP, "if (delta !== null) this.#apply(this.#fold.rooms.get(event.roomId), delta);", ''),
  mutant("the room is that of another day: others' segments change no rooms", FOLD, 'this.#settle(segment, false);', 'this.#settle(segment, true);'),
  mutant("others' changes of registrations do not reach the namespaces", FOLD, 'this.#isIndexStale = true;', ''),
  mutant('stream positions are not restored from the checkpoint', FOLD, 'fold.streams.settle(checkpoint.streamPositions);', ''),
  mutant('what waits for an answer is not restored from the checkpoint', FOLD, 'fold.holds.restore(checkpoint.holds ?? []);', ''),
  mutant('a checkpoint without its rooms', 'ingest/upkeep.ts', 'rooms: fold.rooms.beginSave(),', 'rooms: (fold.rooms.beginSave(), []),'),
  mutant('trim what is not delivered yet', 'ingest/upkeep.ts', 'deliveredPositions: this.#heldPositions(),', 'deliveredPositions: new Map(),'),
  mutant("a hold's release is lost", 'ingest/group-holds.ts', '    this.#putReleased(hold, jsons);\n', ''),
  mutant('later events of the room overtake what waits', 'ingest/group-holds.ts', 'if (hold === null && userIds.length === 0) {', 'if (userIds.length === 0) {'),
  mutant('nobody is asked about unknown users', GROUP, 'const mayWait = fold.holds.count > 0 || submissions.some(({ unknownUserIds }) => unknownUserIds !== undefined);', 'const mayWait = fold.holds.count > 0;'),
  mutant('a redelivery that is in the log is appended again', 'ingest/redelivery.ts', "if (fold.redelivered.has({ appserviceId, txnId })) return 'known';", ''),
  mutant('GetStreamPosition without a look at the log', 'homeserver.ts', 'await this.delivery.commands.inTime(this.ledger.look());', ''),
  mutant('recent segments are read beyond their beginning', 'ingest/recent-segments.ts', 'this.#outsideThrough.set(route.appserviceId, lastPosition(oldest.segment));', ''),
];

const DELIVERY: readonly Mutant[] = [
  mutant('a new txn id on each retry', TRANSITIONS, 'transaction: { ...transaction, attemptCount: attemptsBefore + 1, nextAttemptTimeMs },', 'lastTxnId: nextTxnId(state.lastTxnId, nextAttemptTimeMs), transaction: { ...transaction, txnId: nextTxnId(state.lastTxnId, nextAttemptTimeMs), attemptCount: attemptsBefore + 1, nextAttemptTimeMs },'),
  mutant('cut again on retry', TRANSITIONS, "deliveryState: deliveryState === 'failed' ? 'failed' : moveDeliveryState(moveDeliveryState(deliveryState, 'delivering'), 'retrying'),\n      transaction: { ...transaction, attemptCount: attemptsBefore + 1, nextAttemptTimeMs },", "deliveryState: 'idle',\n      transaction: null,"),
  mutant('what is routed meanwhile joins the transaction when it is read again', 'delivery/transaction-body.ts', 'if (chosen.length !== entryCount) throw', 'const more = chosen.length === entryCount ? await routes.readRoute(owner.serverName, owner.appserviceId, transaction.through, Number.MAX_SAFE_INTEGER, { entriesMax: 1, bytesMax: 1_000 }) : [];\n  if (more.length > 0) return { body: transactionBody([...chosen, ...more], bodyKeys), settled };\n  if (chosen.length !== entryCount) throw'),
  mutant('forget the transaction in flight when a lease is taken', TRANSITIONS, 'return { ...state, revision: state.revision + 1, leaseHolder: holder, leaseEpoch: state.leaseEpoch + 1 };', "return { ...state, revision: state.revision + 1, leaseHolder: holder, leaseEpoch: state.leaseEpoch + 1, ...(state.deliveryState === 'failed' ? {} : { transaction: null, deliveryState: 'idle' as const }) };"),
  mutant('a lease is taken without a new epoch', TRANSITIONS, 'leaseHolder: holder, leaseEpoch: state.leaseEpoch + 1 };', 'leaseHolder: holder };'),
  mutant('the delivered position is one too far', TRANSITIONS, '...passed(state, transaction.through),\n      lastFailure: null,', '...passed(state, transaction.through + 1),\n      lastFailure: null,'),
  mutant('txn ids follow the wall clock alone', 'appservice/txn-id.ts', 'return (next > floor ? next : floor).toString();', 'return (floor > 0n ? floor : next).toString();'),
  mutant('a cut is made while the queue is paused', TRANSITIONS, 'cut.after === state.deliveredPosition && !state.paused && ', 'cut.after === state.deliveredPosition && '),
  mutant('a recycled id gets the queue of the life before', TRANSITIONS, 'deliveredPosition: Math.max(state.deliveredPosition, position),', 'deliveredPosition: state.deliveredPosition,'),
  mutant('a redirect counts as delivered', 'delivery/push.ts', 'if (httpStatus >= 200 && httpStatus < 300)', 'if (httpStatus >= 200 && httpStatus < 400)'),
  mutant('a connection that is reset counts as delivered', 'delivery/push.ts', "if (result.kind === 'aborted') return result;", "if (result.kind === 'aborted') return result;\n    if (result.kind === 'failed' && result.failure === 'connection_reset') return { kind: 'delivered', httpStatus: 200 };"),
  mutant('drop the epoch filter', CELL, 'if (this.#options.isHolder && !hasSameLease(state, this.#state)) this.#isLost = true;', 'if (this.#options.isHolder && state.revision < 0) this.#isLost = true;'),
  mutant('complete without compare-and-set: a conflict counts as written', CELL, "if ((await this.#options.writer.write(next)) === 'written') {", "if (['written', 'conflict'].includes(await this.#options.writer.write(next))) {"),
  mutant('a replica believes itself present for ever', PRESENCE, 'return this.#options.clock.monotonicMs() < this.#validUntilMs;', 'return this.#validUntilMs > 0;'),
  mutant('a holder is judged gone by a list of replicas that is older than its state', ROSTER, 'if (this.#hasStrangers()) await presence.refresh();', ''),
  mutant('a lease is given back while an attempt is on its way', SENDER, "    this.#isRetiring = true;\n    this.#wait?.abort();\n    await this.#runs;", '    this.#isRetiring = true;\n    this.#wait?.abort();'),
  mutant('a live holder does not count', 'delivery/lease.ts', 'if (leaseHolder !== null && liveReplicaIds.includes(leaseHolder)) return false;', ''),
  mutant('skipped, and not put on the shelf', QUEUE, "      await store.changeRecord({ kind: 'quarantine', transaction: shelved });\n", ''),
  mutant('a route that was measured is never measured again', ROSTER, '.filter(({ backlog }) => !backlog.isMeasured)', '.filter(() => false)'),
];

export const MUTANTS: readonly Mutant[] = [...INGEST, ...DELIVERY];
