/** Whether a MongoDB deployment will do, and if not, what to change. */
import { ServerType } from 'mongodb';
import type { MongoServerSelectionError, ServerDescription } from 'mongodb';
import { StoreError } from '../errors.ts';
import type { StoredDocument } from './fields.ts';

/** Wire version of MongoDB 6.0, the oldest release this adapter is tested with. */
const WIRE_VERSION_MIN = 17;

const STANDALONE = 'the MongoDB server is a standalone; the router needs a replica set, of one member at least: start it with --replSet NAME and run rs.initiate() once';
const SHARDED = 'the URI leads to a mongos; the router needs a replica set: name its members in the URI';
const NOT_INITIATED = 'the MongoDB server has no replica set configuration: run rs.initiate() once';

/** Judges the answer to `hello`. Null: it will do. */
export function deploymentFault(hello: StoredDocument): string | null {
  if (hello['msg'] === 'isdbgrid') return SHARDED;
  if (hello['isreplicaset'] === true) return NOT_INITIATED;
  if (typeof hello['setName'] !== 'string') return STANDALONE;
  const wireVersion = hello['maxWireVersion'];
  if (typeof wireVersion !== 'number' || wireVersion < WIRE_VERSION_MIN) return 'the MongoDB server is too old; the router needs 6.0 or later';
  return null;
}

/** Why no primary was found: the deployment, if a server answered and is of the wrong sort; otherwise it is unreachable now. */
export function selectionFault(error: MongoServerSelectionError): StoreError {
  const servers: ServerDescription[] = [...(error.reason?.servers.values() ?? [])];
  const cause = { cause: error };
  if (servers.some(({ type }) => type === ServerType.Standalone)) return new StoreError('unsuitable', STANDALONE, cause);
  if (servers.some(({ type }) => type === ServerType.Mongos)) return new StoreError('unsuitable', SHARDED, cause);
  if (servers.some(({ type }) => type === ServerType.RSGhost)) return new StoreError('unsuitable', NOT_INITIATED, cause);
  if (servers.length === 0) {
    return new StoreError('unsuitable', 'no server of the MongoDB URI is a member of the replica set it names: a standalone, or a set of another name. Correct replicaSet in the URI', cause);
  }
  return new StoreError('unavailable', 'no primary of the MongoDB replica set could be reached; check that it runs, that the URI names it, and that its members can be reached under the host names of its configuration', cause);
}
