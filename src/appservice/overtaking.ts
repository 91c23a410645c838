/**
 * Which ephemeral events in an appservice's queue are overtaken: all that they tell is told anew by newer ones behind
 * them. Typing of a room by newer typing of it, presence by newer presence of its user, receipts once each of them has
 * a newer one of the same user, type and thread (R87).
 */
import { RECEIPT_TYPES } from './ephemeral.ts';
import { isJsonObject } from './json.ts';
import type { JsonObject } from './json.ts';
import { receiptSlot } from './receipts.ts';

interface JsonEntry {
  readonly json: Uint8Array;
}

const NOTHING: readonly string[] = [];

export class Overtaking {
  /** What an event tells something of, kept for as long as its entry is: most are looked at for several transactions. */
  readonly #slots = new WeakMap<JsonEntry, readonly string[]>();

  /** Of these, in the order of the queue, the ones that are overtaken by one behind them. */
  of<Entry extends JsonEntry>(entries: readonly Entry[]): Set<Entry> {
    const overtaken = new Set<Entry>();
    const told = new Set<string>();
    for (const entry of entries.toReversed()) {
      const slots = this.#slotsOf(entry);
      if (slots.length > 0 && slots.every((slot) => told.has(slot))) overtaken.add(entry);
      for (const slot of slots) told.add(slot);
    }
    return overtaken;
  }

  #slotsOf(entry: JsonEntry): readonly string[] {
    let slots = this.#slots.get(entry);
    if (slots === undefined) this.#slots.set(entry, (slots = slotsIn(parsed(entry.json))));
    return slots;
  }
}

/** Nothing, for what is no ephemeral event. */
function slotsIn(event: unknown): readonly string[] {
  if (!isJsonObject(event)) return NOTHING;
  const { type, room_id: roomId, sender, content } = event;
  if (type === 'm.typing' && typeof roomId === 'string') return [JSON.stringify([type, roomId])];
  if (type === 'm.presence' && typeof sender === 'string') return [JSON.stringify([type, sender])];
  return type === 'm.receipt' && typeof roomId === 'string' && isJsonObject(content) ? receiptSlots(roomId, content) : NOTHING;
}

function receiptSlots(roomId: string, content: JsonObject): string[] {
  const slots: string[] = [];
  for (const byType of Object.values(content)) {
    for (const type of RECEIPT_TYPES) {
      const byUser = isJsonObject(byType) ? byType[type] : undefined;
      for (const [userId, data] of isJsonObject(byUser) ? Object.entries(byUser) : []) {
        const threadId = isJsonObject(data) && typeof data['thread_id'] === 'string' ? data['thread_id'] : undefined;
        slots.push(`${JSON.stringify(roomId)} ${receiptSlot({ type, userId, threadId })}`);
      }
    }
  }
  return slots;
}

function parsed(json: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString());
  } catch {
    return undefined;
  }
}
