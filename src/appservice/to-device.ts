/**
 * A to-device message as it crosses the door (MSC4203): parsed once, its text kept, with the recipient put beside `type`,
 * `sender` and `content`, which is how every appservice gets it.
 */
import { isNamed, malformed, readDoorObject } from './door-object.ts';
import { identifierProblem } from './identifier.ts';
import { isJsonObject } from './json.ts';
import type { JsonObject } from './json.ts';

export interface ToDeviceRecipient {
  readonly userId: string;
  readonly deviceId: string;
}

const REQUIRED = ['type', 'sender'] as const;
/** What the recipient is called in the message. The fields of the request say who it is, so the message must not. */
const RECIPIENT = ['to_user_id', 'to_device_id'] as const;
const OBJECT_CLOSE = 0x7d;
const DEVICE_ID_BYTES_MAX = 255;

/** The message as appservices get it, on bytes of its own. `field` is its path in the request. Throws a RefusalError. */
export function parseToDevice(bytes: Uint8Array, recipient: ToDeviceRecipient, field: string): Uint8Array {
  const { json, message } = readMessage(bytes, field);
  const taken = RECIPIENT.find((name) => message[name] !== undefined);
  if (taken !== undefined) throw malformed(field, `Leave "${taken}" out of the message: it is the router that puts the recipient in.`);
  const tail = Buffer.from(`,"to_user_id":${JSON.stringify(recipient.userId)},"to_device_id":${JSON.stringify(recipient.deviceId)}}`);
  const end = json.lastIndexOf(OBJECT_CLOSE);
  const spliced = new Uint8Array(end + tail.byteLength);
  spliced.set(json.subarray(0, end));
  spliced.set(tail, end);
  return spliced;
}

/** A message with its recipient in it, as appservices get it: a view of the bytes that arrived. Throws a RefusalError. */
export function parseAddressedToDevice(bytes: Uint8Array, field: string): { readonly json: Uint8Array; readonly userId: string } {
  const { json, message } = readMessage(bytes, field);
  const { to_user_id: userId, to_device_id: deviceId } = message;
  const problem = isNamed(userId) ? identifierProblem({ kind: 'users', identifier: userId }) : 'A to-device message needs "to_user_id", a user ID.';
  if (!isNamed(userId) || problem !== null) throw malformed(field, problem ?? 'A user ID is not empty.');
  if (!isNamed(deviceId) || Buffer.byteLength(deviceId) > DEVICE_ID_BYTES_MAX) throw malformed(field, `A to-device message needs "to_device_id", of 1 to ${DEVICE_ID_BYTES_MAX} bytes.`);
  return { json, userId: userId.toWellFormed() };
}

function readMessage(bytes: Uint8Array, field: string): { readonly json: Uint8Array; readonly message: JsonObject } {
  const { json, object: message } = readDoorObject(bytes, field, 'A to-device message');
  const missing = REQUIRED.find((name) => !isNamed(message[name]));
  if (missing !== undefined) throw malformed(field, `A to-device message needs "${missing}", a string that is not empty.`);
  if (!isJsonObject(message['content'])) throw malformed(field, 'A to-device message needs "content", a JSON object.');
  return { json, message };
}
