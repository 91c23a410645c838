/**
 * A store whose calls are timed. Same promises, same errors; the meter hears of each call once, when it ends.
 */
import type { Clock } from '../clock.ts';
import { StoreError } from './errors.ts';
import type { StoreErrorKind } from './errors.ts';
import type { Store } from './port.ts';

/** How a call ended: `ok`, the kind of its StoreError, or `bug` for anything else that was thrown. */
export type StoreCallOutcome = 'ok' | 'bug' | StoreErrorKind;

/** Hears of store calls. Never throws. */
export interface StoreMeter {
  storeCall(method: keyof Store & string, outcome: StoreCallOutcome, durationMs: number): void;
}

export function timedStore(store: Store, meter: StoreMeter, clock: Pick<Clock, 'monotonicMs'>): Store {
  const timed = async <Value>(method: keyof Store & string, call: () => Promise<Value>): Promise<Value> => {
    const startMs = clock.monotonicMs();
    let outcome: StoreCallOutcome = 'ok';
    try {
      return await call();
    } catch (error) {
      outcome = error instanceof StoreError ? error.kind : 'bug';
      throw error;
    } finally {
      meter.storeCall(method, outcome, clock.monotonicMs() - startMs);
    }
  };
  return {
    append: (segment) => timed('append', () => store.append(segment)),
    readSegments: (serverName, from, limits) => timed('readSegments', () => store.readSegments(serverName, from, limits)),
    readRoute: (serverName, id, after, through, limits) => timed('readRoute', () => store.readRoute(serverName, id, after, through, limits)),
    measureRoutes: (serverName, after, through) => timed('measureRoutes', () => store.measureRoutes(serverName, after, through)),
    trim: (serverName, request) => timed('trim', () => store.trim(serverName, request)),
    wholeFrom: (serverName, from, through, segmentsMax) => timed('wholeFrom', () => store.wholeFrom(serverName, from, through, segmentsMax)),
    loadFold: (serverName) => timed('loadFold', () => store.loadFold(serverName)),
    loadRooms: (serverName, roomIds) => timed('loadRooms', () => store.loadRooms(serverName, roomIds)),
    saveFold: (serverName, changes) => timed('saveFold', () => store.saveFold(serverName, changes)),
    loadStates: (serverName) => timed('loadStates', () => store.loadStates(serverName)),
    writeStates: (states) => timed('writeStates', () => store.writeStates(states)),
    heartbeat: (replicaId, ttlMs) => timed('heartbeat', () => store.heartbeat(replicaId, ttlMs)),
    changeRecord: (change) => timed('changeRecord', () => store.changeRecord(change)),
    readRecords: (kind, query) => timed('readRecords', () => store.readRecords(kind, query)),
    [Symbol.asyncDispose]: () => Promise.resolve(store[Symbol.asyncDispose]()),
  };
}
