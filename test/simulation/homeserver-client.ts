/**
 * A homeserver's client of the router, as docs/homeserver-authors.md wants it: one request of a stream at a time, in stream
 * order; what has no answer is sent again, to whatever router, in requests that may be cut otherwise; a room is told where
 * the router may not know it. Now and then it starts anew and asks the router where it was.
 */
import { RefusalError } from '../../src/appservice/refusal.ts';
import type { OtherItems, RoomContext, Submission, SubmissionResult } from '../../src/rpc/ports.ts';
import { StoreError } from '../../src/store/errors.ts';
import type { Chance } from './chance.ts';
import type { History } from './history.ts';
import type { Kernel } from './kernel.ts';
import type { Replica } from './replica.ts';
import type { Item, StreamWriter } from './rooms.ts';

export interface ClientOptions {
  readonly writer: StreamWriter;
  readonly kernel: Kernel;
  readonly history: History;
  readonly chance: Chance;
  /** A router that takes calls, as far as anybody knows. */
  readonly replica: () => Replica | undefined;
}

/** After this long without an answer the call is given up: its outcome is unknown. */
const CALL_TIMEOUT_MS = 20_000;
const REQUEST_ITEMS_MAX = 7;

export class HomeserverClient {
  readonly #options: ClientOptions;
  /** Index of the first item that is not known to be taken. */
  #next = 0;
  #isBusy = false;
  /** Rooms that the router has been told of. */
  #told = new Set<string>();
  #call = 0;

  constructor(options: ClientOptions) {
    this.#options = options;
  }

  get isDone(): boolean {
    return this.#next === this.#options.writer.items.length;
  }

  /** There is something to send, or may be. */
  poke(): void {
    if (this.#isBusy || this.isDone) return;
    const { kernel, chance } = this.#options;
    this.#isBusy = true;
    kernel.after(chance.between(0.2, 5), () => this.#send());
  }

  #send(): void {
    const { kernel, chance, replica, history, writer } = this.#options;
    const router = replica();
    if (router === undefined) return this.#later(2_000);
    const call = ++this.#call;
    const overdue = kernel.after(CALL_TIMEOUT_MS, () => {
      history.note('no answer', writer.stream, router.process.name);
      this.#answered(call, 0);
    });
    const answer = (use: () => void): void => {
      kernel.after(chance.between(0.2, 5), () => {
        if (call !== this.#call) return;
        overdue.isDue = false;
        use();
      });
    };
    if (chance.is(0.03)) return router.process.arrives(() => this.#resume(router, call, answer));
    const items = this.#request();
    const contexts = this.#contexts(items);
    const submission = submissionOf(items, contexts);
    const order = history.next();
    for (const item of items) item.offeredOrder ??= order;
    history.note('submit', writer.stream, `${items.map(({ id }) => id).join(' ')} to ${router.process.name}`);
    router.process.arrives(() => {
      router.homeserver.submit(submission).then(
        (result) => {
          this.#taken(items, result);
          answer(() => {
            for (const { roomId } of contexts) this.#told.add(roomId);
            this.#accepted(call, items, result);
          });
        },
        (error: unknown) => this.#refused(router, call, error, answer),
      );
    });
  }

  /** Everything of the items is durable, or wanted by nobody: the router says so. */
  #taken(items: readonly Item[], { streamPosition }: SubmissionResult): void {
    const { history, writer } = this.#options;
    const last = items.at(-1);
    if (last !== undefined && streamPosition < last.position) history.breach(`I7 IdempotentIngest: ${writer.stream} is answered ${streamPosition} for ${last.position}`, [writer.stream]);
    const order = history.next();
    for (const item of items) {
      item.ackedMs ??= history.nowMs;
      item.ackedOrder ??= order;
    }
  }

  #accepted(call: number, items: readonly Item[], { wantedRoomIds }: SubmissionResult): void {
    for (const roomId of wantedRoomIds) this.#told.delete(roomId);
    this.#next = Math.max(this.#next, this.#options.writer.items.indexOf(items.at(-1) ?? raise()) + 1);
    this.#answered(call, 0);
  }

  /** The client has forgotten where it was. */
  #resume(router: Replica, call: number, answer: (use: () => void) => void): void {
    const { writer, history } = this.#options;
    this.#told = new Set();
    const askedMs = history.nowMs;
    router.homeserver.streamPosition(writer.stream).then(
      ({ streamPosition }) => {
        history.note('resume', writer.stream, String(streamPosition));
        const newest = writer.items.findLast(({ ackedMs, id }) => ackedMs !== null && ackedMs < askedMs && history.isLogged(id));
        if (newest !== undefined && newest.position > streamPosition) history.breach(`I11 Monotone: ${writer.stream} is told ${streamPosition} after ${newest.id} at ${newest.position} was answered`, [newest.id, writer.stream]);
        const order = history.next();
        for (const item of writer.items) {
          if (item.position > streamPosition) break;
          item.ackedMs ??= history.nowMs;
          item.ackedOrder ??= order;
        }
        const next = writer.items.findIndex(({ position }) => position > streamPosition);
        answer(() => {
          this.#next = next === -1 ? writer.items.length : next;
          this.#answered(call, 0);
        });
      },
      (error: unknown) => this.#refused(router, call, error, answer),
    );
  }

  #refused(router: Replica, call: number, error: unknown, answer: (use: () => void) => void): void {
    const { history, writer } = this.#options;
    const mayRetry = error instanceof StoreError || (error instanceof RefusalError && (error.reason === 'QUEUE_FULL' || error.reason === 'DRAINING'));
    if (!mayRetry) history.breach(`no bugs: ${router.process.name} refuses ${writer.stream}: ${String(error)}`, [writer.stream]);
    answer(() => this.#answered(call, 1_000));
  }

  #answered(call: number, delayMs: number): void {
    if (call !== this.#call) return;
    this.#call++;
    this.#later(delayMs);
  }

  #later(delayMs: number): void {
    const { kernel, chance } = this.#options;
    kernel.after(delayMs * chance.between(1, 3), () => {
      this.#isBusy = false;
      this.poke();
    });
  }

  #request(): Item[] {
    const { writer, chance } = this.#options;
    const waiting = writer.items.slice(this.#next, this.#next + 1 + chance.below(REQUEST_ITEMS_MAX));
    const end = waiting.findIndex(({ beginsRequest }, at) => at > 0 && beginsRequest);
    return end === -1 ? waiting : waiting.slice(0, end);
  }

  /** As of just before the first item. */
  #contexts(items: readonly Item[]): RoomContext[] {
    const contexts = new Map<string, RoomContext>();
    for (const [at, { kind, before, beginsRequest }] of items.entries()) {
      if (kind !== 'event' || contexts.has(before.roomId)) continue;
      const isNew = !this.#told.has(before.roomId);
      if (!isNew && !(at === 0 && beginsRequest)) continue;
      contexts.set(before.roomId, { roomId: before.roomId, localAliases: before.aliases, localMembers: isNew || this.#options.chance.is(0.3) ? before.joined : undefined });
    }
    return [...contexts.values()];
  }
}

function submissionOf(items: readonly Item[], rooms: readonly RoomContext[]): Submission {
  const events = items.flatMap(({ kind, json, position }) => (kind === 'event' ? [{ json, streamPosition: position }] : []));
  const toDevice = items.flatMap(({ kind, json, position, toUserId }) => (kind === 'to_device' ? [{ json, streamPosition: position, toUserId, toDeviceId: 'DEVICE' }] : []));
  const others: OtherItems = { ephemeral: [], toDevice, deviceLists: [], deviceKeys: [] };
  const unknownUserIds = [...new Set(items.flatMap((item) => item.unknownUserIds))];
  return { stream: items[0]?.stream ?? '', events, rooms, ...(toDevice.length === 0 ? {} : { others }), ...(unknownUserIds.length === 0 ? {} : { unknownUserIds }) };
}

function raise(): never {
  throw new Error('a request without items');
}
