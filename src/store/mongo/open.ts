/**
 * Opens the MongoDB store: a replica set, version 6.0 or later. Majority and journal for every write, the primary and the
 * majority's view for every read, whatever the URI says.
 */
import { MongoClient, MongoServerSelectionError, ReadConcern } from 'mongodb';
import type { MongoClientOptions } from 'mongodb';
import type { Clock, Random } from '../../clock.ts';
import type { Logger } from '../../logger.ts';
import { StoreError } from '../errors.ts';
import type { Store } from '../port.ts';
import type { WakeRelay } from '../wake-relay.ts';
import { MongoCalls, within } from './calls.ts';
import { ChangeWatch } from './change-watch.ts';
import { deploymentFault, selectionFault } from './deployment.ts';
import { driverErrorFields, storeErrorFrom } from './driver-error.ts';
import { MongoFoldStore } from './fold-store.ts';
import type { MongoLimits } from './limits.ts';
import { MONGO_LIMITS } from './limits.ts';
import { prepareSchema } from './prepare.ts';
import { RoutePages } from './route-pages.ts';
import { MongoRecordStore } from './record-store.ts';
import { MongoRoutes } from './routes.ts';
import { collectionsOf } from './schema.ts';
import { MongoSegmentLog } from './segment-log.ts';
import { MongoStateStore } from './state-store.ts';

export interface MongoStoreOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Who is told what other routers do. */
  readonly wakes?: WakeRelay;
  /** Bounds other than those of {@link MONGO_LIMITS}. */
  readonly limits?: Partial<MongoLimits>;
}

const DATABASE_NAME_DEFAULT = 'appservice_router';
const APP_NAME = 'appservice-router';
const URI_UNUSABLE = 'the MongoDB URI cannot be used: it must read mongodb://HOST:PORT/DATABASE?replicaSet=NAME, with names and passwords percent-encoded';

/**
 * Rejects with a StoreError within a few seconds: `unsuitable` if the URI or the deployment will not do (the message says
 * what to change), `unavailable` if no primary is reached, `unreadable` if the database is of another schema version.
 * The URI's database is used, `appservice_router` if it names none. The URI never stands in a message.
 */
export async function openMongoStore(uri: string, { clock, random, logger, wakes, limits: given }: MongoStoreOptions): Promise<Store> {
  const limits = { ...MONGO_LIMITS, ...given };
  const client = createClient(uri, limits);
  try {
    await connect(client, clock, limits, logger);
    const database = client.db(databaseNameOf(uri), {
      writeConcern: { w: 'majority', journal: true, wtimeoutMS: limits.serverWorkTimeoutMs },
      readConcern: new ReadConcern('majority'),
      readPreference: 'primary',
      promoteValues: true,
      promoteLongs: true,
      promoteBuffers: true,
      bsonRegExp: false,
      ignoreUndefined: false,
    });
    const collections = collectionsOf(database);
    const calls = new MongoCalls({ client, meta: collections.meta, clock, logger, limits });
    await prepareSchema(collections, calls);
    const routePages = new RoutePages(limits.routePagesBytesMax);
    const log = new MongoSegmentLog({ collections, calls, routePages, clock, random, limits });
    const routes = new MongoRoutes({ collections, calls, routePages, limits });
    const fold = new MongoFoldStore({ collections, calls });
    const states = new MongoStateStore({ collections, calls, clock, random, limits });
    const records = new MongoRecordStore({ collections, calls });
    const watch = wakes === undefined ? null : new ChangeWatch({ database, wakes, clock, logger });
    return storeOf(calls, watch, log, routes, fold, states, records);
  } catch (error) {
    await client.close().catch(() => undefined);
    throw error;
  }
}

function storeOf(calls: MongoCalls, watch: ChangeWatch | null, log: MongoSegmentLog, routes: MongoRoutes, fold: MongoFoldStore, states: MongoStateStore, records: MongoRecordStore): Store {
  return {
    append: (segment) => log.append(segment),
    readSegments: (serverName, from, limits) => log.readSegments(serverName, from, limits),
    readRoute: (serverName, appserviceId, after, through, limits) => routes.readRoute(serverName, appserviceId, after, through, limits),
    measureRoutes: (serverName, after, through) => routes.measureRoutes(serverName, after, through),
    trim: (serverName, request) => log.trim(serverName, request),
    wholeFrom: (serverName, from, through, segmentsMax) => log.wholeFrom(serverName, from, through, segmentsMax),
    loadFold: (serverName) => fold.loadFold(serverName),
    loadRooms: (serverName, roomIds) => fold.loadRooms(serverName, roomIds),
    saveFold: (serverName, changes) => fold.saveFold(serverName, changes),
    loadStates: (serverName) => states.loadStates(serverName),
    writeStates: (all) => states.writeStates(all),
    heartbeat: (replicaId, ttlMs) => states.heartbeat(replicaId, ttlMs),
    changeRecord: (change) => records.changeRecord(change),
    readRecords: (kind, query) => records.readRecords(kind, query),
    [Symbol.asyncDispose]: async () => {
      await watch?.[Symbol.asyncDispose]();
      await calls[Symbol.asyncDispose]();
    },
  };
}

function createClient(uri: string, limits: MongoLimits): MongoClient {
  const options: MongoClientOptions = {
    appName: APP_NAME,
    maxPoolSize: limits.connectionsMax,
    maxConnecting: 4,
    connectTimeoutMS: limits.connectTimeoutMs,
    socketTimeoutMS: limits.socketTimeoutMs,
    serverSelectionTimeoutMS: limits.serverSelectionTimeoutMs,
    waitQueueTimeoutMS: limits.connectionWaitTimeoutMs,
    heartbeatFrequencyMS: 2_000,
  };
  try {
    return new MongoClient(uri, options);
  } catch (error) {
    throw new StoreError('unsuitable', URI_UNUSABLE, { cause: error });
  }
}

async function connect(client: MongoClient, clock: Clock, limits: MongoLimits, logger: Logger): Promise<void> {
  try {
    const asked = client.connect().then(() => client.db('admin').command({ hello: 1, maxTimeMS: limits.serverWorkTimeoutMs }));
    const fault = deploymentFault(await within(clock, limits.serverSelectionTimeoutMs + limits.connectTimeoutMs, asked));
    if (fault !== null) throw new StoreError('unsuitable', fault);
  } catch (error) {
    if (error instanceof StoreError) throw error;
    logger.debug(driverErrorFields(error), 'the database was not opened');
    if (error instanceof MongoServerSelectionError) throw selectionFault(error);
    // A certificate file that is not there, a host that no resolver takes: anything the driver met before it spoke to a server.
    const known = storeErrorFrom(error);
    throw known instanceof StoreError ? known : new StoreError('unsuitable', URI_UNUSABLE, { cause: error });
  }
}

/** The database that a valid URI names. The driver does not tell that from its own default. */
export function databaseNameOf(uri: string): string {
  const name = /^mongodb(?:\+srv)?:\/\/[^/?]+\/([^?]*)/.exec(uri)?.[1] ?? '';
  return name === '' ? DATABASE_NAME_DEFAULT : decodeURIComponent(name);
}
