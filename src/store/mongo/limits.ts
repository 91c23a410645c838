/** Every bound of the MongoDB store. Units last. */
export interface MongoLimits {
  /** Connections at most. One append a homeserver is outstanding; the rest is state writes and reads. */
  readonly connectionsMax: number;
  readonly connectTimeoutMs: number;
  /** Wait for a primary to be known. Also what a start with an unreachable database takes to fail. */
  readonly serverSelectionTimeoutMs: number;
  /** Wait for a free connection. */
  readonly connectionWaitTimeoutMs: number;
  /** How long the server may work at one read, or wait for a majority at one write. */
  readonly serverWorkTimeoutMs: number;
  /** Silence on a connection before it is given up; above `serverWorkTimeoutMs`. */
  readonly socketTimeoutMs: number;
  /** One call of the driver in all, its own retry included. */
  readonly callTimeoutMs: number;
  /** How long a write with an unknown outcome is tried to be settled before it is `unavailable`; above the ten seconds of an election. */
  readonly settleTimeoutMs: number;
  /** Pause between two tries to settle. */
  readonly settleIntervalMs: number;
  /** What was learnt of the log's tail counts for this long; far below `tombstoneKeptMs`. See segment-log.ts. */
  readonly tailTrustMs: number;
  /** A trimmed segment's position stays taken for this long. */
  readonly tombstoneKeptMs: number;
  /** Read from the database at once for one route, about. */
  readonly routePageBytes: number;
  /** Kept of such pages for all routes together, for the reads that go on in them. */
  readonly routePagesBytesMax: number;
  /** Routes measured by one read of the database. */
  readonly routesPerMeasureMax: number;
  /** Such reads under way at once in one call. */
  readonly measuresAtOnceMax: number;
}

export const MONGO_LIMITS: MongoLimits = {
  connectionsMax: 16,
  connectTimeoutMs: 4_000,
  serverSelectionTimeoutMs: 4_000,
  connectionWaitTimeoutMs: 4_000,
  serverWorkTimeoutMs: 8_000,
  socketTimeoutMs: 10_000,
  callTimeoutMs: 15_000,
  settleTimeoutMs: 15_000,
  settleIntervalMs: 100,
  tailTrustMs: 60_000,
  tombstoneKeptMs: 180_000,
  routePageBytes: 1_048_576,
  routePagesBytesMax: 33_554_432,
  routesPerMeasureMax: 25,
  measuresAtOnceMax: 4,
};
