/**
 * Reads one transaction of a homeserver from its body, judges every item by itself, and hands on what is good in pieces:
 * mostly one, several if it is large, each before the next is read. So any size takes the memory of one piece.
 *
 *   body ──scanner──▶ parts ──judge──▶ good ─▶ piece ─▶ taken over (durable)
 *                                 └──▶ bad ──▶ shelved
 *
 * Both spellings of a list are one list; an item that stands in both counts once. Unknown keys are passed over.
 */
import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import type { DeviceKeys, DeviceListChange } from '../appservice/device-extensions.ts';
import { JSON_BYTES_MAX } from '../appservice/door-object.ts';
import { parseEphemeral } from '../appservice/ephemeral.ts';
import type { EphemeralEvent } from '../appservice/ephemeral.ts';
import { parseEvent } from '../appservice/event.ts';
import type { RoutingEvent } from '../appservice/event.ts';
import { RefusalError } from '../appservice/refusal.ts';
import { parseAddressedToDevice } from '../appservice/to-device.ts';
import { deviceKeysFrom, deviceListsFrom } from './device-news.ts';
import type { ShelvedKind, TransactionPiece } from './ports.ts';
import { TransactionScanner } from './transaction-scanner.ts';
import type { ScannedPart } from './transaction-scanner.ts';

/** An item that can be given to nobody. */
export interface ShelvedItem {
  readonly kind: ShelvedKind;
  /** A sentence. */
  readonly reason: string;
  /** As it came; of one that is too large only the beginning. */
  readonly json: Uint8Array;
}

export interface TransactionSink {
  /** Resolves when it is durable. */
  take(piece: TransactionPiece): Promise<unknown>;
  shelve(item: ShelvedItem): Promise<void>;
}

export interface ReaderLimits {
  /** Bytes of a body that are read; the rest is passed over. */
  readonly bodyBytesMax: number;
  readonly pieceItemsMax: number;
  /** A piece is handed on once it has these. */
  readonly pieceBytes: number;
}

export const READER_LIMITS: ReaderLimits = { bodyBytesMax: 256 * 1024 * 1024, pieceItemsMax: 1_000, pieceBytes: 4 * 1024 * 1024 };

/** `cut`: the body was larger than what is read of one. `broken`: it is no JSON object. */
export type TransactionReading = 'whole' | 'cut' | 'broken';

const VALUE_BYTES_MAX = 4 * 1024 * 1024;
const BEGINNING_BYTES = 64 * 1024;

type ListKind = 'event' | 'ephemeral' | 'to_device';
const LISTS: ReadonlyMap<string, ListKind> = new Map([
  ['events', 'event'],
  ['ephemeral', 'ephemeral'],
  ['de.sorunome.msc2409.ephemeral', 'ephemeral'],
  ['to_device', 'to_device'],
  ['de.sorunome.msc2409.to_device', 'to_device'],
]);
type ValueKind = 'device_lists' | 'counts' | 'fallback';
const VALUES: ReadonlyMap<string, ValueKind> = new Map([
  ['org.matrix.msc3202.device_lists', 'device_lists'],
  ['device_lists', 'device_lists'],
  ['org.matrix.msc3202.device_one_time_keys_count', 'counts'],
  ['org.matrix.msc3202.device_one_time_key_counts', 'counts'],
  ['device_one_time_keys_count', 'counts'],
  ['org.matrix.msc3202.device_unused_fallback_key_types', 'fallback'],
  ['device_unused_fallback_key_types', 'fallback'],
]);

/** Rejects with what the body or the sink rejects with; what was taken until then stays so. */
export async function readTransaction(txnId: string, body: AsyncIterable<Uint8Array>, sink: TransactionSink, limits: ReaderLimits = READER_LIMITS): Promise<TransactionReading> {
  const scanner = new TransactionScanner({
    lists: new Set(LISTS.keys()),
    values: new Set(VALUES.keys()),
    elementBytesMax: JSON_BYTES_MAX,
    valueBytesMax: VALUE_BYTES_MAX,
    beginningBytes: BEGINNING_BYTES,
  });
  const reader = new TransactionReader(txnId, sink, limits);
  let bodyBytes = 0;
  for await (const bytes of body) {
    bodyBytes += bytes.byteLength;
    if (bodyBytes > limits.bodyBytesMax) continue;
    for (const part of scanner.push(bytes)) await reader.read(part);
  }
  await reader.end();
  if (bodyBytes > limits.bodyBytesMax) return 'cut';
  return scanner.isComplete ? 'whole' : 'broken';
}

class TransactionReader {
  readonly #txnId: string;
  readonly #sink: TransactionSink;
  readonly #limits: ReaderLimits;
  #piece: PieceBuilder;
  #pieceCount = 0;
  /** Of each kind, what has come under one spelling of its key. */
  readonly #spelt = new Map<ListKind, { readonly key: string; readonly items: Set<string> }>();
  /** The same of the values. */
  readonly #values = new Map<ValueKind, string>();
  readonly #keys = { counts: null as unknown, fallback: null as unknown };

  constructor(txnId: string, sink: TransactionSink, limits: ReaderLimits) {
    this.#txnId = txnId;
    this.#sink = sink;
    this.#limits = limits;
    this.#piece = new PieceBuilder(txnId, 0);
  }

  async read(part: ScannedPart): Promise<void> {
    const list = LISTS.get(part.key);
    if (list !== undefined && part.isElement) await this.#readItem(list, part);
    else if (list !== undefined) await this.#readNoList(list, part);
    else {
      const value = VALUES.get(part.key);
      if (value !== undefined) await this.#readValue(value, part);
    }
    const { itemCount, bytes } = this.#piece;
    if (itemCount >= this.#limits.pieceItemsMax || bytes >= this.#limits.pieceBytes) await this.#flush();
  }

  async end(): Promise<void> {
    const { counts, fallback } = this.#keys;
    await this.#judged('device_keys', Buffer.from(JSON.stringify({ counts, fallback })), () => this.#piece.deviceKeys.push(...deviceKeysFrom(counts, fallback)));
    if (this.#piece.itemCount > 0 || this.#piece.deviceKeys.length > 0) await this.#flush();
  }

  async #readItem(kind: ListKind, part: ScannedPart): Promise<void> {
    const { json } = part;
    if (this.#isRespelt(kind, part)) return;
    if (!part.isWhole) return this.#sink.shelve({ kind, reason: `An item has at most ${JSON_BYTES_MAX} bytes.`, json });
    const piece = this.#piece;
    await this.#judged(kind, json, () => {
      if (kind === 'event') piece.addEvent(parseEvent(json, kind));
      else if (kind === 'ephemeral') piece.addEphemeral(parseEphemeral(json, kind));
      else piece.addToDevice(parseAddressedToDevice(json, kind));
    });
  }

  /** Null stands for an empty list. */
  async #readNoList(kind: ListKind, { json }: ScannedPart): Promise<void> {
    if (Buffer.from(json).toString().trim() !== 'null') await this.#sink.shelve({ kind, reason: 'This part of a transaction is a list.', json: json.subarray(0, BEGINNING_BYTES) });
  }

  async #readValue(kind: ValueKind, { key, json, isWhole }: ScannedPart): Promise<void> {
    const known = this.#values.get(kind);
    if (known !== undefined && known !== key) return;
    this.#values.set(kind, key);
    const shelved = kind === 'device_lists' ? 'device_list' : 'device_keys';
    if (!isWhole) return this.#sink.shelve({ kind: shelved, reason: `This part of a transaction has at most ${VALUE_BYTES_MAX} bytes.`, json });
    await this.#judged(shelved, json, () => {
      const value = parsed(json);
      if (kind === 'device_lists') for (const change of deviceListsFrom(value)) this.#piece.addDeviceList(change);
      else this.#keys[kind] = value;
    });
  }

  /** Stood under another spelling of its key already. */
  #isRespelt(kind: ListKind, { key, json }: ScannedPart): boolean {
    if (kind === 'event') return false;
    const known = this.#spelt.get(kind);
    const name = createHash('sha256').update(json).digest('base64');
    if (known === undefined) this.#spelt.set(kind, { key, items: new Set([name]) });
    else if (known.key === key) {
      if (known.items.size < this.#limits.pieceItemsMax) known.items.add(name);
    } else return known.items.has(name);
    return false;
  }

  async #judged(kind: ShelvedKind, json: Uint8Array, judge: () => void): Promise<void> {
    try {
      judge();
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error;
      await this.#sink.shelve({ kind, reason: error.message, json: json.subarray(0, BEGINNING_BYTES) });
    }
  }

  async #flush(): Promise<void> {
    const piece = this.#piece.build();
    this.#pieceCount++;
    this.#piece = new PieceBuilder(this.#txnId, this.#pieceCount);
    await this.#sink.take(piece);
  }
}

class PieceBuilder {
  readonly events: RoutingEvent[] = [];
  readonly ephemeral: EphemeralEvent[] = [];
  readonly toDevice: { readonly json: Uint8Array; readonly userId: string }[] = [];
  readonly deviceLists: DeviceListChange[] = [];
  readonly deviceKeys: DeviceKeys[] = [];
  readonly #digest: Hash;
  #restCount = 0;
  bytes = 0;

  constructor(txnId: string, number: number) {
    this.#digest = createHash('sha256').update(`${txnId}\0${number}`);
  }

  get itemCount(): number {
    return this.events.length + this.#restCount;
  }

  addEvent(event: RoutingEvent): void {
    this.events.push(event);
    this.bytes += event.json.byteLength;
  }

  addEphemeral(event: EphemeralEvent): void {
    this.ephemeral.push(event);
    this.#addRest(event.json);
  }

  addToDevice(message: { readonly json: Uint8Array; readonly userId: string }): void {
    this.toDevice.push(message);
    this.#addRest(message.json);
  }

  addDeviceList(change: DeviceListChange): void {
    this.deviceLists.push(change);
    this.#addRest(Buffer.from(JSON.stringify(change)));
  }

  build(): TransactionPiece {
    const { events, ephemeral, toDevice, deviceLists, deviceKeys } = this;
    return { events, ephemeral, toDevice, deviceLists, deviceKeys, restDigest: this.#restCount === 0 ? null : this.#digest.digest('hex') };
  }

  #addRest(json: Uint8Array): void {
    this.#restCount++;
    this.bytes += json.byteLength;
    this.#digest.update(`\0${json.byteLength}\0`).update(json);
  }
}

function parsed(json: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString());
  } catch {
    throw new RefusalError('INVALID_FIELD', 'This part of a transaction is no JSON.');
  }
}
