/**
 * What waits for one appservice, counted without reading it: a measurement of the log, plus what was announced after
 * it, less what was dealt with after it. A hint for the sender and a figure for operators; the log decides.
 */
import type { RouteMeasure } from '../store/port.ts';
import type { RouteAnnouncement } from './ports.ts';

interface Tally {
  entries: number;
  bytes: number;
}

export class Backlog {
  #count: Tally = { entries: 0, bytes: 0 };
  #oldestTimeMs: number | null = null;
  /** Log position of the newest entry known to be routed here. */
  #routedThrough = 0;
  /** Nothing that waits is at or below this, whatever was announced. */
  #emptyThrough = 0;
  /** What changed since the measurement in progress began. */
  #sinceMeasure: Tally | null = null;
  #isMeasured = false;

  get entries(): number {
    return Math.max(0, this.#count.entries);
  }

  get bytes(): number {
    return Math.max(0, this.#count.bytes);
  }

  get oldestTimeMs(): number | null {
    return this.entries === 0 ? null : this.#oldestTimeMs;
  }

  get routedThrough(): number {
    return this.#routedThrough;
  }

  /** False: the figures are not to be trusted until the next measurement. */
  get isMeasured(): boolean {
    return this.#isMeasured;
  }

  hasWaiting(deliveredPosition: number): boolean {
    return this.#routedThrough > Math.max(deliveredPosition, this.#emptyThrough);
  }

  announced(announcement: RouteAnnouncement, deliveredPosition: number): void {
    if (announcement.lastPosition <= deliveredPosition) return;
    // Part of it is delivered already, by a holder that was ahead of this process.
    if (announcement.firstPosition <= deliveredPosition) this.#isMeasured = false;
    if (this.#count.entries <= 0) this.#oldestTimeMs = announcement.timeMs;
    this.#routedThrough = Math.max(this.#routedThrough, announcement.lastPosition);
    this.#add(announcement.entryCount, announcement.bytes);
  }

  /** So much was delivered or set aside. `oldestTimeMs`: of what waits next, if known. */
  dealtWith(entryCount: number, bytes: number, oldestTimeMs: number | null): void {
    this.#add(-entryCount, -bytes);
    this.#oldestTimeMs = oldestTimeMs;
    if (oldestTimeMs === null && this.#count.entries > 0) this.#isMeasured = false;
  }

  /** A read found nothing up to this position. */
  foundEmpty(through: number): void {
    this.#emptyThrough = Math.max(this.#emptyThrough, through);
    if (this.#count.entries > 0) this.#isMeasured = false;
  }

  /** Part of what was counted is given up: the figures begin anew. */
  forget(): void {
    this.#isMeasured = false;
  }

  measureBegins(): void {
    this.#sinceMeasure = { entries: 0, bytes: 0 };
    this.#isMeasured = true;
  }

  /** The measurement that began last came to this, through log position `through`. */
  measured(measure: RouteMeasure | undefined, through: number): void {
    const since = this.#sinceMeasure ?? { entries: 0, bytes: 0 };
    this.#sinceMeasure = null;
    const entries = measure?.entryCount ?? 0;
    this.#count = { entries: entries + since.entries, bytes: (measure?.bytes ?? 0) + since.bytes };
    if (entries === 0) return;
    this.#oldestTimeMs = measure?.oldestTimeMs ?? this.#oldestTimeMs;
    this.#routedThrough = Math.max(this.#routedThrough, through);
    this.#emptyThrough = 0;
  }

  measureFailed(): void {
    this.#sinceMeasure = null;
    this.#isMeasured = false;
  }

  #add(entries: number, bytes: number): void {
    for (const tally of [this.#count, this.#sinceMeasure]) {
      if (tally === null) continue;
      tally.entries += entries;
      tally.bytes += bytes;
    }
  }
}
