/**
 * Brings a database to the schema of this release before anything else is done with it: its version and its indexes.
 */
import { StoreError } from '../errors.ts';
import type { MongoCalls } from './calls.ts';
import type { Collections } from './schema.ts';

export const SCHEMA_VERSION = 1;

const ROUTES_INDEX = 'routes_by_appservice';
const TOMBSTONES_INDEX = 'tombstones_by_time';
/** Of the collection of segments. */
export const INDEX_NAMES: readonly string[] = [ROUTES_INDEX, TOMBSTONES_INDEX];

/** Settles the version and creates what is missing. Safe for several routers that start at once. Rejects with a StoreError. */
export async function prepareSchema({ meta, segments }: Collections, calls: MongoCalls): Promise<void> {
  const version = await calls.runNewest('schema version', async (options) => {
    await meta.updateOne({ _id: 'schema' }, { $setOnInsert: { version: SCHEMA_VERSION } }, { upsert: true, ...options });
    return (await meta.findOne({ _id: 'schema' }, options))?.version;
  });
  if (version !== SCHEMA_VERSION) {
    const found = version === undefined ? 'no schema version that can be read' : `schema version ${version}`;
    throw new StoreError('unreadable', `the database has ${found}; this release knows ${SCHEMA_VERSION}. Run the release that wrote it, restore a backup, or name another database in the URI`);
  }
  await calls.run('indexes', (options) =>
    segments.createIndexes(
      [
        // Finds what is routed to one appservice from a position on, in order. Tombstones and segments without routes are not in it.
        {
          name: ROUTES_INDEX,
          key: { '_id.server_name': 1, 'routes.appservice_id': 1, '_id.first_position': 1 },
          partialFilterExpression: { 'routes.appservice_id': { $exists: true } },
        },
        // Finds the tombstones that have stood long enough, without looking at segments.
        { name: TOMBSTONES_INDEX, key: { '_id.server_name': 1, trimmed_at: 1 }, partialFilterExpression: { trimmed_at: { $exists: true } } },
      ],
      options,
    ),
  );
}
