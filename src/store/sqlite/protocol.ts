/** What crosses between the store and its worker. */
import type { StoreErrorKind } from '../errors.ts';
import type { DocumentTables } from './document-tables.ts';
import type { RecordTables } from './record-tables.ts';
import type { SegmentTables } from './segment-tables.ts';

type Operations = Omit<SegmentTables, 'forget'> & DocumentTables & RecordTables;
export type Method = keyof Operations;
export type Arguments<Name extends Method> = Parameters<Operations[Name]>;
export type Result<Name extends Method> = ReturnType<Operations[Name]>;

/** Operations that change the file; the others only read it. */
export const WRITE_METHODS: ReadonlySet<Method> = new Set<Method>(['append', 'trim', 'saveFold', 'writeStates', 'changeRecord']);

export interface Request {
  readonly id: number;
  readonly method: Method;
  readonly args: readonly unknown[];
}

/** `close`: do what was asked for before, then end. */
export type Message = Request | 'close';

export type Reply =
  | { readonly kind: 'opened' }
  | { readonly kind: 'done'; readonly id: number; readonly result: unknown }
  /** `errorKind` null: a bug, to be thrown as it is. */
  | { readonly kind: 'failed'; readonly id: number; readonly errorKind: StoreErrorKind | null; readonly message: string };

/** The id of the request to open, which is never sent. */
export const OPENING = 0;

/** Answers to many requests cross together. */
export type Replies = readonly Reply[];

export interface WorkerSettings {
  /** `:memory:` or an absolute path. */
  readonly path: string;
  /** The file grows to no more than this many pages of 4 KiB; 0 = no limit. */
  readonly pagesMax: number;
}
