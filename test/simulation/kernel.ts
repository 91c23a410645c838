/**
 * Virtual time: a heap of things to happen, in the order of their times, then of their making. Between two of them
 * everything runs that needs no time to pass, however long its chain of promises is, without a turn of the real event loop:
 * the next tick of Node comes only once the microtasks are used up.
 */
export interface Happening {
  /** False: it was cancelled. */
  isDue: boolean;
  readonly timeMs: number;
  readonly order: number;
  readonly run: () => void;
}

const SETTLED = Promise.resolve();

export class Kernel {
  #nowMs = 0;
  #order = 0;
  /** Happenings so far. */
  happeningCount = 0;
  readonly #heap: Happening[] = [];

  get nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, run: () => void): Happening {
    const happening: Happening = { isDue: true, timeMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, run };
    this.#push(happening);
    return happening;
  }

  /** Resolves once everything up to `untilMs` has happened. */
  run(untilMs: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const step = (): void => {
      const next = this.#next(untilMs);
      if (next === undefined) {
        this.#nowMs = untilMs;
        return resolve(undefined);
      }
      this.#nowMs = next.timeMs;
      this.happeningCount++;
      try {
        next.run();
      } catch (error) {
        return reject(error instanceof Error ? error : new Error(String(error)));
      }
      void SETTLED.then(onward);
    };
    const onward = (): void => process.nextTick(step);
    process.nextTick(step);
    return promise;
  }

  #next(untilMs: number): Happening | undefined {
    for (;;) {
      const first = this.#heap[0];
      if (first === undefined || first.timeMs > untilMs) return undefined;
      this.#pop();
      if (first.isDue) return first;
    }
  }

  #push(happening: Happening): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(happening);
    while (at > 0) {
      const above = (at - 1) >>> 1;
      const other = heap[above];
      if (other === undefined || !isBefore(happening, other)) break;
      heap[at] = other;
      at = above;
    }
    heap[at] = happening;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      let child = heap[below];
      if (child === undefined) break;
      const other = heap[below + 1];
      if (other !== undefined && isBefore(other, child)) {
        below++;
        child = other;
      }
      if (!isBefore(child, last)) break;
      heap[at] = child;
      at = below;
    }
    heap[at] = last;
  }
}

function isBefore(one: Happening, other: Happening): boolean {
  return one.timeMs < other.timeMs || (one.timeMs === other.timeMs && one.order < other.order);
}
