/** What crosses between the store and its worker. */
import type { StoreErrorKind } from '../errors.ts';
import type { SqliteDatabase } from './database.ts';

/** Operations that change the file, and those that only read it. */
export type WriteMethod = 'append' | 'trim' | 'saveFold' | 'writeStates' | 'heartbeat' | 'putQuarantined';
export type ReadMethod = 'readSegments' | 'readRoute' | 'measureRoutes' | 'loadFold' | 'loadRooms' | 'listServerNames' | 'loadStates' | 'listQuarantined';
export type Method = WriteMethod | ReadMethod;

export const WRITE_METHODS: ReadonlySet<string> = new Set<WriteMethod>(['append', 'trim', 'saveFold', 'writeStates', 'heartbeat', 'putQuarantined']);

export interface Request {
  readonly id: number;
  readonly method: Method;
  readonly args: readonly unknown[];
}

export type Reply =
  | { readonly kind: 'opened' }
  | { readonly kind: 'done'; readonly id: number; readonly result: unknown }
  /** `kind` null: a bug, to be thrown as it is. */
  | { readonly kind: 'failed'; readonly id: number; readonly errorKind: StoreErrorKind | null; readonly message: string };

/** Answers to many requests cross together. */
export type Replies = readonly Reply[];

export interface WorkerSettings {
  /** `:memory:` or a path. */
  readonly path: string;
  /** For tests of a full disk: the file grows to no more than this many pages of 8 KiB; 0 = no limit. */
  readonly pagesMax: number;
}

export type Arguments<Name extends Method> = Parameters<SqliteDatabase[Name]>;
export type Result<Name extends Method> = ReturnType<SqliteDatabase[Name]>;
