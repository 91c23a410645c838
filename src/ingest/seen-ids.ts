/**
 * Which ids were taken over before, so that what a homeserver sends again counts once, whatever transaction it comes in,
 * after a kill and in every replica. An id is 8 bytes of a hash.
 *
 *   ahead     answered, and not yet in the log: ids of what nobody wants. They ride along with the next segment.
 *   settled   in the log: part of the fold. Forgotten by age alone, the oldest generation at once.
 *
 *   settled ids in log order:   page 0 │ page 1 │ …          4,096 ids each; full pages never change
 *                               └── generation 0 ──┘         128 pages; the current and the one before it are kept
 *
 * Every replica settles the same ids in the same order, so all have the same pages. A save writes the pages that have
 * grown, in order. One that crashes between pages and checkpoint leaves pages ahead of it; the replay finds those ids
 * settled, adds none of them twice and comes to the same.
 *
 * Memory is at most two tables of 8 MiB for a homeserver that uses this, and nothing for others. At least the newest
 * 524,288 ids are kept. That two different ids of a million have the same hash happens once in some 10^13 ids.
 */
import { hash } from 'node:crypto';
import type { SeenPage } from '../store/port.ts';

const ID_BYTES = 8;
const PAGE_IDS = 4_096;
const GENERATION_PAGES = 128;
const GENERATIONS = 2;
/** Beyond this a segment is written for them alone. */
const AHEAD_MAX = 16_384;

/** An id; never 0. */
export type SeenId = bigint;

export function seenIdOf(text: string | Uint8Array): SeenId {
  const id = hash('sha256', text, 'buffer').readBigUInt64BE();
  return id === 0n ? 1n : id;
}

/** As segments have them. */
export function textFromSeenIds(ids: readonly SeenId[]): string {
  return bytesFromIds(ids).toString('base64');
}

export class SeenIds {
  #ahead = new Set<SeenId>();
  /** Current and previous. */
  #generations: IdTable[] = [];
  /** Of the pages of the generations: number → ids. */
  readonly #pages = new Map<number, SeenId[]>();
  #page = 0;
  #grown = new Set<number>();
  /** Pages of a save under way. */
  #saving: ReadonlySet<number> = new Set();

  has(id: SeenId): boolean {
    return this.#isSettled(id) || this.#ahead.has(id);
  }

  /** Answered for, without a segment of their own. */
  runAhead(ids: readonly SeenId[]): void {
    for (const id of ids) this.#ahead.add(id);
  }

  /** What the next segment has to carry besides its own. */
  get ahead(): readonly SeenId[] {
    return [...this.#ahead];
  }

  get isAhead(): boolean {
    return this.#ahead.size > 0;
  }

  /** No more may run ahead. */
  get isFarAhead(): boolean {
    return this.#ahead.size >= AHEAD_MAX;
  }

  /** The log has them. */
  settle(text: string): void {
    for (const id of idsFromBytes(Buffer.from(text, 'base64'))) {
      this.#ahead.delete(id);
      this.#add(id);
    }
  }

  /** Pages of a store, in any order. To be called once, before anything is settled. */
  restore(pages: readonly SeenPage[]): void {
    if (pages.length === 0) return;
    const newest = Math.max(...pages.map(({ page }) => page));
    const first = (Math.floor(newest / GENERATION_PAGES) - GENERATIONS + 1) * GENERATION_PAGES;
    for (const { page, ids } of pages.toSorted((a, b) => a.page - b.page)) {
      if (page < first) continue;
      this.#turnTo(page);
      for (const id of idsFromBytes(ids)) this.#add(id);
    }
    this.#grown = new Set();
  }

  /** The pages that have grown since the last save, as of `position`; they count as saved unless {@link saved} says otherwise. */
  beginSave(position: number): SeenPage[] {
    this.#saving = this.#grown;
    this.#grown = new Set();
    return [...this.#saving].sort((a, b) => a - b).flatMap((page) => {
      const ids = this.#pages.get(page);
      return ids === undefined ? [] : [{ slot: page % (GENERATION_PAGES * GENERATIONS), page, position, ids: bytesFromIds(ids) }];
    });
  }

  saved(ok: boolean): void {
    if (!ok) for (const page of this.#saving) this.#grown.add(page);
    this.#saving = new Set();
  }

  #isSettled(id: SeenId): boolean {
    return this.#generations.some((generation) => generation.has(id));
  }

  #add(id: SeenId): void {
    if (this.#isSettled(id)) return;
    if ((this.#pages.get(this.#page)?.length ?? 0) >= PAGE_IDS) this.#turnTo(this.#page + 1);
    const ids = this.#pages.get(this.#page);
    if (ids === undefined) this.#pages.set(this.#page, [id]);
    else ids.push(id);
    this.#grown.add(this.#page);
    const [current = new IdTable()] = this.#generations;
    if (this.#generations.length === 0) this.#generations.push(current);
    current.add(id);
  }

  /** A generation that ends makes room for the next. */
  #turnTo(page: number): void {
    const generation = Math.floor(page / GENERATION_PAGES);
    if (generation !== Math.floor(this.#page / GENERATION_PAGES) && this.#generations.length > 0) {
      this.#generations = [new IdTable(), ...this.#generations].slice(0, GENERATIONS);
    }
    this.#page = page;
    // Full pages are in the store, or wait for a save; only what may still be written stays as a list.
    for (const known of this.#pages.keys()) if (known !== page && !this.#grown.has(known) && !this.#saving.has(known)) this.#pages.delete(known);
  }
}

/** A set of ids that only grows: open addressing, at most half full. */
class IdTable {
  #slots = new BigUint64Array(1_024);
  #count = 0;

  has(id: SeenId): boolean {
    return this.#slots[this.#slotOf(id)] === id;
  }

  add(id: SeenId): void {
    if (this.#count * 2 >= this.#slots.length) this.#grow();
    this.#slots[this.#slotOf(id)] = id;
    this.#count++;
  }

  /** Where it is, or would be. */
  #slotOf(id: SeenId): number {
    const mask = this.#slots.length - 1;
    let at = Number(id & 0xffff_ffffn) & mask;
    for (let found = this.#slots[at]; found !== 0n && found !== id; found = this.#slots[at]) at = (at + 1) & mask;
    return at;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new BigUint64Array(old.length * 2);
    for (const id of old) if (id !== 0n) this.#slots[this.#slotOf(id)] = id;
  }
}

function bytesFromIds(ids: readonly SeenId[]): Buffer {
  const bytes = Buffer.alloc(ids.length * ID_BYTES);
  ids.forEach((id, at) => bytes.writeBigUInt64BE(id, at * ID_BYTES));
  return bytes;
}

function* idsFromBytes(bytes: Uint8Array): Generator<SeenId, void, undefined> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + ID_BYTES <= bytes.byteLength; at += ID_BYTES) yield view.getBigUint64(at);
}
