/**
 * Delivery states and living replicas.
 *
 * A state write matches the document only at the revision before its own, so each is a compare-and-set of one document;
 * many go in one bulk write. What became of each is told by the total alone if all were carried out, and read back
 * otherwise: the document holds the nonces of its newest writes.
 *
 *   bulk write ──▶ all matched ─────────────────────────────▶ written
 *     ▲   ├──▶ answered, some not matched ──▶ read back ──▶ own nonce: written · otherwise: conflict
 *     │   └──▶ outcome unknown ──▶ read back ──▶ own nonce: written · at its revision or beyond: conflict
 *     └──────────── pause ◀──────────────────────┘ still before it: either the write is to come or it never will
 *
 * Trying again is safe: the write and its repetition have the same content and nonce, and only one of them can match.
 */
import type { Clock, Random } from '../../clock.ts';
import { StoreError } from '../errors.ts';
import type { AppserviceState, StateWriteOutcome } from '../port.ts';
import type { MongoCalls } from './calls.ts';
import { isOnlyDuplicateKeys } from './driver-error.ts';
import type { StoredDocument } from './fields.ts';
import { booleanField, documentField, integerField, listField, textField } from './fields.ts';
import type { MongoLimits } from './limits.ts';
import type { Collections } from './schema.ts';
import { appserviceKey, keysOfServer } from './schema.ts';
import { fieldsFromState, stateFrom } from './state-document.ts';

export interface MongoStateStoreOptions {
  readonly collections: Pick<Collections, 'appserviceStates' | 'replicas'>;
  readonly calls: MongoCalls;
  readonly clock: Clock;
  readonly random: Random;
  readonly limits: MongoLimits;
}

/** A write that was followed by this many others before it was read back can no longer be told. */
const NONCES_KEPT = 8;
const NONCE_BYTES = 8;
const REPLICAS_MAX = 10_000;
/** Replicas that went without leaving are forgotten after this long. */
const DEAD_REPLICA_KEPT_MS = 3_600_000;

/** One of the states to write, and its place in the answer. */
interface OpenWrite {
  readonly at: number;
  readonly state: AppserviceState;
}

export class MongoStateStore {
  readonly #options: MongoStateStoreOptions;

  constructor(options: MongoStateStoreOptions) {
    this.#options = options;
  }

  async loadStates(serverName: string): Promise<AppserviceState[]> {
    const { calls, collections } = this.#options;
    const documents = await calls.runNewest('loadStates', (options) =>
      collections.appserviceStates.find({ _id: keysOfServer(serverName) }, options).sort({ _id: 1 }).project<StoredDocument>({ nonces: 0 }).toArray(),
    );
    return documents.map(stateFrom);
  }

  async writeStates(states: readonly AppserviceState[]): Promise<StateWriteOutcome[]> {
    const { calls, clock, random, limits } = this.#options;
    const outcomes: StateWriteOutcome[] = states.map(() => 'written');
    const nonce = random.hex(NONCE_BYTES);
    const deadlineMs = clock.monotonicMs() + limits.settleTimeoutMs;
    let open: OpenWrite[] = states.map((state, at) => ({ at, state }));
    while (open.length > 0) {
      const answer = await this.#write(open, nonce);
      if (answer === 'all') break;
      open = await this.#readBack(open, nonce, answer, outcomes);
      if (open.length === 0) break;
      if (calls.closed.aborted || clock.monotonicMs() >= deadlineMs) throw new StoreError('unavailable', 'it could not be learnt in time whether the delivery states were written');
      await clock.sleep(limits.settleIntervalMs * (0.5 + random.next()), calls.closed);
    }
    return outcomes;
  }

  async heartbeat(replicaId: string, ttlMs: number): Promise<string[]> {
    const { calls, collections } = this.#options;
    const replicas = await calls.run('heartbeat', async (options) => {
      // The database's clock, for the replicas' clocks differ.
      if (ttlMs > 0) await collections.replicas.updateOne({ _id: replicaId }, [{ $set: { until: { $add: ['$$NOW', ttlMs] } } }], { upsert: true, ...options });
      else await collections.replicas.deleteOne({ _id: replicaId }, options);
      return collections.replicas
        .aggregate<StoredDocument>(
          [
            { $sort: { _id: 1 } },
            { $limit: REPLICAS_MAX },
            { $project: { alive: { $gt: ['$until', '$$NOW'] }, forgotten: { $lte: ['$until', { $subtract: ['$$NOW', DEAD_REPLICA_KEPT_MS] }] } } },
          ],
          options,
        )
        .toArray();
    });
    const forgotten = replicas.filter((replica) => booleanField(replica, 'forgotten')).map((replica) => textField(replica, '_id'));
    if (forgotten.length > 0) {
      const isDead = { $expr: { $lte: ['$until', '$$NOW'] } };
      await calls.run('heartbeat: forget', (options) => collections.replicas.deleteMany({ _id: { $in: forgotten }, ...isDead }, options));
    }
    return replicas.filter((replica) => booleanField(replica, 'alive')).map((replica) => textField(replica, '_id')).sort();
  }

  async #write(open: readonly OpenWrite[], nonce: string): Promise<'all' | 'some' | 'unknown'> {
    const { calls, collections } = this.#options;
    const writes = open.map(({ state }) => ({
      updateOne: {
        filter: { _id: appserviceKey(state.serverName, state.appserviceId), revision: state.revision - 1 },
        update: { $set: fieldsFromState(state), $push: { nonces: { $each: [nonce], $slice: -NONCES_KEPT } } },
        // No stored revision is 0: the first write of a state inserts it or meets its key.
        upsert: state.revision === 1,
      },
    }));
    try {
      return await calls.run('writeStates', async (options) => {
        try {
          const { matchedCount, upsertedCount } = await collections.appserviceStates.bulkWrite(writes, { ...options, ordered: false });
          return matchedCount + upsertedCount === open.length ? 'all' : 'some';
        } catch (error) {
          if (isOnlyDuplicateKeys(error)) return 'some';
          throw error;
        }
      });
    } catch (error) {
      if (error instanceof StoreError && error.kind === 'unavailable') return 'unknown';
      throw error;
    }
  }

  /** Enters the outcomes that can be told, and returns the writes of which none can be told yet. */
  async #readBack(open: readonly OpenWrite[], nonce: string, answer: 'some' | 'unknown', outcomes: StateWriteOutcome[]): Promise<OpenWrite[]> {
    const found = await this.#findWritten(open);
    if (found === null) return [...open];
    return open.filter(({ at, state }) => {
      const stored = found.get(keyText(state.serverName, state.appserviceId)) ?? { revision: 0, nonces: [] };
      if (stored.nonces.includes(nonce)) {
        outcomes[at] = 'written';
        return false;
      }
      if (stored.revision >= state.revision + NONCES_KEPT) throw new StoreError('unavailable', 'so many writes followed that the outcome of one cannot be told');
      if (answer === 'unknown' && stored.revision === state.revision - 1) return true;
      outcomes[at] = 'conflict';
      return false;
    });
  }

  /** Null if it cannot be read now. */
  async #findWritten(open: readonly OpenWrite[]): Promise<Map<string, { readonly revision: number; readonly nonces: readonly string[] }> | null> {
    const { calls, collections } = this.#options;
    try {
      const documents = await calls.run('writeStates: read back', (options) =>
        collections.appserviceStates
          .find({ _id: { $in: open.map(({ state }) => appserviceKey(state.serverName, state.appserviceId)) } }, options)
          .project<StoredDocument>({ revision: 1, nonces: 1 })
          .toArray(),
      );
      return new Map(
        documents.map((document) => {
          const key = documentField(document, '_id');
          const written = { revision: integerField(document, 'revision'), nonces: listField(document, 'nonces', textField) };
          return [keyText(textField(key, 'server_name'), textField(key, 'appservice_id')), written];
        }),
      );
    } catch (error) {
      if (error instanceof StoreError && error.kind === 'unavailable') return null;
      throw error;
    }
  }
}

function keyText(serverName: string, appserviceId: string): string {
  return JSON.stringify([serverName, appserviceId]);
}
