/** Chance as the simulation needs it, from a seed: the same seed, the same choices. */
import type { Random } from '../../src/clock.ts';

export class Chance implements Random {
  #state: number;
  readonly #name: string;
  #names = 0;

  constructor(seed: number, name = String(seed)) {
    this.#state = (seed ^ 0x9e3779b9) | 0;
    this.#name = name;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Never the same twice, since the names of the sources are not. */
  hex(_count: number): string {
    return `${this.#name}-${++this.#names}`;
  }

  /** A source of its own, so that what one part draws does not shift what another does. */
  fork(name: string): Chance {
    let seed = 0x811c9dc5;
    for (let at = 0; at < name.length; at++) seed = Math.imul(seed ^ name.charCodeAt(at), 0x01000193);
    return new Chance(Math.imul(seed ^ Math.floor(this.next() * 2 ** 32), 0x85ebca6b), name);
  }

  is(likely: number): boolean {
    return this.next() < likely;
  }

  /** At least `from`, below `to`. */
  between(from: number, to: number): number {
    return from + this.next() * (to - from);
  }

  /** A whole number from 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  pick<Item>(items: readonly Item[]): Item {
    const picked = items[this.below(items.length)];
    if (picked === undefined) throw new Error('there is nothing to pick from');
    return picked;
  }

  /** Each pair is an item and its weight. */
  weighted<Item>(items: readonly (readonly [Item, number])[]): Item {
    let left = this.next() * items.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [item, weight] of items) {
      left -= weight;
      if (left < 0) return item;
    }
    return this.pick(items)[0];
  }
}
