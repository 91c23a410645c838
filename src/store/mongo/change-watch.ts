/**
 * Tells what other routers do in the database, by a change stream over it: appended segments, leases that change hands,
 * replicas that come and go. Documents are not sent along, heartbeats and other changes of delivery states not at all.
 *
 *   waiting (nobody to hear of) ──▶ watching ──▶ broken ──pause──▶ watching from then on
 *
 * What happens while it is not watching is not told; the polls find it.
 */
import type { ChangeStream, Db } from 'mongodb';
import type { Clock } from '../../clock.ts';
import type { Logger } from '../../logger.ts';
import type { WakeRelay } from '../wake-relay.ts';
import { driverErrorFields } from './driver-error.ts';
import type { StoredDocument } from './fields.ts';
import { documentField, integerField, optionalField, textField } from './fields.ts';

export interface ChangeWatchOptions {
  readonly database: Db;
  readonly wakes: WakeRelay;
  readonly clock: Clock;
  readonly logger: Logger;
}

const LOOK_INTERVAL_MS = 500;
const RETRY_DELAY_MS = 500;
/** How long the server holds back an answer without changes; an end is noticed within it. */
const AWAIT_MS = 500;

const HOLDER = 'updateDescription.updatedFields.lease_holder';
const PIPELINE = [
  {
    $match: {
      $or: [
        { operationType: 'insert', 'ns.coll': 'segments' },
        { operationType: { $in: ['insert', 'delete'] }, 'ns.coll': 'replicas' },
        { operationType: 'update', 'ns.coll': 'appservice_states', [HOLDER]: { $exists: true } },
      ],
    },
  },
  { $project: { 'ns.coll': 1, documentKey: 1, [HOLDER]: 1 } },
];

export class ChangeWatch implements AsyncDisposable {
  readonly #options: ChangeWatchOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(options: ChangeWatchOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { wakes, clock, logger } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      if (!wakes.isWanted) {
        await clock.sleep(LOOK_INTERVAL_MS, signal);
        continue;
      }
      try {
        await this.#watch();
      } catch (error) {
        logger.debug(driverErrorFields(error), 'changes of the database are not told for a moment');
        await clock.sleep(RETRY_DELAY_MS, signal);
      }
    }
  }

  async #watch(): Promise<void> {
    const { database, wakes } = this.#options;
    const stream: ChangeStream<StoredDocument, StoredDocument> = database.watch<StoredDocument, StoredDocument>(PIPELINE, { maxAwaitTimeMS: AWAIT_MS });
    try {
      while (!this.#stop.signal.aborted && wakes.isWanted) {
        const change = await stream.tryNext();
        if (change !== null) this.#tell(change);
      }
    } finally {
      await stream.close().catch(() => undefined);
    }
  }

  #tell(change: StoredDocument): void {
    const { wakes } = this.#options;
    const collection = textField(documentField(change, 'ns'), 'coll');
    if (collection === 'replicas') return wakes.replicasChanged();
    const key = documentField(documentField(change, 'documentKey'), '_id');
    const serverName = textField(key, 'server_name');
    if (collection === 'segments') return wakes.appended(serverName, integerField(key, 'first_position'));
    const { updatedFields } = documentField(change, 'updateDescription');
    const holder = optionalField(documentField({ updatedFields }, 'updatedFields'), 'lease_holder', textField);
    wakes.leaseChanged(serverName, textField(key, 'appservice_id'), holder);
  }
}
