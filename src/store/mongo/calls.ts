/**
 * The one way to the driver: each call bounded in time, its errors mapped and logged, and all calls of a store in one
 * causal order.
 *
 * Causal order. A majority read alone may go back: a new primary serves, for a moment, a majority view older than what the
 * old one confirmed. So every call runs in a causally consistent session that begins at the newest operation time any
 * earlier call has seen: what this store wrote or read once, it reads for ever.
 *
 * The newest state. A primary that has been replaced and does not know it yet serves majority reads of the past. Where
 * another router's confirmed writes must be seen (the end of the log, the delivery states), the read comes after a write
 * that a majority confirmed after the read was asked for: only the true primary gets it, and its majority view then
 * includes all that was confirmed before. Read concern `linearizable` promises the same but waits for the journal's
 * interval (100 ms on an idle set); this write flushes the journal (1–2 ms).
 */
import type { ClientSession, Collection, MongoClient, Timestamp } from 'mongodb';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../logger.ts';
import { StoreError } from '../errors.ts';
import { driverErrorFields, storeErrorFrom } from './driver-error.ts';
import type { MongoLimits } from './limits.ts';
import type { MetaDocument } from './schema.ts';

/** What every operation of the driver in a call is given. */
export interface CallOptions {
  readonly session: ClientSession;
  readonly maxTimeMS: number;
}

export type Call<Value> = (options: CallOptions) => Promise<Value>;

export interface MongoCallsOptions {
  readonly client: MongoClient;
  readonly meta: Collection<MetaDocument>;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: Pick<MongoLimits, 'callTimeoutMs' | 'serverWorkTimeoutMs'>;
}

/** Rejects with a StoreError of kind `unavailable` when `work` has not ended after `timeoutMs`; it is left to end by itself. */
export async function within<Value>(clock: Clock, timeoutMs: number, work: Promise<Value>): Promise<Value> {
  const answered = new AbortController();
  const overdue = clock.sleep(timeoutMs, answered.signal).then((): null => null);
  try {
    const answer = await Promise.race([work.then((value) => ({ value })), overdue]);
    if (answer === null) throw new StoreError('unavailable', 'the database has not answered in time');
    return answer.value;
  } finally {
    answered.abort();
  }
}

export class MongoCalls implements AsyncDisposable {
  readonly #options: MongoCallsOptions;
  readonly #closing = new AbortController();
  #operationTime: Timestamp | null = null;
  /** Asked for and not begun; shared. */
  #fenceToCome: Promise<void> | null = null;
  /** Never rejects. */
  #fenceUnderWay: Promise<void> = Promise.resolve();

  constructor(options: MongoCallsOptions) {
    this.#options = options;
  }

  /** Aborted once the store is closed: nothing is tried any more. */
  get closed(): AbortSignal {
    return this.#closing.signal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#options.client.close();
  }

  /** Rejects with a StoreError, within `callTimeoutMs`; after `unavailable` a write may or may not have happened. `name` is for the log. */
  async run<Value>(name: string, call: Call<Value>): Promise<Value> {
    const { clock, logger, limits } = this.#options;
    if (this.closed.aborted) throw new StoreError('unavailable', 'the store is closed');
    try {
      return await within(clock, limits.callTimeoutMs, this.#inSession(call));
    } catch (error) {
      const mapped = storeErrorFrom(error);
      if (mapped instanceof StoreError) logger.warn({ call: name, kind: mapped.kind, ...driverErrorFields(error) }, 'a call of the database failed');
      throw mapped;
    }
  }

  /** As {@link run}, for reads that must see whatever anybody's write was confirmed before this call. */
  async runNewest<Value>(name: string, call: Call<Value>): Promise<Value> {
    await this.#fence();
    return this.run(name, call);
  }

  /** Resolves after a confirmed write that began after this call; one serves all that ask while another is under way. */
  #fence(): Promise<void> {
    this.#fenceToCome ??= this.#fenceUnderWay.then(() => {
      this.#fenceToCome = null;
      const write = this.run('fence', async (options) => {
        await this.#options.meta.updateOne({ _id: 'fence' }, { $inc: { count: 1 } }, { upsert: true, ...options });
      });
      this.#fenceUnderWay = write.catch(() => undefined);
      return write;
    });
    return this.#fenceToCome;
  }

  async #inSession<Value>(call: Call<Value>): Promise<Value> {
    const session = this.#options.client.startSession({ causalConsistency: true });
    try {
      if (this.#operationTime !== null) session.advanceOperationTime(this.#operationTime);
      return await call({ session, maxTimeMS: this.#options.limits.serverWorkTimeoutMs });
    } finally {
      const seen = session.operationTime;
      if (seen !== undefined && (this.#operationTime === null || seen.greaterThan(this.#operationTime))) this.#operationTime = seen;
      await session.endSession();
    }
  }
}
