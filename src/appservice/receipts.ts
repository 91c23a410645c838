/**
 * Receipts of one room put together: of several of one user in one thread the newest counts (R87), and what an
 * appservice may not see is not there (R83).
 */
import type { Receipt } from './ephemeral.ts';
import type { JsonObject } from './json.ts';

/** Receipts in one event: one that is built of many stays far below what an appservice takes. */
const EVENT_RECEIPTS_MAX = 500;

/** What a newer receipt replaces is what has the same slot, in the same room. */
export function receiptSlot({ type, userId, threadId }: Pick<Receipt, 'type' | 'userId' | 'threadId'>): string {
  return JSON.stringify([type, userId, threadId]);
}

/**
 * The receipts as `m.receipt` events. None for none (R86); several if they are many, or if one user read up to the same
 * event in several threads, which one event cannot say.
 */
export function receiptEvents(roomId: string, receipts: Iterable<Receipt>): Uint8Array[] {
  const events: ReceiptContent[] = [];
  let open: ReceiptContent[] = [];
  for (const receipt of receipts) {
    if (open.some((content) => content.take(receipt))) continue;
    open = [...open.filter(({ isFull }) => !isFull), new ReceiptContent(receipt)];
    events.push(...open.slice(-1));
  }
  return events.map((content) => Buffer.from(JSON.stringify({ type: 'm.receipt', room_id: roomId, content: content.toObject() })));
}

class ReceiptContent {
  /** Event → receipt type → user → data. */
  readonly #byEvent = new Map<string, Map<string, Map<string, JsonObject>>>();
  #count = 0;

  constructor(first: Receipt) {
    this.take(first);
  }

  get isFull(): boolean {
    return this.#count >= EVENT_RECEIPTS_MAX;
  }

  /** False if it has no place. */
  take({ eventId, type, userId, data }: Receipt): boolean {
    if (this.isFull) return false;
    const byType = this.#byEvent.get(eventId) ?? new Map<string, Map<string, JsonObject>>();
    const byUser = byType.get(type) ?? new Map<string, JsonObject>();
    if (byUser.has(userId)) return false;
    this.#byEvent.set(eventId, byType.set(type, byUser.set(userId, data)));
    this.#count++;
    return true;
  }

  toObject(): JsonObject {
    return Object.fromEntries([...this.#byEvent].map(([eventId, byType]) => [eventId, Object.fromEntries([...byType].map(([type, byUser]) => [type, Object.fromEntries(byUser)]))]));
  }
}
