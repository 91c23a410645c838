/**
 * What is counted of each appservice for its error rate (M11, M12). One operation is an attempt to push a transaction, a
 * query for a user or an alias with all its attempts, one question of a look-up or for keys, or a ping. What this side gave
 * up on its way down is none.
 */
export type OperationKind = 'push' | 'query' | 'lookup' | 'ping';

export interface Operation {
  readonly serverName: string;
  readonly appserviceId: string;
  readonly kind: OperationKind;
  readonly failed: boolean;
}

/** Where operations are told. Never blocks and never throws. */
export interface OperationSink {
  operated(operation: Operation): void;
}
