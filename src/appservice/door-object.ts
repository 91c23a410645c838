/**
 * One JSON object as it crosses the door: strict JSON in valid UTF-8, no byte order mark, bounded in size and depth. Of
 * duplicate keys the last counts, as JSON.parse has it.
 */
import { isUtf8 } from 'node:buffer';
import { isJsonObject, nestsDeeper } from './json.ts';
import type { JsonObject } from './json.ts';
import { RefusalError } from './refusal.ts';

export const JSON_BYTES_MAX = 512 * 1024;
export const JSON_DEPTH_MAX = 128;

export interface DoorObject {
  /** The JSON text without surrounding white space; a view of the bytes that arrived. */
  readonly json: Uint8Array;
  readonly text: string;
  readonly object: JsonObject;
}

/** `field` is its path in the request, for the refusal, and `what` its name there, such as `An event`. Throws a RefusalError. */
export function readDoorObject(bytes: Uint8Array, field: string, what: string): DoorObject {
  const json = withoutSurroundingSpace(bytes);
  if (json.byteLength > JSON_BYTES_MAX) throw malformed(field, `${what} has at most ${JSON_BYTES_MAX} bytes; this one has ${json.byteLength}.`);
  if (!isUtf8(json)) throw malformed(field, `${what} is JSON in valid UTF-8.`);
  const text = Buffer.from(json.buffer, json.byteOffset, json.byteLength).toString('utf8');
  return { json, text, object: parseObject(text, field, what) };
}

export function isNamed(value: unknown): value is string {
  return typeof value === 'string' && value !== '';
}

export function malformed(field: string, message: string): RefusalError {
  return new RefusalError('INVALID_FIELD', message, { field });
}

function parseObject(text: string, field: string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw malformed(field, `${what} is one JSON object, strictly as RFC 8259 has it, without a byte order mark.`);
  }
  if (!isJsonObject(value)) throw malformed(field, `${what} is a JSON object.`);
  if (nestsDeeper(text, value, JSON_DEPTH_MAX)) throw malformed(field, `${what} nests at most ${JSON_DEPTH_MAX} levels deep.`);
  return value;
}

function withoutSurroundingSpace(bytes: Uint8Array): Uint8Array {
  let start = 0;
  let end = bytes.byteLength;
  while (start < end && isSpace(bytes[start])) start++;
  while (end > start && isSpace(bytes[end - 1])) end--;
  return start === 0 && end === bytes.byteLength ? bytes : bytes.subarray(start, end);
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
