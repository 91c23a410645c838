/**
 * Looks at a MongoDB deployment without changing it, for `doctor`: whether it will do, its schema, its indexes, its clock.
 */
import { MongoClient, MongoServerSelectionError } from 'mongodb';
import type { Clock } from '../../clock.ts';
import { within } from './calls.ts';
import { deploymentFault, selectionFault } from './deployment.ts';
import type { StoredDocument } from './fields.ts';
import { databaseNameOf } from './open.ts';
import { INDEX_NAMES, SCHEMA_VERSION } from './prepare.ts';
import { collectionsOf } from './schema.ts';

export type MongoInspection =
  /** A sentence without the URI. */
  | { readonly kind: 'faulty'; readonly isReachable: boolean; readonly message: string }
  | {
      readonly kind: 'reached';
      readonly missingIndexes: readonly string[];
      /** Null where no router was started on the database yet. */
      readonly schemaVersion: number | null;
      readonly schemaVersionKnown: number;
      /** The database's clock less this machine's; half of the round trip is taken off. */
      readonly clockOffsetMs: number;
    };

const TIMEOUT_MS = 3_000;
const UNUSABLE: MongoInspection = { kind: 'faulty', isReachable: false, message: 'The MongoDB URI cannot be used, or no server answers there.' };

/** Within some seconds; never rejects for what is wrong with the deployment. */
export async function inspectMongo(uri: string, clock: Clock): Promise<MongoInspection> {
  let client: MongoClient;
  try {
    client = new MongoClient(uri, { serverSelectionTimeoutMS: TIMEOUT_MS, connectTimeoutMS: TIMEOUT_MS, socketTimeoutMS: TIMEOUT_MS, maxPoolSize: 1 });
  } catch {
    return UNUSABLE;
  }
  try {
    return await within(clock, 3 * TIMEOUT_MS, inspect(client, databaseNameOf(uri), clock));
  } catch (error) {
    if (!(error instanceof MongoServerSelectionError)) return UNUSABLE;
    const { kind, message } = selectionFault(error);
    return { kind: 'faulty', isReachable: kind === 'unsuitable', message: `${message}.` };
  } finally {
    await client.close().catch(() => undefined);
  }
}

async function inspect(client: MongoClient, databaseName: string, clock: Clock): Promise<MongoInspection> {
  await client.connect();
  const askedMs = clock.nowMs();
  const hello: StoredDocument = await client.db('admin').command({ hello: 1, maxTimeMS: TIMEOUT_MS });
  const clockOffsetMs = clockOf(hello, askedMs) - (askedMs + (clock.nowMs() - askedMs) / 2);
  const fault = deploymentFault(hello);
  if (fault !== null) return { kind: 'faulty', isReachable: true, message: `${fault}.` };
  const { meta, segments } = collectionsOf(client.db(databaseName));
  const schema = await meta.findOne({ _id: 'schema' }, { maxTimeMS: TIMEOUT_MS });
  // A database without a router's collection has nothing to miss.
  const names = schema === null ? INDEX_NAMES : (await segments.indexes({ maxTimeMS: TIMEOUT_MS })).map(({ name }) => name);
  const missingIndexes = INDEX_NAMES.filter((name) => !names.includes(name));
  return { kind: 'reached', missingIndexes, schemaVersion: schema?.version ?? null, schemaVersionKnown: SCHEMA_VERSION, clockOffsetMs };
}

function clockOf(hello: StoredDocument, otherwiseMs: number): number {
  const time = hello['localTime'];
  return time instanceof Date ? time.getTime() : otherwiseMs;
}
